"""Reasons to doubt a score: sequences in two splits, classes without sequences in one, channels that give the
class away. Torch-free.

Shapes: N sequences, C channels, K classes; n some of the sequences, k the classes of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.splits import SPLITS, SplitName, shared
from rnnclf.data.survey import Moments
from rnnclf.errors import DataError

Severity: TypeAlias = Literal["doubtful", "warning", "remark"]
"""doubtful: scores on these data would be misleading; remark: worth knowing, and often intended."""

CHANCE = 1e-3  # a channel is not blamed for what happens by chance in one data set of a thousand
STRICT = 8  # a channel numbers the sequences if it changes in one direction, this often; by chance: 2 in 8!
SORTED = 4  # rows are sorted by class if the class changes this many times more rarely than by chance
MOST = 3  # names in a sentence


@dataclass(frozen=True)
class Finding:
    """A sentence, and the command-line overrides that deal with it, if there are any."""

    sentence: str
    words: tuple[str, ...] = ()
    severity: Severity = "warning"
    without: tuple[str, ...] = ()
    """Channels that should be left out."""


def doubts(
    recordings: Recordings,
    digests_N: Array,
    parts: dict[SplitName, Array],
    found: Moments | None,
    selectable: bool = False,
) -> list[Finding]:
    """Every reason to doubt the scores of these splits.

    found: None for pictures, whose channels are pixels. selectable: see `giveaways`.
    """
    channels = [] if found is None else giveaways(recordings, found, selectable)
    return [*leaks(digests_N, parts), *channels, *absent_classes(recordings, parts)]


def leaks(digests_N: Array, parts: dict[SplitName, Array]) -> list[Finding]:
    """One finding for each pair of splits that share sequences."""
    return [
        Finding(
            f"{count:,} of the {len(parts[second]):,} {second} sequences {'are' if count > 1 else 'is'} also"
            f" in the {first} split: the {second} score will be too optimistic.",
            severity="doubtful",
        )
        for (first, second), count in shared(digests_N, parts).items()
    ]


# Classes


def absent_classes(recordings: Recordings, parts: dict[SplitName, Array]) -> list[Finding]:
    """One finding for each of validation and test that lacks a class."""
    members = _members(recordings, parts)
    found = []
    for name in SPLITS[1:]:
        absent = [k for k, number in enumerate(members[name]) if not number and members["train"][k]]
        if absent and len(parts[name]):
            one = len(absent) == 1
            found.append(
                Finding(
                    f"{'Class' if one else 'Classes'} {listed(recordings.classes[k] for k in absent)}"
                    f" {'has' if one else 'have'} no sequence in the {name} split, so its score says nothing"
                    f" about {'it' if one else 'them'}."
                )
            )
    return found


def refuse_untrained(recordings: Recordings, parts: dict[SplitName, Array]) -> None:
    """Raises DataError for a class that occurs in the validation or the test split, but not in training."""
    members = _members(recordings, parts)
    for k, name in enumerate(recordings.classes):
        where = [split for split in SPLITS[1:] if members[split][k]]
        if where and not members["train"][k]:
            place = f"{where[0]} split" if len(where) == 1 else "validation and the test split"
            raise DataError(f"Class '{name}' occurs in the {place} only: there is nothing to train on.")


def _members(recordings: Recordings, parts: dict[SplitName, Array]) -> dict[SplitName, list[int]]:
    """The number of sequences of each class in each split."""
    import numpy as np

    k = len(recordings.classes)
    return {
        name: np.bincount(recordings.labels_N[places], minlength=k).tolist() for name, places in parts.items()
    }


def listed(names: Iterable[str]) -> str:
    """The first names of several, in quotes: 'a', 'b', 'c' and 4 more."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > MOST:
        return f"{', '.join(quoted[:MOST])} and {len(quoted) - MOST:,} more"
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


# Channels that give the class away


def giveaways(recordings: Recordings, found: Moments, selectable: bool = False) -> list[Finding]:
    """Channels that tell the class of a sequence without describing it, such as the number of a row.

    selectable: whether the option dataset.channels chooses channels.
    """
    way = ": list the others in dataset.channels." if selectable else "."
    described = ((name, _giveaway(recordings, found, c)) for c, name in enumerate(recordings.channels))
    return [
        Finding(f"Channel '{name}' {what[0]} Leave it out{way}", (), what[1], (name,))
        for name, what in described
        if what is not None
    ]


