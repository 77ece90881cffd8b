"""Splits sequences into training, validation and test sets. Torch-free.  Shapes: N sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.windows import advice
from rnnclf.errors import ConfigError, DataError

SplitName: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
CALLED = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<validation>val(?:id(?:ation)?)?|dev(?:elopment)?)|(?P<test>test(?:ing)?))"
    r"(?:[ _.-]?(?:set|data|split))?",
    re.IGNORECASE,
)
"""What people call the splits: Train, training_set, val, valid, dev, testing …"""
SPLITTING = ("validation", "test", "split", "split_seed", "folds", "fold")
"""Dataset options that say how to draw the splits of the data that they were chosen for."""


def split_called(name: str) -> int | None:
    """The split that people call by this name, an index into SPLITS; None for any other name."""
    found = CALLED.fullmatch(name.strip())
    return None if found is None else SPLITS.index(found.lastgroup)


@dataclass(frozen=True)
class SplitPlan:
    """How to draw the splits that the data do not assign: sizes are counts or, below 1, fractions.

    test: None for no test split.
    """

    validation: float
    test: float | None
    split: str
    seed: int
    folds: int | None
    fold: int


def divide(recordings: Recordings, plan: SplitPlan) -> dict[SplitName, Array]:
    """The sequences of each split, as int64 indices; splits assigned by the data are kept.

    With folds, one of them becomes the test split or, if the data have a test split, the validation split.
    Raises ConfigError or DataError if the sequences cannot be split by this plan.
    """
    import numpy as np

    given_N = recordings.given_N if recordings.given_N is not None else np.full(len(recordings), -1, np.int8)
    train, validation, test = (np.flatnonzero(given_N == place) for place in range(3))
    train = np.flatnonzero(given_N < 1)
    whole = len(train)
    _refuse_few_recordings(
        recordings, train, 1 + (plan.test is not None and not len(test)) + (not len(validation))
    )
    fold_is_test = plan.folds is not None and plan.test is not None and not len(test)
    if plan.test is not None and not len(test):
        train, test = _hold_out(
            recordings,
            train,
            "test",
            _number(recordings, train, plan.test, whole, "test"),
            plan,
            fold_is_test,
        )
    if not len(validation):
        count = _number(recordings, train, plan.validation, whole, "validation")
        is_fold = plan.folds is not None and not fold_is_test
        train, validation = _hold_out(recordings, train, "validation", count, plan, is_fold)
    elif plan.folds is not None and not fold_is_test:
        raise ConfigError(
            "dataset.folds has no effect: the data come with a validation split and a test split."
        )
    return {"train": train, "validation": validation, "test": test}


def _refuse_few_recordings(recordings: Recordings, pool: Array, splits: int) -> None:
    """Raises ConfigError if windows come from fewer recordings, or groups of them, than there are splits."""
    import numpy as np

    if recordings.origins is None or recordings.groups_N is None or not len(pool):
        return
    units = len(np.unique(recordings.groups_N[pool]))
    if units < splits:
        grouped = len(np.unique(recordings.origins(pool))) > units
        what, way = ("groups", "add groups") if grouped else ("recordings", "add recordings")
        if not grouped:
            block = advice(recordings, int(recordings.lengths_N.max()))
            way += f", or set dataset.block={block} (steps) to divide blocks of them instead"
        raise ConfigError(
            f"Windows of one {what[:-1]} stay in one split, so {splits} splits need {splits} {what}; there"
            f" {'is' if units == 1 else 'are'} {units}: {way}."
        )


def _number(recordings: Recordings, pool: Array, size: float, whole: int, what: str) -> int:
    """The number of sequences of `pool` to hold out for a size: of the whole, if it is a fraction.

    A fraction is rounded, and raised to one sequence of each class if the rest can keep one, too; groups are
    held out as they come. Raises ConfigError.
    """
    import numpy as np

    if size >= 1 and size != int(size):
        raise ConfigError(f"dataset.{what} must be a whole number or a fraction below 1, got {size}.")
    if size >= 1:
        return int(size)
    k = len(np.unique(recordings.labels_N[pool]))
    can_be_raised = recordings.groups_N is None and len(pool) >= 2 * k
    return max(round(size * whole), k if can_be_raised else 1)


def _hold_out(
    recordings: Recordings, pool: Array, what: str, count: int, plan: SplitPlan, is_fold: bool
) -> tuple[Array, Array]:
    """Divides `pool` into (rest, held out as split `what`)."""
    import numpy as np

    if plan.folds is not None and is_fold:
        if plan.fold >= plan.folds:
            raise ConfigError(f"dataset.fold must be below dataset.folds, {plan.folds}, got {plan.fold}.")
        return _fold(recordings, pool, what, plan.folds, plan.fold, plan.seed)
    if plan.split == "first":
        if recordings.groups_N is not None:
            raise ConfigError(
                "dataset.split=first could divide groups between splits: use dataset.split=random."
            )
        _refuse_small(recordings, pool, what, count, least=1)
        return pool[count:], pool[:count]
    if recordings.groups_N is not None:
        groups = len(np.unique(recordings.groups_N[pool]))
        most = int(np.bincount(recordings.labels_N[pool]).max())  # more folds than that are refused
        folds = max(min(round(len(pool) / count), groups, most), 2)
        return _fold(recordings, pool, what, folds, 0, plan.seed, typed=False)
    _refuse_small(recordings, pool, what, count, least=2)
    return stratified(recordings.labels_N[pool], count, plan.seed, pool)


def _refuse_small(recordings: Recordings, pool: Array, what: str, count: int, least: int) -> None:
    """Raises if a class has fewer than `least` sequences, or a part has no room for one of each class."""
    import numpy as np

    members_K = np.bincount(recordings.labels_N[pool], minlength=len(recordings.classes))
    classes = np.flatnonzero(members_K)  # others are all in another split
    rarest = int(classes[members_K[classes].argmin()])
    if members_K[rarest] < least:
        raise DataError(
            f"Class '{recordings.classes[rarest]}' has only one sequence left to split: the {what} split and"
            " the rest need one each. Add sequences, or leave the class out."
        )
    k = len(classes)
    if min(len(pool) - count, count) < k:
        most = len(pool) - k
        ways = [
            "add sequences",
            f"set dataset.{what} to {k}",
            f"set dataset.{what} to a number from {k} to {most}",
        ]
        raise ConfigError(
            f"{count:,} of {len(pool):,} sequences cannot be the {what} split, because it and the rest need"
            f" at least one sequence of each of the {k:,} classes: {ways[(most >= k) + (most > k)]}."
        )


def stratified(labels_N: Array, count: int, seed: int, places_N: Array) -> tuple[Array, Array]:
    """Draws `count` of `places_N`, stratified by class: (rest, drawn).

    Gives the same result as scikit-learn's train_test_split with `stratify` and `random_state`, whose import
    would take as long as everything else before the first batch.
    """
    import numpy as np

    random = np.random.RandomState(seed)
    members_K = np.bincount(labels_N)
    classes = np.flatnonzero(members_K)
    rest_K = _proportional(members_K[classes], len(labels_N) - count, random)
    drawn_K = _proportional(members_K[classes] - rest_K, count, random)
    rest, drawn = [], []
    for k, n_rest, n_drawn in zip(classes, rest_K, drawn_K, strict=True):
        own = np.flatnonzero(labels_N == k)[random.permutation(members_K[k])]
        rest.append(own[:n_rest])
        drawn.append(own[n_rest : n_rest + n_drawn])
    parts = [random.permutation(np.concatenate(part)) for part in (rest, drawn)]
    return places_N[parts[0]], places_N[parts[1]]


def _proportional(members_K: Array, count: int, random: object) -> Array:
    """Shares `count` among classes in proportion to their members.

    Rounds down, then adds one to the classes with the largest remainders; ties are broken at random.
    """
    import numpy as np

    exact_K = members_K / members_K.sum() * count
    numbers_K = np.floor(exact_K)
    short = int(count - numbers_K.sum())
    remainder_K = exact_K - numbers_K
    for remainder in np.sort(np.unique(remainder_K))[::-1]:
        if short == 0:
            break
        tied = np.flatnonzero(remainder_K == remainder)
        more = min(len(tied), short)
        numbers_K[random.choice(tied, size=more, replace=False)] += 1  # type: ignore[attr-defined]
        short -= more
    rounded_K: Array = numbers_K.astype(np.int64)
    return rounded_K


def _fold(
    recordings: Recordings,
    pool: Array,
    what: str,
    folds: int,
    fold: int,
    seed: int,
    typed: bool = True,
) -> tuple[Array, Array]:
    """Divides `pool` into `folds` stratified parts without splitting groups: (rest, part number `fold`).

    typed: whether the number of parts was given as dataset.folds; else it follows from the split's size.
    """
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels_n = recordings.labels_N[pool]
    groups_n = None if recordings.groups_N is None else recordings.groups_N[pool]
    _refuse_few(labels_n, groups_n, folds, "change dataset.folds, or " if typed else "")
    kind = StratifiedKFold if groups_n is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        # sklearn warns if a class has fewer members than parts, which groups make unavoidable
        warnings.simplefilter("ignore", UserWarning)
        parts = list(kind(folds, shuffle=True, random_state=seed).split(labels_n, labels_n, groups_n))
    rest, drawn = parts[fold]
    absent = set(labels_n.tolist()) - set(labels_n[rest].tolist())
    if absent:
        raise DataError(
            f"All sequences of class '{recordings.classes[min(absent)]}' are in groups of the {what} split:"
            " none are left to train on. Try another dataset.split_seed, or add groups."
        )
    return pool[rest], pool[drawn]


def _refuse_few(labels_n: Array, groups_n: Array | None, folds: int, way: str) -> None:
    """Raises ConfigError if there are too few sequences or groups for `folds` parts.

    way: what else than adding sequences helps.
    """
    import numpy as np

    members_K = np.unique(labels_n, return_counts=True)[1]
    if groups_n is None:
        few = f"a class of {members_K.min()}" if members_K.min() < folds else ""
    else:
        units = len(np.unique(groups_n))
        few = f"{units} {'group' if units == 1 else 'groups'}" if units < folds else ""
        few = few or (f"classes of at most {members_K.max()}" if members_K.max() < folds else "")
    if few:
        raise ConfigError(f"Cannot make {folds} parts from {few}: {way}add sequences.")


def shared(digests_N: Array, parts: dict[SplitName, Array]) -> dict[tuple[SplitName, SplitName], int]:
    """For each pair of splits, how many sequences of the second are also in the first; only if any are."""
    digests = {name: digests_N[places].tolist() for name, places in parts.items()}
    found: dict[tuple[SplitName, SplitName], int] = {}
    for second in range(1, len(SPLITS)):
        for first in range(second):
            earlier = set(digests[SPLITS[first]])
            if count := sum(digest in earlier for digest in digests[SPLITS[second]]):
                found[SPLITS[first], SPLITS[second]] = count
    return found
