"""Tables of text, of Parquet and so on, with one row per step or one row per sequence. Torch-free."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rnnclf.data.cache import folder_for, identity
from rnnclf.data.changes import refuse_changed
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Progress, Recordings, silent
from rnnclf.data.table.blocks import TableFile
from rnnclf.data.table.columnar import FrameTable
from rnnclf.data.table.convert import write_sequences
from rnnclf.data.table.files import FORMS, Reading, is_table, table_file
from rnnclf.data.table.finder import find_roles
from rnnclf.data.table.options import NONE, TableOptions, for_model
from rnnclf.data.table.roles import Roles
from rnnclf.data.table.store import built_elsewhere, cached, opened
from rnnclf.data.table.text import DELIMITERS
from rnnclf.errors import ConfigError, DataError
from rnnclf.options import option
from rnnclf.registry import did_you_mean

if TYPE_CHECKING:
    from rnnclf.data.base import Learned

ADDED = (
    "of_model",
    "sheet",
    "categorical",
    "row_labels",
    "lenient",
    "aside",
)  # options that older entries of the cache do not know


@dataclass
class Table(OwnData):
    """Sequences in a table: CSV, TSV, JSON lines (each also .gz), Excel, Parquet or Feather.

    Long: one row per step, with an id, a label, channels and usually a time. Wide: one row per sequence,
    with a label and one column per step: t0, t1 …, or with several channels ax_0, ax_1 … ay_0 …. In JSON
    lines, Parquet and Feather files a row may also hold the values of a sequence in lists.
    A second table, at test_path, is the test split. Tables are converted once, then mapped from the cache.
    """

    READS: ClassVar[str] = f"tables ({', '.join(FORMS)})"

    name: str = "table"
    form: str = option(
        "auto",
        "long: one row per step; wide: one row per sequence; auto: guessed",
        choices=("auto", "long", "wide"),
    )
    id: Any = option(  # noqa: RUF009 - None cannot be changed
        None,
        "column that identifies the sequence, or a list of columns that do so together, as [session,trial];"
        " null: found by name or values; none: no such column",
        expects="the name of a column or a list of names such as [session,trial]",
    )
    time: str | None = option(
        None,
        "column with numbers or dates to sort steps by; null: found by name or values; none: no such column",
    )
    time_format: str | None = option(
        None, "how dates are written, as %d.%m.%Y %H:%M:%S; null: seen from the dates if they are unambiguous"
    )
    label: str | None = option(None, "column with the class; null: found by name or values")
    channels: list[str] | None = option(  # noqa: RUF009 - None cannot be changed
        None, "columns with values; null: all other numeric columns that are no ids, times or row numbers"
    )
    categorical: list[str] | None = option(  # noqa: RUF009 - None cannot be changed
        None,
        "channels whose values are names rather than numbers, such as codes of pages; null: those of words",
    )
    group: str | None = option(
        None,
        "column with groups, such as patients, that must stay in one split; null: found by its name;"
        " none: no such column",
    )
    split_column: str | None = option(
        None, "column with train, validation or test; null: found by its name; none: no such column"
    )
    missing_values: list[Any] | None = option(  # noqa: RUF009 - None cannot be changed
        None,
        "what is read as missing besides empty cells: words, in all columns, and numbers, in channels;"
        " null: NaN, NA, n/a, null, None, ? and -; []: nothing else",
        expects="a list of numbers and words such as [-9999,unknown]",
    )
    decimal: str = option(
        "auto",
        "the decimal mark of numbers in a text file; auto: seen from the numbers",
        choices=("auto", "point", "comma"),
    )
    delimiter: str = option(
        "auto",
        "separator between the columns of a text file; auto: guessed from the file",
        choices=("auto", *DELIMITERS),
    )
    sheet: str | None = option(None, "the sheet of an Excel file; null: the first")

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = self.id if isinstance(self.id, list | tuple) else [self.id or ""]
        if not ids or not all(isinstance(name, str | int) for name in ids):
            raise ConfigError("dataset.id must be the name of a column or a list such as [session,trial].")
        for value in self.missing_values or ():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ConfigError(
                    "dataset.missing_values must be a list of numbers and words such as [-9999,unknown]."
                )

    @classmethod
    def takes(cls, path: Path) -> bool:
        return is_table(path)

    def read(self, progress: Progress = silent) -> Recordings:
        return self._converted(self._options(), progress)

    def read_for_model(
        self, channels: tuple[str, ...], progress: Progress = silent, names: tuple[str, ...] = ()
    ) -> Recordings:
        options = self._options()
        as_trained = opened(self._folder(options))
        if (
            as_trained is not None
            and as_trained.channels == channels
            and {*as_trained.categories} == {*names}
        ):
            return as_trained
        return self._converted(replace(options, of_model=channels, categorical=names), progress)

    def read_unlabelled(
        self, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        return self._unlabelled(learned, self._opened, progress, lenient)

    def read_frame(self, frame: Any, learned: Learned) -> Recordings:
        """The sequences of a data frame of polars with the columns of the training data, without labels."""

        @contextmanager
        def opened() -> Iterator[list[TableFile]]:
            yield [FrameTable(frame)]

        return self._unlabelled(learned, opened, silent, False)

    def _unlabelled(
        self,
        learned: Learned,
        tables: Callable[[], AbstractContextManager[list[TableFile]]],
        progress: Progress,
        lenient: bool,
    ) -> Recordings:
        """The sequences of tables for a trained model, in the order in which they come; none is kept."""
        options = self._as_trained(learned)
        import numpy as np

        options = replace(options, labelled=False, lenient=lenient)
        truth: list[str | None] = []

        def build(folder: Path) -> None:
            with tables() as found:
                truth[:] = _write(found, options, folder, progress)

        recordings = built_elsewhere(build, f"to {tempfile.gettempdir()}", "TMPDIR")
        return replace(recordings, truth_N=np.array(truth, dtype=object)) if truth else recordings

    def _as_trained(self, learned: Learned) -> TableOptions:
        """The options that name the columns of the training data, as far as these are known."""
        options, known = self._options(), learned.training.columns
        preparation = learned.preparation
        options = replace(options, of_model=preparation.channels, categorical=tuple(preparation.vocabularies))
        if not known:
            return options
        wide = known["form"] == "wide"
        return replace(
            options,
            form=known["form"],
            id=options.id or tuple(known["id"]) or (None if wide else (NONE,)),
            time=None if wide else options.time or known["time"] or NONE,
            label=options.label or known["label"],
            aside=tuple(known["aside"]),
            channels=options.channels or tuple(known["steps"]) or None,
        )

    @contextmanager
    def _opened(self) -> Iterator[list[TableFile]]:
        """The tables at the paths, which must not change meanwhile."""
        paths = self.paths()
        versions = [identity(path) for path in paths]
        reading = Reading(self.delimiter, self.decimal, self.sheet, self._columns(), self.id is None)
        with ExitStack() as stack:
            tables = [stack.enter_context(table_file(path, reading)) for path in paths]
            self._refuse_folded(tables)
            yield tables
        refuse_changed(versions)

    def _options(self) -> TableOptions:
        return TableOptions(
            self.form,
            self._ids(),
            self.time,
            self.label,
            self.group,
            self.split_column,
            tuple(self.channels) if self.channels else None,
            tuple(self.missing_values) if self.missing_values is not None else None,
            self.time_format,
            categorical=tuple(self.categorical or ()),
            row_labels=self.window is not None,
        )

    def _ids(self) -> tuple[str, ...] | None:
        if self.id is None:
            return None
        return tuple(str(name) for name in (self.id if isinstance(self.id, list | tuple) else [self.id]))

    def _columns(self) -> list[str]:
        """The columns that options name."""
        named = (self.time, self.label, self.group, self.split_column)
        return [*filter(None, named), *(self._ids() or ()), *(self.channels or ()), *(self.categorical or ())]

    def _folder(self, options: TableOptions) -> Path:
        """The cache folder of the converted tables; it may not exist yet."""
        versions = [identity(path) for path in self.paths()]
        first = folder_for("", versions[0]).name
        facts = {key: value for key, value in vars(options).items() if key != "labelled"}
        facts["sheet"] = self.sheet
        facts = {key: value for key, value in facts.items() if key not in ADDED or value}
        entry = f"{first}-{folder_for('', versions, facts, self.delimiter, self.decimal).name}"
        return folder_for("tables", versions[0][0]) / entry

    def _converted(self, options: TableOptions, progress: Progress) -> Recordings:
        def build(folder: Path) -> None:
            with self._opened() as tables:
                _write(tables, options, folder, progress)

        return cached(self._folder(options), build, progress)

    def _refuse_folded(self, tables: list[TableFile]) -> None:
        """Raises ConfigError for options that contradict rows with the values of a sequence in lists."""
        for table in tables:
            for word, given in (("form=wide", self.form == "wide"), ("id=none", self._ids() == (NONE,))):
                if table.row_is_sequence and given:
                    raise ConfigError(
                        f"Each {table.unit} of {table.name} holds a sequence in lists: leave out"
                        f" dataset.{word}."
                    )


def _write(
    tables: list[TableFile], options: TableOptions, folder: Path, progress: Progress
) -> list[str | None]:
    """Converts the tables into an empty folder. Returns the labels of a table that is read without."""
    found = _roles(tables, options)
    notes = [*(note for table in tables for note in table.notes), *found.notes]
    return write_sequences(tables, found, notes, folder, progress)


def _roles(tables: list[TableFile], options: TableOptions) -> Roles:
    """The roles of the columns of the first table; the other tables must have the same columns."""
    first, notes = tables[0], list[str]()
    if first.row_is_sequence:  # its blocks have a row for each step, even if each sequence has only one
        options = replace(options, form="long")
    if options.of_model:
        options, notes = for_model(options, first.name, first.plain)
    block = next(first.blocks(first.columns if options.channels is None else first.plain))
    found = find_roles(block, options)
    for table in tables[1:]:
        for column in found.columns:
            if column not in table.columns:
                hint = did_you_mean(column, table.columns)
                raise DataError(f"{table.name} has no column '{column}', which {first.name} has.{hint}")
    return replace(found, notes=(*found.notes, *notes))
