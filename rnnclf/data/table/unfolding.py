"""Rows that hold whole sequences in lists become a row for each step. Torch-free.

Shapes: R rows of a block, S steps of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import MOST_COLUMNS, Block
from rnnclf.data.table.names import ID, standard
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

NUMBER = "sequence"  # the name of the column with the numbers of rows, where there is no id


@dataclass(frozen=True)
class Unfolding:
    """How the columns of a file become those of a table with a row for each step.

    widths: for each column of the file None if its cells are single values, 0 for lists of values, otherwise
        the number of channels in each step of its lists.
    numbered: whether a column NUMBER is added, with the numbers of rows from 0.
    """

    widths: dict[str, int | None]
    numbered: bool

    @classmethod
    def of(cls, first: pl.DataFrame, without_id: bool) -> Unfolding:
        """As the first rows of a file tell; `without_id`: no option names the column with the ids."""
        widths = {name: _width(first[name]) for name in first.columns}
        names = {standard(name) for name in first.columns}
        known = any(names & set(rank) for rank in ID)
        lists = any(width is not None for width in widths.values())
        return cls(widths, lists and without_id and not known)

    @property
    def needed(self) -> bool:
        return any(width is not None for width in self.widths.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        names = [NUMBER] if self.numbered else []
        for name, width in self.widths.items():
            names += [f"{name}_{c}" for c in range(width)] if width else [name]
        return tuple(names)

    def unfolded(self, block: Block, columns: Sequence[str], before: int) -> Block:
        """These columns of a block with a row for each step. Raises DataError.

        before: how many rows of the file come before the block.
        """
        import numpy as np
        import polars as pl

        frame, lists = block.frame, [name for name, width in self.widths.items() if width is not None]
        if self.numbered:
            numbers_R = np.arange(before, before + len(frame))
            frame = frame.with_columns(pl.Series(NUMBER, numbers_R).cast(pl.String))
        if not lists:
            return replace(block, frame=frame.select(columns))
        lengths_R = _lengths(block, lists)
        frame = frame.explode(lists)
        lines_S = np.repeat(block.lines_R, lengths_R)
        steps = replace(block, frame=frame, lines_R=lines_S)
        for name, width in self.widths.items():
            if width:
                frame = frame.with_columns(_channels(steps, name, width)).drop(name)
        return replace(steps, frame=frame.select(columns))


def _width(column: pl.Series) -> int | None:
    import polars as pl

    if not isinstance(column.dtype, pl.List | pl.Array):
        return None
    if not isinstance(column.dtype.inner, pl.List | pl.Array):
        return 0
    steps = column.explode().drop_nulls()
    width = len(steps[0]) if len(steps) else 0
    return min(max(width, 1), MOST_COLUMNS + 1)


def _lengths(block: Block, lists: Sequence[str]) -> Array:
    """The number of steps of each row, int64 (R,). Raises DataError if its lists differ in it."""
    import numpy as np

    first = block.frame[lists[0]]
    lengths_R: Array = _length(first)
    for name in lists:
        own_R = _length(block.frame[name])
        if (own_R == 0).any():
            row = int((own_R == 0).argmax())
            raise DataError(f"{block.place(row)}: '{name}' has no values.")
        if (own_R != lengths_R).any():
            row = int((own_R != lengths_R).argmax())
            raise DataError(
                f"{block.place(row)}: '{lists[0]}' has {lengths_R[row]:,} values, '{name}' has"
                f" {own_R[row]:,}: the lists of a sequence must have the same length."
            )
    return lengths_R.astype(np.int64)


def _length(column: pl.Series) -> Array:
    import polars as pl

    lengths = column.arr.len() if isinstance(column.dtype, pl.Array) else column.list.len()
    return lengths.fill_null(0).to_numpy()


def _channels(steps: Block, name: str, width: int) -> list[pl.Series]:
    """The columns of the channels in a column of lists. Raises DataError for a list of another length."""
    import polars as pl

    column = steps.frame[name]
    lengths_S = _length(column)
    if (lengths_S != width).any():
        row = int((lengths_S != width).argmax())
        raise DataError(
            f"{steps.place(row)}: '{name}' has a step of {lengths_S[row]:,} values, and others of {width:,}:"
            " it must hold a list for each step, with a value for each channel."
        )
    values = column.arr if isinstance(column.dtype, pl.Array) else column.list
    return [values.get(c).alias(f"{name}_{c}") for c in range(width)]
