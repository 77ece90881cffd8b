"""Joins the sequences of several arrays, such as x_train and x_test, into one data set. Torch-free."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from rnnclf.data.conversion import refuse_unseen
from rnnclf.data.delimited import excerpt
from rnnclf.data.npy import COPY_LIMIT
from rnnclf.data.recordings import Array, Recordings, restarting_at
from rnnclf.errors import DataError


class Part(NamedTuple):
    """Some of the sequences, what messages call them, and their split: an index into SPLITS, -1 for none."""

    name: str
    recordings: Recordings
    given: int


def joined(parts: Sequence[Part]) -> Recordings:
    """All as one Recordings. The groups of a part that is a split of its own do not matter.

    Raises DataError if they do not match, or are too large.
    """
    import numpy as np

    first = parts[0].recordings
    for name, recordings, _ in parts[1:]:
        if recordings.channels != first.channels:
            raise DataError(
                f"{name} has the channels {excerpt(', '.join(recordings.channels), 120)};"
                f" {parts[0].name} has {excerpt(', '.join(first.channels), 120)}."
            )
    whole = [recordings for _, recordings, _ in parts]
    if sum(recordings.values_SC.nbytes for recordings in whole) > COPY_LIMIT:
        raise DataError(
            f"{' and '.join(part.name for part in parts)} are too large to be joined in memory: save all"
            " sequences as one x, with a split (N,) of train and test."
        )
    classes = tuple(dict.fromkeys(name for recordings in whole for name in recordings.classes))
    place_of = {name: place for place, name in enumerate(classes)}
    borders = [0, *accumulate(len(recordings.values_SC) for recordings in whole)]

    def place(step: int) -> str:
        part = bisect_right(borders, step) - 1
        return whole[part].place(step - borders[part])

    recordings = Recordings(
        values_SC=np.concatenate([part.values_SC for part in whole]),
        starts_N=np.concatenate([begin + part.starts_N for begin, part in zip(borders, whole, strict=False)]),
        lengths_N=np.concatenate([part.lengths_N for part in whole]),
        labels_N=np.concatenate([_renumbered(part, place_of) for part in whole]),
        labels_S=_labels_of_steps(whole, place_of),
        classes=classes,
        channels=first.channels,
        groups_N=None if first.groups_N is None else np.concatenate([_groups(part, first) for part in whole]),
        given_N=np.concatenate([_given(part) for part in parts]),
        notes=tuple(dict.fromkeys(note for part in whole for note in part.notes)),
        locate=place,
        ids=restarting_at(*list(accumulate(map(len, whole)))[:-1]),
    )
    refuse_unseen(recordings)
    return recordings


def _renumbered(recordings: Recordings, place_of: dict[str, int]) -> Array:
    import numpy as np

    return np.array([place_of[name] for name in recordings.classes], np.int64)[recordings.labels_N]


def _labels_of_steps(whole: Sequence[Recordings], place_of: dict[str, int]) -> Array | None:
    """The label of each step; None if no part has labels of steps. Raises DataError if some have and others
    do not."""
    import numpy as np

    given = [part.labels_S for part in whole if part.labels_S is not None]
    if not given:
        return None
    if len(given) < len(whole):
        raise DataError("Some of the arrays have a label for each step, others one for each sequence.")
    places = [np.array([*(place_of[name] for name in part.classes), -1], np.int32) for part in whole]
    return np.concatenate([place_K[part] for place_K, part in zip(places, given, strict=True)])


def _groups(recordings: Recordings, first: Recordings) -> Array:
    """The groups; -1 where they do not matter, because the split is not drawn."""
    import numpy as np

    if recordings is first and first.groups_N is not None:
        return first.groups_N
    return np.full(len(recordings), -1, np.int64)


def _given(part: Part) -> Array:
    import numpy as np

    if part.recordings.given_N is not None:
        return part.recordings.given_N
    return np.full(len(part.recordings), part.given, np.int8)
