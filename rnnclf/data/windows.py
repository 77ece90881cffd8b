"""Cuts recordings into windows, which share the values of the recordings. Torch-free.

Shapes: M recordings, U units (recordings, or blocks of them), P pieces of units without a hole in time,
N windows, S steps in total, W steps of a window, K classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from rnnclf.data.recordings import Array, Ids, Recordings
from rnnclf.errors import ConfigError, DataError

LABELS = ("majority", "pure", "last")
SIZES = "a whole number of at least 1 or a duration such as 2.5s, 500ms or 10min"
DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|min|h)")
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
UNLABELLED = -1  # in labels_S
HOLE = 5  # an interval is a hole if it is this many times as long as the 95th percentile of all
SAMPLE = 2**20  # intervals that tell how long they usually are
CHUNK = 2**22  # steps to look at together
BLOCKS = 20  # of a recording, in advice


def check_size(key: str, value: int | str | None) -> None:
    """Raises ConfigError unless a size is a number of steps, a duration or None."""
    if isinstance(value, str) and (not (found := DURATION.fullmatch(value)) or float(found[1]) == 0):
        raise ConfigError(f"{key} must be {SIZES}, got '{value}'.")


@dataclass(frozen=True)
class Windows:
    """Where to cut recordings into windows, and how to label these.

    window, step, block: numbers of steps, or durations such as 2.5s.
    step: the distance between the beginnings of two windows; None: that of a window, so that none overlap.
    label: from labels of steps, that of most (majority; of several, the one that comes last), that of all
        (pure; windows with others are left out) or the last one. Steps without a label do not count, but
        such a window is not pure.
    block: recordings are first cut into blocks of this size, each of which then counts as a recording.
    """

    window: int | str
    step: int | str | None = None
    label: str = "majority"
    block: int | str | None = None

    def cut(self, recordings: Recordings) -> Recordings:
        """The windows of all recordings; nothing is copied.

        The windows of a recording become a group, unless the data have groups. No window reaches across a
        hole in time. Raises DataError if no window is left, and ConfigError for a duration of data without
        times.
        """
        import numpy as np

        usual = _usual_intervals(recordings)
        window, step, block = self._in_steps(usual)
        unit_U, holes = _units(recordings, block), _holes(recordings, usual)
        starts_N = _starts(recordings, np.union1d(unit_U, holes + 1), window, step)
        notes = [_lacking(recordings, starts_N, window, self.window)]
        labels_N = _labels(recordings, starts_N, window, self.label)
        kept_N = labels_N != UNLABELLED
        notes += [_left_out(recordings, starts_N, kept_N, self.label), _told(recordings, holes)]
        starts_N, labels_N = starts_N[kept_N], labels_N[kept_N]
        labels_N, classes, lost = _occurring(labels_N, recordings.classes)
        unit_N = np.searchsorted(unit_U, starts_N, side="right") - 1
        place_U, place_N = _places(recordings, unit_U), _places(recordings, starts_N)
        begins_U = None if block is None else unit_U - recordings.starts_N[place_U]
        units = _ids_at(recordings.ids, place_U, begins_U)
        found = (
            f"{len(starts_N):,} windows of {_counted(window, 'step')}, one every {_counted(step, 'step')},"
            f" from {_counted(len(np.unique(unit_N)), 'recording' if block is None else 'block')}."
        )
        groups_N, given_N = recordings.groups_N, recordings.given_N
        return replace(
            recordings,
            starts_N=starts_N,
            lengths_N=np.full(len(starts_N), window, np.int64),
            labels_N=labels_N,
            labels_S=None,
            classes=classes,
            groups_N=unit_N if groups_N is None else groups_N[place_N],
            given_N=None if given_N is None else given_N[place_N],
            notes=(*recordings.notes, found, *filter(None, (*notes, lost))),
            locate=recordings.place,
            ids=_ids_at(recordings.ids, place_N, starts_N - recordings.starts_N[place_N]),
            origins=lambda numbers_n: units(unit_N[numbers_n]),
            cache=self._cache(recordings.cache, window, step, block),
        )

    def _in_steps(self, usual: tuple[float, float] | None) -> tuple[int, int, int | None]:
        """Window, step and block as numbers of steps. Raises ConfigError."""
        window = _in_steps("window", self.window, usual)
        step = window if self.step is None else _in_steps("step", self.step, usual)
        if self.block is None:
            return window, step, None
        block = _in_steps("block", self.block, usual)
        if block < window:
            raise ConfigError(
                f"dataset.block={self.block} is shorter than dataset.window={self.window}: it needs room for"
                " several windows."
            )
        return window, step, block

    def _cache(self, cache: Path | None, *sizes: int | None) -> Path | None:
        return None if cache is None else cache / "-".join(map(str, ("windows", *sizes, self.label)))


def advice(recordings: Recordings, window: int) -> str:
    """A block for dataset.block that divides the recordings of these windows into about BLOCKS parts."""
    steps = int((recordings.starts_N + recordings.lengths_N).max() - recordings.starts_N.min())
    size = max(steps // BLOCKS, 2 * window)
    digits = 10 ** (len(str(size)) - 1)
    return str(size // digits * digits)


# Where windows begin


def _usual_intervals(recordings: Recordings) -> tuple[float, float] | None:
    """The median and the 95th percentile of the intervals between steps; None without times."""
    import numpy as np

    if recordings.times_S is None:
        return None
    last = len(recordings.times_S) - 1
    some = np.unique(np.linspace(0, max(last - 1, 0), min(last, SAMPLE)).astype(np.int64))
    some = some[_has_next(recordings, some)]
    if not len(some):
        return None
    between = recordings.times_S[some + 1] - recordings.times_S[some]
    median, long = np.percentile(between, (50, 95)).tolist()
    return median, long


def _told(recordings: Recordings, holes: Array) -> str:
    """A note on holes in time, '' if there are none."""
    if not len(holes):
        return ""
    many = "a hole" if len(holes) == 1 else f"{len(holes):,} holes, the first"
    return f"Times have {many} after {recordings.place(int(holes[0]))}: no window reaches across one."


def _places(recordings: Recordings, steps: Array) -> Array:
    """The index of the recording that each of these steps belongs to, or of the last before it."""
    import numpy as np

    places: Array = np.searchsorted(recordings.starts_N, steps, side="right") - 1
    return places


def _has_next(recordings: Recordings, steps: Array) -> Array:
    """Whether the next step belongs to the same recording, bool."""
    place = _places(recordings, steps)
    follows: Array = (place >= 0) & (steps + 1 < recordings.starts_N[place] + recordings.lengths_N[place])
    return follows


def _in_steps(name: str, size: int | str, usual: tuple[float, float] | None) -> int:
    """A size in steps. Raises ConfigError for a duration that is not at least one step."""
    if not isinstance(size, str):
        return size
    if usual is None:
        raise ConfigError(
            f"dataset.{name}={size} is a duration, but the data have no times: give a number of steps."
        )
    found = DURATION.fullmatch(size)
    assert found is not None  # check_size has seen it
    steps = round(float(found[1]) * SECONDS[found[2]] / usual[0])
    if steps < 1:
        raise ConfigError(
            f"dataset.{name}={size} is shorter than a step: times, read as seconds, are {usual[0]:g} apart."
            " If they are in another unit, give a number of steps."
        )
    return steps


def _units(recordings: Recordings, block: int | None) -> Array:
    """The first step of each unit, (U,), ascending. The last block of a recording takes what is left."""
    import numpy as np

    if block is None:
        return recordings.starts_N
    blocks_M = np.maximum(np.rint(recordings.lengths_N / block), 1).astype(np.int64)
    firsts: Array = np.repeat(recordings.starts_N, blocks_M) + block * _counting(blocks_M)
    return firsts


def _counting(counts: Array) -> Array:
    """0, 1 … up to each count: 0 1 2 0 1 for 3 and 2."""
    import numpy as np

    numbers: Array = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers


def _holes(recordings: Recordings, usual: tuple[float, float] | None) -> Array:
    """The steps after which a hole in time follows."""
    import numpy as np

    if usual is None or recordings.times_S is None:
        return np.zeros(0, np.int64)
    found = []
    for begin in range(0, len(recordings.times_S), CHUNK):
        between = np.diff(recordings.times_S[begin : begin + CHUNK + 1])
        found.append(begin + np.flatnonzero(between > HOLE * usual[1]))
    holes = np.concatenate(found)
    inside: Array = holes[_has_next(recordings, holes)]
    return inside


def _starts(recordings: Recordings, first_P: Array, window: int, step: int) -> Array:
    """The first step of each window, (N,), ascending within pieces that begin at `first_P`."""
    import numpy as np

    place_P = _places(recordings, first_P)
    end_P = (recordings.starts_N + recordings.lengths_N)[place_P]
    length_P = np.minimum(end_P, np.append(first_P[1:], end_P[-1])) - first_P
    count_P = np.maximum((length_P - window) // step + 1, 0)
    starts_N: Array = np.repeat(first_P, count_P) + step * _counting(count_P)
    return starts_N


def _lacking(recordings: Recordings, starts_N: Array, window: int, asked: int | str) -> str:
    """A note on recordings without a window, '' if there are none. Raises DataError if all are."""
    import numpy as np

    if not len(starts_N):
        longest = int(recordings.lengths_N.max())
        raise DataError(
            f"No recording has room for a window of {_counted(window, 'step')} (dataset.window={asked}): the"
            f" longest has {_counted(longest, 'step')}."
            if longest < window
            else f"No {_counted(window, 'step')} (dataset.window={asked}) follow each other without a hole in"
            " time or the end of a block."
        )
    there = np.unique(_places(recordings, starts_N))
    short = np.setdiff1d(np.arange(len(recordings)), there)
    if not len(short):
        return ""
    first = recordings.place(int(recordings.starts_N[short[0]]))
    left_out = "has no room for a window and is" if len(short) == 1 else "have no room for a window and are"
    return (
        f"{len(short):,} of {len(recordings):,} recordings {left_out} left out; the first begins at {first}."
    )


# Labels


def _labels(recordings: Recordings, starts_N: Array, window: int, way: str) -> Array:
    """The label of each window, int64 (N,); UNLABELLED for those to be left out."""
    import numpy as np

    if recordings.labels_S is None:
        of_recording: Array = recordings.labels_N[_places(recordings, starts_N)]
        return of_recording
    labels_S = recordings.labels_S
    labels_N: Array = labels_S[starts_N].astype(np.int64)
    changes = _changes(labels_S)
    # a window without a change inside has the label of its first step
    mixed = np.flatnonzero(
        np.searchsorted(changes, starts_N + 1) < np.searchsorted(changes, starts_N + window)
    )
    if way == "pure":
        labels_N[mixed] = UNLABELLED
        return labels_N
    size = max(CHUNK // max(window, len(recordings.classes)), 1)
    choose = _last if way == "last" else _commonest
    for begin in range(0, len(mixed), size):
        some = mixed[begin : begin + size]
        steps_nW = starts_N[some][:, None] + np.arange(window)
        labels_N[some] = choose(labels_S[steps_nW], len(recordings.classes))
    return labels_N


def _changes(labels_S: Array) -> Array:
    """The steps whose label differs from that of the step before, ascending."""
    import numpy as np

    found = []
    for begin in range(0, len(labels_S), CHUNK):
        part = labels_S[begin : begin + CHUNK + 1]
        found.append(begin + 1 + np.flatnonzero(part[1:] != part[:-1]))
    return np.concatenate(found)


def _last(labels_nW: Array, classes: int) -> Array:
    """The last label of each window."""
    import numpy as np

    w_W = np.arange(labels_nW.shape[1])
    last_n = np.where(labels_nW >= 0, w_W, 0).max(axis=1)
    found: Array = labels_nW[np.arange(len(labels_nW)), last_n]
    return found


def _commonest(labels_nW: Array, classes: int) -> Array:
    """The commonest label of each window; of several, the one that comes last."""
    import numpy as np

    n, w = labels_nW.shape
    row, place = np.nonzero(labels_nW >= 0)
    label = labels_nW[row, place]
    count_nK = np.bincount(row * classes + label, minlength=n * classes).reshape(n, classes)
    last_nK = np.zeros((n, classes), np.int64)
    last_nK[row, label] = place  # of equal indices, the last value stays
    found: Array = (count_nK * w + last_nK).argmax(axis=1)
    return found


def _left_out(recordings: Recordings, starts_N: Array, kept_N: Array, way: str) -> str:
    """A note on windows that are left out because of their labels, '' if none are. Raises DataError if all
    are."""
    n, left = len(starts_N), int((~kept_N).sum())
    if not left:
        return ""
    what = "with labels that change or are missing" if way == "pure" else "without a label"
    if left == n:
        way_out = " Shorten dataset.window, or set dataset.window_label=majority." if way == "pure" else ""
        raise DataError(f"There are only windows {what}.{way_out}")
    first = recordings.place(int(starts_N[~kept_N][0]))
    return f"{left:,} of {n:,} windows, those {what}, are left out; the first is at {first}."


def _occurring(labels_N: Array, classes: tuple[str, ...]) -> tuple[Array, tuple[str, ...], str]:
    """Labels and classes without the classes that no window has, and a note on these."""
    import numpy as np

    there_K, places_N = np.unique(labels_N, return_inverse=True)
    if len(there_K) == len(classes):
        return labels_N, classes, ""
    lost = [f"'{name}'" for k, name in enumerate(classes) if k not in set(there_K.tolist())]
    names = ", ".join(lost[:3]) + (" …" if len(lost) > 3 else "")
    note = f"No window has the label {names}: {'it is' if len(lost) == 1 else 'they are'} no class here."
    return places_N.reshape(-1).astype(np.int64), tuple(classes[k] for k in there_K), note


# Names


def _ids_at(ids: Ids | None, place_N: Array, firsts_N: Array | None) -> Ids:
    """The id of a recording or, with the first step of each part, ids such as session3:128."""

    def found(numbers_n: Array) -> Array:
        import numpy as np

        places_n = place_N[numbers_n]
        names_n = places_n if ids is None else ids(places_n)
        if firsts_N is None:
            return names_n
        pairs = zip(names_n.tolist(), firsts_N[numbers_n].tolist(), strict=True)
        return np.array([f"{name}:{first}" for name, first in pairs], dtype=object)

    return found


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
