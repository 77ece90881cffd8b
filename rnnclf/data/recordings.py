"""Labelled sequences as a source reads them, before splits, missing values and normalisation. Torch-free.

Shapes: N sequences, S steps of all of them one after the other, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Progress: TypeAlias = Callable[[str, float], None]
"""Is told what is being done ("reading my.csv") and which share of it is done, from 0 to 1."""


Ids: TypeAlias = Callable[["Array"], "Array"]
"""From the numbers of sequences, int64 (n,), to their ids: texts, or numbers."""


def restarting_at(*borders: int) -> Ids:
    """Ids of sequences from several files, which are numbered from 0 in each; borders: the first of each file
    but the first one."""

    def ids(numbers_n: Array) -> Array:
        import numpy as np

        starts = np.array([0, *borders], np.int64)
        found: Array = numbers_n - starts[np.searchsorted(starts, numbers_n, side="right") - 1]
        return found

    return ids


def silent(what: str, share: float) -> None:
    """A Progress that tells nobody."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """All sequences of a data set in one array of steps, which may be mapped from a file.

    values_SC: the steps, of any real type; NaN where a value is missing. Steps that belong to no
        sequence (padding) may lie between the sequences.
    starts_N, lengths_N: int64; sequence n is values_SC[starts_N[n] : starts_N[n] + lengths_N[n]].
    labels_N: int64, places in `classes`.
    times_S: float64, when each step was taken; None where steps follow each other evenly.
    groups_N: int64, sequences that belong together (a patient's) and must share a split; or None.
    given_N: int8, the split that the data name for each sequence, a place in SPLITS; -1 where they name
        none; None where they name none at all.
    unit: what the values are divided by to be used, 255 for the bytes of a picture.
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
    unit: float = 1.0
    notes: tuple[str, ...] = ()
    """What was guessed or found while reading, as sentences for the user."""
    locate: Callable[[int], str] | None = None
    """Where a step was read, for messages: 7 → 'my.csv, line 9'."""
    ids: Ids | None = None
    """From the number of a sequence to its id in the data; None: they have no others than numbers from 0."""
    cache: Path | None = None
    """A folder for what is found out about these values, which nobody shares who has other values."""

    def __post_init__(self) -> None:
        n, s = len(self.starts_N), len(self.values_SC)
        assert self.values_SC.ndim == 2
        assert self.values_SC.shape[1] == len(self.channels)
        assert len(self.lengths_N) == len(self.labels_N) == n
        assert self.times_S is None or len(self.times_S) == s
        assert all(part is None or len(part) == n for part in (self.groups_N, self.given_N))

    def __len__(self) -> int:
        return len(self.starts_N)

    def place(self, step: int) -> str:
        """Where a step was read: a line of a file, or the number of a sequence and of its step."""
        if self.locate is not None:
            return self.locate(step)
        n = int(((self.starts_N <= step) & (step < self.starts_N + self.lengths_N)).argmax())
        return f"sequence {n}, step {step - int(self.starts_N[n])} (counted from 0)"


def recordings_of(x: Array, labels: Iterable[Any], lengths_N: Array | None = None, **more: Any) -> Recordings:
    """Recordings of an array (N, T, C), padded behind `lengths_N` steps of each where it is given.

    `labels` are N names or numbers; `more` goes to Recordings.
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
    """Labels as int64 places in the sorted names of the classes, and these names.

    Names that are all whole numbers are sorted as numbers: 2 before 10.
    """
    import numpy as np

    names_N = np.asarray([str(label) for label in labels], dtype=object)
    names = sorted(set(names_N), key=_natural)
    place = {name: number for number, name in enumerate(names)}
    return np.fromiter((place[name] for name in names_N), np.int64, len(names_N)), tuple(names)


def _natural(name: str) -> tuple[bool, int, str]:
    number = name.removeprefix("-")
    whole = number.isascii() and number.isdecimal() and len(number) < 100  # Python reads no more than 4300
    return (False, int(name), name) if whole else (True, 0, name)


def numbered(channels: int) -> tuple[str, ...]:
    """Names for channels that have none: '0', '1' …"""
    return tuple(map(str, range(channels)))
