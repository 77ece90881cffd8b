"""Sequences and labels given from Python: arrays, lists of arrays, data frames.

Shapes: N sequences, S steps of all of them, T steps of one, C channels, K classes, R rows of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rnnclf.data.array_files import NamedArray
from rnnclf.data.arrays import unlabelled
from rnnclf.data.gaps import without_gaps
from rnnclf.data.npy import refuse_other_than_numbers, to_trainable
from rnnclf.data.preparation import BITS_LEFT
from rnnclf.data.recordings import NO_LABELS, Array, Recordings, encoded, numbered
from rnnclf.data.survey import moments
from rnnclf.data.table.roles import Roles
from rnnclf.errors import DataError
from rnnclf.registry import did_you_mean

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of some sequences.

    labels_N: int64, indices into `names`. names: the classes, named and ordered as on the command line.
    values_K: the original label of each class.
    """

    labels_N: Array
    names: tuple[str, ...]
    values_K: list[Any]

    @property
    def plain(self) -> list[bool | int | float | str] | None:
        """`values_K` as a checkpoint can store them; None if they equal the names, or are other objects."""
        values = [getattr(value, "item", lambda value=value: value)() for value in self.values_K]
        is_plain = all(isinstance(value, bool | int | float | str) for value in values)
        return values if is_plain and values != list(self.names) else None

    def of(self, recordings: Recordings) -> Recordings:
        """The recordings with these labels. Raises DataError if there are more or fewer than sequences."""
        if len(self.labels_N) != len(recordings):
            raise DataError(f"y has {len(self.labels_N):,} labels for {len(recordings):,} sequences.")
        return replace(recordings, labels_N=self.labels_N, classes=self.names)


def labels_in(y: Iterable[Any]) -> Labels:
    """Encodes labels y (N,), which are numbers, strings or other hashable values.

    Raises DataError for a missing label, and for two labels with the same name.
    """
    values = list(y)
    place_of: dict[Any, int] = {}
    places = [place_of.setdefault(value, len(place_of)) for value in values]
    names: dict[str, Any] = {}
    for value, place in place_of.items():
        if value is None or value != value:
            n = places.index(place)
            raise DataError(f"The label of sequence {n} (counted from 0) is missing: it is {value}.")
        name = name_of(value)
        if name in names:
            raise DataError(
                f"The labels {names[name]!r} and {value!r} have the same name: rename one of them."
            )
        names[name] = value
    labels_N, known = encoded([list(names)[place] for place in places])
    return Labels(labels_N, known, [names[name] for name in known])


def name_of(label: Any) -> str:
    """The name of a label on the command line: 1 or 0 for booleans, 7 for 7.0."""
    import numpy as np

    if isinstance(label, bytes):
        return label.decode("utf-8")
    if isinstance(label, bool | np.bool_ | np.integer):
        return str(int(label))
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return str(label)


def as_classes(values: Sequence[Any]) -> Array:
    """Labels as an array (K,) of numbers or strings, or of objects if they are neither or of mixed types."""
    import numpy as np

    kinds = {type(value) for value in values}
    if len(kinds) == 1 and issubclass(kinds.pop(), bool | int | float | str | bytes | np.generic):
        return np.array(values)
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects


def recordings_in(x: Any, channels_first: bool = False) -> Recordings:
    """The sequences of an array (N, T) or (N, T, C), or of a list of arrays (T,) or (T, C), which may have
    different lengths; with `channels_first` (N, C, T) and (C, T). All labels are 0.

    Raises DataError for anything else.
    """
    import numpy as np

    if isinstance(x, np.ndarray) and x.dtype != object:
        return unlabelled(NamedArray(x, "X"), "X", "NCT" if channels_first else "NTC")
    return _recordings_of_list([np.asarray(part) for part in x], channels_first)


def _recordings_of_list(parts: list[Array], channels_first: bool) -> Recordings:
    if not parts:
        raise DataError("X has no sequences.")
    axes = "(C, T)" if channels_first else "(T, C)"
    sequences: list[Array] = []
    for n, part in enumerate(parts):
        what = f"Sequence {n} (counted from 0)"
        refuse_other_than_numbers(part, what)
        if part.ndim not in (1, 2):
            raise DataError(f"{what} has the shape {part.shape}: (T,) or {axes} is needed.")
        sequence_TC = part[:, None] if part.ndim == 1 else part.T if channels_first else part
        size = sequences[0].shape[1] if sequences else sequence_TC.shape[1]
        if sequence_TC.shape[1] != size:
            raise DataError(f"{what} has {sequence_TC.shape[1]} channels; sequence 0 has {size}.")
        if not sequence_TC.size:
            raise DataError(f"{what} has no {'steps' if size else 'channels'}.")
        sequences.append(sequence_TC)
    return _concatenated(sequences, numbered(sequences[0].shape[1]))


