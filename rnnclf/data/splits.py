"""Which sequences train, which choose the best epoch, which judge. Torch-free.  Shapes: N sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rnnclf.data.recordings import Array, Recordings
from rnnclf.errors import ConfigError, DataError

SplitName: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """How sequences are divided where the data do not say: sizes are numbers or, below 1, shares.

    test: None for no test split.
    """

    validation: float
    test: float | None
    split: str
    seed: int
    folds: int | None
    fold: int


def divide(recordings: Recordings, plan: Plan) -> dict[SplitName, Array]:
    """The sequences of each split, as int64 places; what the data name themselves is followed.

    With folds, one of them is set aside for the test or, where the data name a test split, as the
    validation split. Raises ConfigError where sequences and sizes do not go together.
    """
    import numpy as np

    given_N = recordings.given_N if recordings.given_N is not None else np.full(len(recordings), -1, np.int8)
    train, validation, test = (np.flatnonzero(given_N == place) for place in range(3))
    train = np.flatnonzero(given_N < 1)
    whole = len(train)
    fold_is_test = plan.folds is not None and plan.test is not None and not len(test)
    if plan.test is not None and not len(test):
        train, test = _set_aside(
            recordings, train, "test", _number(plan.test, whole, "test"), plan, fold_is_test
        )
    if not len(validation):
        count = _number(plan.validation, whole, "validation")
        is_fold = plan.folds is not None and not fold_is_test
        train, validation = _set_aside(recordings, train, "validation", count, plan, is_fold)
    elif plan.folds is not None and not fold_is_test:
        raise ConfigError(
            "dataset.folds divides nothing here: the data name their validation and test splits."
        )
    return {"train": train, "validation": validation, "test": test}


def _number(size: float, whole: int, what: str) -> int:
    """The number of sequences that a size means, at least 1."""
    if size >= 1 and size != int(size):
        raise ConfigError(f"dataset.{what} must be a whole number, or a share below 1, got {size}.")
    return int(size) if size >= 1 else max(round(size * whole), 1)


def _set_aside(
    recordings: Recordings, pool: Array, what: str, count: int, plan: Plan, is_fold: bool
) -> tuple[Array, Array]:
    """(the rest, the sequences of `pool` set aside as `what`)."""
    import numpy as np

    if plan.folds is not None and is_fold:
        if plan.fold >= plan.folds:
            raise ConfigError(f"dataset.fold must be below dataset.folds, {plan.folds}, got {plan.fold}.")
        return _fold(recordings, pool, what, plan.folds, plan.fold, plan.seed)
    if plan.split == "first":
        if recordings.groups_N is not None:
            raise ConfigError(
                "dataset.split=first would tear groups apart: use split=random with dataset.group."
            )
        _refuse_small(recordings, pool, what, count, least=1)
        return pool[count:], pool[:count]
    if recordings.groups_N is not None:
        groups = len(np.unique(recordings.groups_N[pool]))
        folds = min(max(round(len(pool) / count), 2), max(groups, 2))
        return _fold(recordings, pool, what, folds, 0, plan.seed)
    _refuse_small(recordings, pool, what, count, least=2)
    return stratified(recordings.labels_N[pool], count, plan.seed, pool)


def _refuse_small(recordings: Recordings, pool: Array, what: str, count: int, least: int) -> None:
    """Raises where a class has fewer than `least` sequences, or a part would have less than one of each."""
    import numpy as np

    members_K = np.bincount(recordings.labels_N[pool], minlength=len(recordings.classes))
    k = int(members_K.argmin())
    if members_K[k] < least:
        number = ["no sequence", "one sequence only"][int(members_K[k])]
        raise DataError(
            f"Class '{recordings.classes[k]}' has {number} to divide: the {what} split and the rest need one"
            f" each. Add sequences, or leave the class out."
        )
    if min(len(pool) - count, count) < len(recordings.classes):
        raise ConfigError(
            f"dataset.{what}={count} does not divide {len(pool)} sequences:"
            f" both parts need at least one for each of the {len(recordings.classes)} classes."
        )


def stratified(labels_N: Array, count: int, seed: int, places_N: Array) -> tuple[Array, Array]:
    """(the rest, `count` drawn) of `places_N`, each class in proportion.

    Draws what scikit-learn's train_test_split with `stratify` and `random_state` draws: importing it
    would take as long as all else that a run does before its first batch.
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
    """`count` divided over classes by their members: rounded down, then one more for each of those that
    lost most by rounding; among equals the draw decides."""
    import numpy as np

    exact_K = members_K / members_K.sum() * count
    numbers_K = np.floor(exact_K)
    short = int(count - numbers_K.sum())
    lost_K = exact_K - numbers_K
    for lost in np.sort(np.unique(lost_K))[::-1]:
        if short == 0:
            break
        equals = np.flatnonzero(lost_K == lost)
        more = min(len(equals), short)
        numbers_K[random.choice(equals, size=more, replace=False)] += 1  # type: ignore[attr-defined]
        short -= more
    rounded_K: Array = numbers_K.astype(np.int64)
    return rounded_K


def _fold(
    recordings: Recordings, pool: Array, what: str, folds: int, fold: int, seed: int
) -> tuple[Array, Array]:
    """(the rest, one of `folds` stratified parts of `pool`); groups stay whole."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels_n = recordings.labels_N[pool]
    groups_n = None if recordings.groups_N is None else recordings.groups_N[pool]
    _refuse_few(recordings, labels_n, groups_n, what, folds)
    kind = StratifiedKFold if groups_n is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of a class with fewer members than parts: groups decide
        parts = list(kind(folds, shuffle=True, random_state=seed).split(labels_n, labels_n, groups_n))
    rest, drawn = parts[fold]
    absent = set(labels_n.tolist()) - set(labels_n[rest].tolist())
    if absent:
        raise DataError(
            f"All sequences of class '{recordings.classes[min(absent)]}' belong to groups of the {what}"
            " split: none is left to train on. Try another dataset.split_seed, or more groups."
        )
    return pool[rest], pool[drawn]


def _refuse_few(
    recordings: Recordings, labels_n: Array, groups_n: Array | None, what: str, folds: int
) -> None:
    """Raises ConfigError where there is too little to make `folds` parts of."""
    import numpy as np

    members_K = np.bincount(labels_n, minlength=len(recordings.classes))
    if groups_n is None:
        few = f"a class of {members_K.min()}" if members_K.min() < folds else ""
    else:
        units = len(np.unique(groups_n))
        few = f"{units} {'group' if units == 1 else 'groups'}" if units < folds else ""
        few = few or (f"classes of at most {members_K.max()}" if members_K.max() < folds else "")
    if few:
        raise ConfigError(f"{folds} parts cannot be made of {few}: change dataset.folds or dataset.{what}.")


def shared(digests_N: Array, parts: dict[SplitName, Array]) -> dict[tuple[SplitName, SplitName], int]:
    """How many sequences of the second split are in the first, too, where there are any."""
    digests = {name: digests_N[places].tolist() for name, places in parts.items()}
    found: dict[tuple[SplitName, SplitName], int] = {}
    for second in range(1, len(SPLITS)):
        for first in range(second):
            earlier = set(digests[SPLITS[first]])
            if count := sum(digest in earlier for digest in digests[SPLITS[second]]):
                found[SPLITS[first], SPLITS[second]] = count
    return found
