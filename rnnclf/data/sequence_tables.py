"""Reads a table that holds one sequence, with a row for each step: Excel, Parquet, Feather, JSON lines.

Torch-free.  Shapes: T steps of a file, C columns.
"""

from __future__ import annotations

from pathlib import Path

from rnnclf.data.delimited import excerpt, number
from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import Block
from rnnclf.data.table.cells import TRUTH
from rnnclf.data.table.files import Reading, table_file
from rnnclf.data.table.times import in_seconds, is_time, kind_of, times
from rnnclf.errors import DataError

SUFFIXES = (".xlsx", ".xlsm", ".parquet", ".pq", ".feather", ".arrow", ".ipc", ".jsonl", ".ndjson")


def steps_of(path: Path, place: str) -> tuple[Array, tuple[str, ...], int, tuple[str, ...]]:
    """The values (T, C) in float64, the names of the columns, the row of the first step, and the names of the
    columns that held dates, now in seconds.

    Messages call the file `place`. Raises DataError.
    """
    import numpy as np

    try:
        block = _whole(path, place)
    except DataError as error:
        raise DataError(f"{place}{str(error).removeprefix(path.name)}") from error
    columns, dates = [], []
    for name in block.frame.columns:
        if is_time(block.frame[name]):
            kind = kind_of(block, name)
            columns.append(in_seconds(times(block, name, kind), kind))
            dates.append(name)
        else:
            columns.append(_numbers(block, name))
    return np.stack(columns, axis=1), tuple(block.frame.columns), int(block.lines_R[0]), tuple(dates)


def _whole(path: Path, place: str) -> Block:
    import numpy as np
    import polars as pl

    with table_file(path, Reading()) as table:
        if table.row_is_sequence:
            raise DataError(f"{path.name} holds lists; each {table.unit} must hold the values of a step.")
        blocks = list(table.blocks(table.columns))
    lines_R = np.concatenate([block.lines_R for block in blocks])
    return Block(place, table.unit, pl.concat([block.frame for block in blocks]), lines_R, 1.0)


def _numbers(block: Block, name: str) -> Array:
    """A column as float64 (T,), NaN where a value is missing. Raises DataError for text and infinity."""
    import numpy as np
    import polars as pl

    cells = block.frame[name]
    if cells.dtype == pl.String:
        column = f"column '{excerpt(name)}'"
        truth = [TRUTH.get((cell or "").lower()) for cell in cells]
        values = [
            known if known is not None else number(cell or "", f"{block.place(row)}, {column}")
            for row, (cell, known) in enumerate(zip(cells, truth, strict=True))
        ]
        found: Array = np.array(values, np.float64)
    elif cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
        found = cells.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    else:
        raise DataError(f"{block.name}: column '{excerpt(name)}' does not hold numbers.")
    if np.isinf(found).any():
        row = int(np.isinf(found).argmax())
        raise DataError(f"{block.place(row)}, column '{excerpt(name)}': the value is infinite.")
    return found
