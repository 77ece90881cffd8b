"""Sheets of Excel, read as text. Torch-free.

The compiled code that reads them aborts the whole process if a file claims absurd sizes, so this happens in a
process of its own, which writes the cells as text. Macros are not run, and nothing but the file is opened.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rnnclf.data.delimited import excerpt
from rnnclf.data.table.text import TextFile
from rnnclf.errors import ConfigError, DataError
from rnnclf.registry import did_you_mean
from rnnclf.system.fork import ChildDied
from rnnclf.system.helper import in_helper, limit_memory
from rnnclf.system.memory import memory_limit

SUFFIXES = (".xlsx", ".xlsm")
BASE = 2**31  # bytes of memory for the process and its threads
COPIES = 64  # bytes of memory for each byte of text in a file: some 20 bytes are a cell
TIME_OF_DAY = "^(1899-12-3[01]|1904-01-01) "  # the day that Excel gives to times without one


class Sheet(TextFile):
    """A sheet of an Excel file, whose cells were written as text."""

    unit = "row"

    def __init__(self, path: Path, text: Path, named: Sequence[str]) -> None:
        super().__init__(text, "comma", "point", named, name=path.name)


@contextmanager
def opened(path: Path, sheet: str | None, named: Sequence[str]) -> Iterator[Sheet]:
    """A sheet, by default the first.

    Raises DataError for a damaged file, ConfigError for an unknown sheet.
    """
    with tempfile.TemporaryDirectory(prefix="rnnclf-", ignore_cleanup_errors=True) as folder:
        text = Path(folder, "sheet.csv")
        try:
            taken, *others = in_helper(f"{__name__}:write_as_text", str(path), sheet, str(text), reads=path)
        except ChildDied as error:
            raise DataError(
                f"{path.name} is damaged, or reading it takes too much memory or time."
            ) from error
        found = Sheet(path, text, named)
        if others and sheet is None:
            listed = excerpt(", ".join(others), 80)
            found.notes.insert(
                0, f"{path.name}: reading the sheet {excerpt(taken)}, not {listed} (dataset.sheet)."
            )
        yield found


def write_as_text(path: str, sheet: str | None, target: str) -> list[str]:
    """Writes the cells of a sheet as a CSV file, so that its line numbers are those of the rows.

    Returns the name of the sheet, and those of the others. Raises DataError or ConfigError.
    """
    name = Path(path).name
    try:
        import fastexcel

        limit_memory(_memory_for(path))
        book = fastexcel.read_excel(path)
        sheets = list(book.sheet_names)
        taken = _taken(sheets, sheet, name)
        rows = _rows(book, taken)
    except (ConfigError, DataError, MemoryError):
        raise
    except BaseException as error:  # panics of Rust are no Exceptions
        raise DataError(f"{name} is not an Excel file, is damaged or needs a password.") from error
    _refuse_untitled(rows, name, sheets)
    with open(target, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return [taken, *(other for other in sheets if other != taken)]


def _memory_for(path: str) -> int:
    """The bytes of memory that reading the file may take: two distant cells make a sheet of any size."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    return min(BASE + COPIES * size, memory_limit() or sys.maxsize)


def _taken(sheets: list[str], asked: str | None, name: str) -> str:
    if not sheets:
        raise DataError(f"{name} has no sheets.")
    if asked is None or asked in sheets:
        return sheets[0] if asked is None else asked
    raise ConfigError(
        f"{name} has no sheet '{excerpt(asked)}'.{did_you_mean(asked, sheets)} Choose dataset.sheet from:"
        f" {excerpt(', '.join(sheets), 120)}."
    )


def _rows(book: Any, sheet: str) -> list[tuple[str, ...]]:
    """The cells of all rows as text; empty ones are ''."""
    import polars as pl

    load = partial(book.load_sheet, sheet, header_row=None, skip_rows=0)
    texts, numbers = load(dtypes="string").to_polars(), load(dtypes="float").to_polars()
    columns = []
    for text, number in zip(texts, numbers, strict=True):
        # as text, numbers are rounded to nine decimals
        rounded = (text.cast(pl.Float64, strict=False) != number).fill_null(False)
        exact = number.cast(pl.String).zip_with(rounded, text)
        columns.append(exact.str.replace(TIME_OF_DAY, "").str.replace_all(r"\s+", " ").fill_null(""))
    return list(zip(*columns, strict=True))


def _refuse_untitled(rows: list[tuple[str, ...]], name: str, sheets: list[str]) -> None:
    """Raises DataError if the first row with cells does not name the columns, as a title does not."""
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if not filled:
        other = f" It has the sheets {excerpt(', '.join(sheets), 120)}: choose one with dataset.sheet."
        raise DataError(f"{name} has an empty sheet.{other if len(sheets) > 1 else ''}")
    number, header = filled[0]
    used = {column for _, row in filled for column, cell in enumerate(row) if cell}
    unnamed = [column for column in used if not header[column]]
    if len(unnamed) > 1 or (unnamed and len(used) == 2):
        raise DataError(
            f"{name}, row {number} names {len(used) - len(unnamed)} of {len(used)} columns: the first row"
            " must be a header of column names."
        )
