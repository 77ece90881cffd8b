"""What the tests of tables share: small tables, and what is read of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import xlsxwriter

from rnnclf.data.recordings import Recordings
from rnnclf.data.table import Table
from rnnclf.system.user_cache import cache_root

LONG = """id,time,ax,ay,label
a,0,1.5,10,walk
a,1,2.5,20,walk
b,0,3.5,30,run
b,1,4.5,40,run
b,2,5.5,50,run
"""


def read(content: str | bytes, name: str = "my.csv", **options: object) -> Recordings:
    """The recordings of a file with that content in the current folder."""
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Table(path=str(path), **options).read()


def parquet(frame: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def sequences_of(recordings: Recordings) -> list[tuple[str, list[list[float]]]]:
    """The class and the steps of each sequence; None for what is missing."""
    bounds = zip(recordings.starts_N, recordings.lengths_N, recordings.labels_N, strict=True)
    return [
        (recordings.classes[label], _plain(recordings.values_SC[start : start + length]))
        for start, length, label in bounds
    ]


def _plain(values_TC: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else v for v in step] for step in values_TC.tolist()]


def rows_of(content: str, order: list[int]) -> str:
    header, *rows = content.splitlines()
    return "\n".join([header, *(rows[n] for n in order), ""])


WIDE = "label,t0,t1,t2\nwalk,1,2,3\nrun,4,5,6\nrun,7,8,9\n"


# --- the cache --------------------------------------------------------------------------------------


def entries() -> list[Path]:
    return sorted(path for path in (cache_root() / "tables").glob("*/*") if path.is_dir())


def feather(frame: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.write_ipc(content)
    return content.getvalue()


def json_lines(rows: Iterable[dict[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def excel(*sheets: Sequence[Sequence[object]]) -> bytes:
    """An Excel file with these sheets, called A, B …; None is an empty cell."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"default_date_format": "yyyy-mm-dd hh:mm:ss"}) as book:
        for name, rows in zip("ABC", sheets, strict=False):
            sheet = book.add_worksheet(name)
            for r, row in enumerate(rows):
                for c, cell in enumerate(row):
                    if cell is not None:
                        sheet.write(r, c, cell)
    return content.getvalue()
