"""Sequences as read, before splitting, filling gaps and normalising, with labels if they have any.

Torch-free.

Shapes: N sequences, S steps in total, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rnnclf.data.changes import MappedFiles

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Progress: TypeAlias = Callable[[str, float], None]
"""Called with the current activity ("reading my.csv") and the fraction done, from 0 to 1."""


Ids: TypeAlias = Callable[["Array"], "Array"]
"""Maps numbers of sequences, int64 (n,), to their ids: text or numbers."""


NO_LABELS = ("",)
"""The classes of sequences that have no labels: all are of a single class without a name."""


def restarting_at(*borders: int) -> Ids:
    """Ids that count from 0 again at each of `borders`: the first sequence of each file but the first."""

    def ids(numbers_n: Array) -> Array:
        import numpy as np

        starts = np.array([0, *borders], np.int64)
        found: Array = numbers_n - starts[np.searchsorted(starts, numbers_n, side="right") - 1]
        return found

    return ids


def silent(what: str, share: float) -> None:
    """A Progress that does nothing."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """All sequences of a data set in one array of steps, which may be memory-mapped.

    values_SC: the steps, of any real type; NaN for missing values. Steps that belong to no sequence
        (padding) may lie between the sequences.
    starts_N, lengths_N: int64; sequence n is values_SC[starts_N[n] : starts_N[n] + lengths_N[n]].
    labels_N: int64, indices into `classes`; zeros if there are no labels, and classes are NO_LABELS.
    times_S: float64, the time of each step; None if steps are evenly spaced.
    groups_N: int64; sequences of one group (such as a patient's) must share a split; or None.
    labels_S: int32, the label of each step, -1 for none, if the data have one for each; then labels_N means
        nothing until windows are cut. None if the data have a label for each sequence.
    given_N: int8, the split that the data assign to each sequence, an index into SPLITS; -1 for none; None
        if the data assign no splits at all.
    truth_N: text, the label of each sequence of data that are read without labels, None where there is none;
        None if they have none at all.
    unit: divisor that brings the values into a usable range, 255 for the bytes of a picture.
    categories: the names that the values of a channel number, 0 for the first, for channels of names.
    """

    values_SC: Array
    starts_N: Array
    lengths_N: Array
    labels_N: Array
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    times_S: Array | None = None
    groups_N: Array | None = None
    given_N: Array | None = None
    labels_S: Array | None = None
    truth_N: Array | None = None
    unit: float = 1.0
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Guesses made and oddities found while reading, as sentences for the user."""
    locate: Callable[[int], str] | None = None
    """Where a step was read, for messages: 7 → 'my.csv, line 9'."""
    ids: Ids | None = None
    """Maps numbers of sequences to their ids in the data; None: the ids are numbers from 0."""
    origins: Ids | None = None
    """Maps numbers of windows to the ids of the recordings that they were cut from; None: there are none."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Of a table the columns by role, see `rnnclf.data.table.roles.Roles.to_plain`."""
    cache: Path | None = None
    """A folder for statistics of these values; recordings with other values must not share it."""
    files: MappedFiles = ()
    """The files that the arrays are mapped from; none if everything is in memory."""

    def __post_init__(self) -> None:
        n, s = len(self.starts_N), len(self.values_SC)
        assert self.values_SC.ndim == 2
        assert self.values_SC.shape[1] == len(self.channels)
        assert len(self.lengths_N) == len(self.labels_N) == n
        assert all(part is None or len(part) == s for part in (self.times_S, self.labels_S))
        assert all(part is None or len(part) == n for part in (self.groups_N, self.given_N, self.truth_N))

    def __len__(self) -> int:
        return len(self.starts_N)

    def refuse_changed(self) -> None:
        """Raises DataError if a mapped file has changed."""
        for file in self.files:
            file.refuse_changed()

    def sequence(self, number: int) -> Array:
        """A sequence as read, (T, C) float64, NaN for missing values."""
        import numpy as np

        start, length = self.starts_N[number], self.lengths_N[number]
        self.refuse_changed()
        found: Array = np.asarray(self.values_SC[start : start + length], np.float64) / self.unit
        return found

    def copied(self, values_SC: Array, **more: Any) -> Recordings:
        """The recordings with values copied from these, and `more` that differs.

        Raises DataError if a mapped file has changed meanwhile.
        """
        self.refuse_changed()
        # the cache describes the original values
        return replace(self, values_SC=values_SC, cache=None, files=(), **more)

    def without_labels(self) -> Recordings:
        """The recordings as if they had no labels; these become `truth_N`. '' is none."""
        import numpy as np

        names_K = np.array([name or None for name in self.classes], dtype=object)
        truth_N = names_K[self.labels_N] if names_K.any() else None
        zeros_N = np.zeros(len(self), np.int64)
        return replace(self, labels_N=zeros_N, classes=NO_LABELS, truth_N=truth_N)

    def place(self, step: int) -> str:
        """The origin of a step: a line of a file, or the numbers of the sequence and the step."""
        if self.locate is not None:
            return self.locate(step)
        n = int(((self.starts_N <= step) & (step < self.starts_N + self.lengths_N)).argmax())
        return f"sequence {n}, step {step - int(self.starts_N[n])} (counted from 0)"


def recordings_of(x: Array, labels: Iterable[Any], lengths_N: Array | None = None, **more: Any) -> Recordings:
    """Recordings from an array (N, T, C); with `lengths_N`, the steps after these lengths are padding.

    `labels` are N names or numbers; `more` is passed on to Recordings.
    """
    import numpy as np

    n, steps, channels = x.shape
    labels_N, classes = encoded(labels)
    return Recordings(
        values_SC=x.reshape(n * steps, channels),
        starts_N=np.arange(n, dtype=np.int64) * steps,
        lengths_N=np.full(n, steps, np.int64) if lengths_N is None else lengths_N.astype(np.int64),
        labels_N=labels_N,
        **{"classes": classes, "channels": numbered(channels), **more},
    )


def encoded(labels: Iterable[Any]) -> tuple[Array, tuple[str, ...]]:
    """Labels as int64 indices into the sorted class names, and these names.

    Whole numbers are sorted numerically, 2 before 10, and before all other names.
    """
    import numpy as np

    names_N = np.asarray([str(label) for label in labels], dtype=object)
    names = sorted(set(names_N), key=_natural)
    place = {name: number for number, name in enumerate(names)}
    return np.fromiter((place[name] for name in names_N), np.int64, len(names_N)), tuple(names)


def _natural(name: str) -> tuple[bool, int, str]:
    number = name.removeprefix("-")
    whole = (
        number.isascii() and number.isdecimal() and len(number) < 100
    )  # Python refuses integers of more than 4300 digits
    return (False, int(name), name) if whole else (True, 0, name)


def numbered(channels: int) -> tuple[str, ...]:
    """Names for unnamed channels: '0', '1' …"""
    return tuple(map(str, range(channels)))
