"""What the values of a table's columns say about their roles. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.data.table import values as v
from rnnclf.data.table.blocks import Block
from rnnclf.data.table.names import is_clock
from rnnclf.data.table.times import HALF_DAY, is_time
from rnnclf.data.table.wide import numbered

if TYPE_CHECKING:
    import polars as pl

COUNTS_ROWS, CONSTANT = "which counts rows", "which is the same in all steps of a sequence"
MORE = 20  # rows of each class and step, from which on columns are channels rather than steps
SPELT = r"^[A-Za-z*-]{8,}$"
MOST_NAMES = 1000  # of a channel; more are free text or ids
ROWS = 200_000  # at most, of the first block, to look at


class Guesses:
    """Answers about the first rows of a table with these ids and this label, as far as they are known."""

    def __init__(self, first: Block, ids: Sequence[str], label: str | None, row_labels: bool = False) -> None:
        """`row_labels`: whether the label may change within a sequence."""
        self._first, self._frame = first, first.frame.head(ROWS)
        self._ids, self._label, self._row_labels = ids, label, row_labels

    @cached_property
    def _id_R(self) -> Array:
        """The sequence of each row; one of all rows if there are no ids."""
        import numpy as np

        if not self._ids:
            return np.zeros(len(self._frame), np.int64)
        return v.key_of(*(self._frame[name] for name in self._ids))

    @cached_property
    def _label_R(self) -> Array:
        assert self._label is not None
        return v.key_of(self._frame[self._label])

    def _numbers(self, name: str) -> Array | None:
        return v.exact(self._frame[name])

    @property
    def repeated(self) -> bool:
        """Whether any id occurs twice."""
        present = self._frame.select(self._ids).drop_nulls()
        return bool(present.is_duplicated().any())

    def labels(self, text: Sequence[str]) -> list[str]:
        """The columns of text whose values repeat often enough to be classes, and are one for each id."""
        found = []
        for name in text:
            key_R = v.key_of(self._frame[name])
            often = 2 <= v.count(key_R) <= len(key_R) / 2
            free = not self._ids or self._row_labels or not self.repeated
            clear = free or v.decides(self._id_R, key_R)
            if often and clear and not is_time(self._frame[name]):
                found.append(name)
        return found

    def _coarse(self, name: str) -> Array | None:
        """The key of a column that could be a part of ids: text or whole numbers, each often repeated."""
        column = self._frame[name]
        if column.has_nulls() or column.dtype.is_nested() or column.dtype.is_temporal():
            return None
        numbers_R = v.exact(column)
        if numbers_R is not None and not v.whole(numbers_R):
            return None
        key_R = v.key_of(column)
        return key_R if 1 < v.count(key_R) <= len(key_R) - v.EVIDENCE else None

    def ids(self, candidates: Sequence[str]) -> tuple[str | None, str | None]:
        """A column that surely tells sequences apart, and one that may: each value repeats, with one label.

        It is sure if the rows of a value follow each other, or if others of its rows are clearly times.
        """
        keys = {}
        for name in candidates:
            key_R = self._coarse(name)
            if key_R is None or v.count(key_R) * 2 > len(key_R):
                continue
            if v.count(key_R) > v.count(self._label_R) and v.decides(key_R, self._label_R):
                keys[name] = key_R
        finest = max(keys, key=lambda name: v.count(keys[name]), default=None)
        if finest is None:
            return None, None
        key_R = keys[finest]
        nested = all(v.decides(key_R, other_R) for other_R in keys.values())
        if nested and (v.in_runs(key_R) or self._timed(key_R, finest)):
            return finest, None
        return None, finest

    def recording_ids(
        self, group: str | None, candidates: Sequence[str], clock: str | None
    ) -> tuple[str, ...]:
        """The columns that tell recordings apart whose labels change; none if there are none.

        They are the group, with a column in whose values it starts again, or else a column whose rows follow
        each other for each value, and that the label does not decide, as it does a code of the class.
        """
        if group is not None:
            known = Guesses(self._first, (group,), self._label, row_labels=True)
            outer = known.outer_ids([name for name in candidates if name != group], clock)
            return (outer[0], group) if len(outer) == 1 else (group,)
        keys = {name: key_R for name in candidates if (key_R := self._coarse(name)) is not None}
        found = {
            name: key_R
            for name, key_R in keys.items()
            if v.in_runs(key_R)
            and v.count(key_R) * v.EVIDENCE <= len(key_R)
            and not v.decides(self._label_R, key_R)
        }
        finest = max(found, key=lambda name: v.count(found[name]), default=None)
        return () if finest is None else (finest,)

    def _timed(self, key_R: Array, but: str) -> bool:
        """Whether some column is clearly the time of the rows of each key."""
        for name in self._frame.columns:
            numbers_R = self._numbers(name) if name not in (but, self._label) else None
            if numbers_R is None or not v.differs_within(key_R, numbers_R):
                continue
            if is_clock(name, counters=True) or v.even_within(key_R, numbers_R):
                return True
        return False

    def outer_ids(self, candidates: Sequence[str], clock: str | None) -> list[str]:
        """The columns in whose values the ids start again: session, in which trials count from 1."""
        if len(self._id_R) < 2 * v.EVIDENCE or not self.repeated:
            return []
        numbers_R = None if clock is None else self._numbers(clock)
        bad = not self._row_labels and not v.decides(self._id_R, self._label_R)
        bad |= numbers_R is not None and not v.differs_within(self._id_R, numbers_R)
        found = []
        for name in candidates:
            outer_R = self._coarse(name)
            if outer_R is None or v.decides(self._id_R, outer_R):
                continue
            pair_R = v.together(self._id_R, outer_R)
            if v.count(pair_R) * 2 > len(pair_R):
                continue
            if not self._row_labels and not v.decides(pair_R, self._label_R):
                continue
            if self._row_labels and (name == self._label or v.decides(self._label_R, outer_R)):
                continue
            if numbers_R is not None and not v.differs_within(pair_R, numbers_R):
                continue
            if bad or (v.in_runs(pair_R) and v.in_runs(outer_R)):
                found.append(name)
        return found

    def one_recording(self, steps: int) -> bool:
        """Whether labels change as rarely from row to row as in a recording.

        steps: the number of columns that are numbered. Then the rows may be sequences, sorted by class,
        unless there are far more of them than steps, as in a recording of eight channels emg1 … emg8.
        """
        many = len(self._label_R) >= MORE * steps * v.count(self._label_R)
        sequences = steps > 0 and v.in_runs(self._label_R) and not many
        return v.sorted_by_label(self._label_R) and not sequences

    def spelt(self, words: Sequence[str]) -> str | None:
        """A column that has a whole sequence of letters in each cell, as ACGT."""
        for name in words:
            cells = self._frame[name]
            if str(cells.dtype) == "String" and cells.drop_nulls().str.contains(SPELT).all() and len(cells):
                return name
        return None

    def counts_rows(self, name: str) -> bool:
        return v.counts_rows(self._numbers(name))

    def is_clock(self, name: str) -> bool:
        """Whether the values of a column rise in all sequences, as they come or evenly."""
        numbers_R = self._numbers(name)
        if numbers_R is None:
            return is_time(self._frame[name])
        return v.even_within(self._id_R, numbers_R) or v.rises_within(self._id_R, numbers_R)

    def times(self, candidates: Sequence[str]) -> list[str]:
        """The columns that can only be times: dates, then those with the same distance between all steps."""
        dates = [name for name in candidates if self._dates(name)]
        return dates + [name for name in candidates if self._even(name)]

    def _dates(self, name: str) -> bool:
        if not is_time(self._frame[name]):
            return False
        pair_R = v.together(self._id_R, v.key_of(self._frame[name]))
        return v.count(pair_R) == len(pair_R) >= v.EVIDENCE

    def _even(self, name: str) -> bool:
        """Also a row number that tells the old order of shuffled rows, but not one of rows in order."""
        numbers_R = self._numbers(name)
        if numbers_R is None or (v.counts_rows(numbers_R) and v.ascends(numbers_R)):
            return False
        return v.even_within(self._id_R, numbers_R)

    def passes_midnight(self, nanoseconds_R: Array) -> bool:
        """Whether times of day fall by more than half a day from one row of a sequence to its next."""
        return v.falls_within(self._id_R, nanoseconds_R[: len(self._id_R)], HALF_DAY)

    def rising(self, candidates: Sequence[str]) -> list[str]:
        """The columns of numbers that rise in all sequences, but do not just count rows."""
        return [
            name
            for name in candidates
            if (numbers_R := self._numbers(name)) is not None
            and v.rises_within(self._id_R, numbers_R)
            and not v.counts_rows(numbers_R)
        ]

    def no_channels(self, candidates: Sequence[str], time: str | None) -> dict[str, str]:
        """The columns of numbers that are no channels of a table with a row per step, with what they are."""
        found = {}
        for name in candidates:
            numbers_R = self._numbers(name)
            if numbers_R is None:
                continue
            if v.counts_rows(numbers_R) or (time is not None and v.ascends(numbers_R)):
                found[name] = COUNTS_ROWS
            elif time is not None and v.even_within(self._id_R, numbers_R):
                found[name] = f"which counts steps, as '{time}' does"
            elif v.whole(numbers_R) and self._constant(name):
                found[name] = CONSTANT
        return found

    def names(self, words: Sequence[str]) -> list[str]:
        """The columns of words that can be a channel: few enough, and not the same throughout sequences."""
        found = []
        for name in words:
            column = self._frame[name]
            if column.dtype.is_nested() or column.dtype.is_temporal() or is_time(column):
                continue
            key_R = v.key_of(column)
            rows, names = len(key_R), v.count(key_R)
            few = names * 2 <= rows or (rows < 2 * v.EVIDENCE and names < rows)
            if few and names <= MOST_NAMES and not v.decides(self._id_R, key_R):
                found.append(name)
        return found

    @staticmethod
    def still(column: pl.Series, why: str, sequence_R: Array) -> bool:
        """Whether other rows of a column are what its first rows were: COUNTS_ROWS or CONSTANT."""
        import numpy as np

        if why == CONSTANT:
            return v.decides(np.unique(sequence_R, return_inverse=True)[1], v.key_of(column))
        numbers_R = v.exact(column)
        return len(column) < v.EVIDENCE or v.counts_rows(numbers_R) or v.ascends(numbers_R)

    def _constant(self, name: str) -> bool:
        key_R = v.key_of(self._frame[name])
        several = v.count(key_R) > 1 and v.count(self._id_R) <= len(key_R) - v.EVIDENCE
        return several and v.decides(self._id_R, key_R)

    def indices(self, candidates: Sequence[str], first: str) -> dict[str, str]:
        """The columns of numbers that count the rows of a table with a row per sequence."""
        steps = numbered(candidates)
        found = {}
        for name in candidates:
            numbers_R = self._numbers(name) if name not in steps else None
            if v.counts_rows(numbers_R) or (name == first and v.ascends(numbers_R)):
                found[name] = COUNTS_ROWS
        return found
