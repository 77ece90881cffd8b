"""What the readers of text and Parquet have in common: tables in blocks of bounded size. Torch-free.

Shapes: R rows of a block.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

BLOCK = 2**24  # bytes of text, or of the values of a Parquet file, at a time
MOST_COLUMNS = 100_000


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a table. lines_R: int64, where each begins in its file, counted from 1.

    The columns of `frame` are strings where the file is text, else what the file says.
    """

    name: str
    unit: str
    frame: pl.DataFrame
    lines_R: Array
    share: float
    """How much of the file has been read, from 0 to 1."""

    def place(self, row: int) -> str:
        return f"{self.name}, {self.unit} {self.lines_R[row]}"


class TableFile:
    """A table on the disk: the names of its columns, and its rows in blocks."""

    unit = "line"
    columns: tuple[str, ...]
    plain: tuple[str, ...]
    """The columns whose cells hold one value each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.notes: list[str] = []

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """All rows, at least one, with some of the columns. Raises DataError where the file is damaged."""
        raise NotImplementedError

    def _checked_names(self, names: Sequence[str]) -> None:
        """Raises DataError for too many columns, and for two of one name."""
        if len(names) > MOST_COLUMNS:
            raise DataError(f"{self.name} has {len(names):,} columns; up to {MOST_COLUMNS:,} are read.")
        seen: set[str] = set()
        for name in filter(None, names):
            if name in seen:
                raise DataError(f"{self.name} has two columns named '{name}': give each its own name.")
            seen.add(name)


@contextmanager
def errors_of_reading(name: str) -> Iterator[None]:
    """The errors of the file system and of gzip as DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} cannot be unpacked ({error}): is it damaged?") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error


@contextmanager
def errors_of_polars(what: str) -> Iterator[None]:
    """The errors of polars, which are of many kinds for damaged files, as DataError."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{what} cannot be read ({first[:200]}).") from error