def _giveaway(recordings: Recordings, found: Moments, c: int) -> tuple[str, Severity] | None:
    """How a channel gives the class away, and how serious that is; None if it does not."""
    low_N, high_N, empty_N = found.low_NC[:, c], found.high_NC[:, c], found.count_NC[:, c] == 0
    chance = math.log(CHANCE / len(recordings.channels))
    misleads = "scores are misleading unless that holds for new sequences, too."
    if empty_N.any():
        empty = _empty_classes(recordings, empty_N, chance)
        if not empty:
            return None
        what = f"has no values in any sequence of {listed(empty)} and some in each of the others"
        return f"{what}: {misleads}", "doubtful"
    is_constant = (found.count_NC[:, c] > 1).mean() >= 0.5 and (low_N == high_N).all()
    if is_constant and _tells(recordings, low_N, chance):
        what = "has only one value in each sequence, which tells the class of every one"
        return f"{what}: {misleads}", "doubtful"
    if recordings.channels[c] in recordings.categories:  # whose codes are in no order
        return None
    parts = _in_order(recordings)
    rises = _numbers([(low_N[part], high_N[part]) for part in parts])
    if not rises and not _numbers([(-high_N[part], -low_N[part]) for part in parts]):
        return None
    way = "rises" if rises else "falls"
    if _sorted_by_class([recordings.labels_N[part] for part in parts]):
        what = f"only {way} from one sequence to the next, and they are sorted by class"
        return f"{what}: it tells the class, and scores are misleading.", "doubtful"
    return f"only {way} from one sequence to the next, as a number of the row does.", "warning"


def _empty_classes(recordings: Recordings, empty_N: Array, chance: float) -> list[str]:
    """The classes without any value, if the others have values in each sequence and that cannot be chance."""
    import numpy as np

    k = len(recordings.classes)
    members_K = np.bincount(recordings.labels_N, minlength=k)
    empty_K = np.bincount(recordings.labels_N[empty_N], minlength=k)
    n, empty = len(empty_N), int(empty_N.sum())
    if empty == n or not ((empty_K == 0) | (empty_K == members_K)).all():
        return []
    if k * math.log(2) - _log_factorial(n) + _log_factorial(empty) + _log_factorial(n - empty) > chance:
        return []
    return [recordings.classes[place] for place in np.flatnonzero(empty_K)]


def _tells(recordings: Recordings, value_N: Array, chance: float) -> bool:
    """Whether a value of each sequence tells its class, which labels drawn at random hardly allow.

    Either the classes are intervals of values, or the same few values always come with the same class. Of the
    sequences of one group that share class and value, one counts.
    """
    import numpy as np

    value_n, label_n = value_N, recordings.labels_N
    if recordings.groups_N is not None:
        _, code_N = np.unique(value_N, return_inverse=True)
        keys = np.stack((recordings.groups_N, code_N.reshape(-1), label_n), axis=1)
        first = np.unique(keys, axis=0, return_index=True)[1]
        value_n, label_n = value_n[first], label_n[first]
    order = np.argsort(value_n, kind="stable")
    value_n, label_n = value_n[order], label_n[order]
    new_value, new_label = value_n[1:] != value_n[:-1], label_n[1:] != label_n[:-1]
    if (new_label & ~new_value).any():
        return False
    members_k = np.bincount(label_n)
    members_k = members_k[members_k > 0]
    n, k = len(label_n), len(members_k)
    ways = math.inf
    if new_label.sum() + 1 == k:  # of n! orders
        ways = _log_factorial(k) + sum(map(_log_factorial, members_k.tolist())) - _log_factorial(n)
    sizes_v = np.diff(np.flatnonzero(np.concatenate(([True], new_value, [True]))))
    size_u, count_u = np.unique(sizes_v, return_counts=True)
    pure_u = np.log(((members_k / n) ** size_u[:, None]).sum(axis=1) + np.finfo(float).tiny)
    return bool(k > 1 and min(ways, float((count_u * pure_u).sum())) <= chance)


def _log_factorial(n: int) -> float:
    return math.lgamma(n + 1)


def _in_order(recordings: Recordings) -> list[Array]:
    """The sequences of the training file and of the test file, in the order in which they were read.

    Of overlapping windows, some that do not overlap.
    """

    apart = _apart(recordings)
    if recordings.given_N is None:
        return [apart]
    is_test_n = recordings.given_N[apart] == SPLITS.index("test")
    return [part for part in (apart[~is_test_n], apart[is_test_n]) if len(part)]


def _apart(recordings: Recordings) -> Array:
    """The indices of sequences that share no step: all, or windows from every second stretch of the length of
    one."""
    import numpy as np

    starts_N, longest = recordings.starts_N, int(recordings.lengths_N.max())
    if (starts_N[1:] >= starts_N[:-1] + recordings.lengths_N[:-1]).all():
        return np.arange(len(recordings))
    stretches, first = np.unique((starts_N - starts_N[0]) // longest, return_index=True)
    apart: Array = first[stretches % 2 == 0]
    return apart


def _numbers(ranges: list[tuple[Array, Array]]) -> bool:
    """Whether the values of each sequence (lowest, highest) are above those of all sequences before it."""
    rises = [low_n[1:] - high_n[:-1] for low_n, high_n in ranges]
    return all((rise >= 0).all() for rise in rises) and sum(int((rise > 0).sum()) for rise in rises) >= STRICT


def _sorted_by_class(labels: list[Array]) -> bool:
    import numpy as np

    runs = sum(1 + int((label_n[1:] != label_n[:-1]).sum()) for label_n in labels)
    shares = [np.bincount(label_n) / len(label_n) for label_n in labels]
    expected = sum(1 + len(n) * (1 - (share**2).sum()) for n, share in zip(labels, shares, strict=True))
    return bool(SORTED * runs <= expected)
