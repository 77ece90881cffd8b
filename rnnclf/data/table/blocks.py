"""The base class of the readers of tables, which come in blocks of bounded size. Torch-free.

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

BLOCK = 2**24  # bytes of text or of Parquet values to read at a time
MOST_COLUMNS = 100_000


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a table. lines_R: int64, the line at which each begins in its file, counted from 1.

    The columns of `frame` are strings if the file is text, otherwise of the types in the file.
    """

    name: str
    unit: str
    frame: pl.DataFrame
    lines_R: Array
    share: float
    """The fraction of the file read so far, from 0 to 1."""

    def place(self, row: int) -> str:
        return f"{self.name}, {self.unit} {self.lines_R[row]}"


class TableFile:
    """A table file: its column names, and its rows in blocks."""

    unit = "line"
    columns: tuple[str, ...]
    plain: tuple[str, ...]
    """The columns with a single value per cell."""
    row_is_sequence = False
    """Whether each row of the file is a sequence, although each row of its blocks is a step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.notes: list[str] = []

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """All rows with the given columns. Raises DataError if there are none or the file is damaged."""
        raise NotImplementedError

    def _checked_names(self, names: Sequence[str]) -> None:
        """Raises DataError for too many columns, and for duplicate names."""
        if len(names) > MOST_COLUMNS:
            raise DataError(
                f"{self.name} has {len(names):,} columns; at most {MOST_COLUMNS:,} are supported."
            )
        seen: set[str] = set()
        for name in filter(None, names):
            if name in seen:
                raise DataError(f"{self.name} has two columns named '{name}': column names must be unique.")
            seen.add(name)


def suffix_of(path: Path) -> str:
    """The suffix in lower case, for a .gz file that of what is packed in it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:])


@contextmanager
def errors_of_reading(name: str) -> Iterator[None]:
    """Converts errors of the file system and of gzip to DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} cannot be decompressed ({error}): is it damaged?") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error


@contextmanager
def errors_of_polars(what: str) -> Iterator[None]:
    """Converts the many errors that polars raises for damaged files to DataError."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{what} cannot be read ({first[:200]}).") from error
