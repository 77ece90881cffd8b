"""Reads the channels of a table: numbers, and names as codes; how many bits they need. Torch-free.

Shapes: R rows of a block, V columns of values, C channels, K names.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

from rnnclf.data.preparation import BITS_LEFT
from rnnclf.data.recordings import Array, encoded
from rnnclf.data.table.blocks import Block, TableFile
from rnnclf.data.table.cells import ADVICE, numbers, optional_names
from rnnclf.data.table.guess import CONSTANT, COUNTS_ROWS, MOST_NAMES, Guesses
from rnnclf.data.table.register import NameIndex
from rnnclf.data.table.roles import Roles
from rnnclf.errors import ConfigError, DataError

LONGEST = 100  # bytes of a name
COARSE = 2.0**-13  # of a channel's range: larger errors of rounding lose more than half of the digits
WHOLE = 2.0**53  # float64 holds whole numbers exactly up to here
FOR_MODEL = (
    "The model was trained on numbers in this column; if it marks a missing value, list it in"
    " dataset.missing_values."
)
ROWS = 2**20  # to renumber at a time


class Channels:
    """The channels of a table, read block by block into rows of one type.

    Names get codes in the order in which they are read; `finish` gives them those of the sorted names.
    """

    def __init__(self, roles: Roles, table: str, dtype: str) -> None:
        import numpy as np

        self.roles, self.table, self.dtype = roles, table, dtype
        self._names = {channel: NameIndex() for channel in roles.categorical}
        self._low_C, self._high_C = np.full((2, len(roles.channels)), np.nan)
        self._error_C = np.zeros(len(roles.channels))
        self._exact: dict[int, set[Decimal]] = {}

    def read(self, block: Block) -> Array:
        """The values of a block (R, V), float64: NaN if missing, codes of names. Raises DataError."""
        import numpy as np

        roles = self.roles
        advice = ADVICE if roles.label is not None else FOR_MODEL
        if not roles.categorical:
            values_RV = numbers(block, roles.values, roles.missing, roles.lenient, advice)
        else:
            channel_of = roles.channel_of
            plain = [name for name in roles.values if channel_of[name] not in self._names]
            values_RV = np.empty((len(block.lines_R), len(roles.values)))
            if plain:
                values_RV[:, [name in plain for name in roles.values]] = numbers(
                    block, plain, roles.missing, roles.lenient, advice
                )
            for v, name in enumerate(roles.values):
                if (channel := channel_of[name]) in self._names:
                    values_RV[:, v] = self._codes(block, name, channel)
        measured_RV = np.where(np.isinf(values_RV), np.nan, values_RV) if roles.lenient else values_RV
        self._measure(measured_RV.reshape(-1, len(roles.channels)), block)
        return values_RV

    def columns_in(self, table: TableFile) -> list[str]:
        """The columns to read of a table."""
        return [*self.roles.columns, *(name for name in self.roles.ignored if name in table.columns)]

    def check_ignored(self, block: Block, sequence_R: Array) -> None:
        """Raises ConfigError if an ignored column is not throughout what it was in the first rows.

        sequence_R: the sequence of each row, int64.
        """
        for name, why in self.roles.ignored.items():
            if why not in (COUNTS_ROWS, CONSTANT) or name not in block.frame.columns:
                continue
            if not Guesses.still(block.frame[name], why, sequence_R):
                first, last = block.lines_R[0], block.lines_R[-1]
                raise ConfigError(
                    f"{block.name}: '{name}' {why.removeprefix('which ')} at first, but not in {block.unit}s"
                    f" {first:,} to {last:,}. List the channels in dataset.channels, with it or without."
                )

    def _codes(self, block: Block, column: str, channel: str) -> Array:
        """The codes (R,) of a column of names; NaN if missing. Raises DataError for too many or too long."""
        import numpy as np

        texts, index = optional_names(block, column, self.roles.missing), self._names[channel]
        too_long = (texts.str.len_bytes() > LONGEST).fill_null(False)
        code_R = np.full(len(texts), np.nan)
        present_R = texts.is_not_null().to_numpy()
        code_R[present_R] = index.of(texts.drop_nulls())
        if len(index) > MOST_NAMES or too_long.any():
            row = too_long.arg_max() if too_long.any() else len(texts) - 1
            assert row is not None
            what = (
                f"a name of more than {LONGEST} bytes"
                if too_long.any()
                else f"more than {MOST_NAMES:,} names"
            )
            raise DataError(
                f"{block.place(row)}, column '{column}' has {what}: list the other channels in"
                " dataset.channels."
            )
        return code_R

    def _measure(self, values_RC: Array, block: Block) -> None:
        """Updates the range of each channel, and its largest error of rounding to float32."""
        import numpy as np

        low_C, high_C = np.fmin.reduce(values_RC), np.fmax.reduce(values_RC)
        self._low_C, self._high_C = np.fmin(self._low_C, low_C), np.fmax(self._high_C, high_C)
        with np.errstate(over="ignore", invalid="ignore"):
            rounded_C = np.fmax.reduce(np.abs(values_RC - values_RC.astype(np.float32)))
            large = np.flatnonzero(np.maximum(np.abs(low_C), np.abs(high_C)) > WHOLE)
        self._error_C = np.fmax(self._error_C, rounded_C)
        for c in large.tolist():
            seen = self._exact.setdefault(c, set())
            for name in self.roles.values[c :: len(self.roles.channels)]:
                if len(seen) < 2:
                    some = map(_exact, block.frame[name].drop_nulls().unique().head(8))
                    seen.update(number for number in some if number is not None)

    def needs_float64(self) -> bool:
        """Whether float32 would lose digits that tell values apart. Raises DataError if float64 would too."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            range_C = self._high_C - self._low_C
            peak_C = np.maximum(np.abs(self._low_C), np.abs(self._high_C))
        for c, seen in self._exact.items():
            if len(seen) > 1 and range_C[c] < peak_C[c] * 2.0 ** (BITS_LEFT - 53):
                low, high = f"{self._low_C[c]:.0f}", f"{self._high_C[c]:.0f}"
                values = f"values near {low}" if low == high else f"values from {low} to {high}"
                raise DataError(
                    f"{self.table}: channel '{self.roles.channels[c]}' has {values}, whose differences are"
                    " lost in 64 bits: subtract a constant before you save them."
                )
        too_large_C = peak_C > np.finfo(np.float32).max
        return bool((too_large_C | ((range_C > 0) & (self._error_C > range_C * COARSE))).any())

    def finish(self, path: Path) -> dict[str, tuple[str, ...]]:
        """Renumbers the codes in the values that were written, and returns the names, sorted."""
        import numpy as np

        found = {}
        for channel, index in self._names.items():
            place_K, found[channel] = encoded(index)
            column, values_SC = self.roles.channels.index(channel), np.load(path, mmap_mode="r+")
            for begin in range(0, len(values_SC), ROWS):
                code_S = values_SC[begin : begin + ROWS, column]
                present_S = ~np.isnan(code_S)
                code_S[present_S] = place_K[code_S[present_S].astype(np.int64)]
        return found


def _exact(value: object) -> Decimal | None:
    """The number in a cell with all its digits; None if there is none, as where a value is missing."""
    try:
        number = Decimal(str(value).strip().replace(",", "."))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