def _concatenated(sequences: list[Array], channels: tuple[str, ...]) -> Recordings:
    import numpy as np

    lengths_N = np.array([len(sequence) for sequence in sequences], np.int64)
    return Recordings(
        values_SC=to_trainable(np.concatenate(sequences), "X"),
        starts_N=np.cumsum(lengths_N) - lengths_N,
        lengths_N=lengths_N,
        labels_N=np.zeros(len(lengths_N), np.int64),
        classes=NO_LABELS,
        channels=channels,
    )


def for_prediction(recordings: Recordings, missing: str) -> Recordings:
    """Applies `missing` to the recordings; every sequence is kept.

    Raises DataError if a value is missing with missing=error, and for a sequence without a complete step with
    missing=drop.
    """
    import numpy as np

    if not np.issubdtype(recordings.values_SC.dtype, np.floating):
        return recordings
    if missing in ("mask", "interpolate"):
        moments(recordings)  # which raises DataError for an infinite value
        return recordings
    left = without_gaps(recordings, missing)
    if len(left) < len(recordings):
        raise DataError(f"{left.notes[-1]} Nothing can be predicted for these.")
    return left


def is_frame(x: Any) -> bool:
    """Whether x has named columns, as the data frames of polars and pandas have."""
    return hasattr(x, "columns") and hasattr(x, "__getitem__")


def as_polars(frame: Any) -> pl.DataFrame:
    """A data frame of polars or pandas as one of polars. Raises DataError for a column that is neither of
    numbers nor of times nor of text."""
    import polars as pl

    if isinstance(frame, pl.DataFrame):
        return frame
    columns = []
    for name in frame.columns:
        column = frame[name]
        plain = getattr(column.dtype, "kind", "O") in "biufM" and hasattr(column.dtype, "itemsize")
        cells = column.to_numpy() if plain and not column.isna().any() else _objects(column)
        try:
            columns.append(pl.Series(str(name), cells, strict=False))
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(f"Column '{name}' holds neither numbers nor times nor text.") from error
    return pl.DataFrame(columns)


@dataclass(frozen=True)
class LongFrame:
    """A data frame with a row for each step, and the roles of its columns.

    channels: None for all other columns of numbers.
    """

    frame: Any
    id: str
    time: str | None
    label: str | None
    channels: tuple[str, ...] | None

    def recordings(self) -> Recordings:
        """The sequences, in order of first appearance, their steps ordered by time. Raises DataError."""
        import numpy as np

        channels = self._channels()
        place_R, ids = self._places()
        times_R = None if self.time is None else _times(self._column(self.time), self.time)
        order_R = np.lexsort((place_R,) if times_R is None else (times_R, place_R))
        values_RC = np.stack([_numbers(self._column(name), name) for name in channels], axis=1)
        lengths_N = np.bincount(place_R)
        times_S = None if times_R is None else times_R[order_R]
        if times_S is not None:
            _refuse_twice(times_S, place_R[order_R], ids)
        return Recordings(
            values_SC=values_RC[order_R],
            starts_N=np.cumsum(lengths_N) - lengths_N,
            lengths_N=lengths_N,
            labels_N=np.zeros(len(lengths_N), np.int64),
            classes=NO_LABELS,
            channels=channels,
            times_S=times_S,
            columns=self._roles(),
            locate=lambda step: f"row {order_R[step]} (counted from 0)",
        )

    def _roles(self) -> dict[str, Any]:
        """The roles as those of a table, so that a checkpoint can read others of the same columns."""
        return Roles("long", (self.id,), self.time, self.label, None, None, (), (), ()).to_plain()

    def labels(self) -> list[Any] | None:
        """The label of each sequence, or None if there is no label column. Raises DataError."""
        if self.label is None:
            return None
        place_R, ids = self._places()
        labels: list[Any] = [None] * len(ids)
        for place, label in zip(place_R.tolist(), _objects(self._column(self.label)), strict=True):
            if _is_missing(label):
                raise DataError(f"Sequence {ids[place]!r} has no '{self.label}' in one of its rows.")
            if labels[place] is None:
                labels[place] = label
            elif labels[place] != label:
                raise DataError(f"Sequence {ids[place]!r} has the labels {labels[place]!r} and {label!r}.")
        return labels

    def _places(self) -> tuple[Array, list[Any]]:
        """The number of each row's sequence, in order of first appearance, and the ids in that order."""
        import numpy as np

        place_of: dict[Any, int] = {}
        places = []
        for row, value in enumerate(_objects(self._column(self.id))):
            if _is_missing(value):
                raise DataError(f"Row {row} (counted from 0) has no '{self.id}'.")
            places.append(place_of.setdefault(value, len(place_of)))
        if not places:
            raise DataError("X has no sequences.")
        return np.array(places, np.int64), list(place_of)

    def _channels(self) -> tuple[str, ...]:
        if self.channels is not None:
            return self.channels
        roles = {self.id, self.time, self.label}
        found = [name for name in self.frame.columns if name not in roles and _is_numeric(self.frame[name])]
        if not found:
            raise DataError("X has no column of numbers beside those of id=, time= and label=.")
        return tuple(map(str, found))

    def _column(self, name: str) -> Any:
        known = list(map(str, self.frame.columns))
        if name not in known:
            raise DataError(
                f"No column named '{name}'.{did_you_mean(name, known)} X has: {', '.join(known)}."
            )
        return self.frame[name]


