"""Tables: CSV, TSV and Parquet, with a row for each step or for each sequence. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.cache import folder_for, identity
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Progress, Recordings, silent
from rnnclf.data.table.blocks import TableFile
from rnnclf.data.table.convert import write_sequences
from rnnclf.data.table.parquet import SUFFIXES as PARQUET
from rnnclf.data.table.parquet import ParquetFile
from rnnclf.data.table.roles import Asked, Roles, find_roles
from rnnclf.data.table.store import kept
from rnnclf.data.table.text import DELIMITERS, TextFile, is_text
from rnnclf.data.table.text import SUFFIXES as TEXT
from rnnclf.errors import DataError
from rnnclf.options import option
from rnnclf.registry import did_you_mean


@dataclass
class Table(OwnData):
    """Sequences in a table: CSV, TSV (also .gz) or Parquet.

    Long: a row for each step, with an id, channels, a label and mostly a time. Wide: a row for each
    sequence, with a label and a column for each step: t0, t1 …, or for several channels ax_0, ax_1 … ay_0 ….
    A second table at test_path is the test split. Tables are converted once, then mapped from the cache.
    """

    name: str = "table"
    form: str = option(
        "auto", "long: a row for each step; wide: a row for each sequence", choices=("auto", "long", "wide")
    )
    id: str | None = option(None, "column that tells sequences apart; null: by its name; none: there is none")
    time: str | None = option(None, "column of numbers or dates; null: by its name; none: there is none")
    label: str | None = option(None, "column of classes; null: by its name")
    channels: list[str] | None = option(  # noqa: RUF009 - None cannot be changed
        None, "columns of values; null: all other columns of numbers"
    )
    group: str | None = option(
        None, "column of what must share a split, as patients; null: by its name; none: there is none"
    )
    split_column: str | None = option(
        None, "column that says train, validation or test; null: by its name; none: there is none"
    )
    delimiter: str = option("auto", "between the columns of a text file", choices=("auto", *DELIMITERS))

    @classmethod
    def takes(cls, path: Path) -> bool:
        return is_text(path) or path.suffix.lower() in PARQUET

    def read(self, progress: Progress = silent) -> Recordings:
        paths = self.paths()
        states = [identity(path) for path in paths]
        asked = Asked(
            self.form,
            self.id,
            self.time,
            self.label,
            self.group,
            self.split_column,
            tuple(self.channels) if self.channels else None,
        )

        def build(folder: Path) -> None:
            tables = [self._table(path) for path in paths]
            found = _roles(tables, asked)
            notes = [*(note for table in tables for note in table.notes), *found.notes]
            write_sequences(tables, found, notes, folder, progress)
            if [identity(path) for path in paths] != states:
                raise DataError(f"{paths[0].name} changed while it was read: start again when it is written.")

        entry = f"{folder_for('', states[0]).name}-{folder_for('', states, vars(asked), self.delimiter).name}"
        return kept(folder_for("tables", states[0][0]) / entry, build, progress)

    def _table(self, path: Path) -> TableFile:
        if is_text(path):
            return TextFile(path, self.delimiter)
        if path.suffix.lower() in PARQUET:
            return ParquetFile(path)
        known = ", ".join((*TEXT, *PARQUET))
        raise DataError(f"{path.name} is no table by its name: {known} are read, text also as .gz.")


def _roles(tables: list[TableFile], asked: Asked) -> Roles:
    """The roles of the columns of the first table, which the others must have, too."""
    first = tables[0]
    block = next(first.blocks(first.columns if asked.channels is None else first.plain))
    found = find_roles(block, asked)
    for table in tables[1:]:
        for column in found.columns:
            if column not in table.columns:
                hint = did_you_mean(column, table.columns)
                raise DataError(f"{table.name} has no column '{column}', as {first.name} has.{hint}")
    return found
