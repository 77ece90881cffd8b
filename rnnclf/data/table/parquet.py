"""Parquet files in blocks. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.table.blocks import BLOCK, Block, TableFile, errors_of_polars, errors_of_reading
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".parquet", ".pq")
MAGIC = b"PAR1"  # the first four and the last four bytes


class ParquetFile(TableFile):
    unit = "row"

    def __init__(self, path: Path) -> None:
        import polars as pl

        super().__init__(path)
        with errors_of_reading(self.name), open(path, "rb") as file:
            first = file.read(len(MAGIC))
            file.seek(max(path.stat().st_size - len(MAGIC), 0))
            last = file.read()
        if first != MAGIC:
            raise DataError(f"{self.name} is not a Parquet file: it does not start with {MAGIC.decode()}.")
        if last != MAGIC or path.stat().st_size < 3 * len(MAGIC):
            raise DataError(f"{self.name} is truncated: it does not end with {MAGIC.decode()}.")
        with errors_of_polars(self.name):
            self._types = dict(self._scan().collect_schema())
            self._rows = int(self._scan().select(pl.len()).collect().item())
        self.columns = tuple(self._types)
        self.plain = tuple(name for name, kind in self._types.items() if not kind.is_nested())
        self._checked_names(self.columns)

    def _scan(self) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_parquet(self.path, glob=False, hive_partitioning=False)

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
