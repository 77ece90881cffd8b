"""Parquet and Feather files in blocks. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.table.blocks import BLOCK, Block, TableFile, errors_of_polars, errors_of_reading
from rnnclf.errors import DataError
from rnnclf.system.fork import ChildDied
from rnnclf.system.helper import in_helper

if TYPE_CHECKING:
    import polars as pl

PARQUET = (".parquet", ".pq")
FEATHER = (".feather", ".arrow", ".ipc")
SUFFIXES = (*PARQUET, *FEATHER)
MAGIC = {"Parquet": b"PAR1", "Feather": b"ARROW1"}  # how these files begin and end
STREAM = b"\xff\xff\xff\xff"  # how a stream of Arrow begins
FEATHER_1 = b"FEA1"


class ColumnarFile(TableFile):
    """A Parquet or Feather file, read by polars. See `tried` for damaged ones."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        import polars as pl

        super().__init__(path)
        self._is_parquet = path.suffix.lower() in PARQUET
        self._check_ends("Parquet" if self._is_parquet else "Feather")
        with errors_of_polars(self.name):
            self._types = dict(self._scan().collect_schema())
            self._rows = int(self._scan().select(pl.len()).collect().item())
        self.columns = tuple(self._types)
        self.plain = tuple(name for name, kind in self._types.items() if not kind.is_nested())
        self._checked_names(self.columns)

    def _check_ends(self, kind: str) -> None:
        """Raises DataError unless the file begins and ends as one of its kind."""
        magic = MAGIC[kind]
        with errors_of_reading(self.name), open(self.path, "rb") as file:
            first = file.read(len(magic))
            file.seek(max(self.path.stat().st_size - len(magic), 0))
            last = file.read()
        if kind == "Feather" and first.startswith((STREAM, FEATHER_1)):
            what = "a stream of Arrow" if first.startswith(STREAM) else "a Feather file of version 1"
            raise DataError(
                f"{self.name} is {what}, which is not read: save it as a Feather or Parquet file."
            )
        if first != magic:
            raise DataError(f"{self.name} is not a {kind} file: it does not start with {magic.decode()}.")
        if last != magic or self.path.stat().st_size < 3 * len(magic):
            raise DataError(f"{self.name} is truncated: it does not end with {magic.decode()}.")

    def _scan(self) -> pl.LazyFrame:
        import polars as pl

        if self._is_parquet:
            return pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        return pl.scan_ipc(self.path, glob=False, hive_partitioning=False)

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        import numpy as np
        from polars.selectors import by_name

        if not self._rows:
            raise DataError(f"{self.name} has no rows.")
        for name in columns:
            if name not in self.plain:
                raise DataError(
                    f"{self.name}: column '{name}' holds lists or structures: save one row per step"
                    " or one column per step."
                )
        limit = max(BLOCK // (8 * max(len(columns), 1)), 1)
        for begin in range(0, self._rows, limit):
            with errors_of_polars(self.name):
                frame = self._scan().select(by_name(columns)).slice(begin, limit).collect()
            end = begin + len(frame)
            if end != min(begin + limit, self._rows):
                raise DataError(f"{self.name} has fewer rows than its metadata claim: it is damaged.")
            yield Block(self.name, self.unit, frame, np.arange(begin + 1, end + 1), end / self._rows)


def tried(path: Path) -> ColumnarFile:
    """The file, which another process has read once: polars aborts its process on some damaged files.

    Raises DataError.
    """
    try:
        in_helper(f"{__name__}:read_through", str(path), reads=path)
    except ChildDied as error:
        raise DataError(f"{path.name} is damaged, or reading it takes too much memory or time.") from error
    return ColumnarFile(path)


def read_through(path: str) -> None:
    """Reads the whole file and keeps nothing. Raises DataError."""
    file = ColumnarFile(Path(path))
    for _ in file.blocks(file.plain) if file.plain else ():
        pass


class FrameTable(TableFile):
    """A data frame of polars in memory."""

    unit = "row"

    def __init__(self, frame: pl.DataFrame) -> None:
        super().__init__(Path("X"))
        self._frame = frame
        self.columns = tuple(frame.columns)
        self.plain = tuple(name for name, kind in frame.schema.items() if not kind.is_nested())

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        import numpy as np

        if not len(self._frame):
            raise DataError(f"{self.name} has no rows.")
        lines_R = np.arange(1, len(self._frame) + 1)
        yield Block(self.name, self.unit, self._frame.select(columns), lines_R, 1.0)
