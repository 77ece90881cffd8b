"""The file formats of tables, by suffix. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.refused import advice
from rnnclf.data.table import columnar, excel, json_lines, text
from rnnclf.data.table.blocks import TableFile, suffix_of
from rnnclf.errors import DataError

TYPED = (*columnar.SUFFIXES, *excel.SUFFIXES)  # these cannot be compressed again
FORMS = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".feather", ".jsonl")  # as messages list them


@dataclass(frozen=True)
class Reading:
    """How to read a table file, as far as options say so.

    named: columns that options name. without_id: no option names the column with the ids.
    """

    delimiter: str = "auto"
    decimal: str = "auto"
    sheet: str | None = None
    named: Sequence[str] = ()
    without_id: bool = True


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return suffix_of(path) in (*text.SUFFIXES, *json_lines.SUFFIXES) or path.suffix.lower() in TYPED


@contextmanager
def table_file(path: Path, reading: Reading) -> Iterator[TableFile]:
    """Opens a table file. Raises DataError or ConfigError."""
    if suffix_of(path) in text.SUFFIXES:
        yield text.TextFile(path, reading.delimiter, reading.decimal, reading.named)
    elif suffix_of(path) in json_lines.SUFFIXES:
        yield json_lines.JsonLines(path, reading.without_id)
    elif path.suffix.lower() in columnar.SUFFIXES:
        yield columnar.tried(path)
    elif path.suffix.lower() in excel.SUFFIXES:
        with excel.opened(path, reading.sheet, reading.named) as sheet:
            yield sheet
    else:
        known = ", ".join(FORMS)
        raise DataError(
            f"{path.name} is not a table: its name should end in {known}; text may also be .gz.{advice(path)}"
        )