def _is_missing(value: Any) -> bool:
    return value is None or bool(value != value)


def _objects(column: Any) -> list[Any]:
    """The cells of a column as Python objects; None for pandas' NA."""
    cells: list[Any] = column.to_list()
    return [None if type(cell).__name__ in ("NAType", "NaTType") else cell for cell in cells]


def _is_numeric(column: Any) -> bool:
    kind = getattr(column.dtype, "kind", None)  # of NumPy and pandas types; polars types have none
    if kind is not None:
        return kind in "biuf"
    return bool(column.dtype.is_numeric()) or str(column.dtype) == "Boolean"


def _numbers(column: Any, name: str) -> Array:
    """The cells as float32 (R,), like those of table files, or as float64 if they need its range or digits.

    NaN for missing ones.
    """
    import numpy as np

    if not _is_numeric(column):
        raise DataError(f"Column '{name}' holds no numbers ({column.dtype}).")
    if hasattr(column, "isna"):
        exact: Array = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        exact = column.to_numpy().astype(np.float64)
    peak, limits = np.fmax.reduce(np.abs(exact), initial=0.0), np.finfo(np.float32)
    spread = np.fmax.reduce(exact, initial=-peak) - np.fmin.reduce(exact, initial=peak)
    blurred = 0 < spread < peak * limits.eps * 2**BITS_LEFT
    fits = peak == 0 or (limits.tiny <= peak <= limits.max and not blurred)
    return exact.astype(np.float32) if fits else exact


def _times(column: Any, name: str) -> Array:
    """The cells as float64 (R,): numbers unchanged, dates and durations in seconds."""
    import numpy as np

    try:
        array = np.asarray(column.to_numpy())
        if array.dtype == object or array.dtype.kind in "UT":  # with time zones, or as text
            array = np.asarray(column, "datetime64[ns]")
        if array.dtype.kind in "mM":
            missing_R = np.isnat(array)
            seconds_R = array.astype(f"{array.dtype.kind}8[ns]").astype(np.int64) / 1e9
            array = np.where(missing_R, np.nan, seconds_R)
        times_R: Array = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"Column '{name}' holds no times: {error}.") from error
    wrong_R = ~np.isfinite(times_R)
    if wrong_R.any():
        raise DataError(f"Row {int(wrong_R.argmax())} (counted from 0) has no '{name}'.")
    return times_R


def _refuse_twice(times_S: Array, place_S: Array, ids: list[Any]) -> None:
    twice_S = (times_S[1:] == times_S[:-1]) & (place_S[1:] == place_S[:-1])
    if twice_S.any():
        step = int(twice_S.argmax())
        raise DataError(f"Sequence {ids[place_S[step]]!r} has two steps at the time {times_S[step]:g}.")
