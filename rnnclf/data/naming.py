"""Which of several named arrays is which: the names that people give to sequences, labels and splits.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rnnclf.data.delimited import excerpt
from rnnclf.data.splits import SPLITS, split_called
from rnnclf.errors import DataError

NAMES = {
    "x": ("x", "data", "sequences", "series", "signals", "inputs", "input", "features"),
    "y": ("y", "labels", "label", "targets", "target"),
    "lengths": ("lengths", "length"),
    "groups": ("groups", "group"),
    "split": ("split", "splits"),
    "channels": ("channels", "channel_names"),
    "classes": ("classes", "class_names", "label_names"),
}
"""What each array may be called, in any case; the first is the name that the manual gives."""
NEEDED = {"x": "sequences, an array (N, T) or (N, T, C),", "y": "labels, an array (N,),"}
OF_A_SPLIT = ("x", "y", "lengths", "groups")  # there may be one of these for each split
PER_SEQUENCE = {*OF_A_SPLIT, "split"}
WHOLE = -1  # stands for the arrays whose names say no split
BETWEEN = " _.-/"
LONGEST = 40  # characters of a name that is looked at


class Role(NamedTuple):
    """What a name says: an index into SPLITS or WHOLE, the array, and whether it is the manual's name."""

    split: int
    array: str
    is_first: bool


Chosen: TypeAlias = dict[int, dict[str, str]]
"""For each split (an index into SPLITS, or WHOLE) the name of each array that there is of it."""


def role_of(name: str) -> Role | None:
    """X_train → (0, "x", True), test_labels → (2, "y", False), x → (WHOLE, "x", True); None: no array."""
    if (array := _array(name)) is not None:
        return Role(WHOLE, array, name.lower() == array)
    for place in range(1, min(len(name), LONGEST)):
        left, right = name[:place].rstrip(BETWEEN), name[place:].lstrip(BETWEEN)
        for part, rest in ((left, right), (right, left)):
            array, split = _array(part), split_called(rest)
            if array in OF_A_SPLIT and split is not None:
                return Role(split, array, part.lower() == array)
    return None


def _array(name: str) -> str | None:
    return next((array for array, known in NAMES.items() if name.lower() in known), None)


def chosen(names: Iterable[str], where: str) -> Chosen:
    """The arrays among these names: of all sequences together (WHOLE), or of each split. Others are left out.

    The arrays of a single split count as all. Raises DataError, whose message starts with `where`, if it is
    not clear which array is which, or one is lacking.
    """
    names = list(names)
    result = by_split(names, where)
    whole = result.pop(WHOLE, {})
    splits = {split: arrays for split, arrays in result.items() if "x" in arrays}
    if splits and whole.keys() & PER_SEQUENCE:
        raise DataError(lacking(names, where))
    if len(splits) == 1:
        whole, splits = {**whole, **next(iter(splits.values()))}, {}
    if not splits:
        return {WHOLE: whole}
    if SPLITS.index("train") not in splits or not all("y" in arrays for arrays in splits.values()):
        raise DataError(lacking(names, where))
    return {split: {**whole, **arrays} for split, arrays in sorted(splits.items())}


def chosen_in(held: Sequence[str], where: str) -> Chosen:
    """The arrays in a file that holds several, as `chosen`. Raises DataError if they are not all there."""
    twice = next((name for name in held if held.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where} holds {excerpt(twice)} twice; it needs one x and one y.")
    found = chosen(held, where)
    if not NEEDED.keys() <= found.get(WHOLE, NEEDED).keys():
        raise DataError(lacking(held, where))
    return found


def unlabelled_in(held: Iterable[str], where: str) -> Chosen:
    """The arrays among these names, of which x is needed; a single array is x, whatever it is called.

    Raises DataError if there are several, and it is not clear which of them is x.
    """
    names = list(held)
    if len(names) == 1:
        return {WHOLE: {"x": names[0]}}
    found = by_split(names, where)
    with_x = [arrays for arrays in found.values() if "x" in arrays]
    if len(with_x) != 1:
        listed = excerpt(", ".join(names), 120) or "no arrays"
        raise DataError(f"{where} holds {listed}; it needs one x.")
    return {WHOLE: {**found.get(WHOLE, {}), **with_x[0]}}


def by_split(names: Iterable[str], where: str) -> Chosen:
    """The arrays among these names, by the split that each says. Raises DataError if two are the same."""
    found: dict[int, dict[str, list[tuple[bool, str]]]] = {}
    for name in names:
        if (role := role_of(name)) is not None:
            of_split = found.setdefault(role.split, {})
            of_split.setdefault(role.array, []).append((role.is_first, name))
    return {
        split: {array: _one_of(candidates, split, array, where) for array, candidates in arrays.items()}
        for split, arrays in found.items()
    }


def lacking(names: Iterable[str], where: str) -> str:
    """The message for arrays among which there are no x and y."""
    return (
        f"{where} holds {excerpt(', '.join(names), 120) or 'no arrays'}; it needs one x and one y, or both"
        " for each split (x_train, y_train, x_test, y_test)."
    )


def _one_of(candidates: list[tuple[bool, str]], split: int, array: str, where: str) -> str:
    """The name that means this array, that of the manual if there are several. Raises DataError."""
    best = [name for is_first, name in candidates if is_first] or [name for _, name in candidates]
    if len(best) > 1:
        what = array if split == WHOLE else f"{array} of the {SPLITS[split]} split"
        raise DataError(
            f"{where} holds {excerpt(best[0])} and {excerpt(best[1])}, which could each be {what}:"
            " rename the one that is not."
        )
    return best[0]
