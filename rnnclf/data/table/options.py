"""The options of a table that say how to read its columns, also for a trained model. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rnnclf.data.table.wide import places

NONE = "none"  # option value: there is no such column


@dataclass(frozen=True)
class TableOptions:
    """The options of a table that say how to read its columns; None: find the column by name and values.

    missing: what marks missing values, None for the usual words.
    of_model: the channels of the trained model for which the table is read.
    categorical: the channels of names; others are added, unless the table is read for a model.
    row_labels: whether the label may change from row to row, because windows are cut.
    """

    form: str
    id: tuple[str, ...] | None
    time: str | None
    label: str | None
    group: str | None
    split: str | None
    channels: tuple[str, ...] | None
    missing: tuple[float | str, ...] | None = None
    time_format: str | None = None
    of_model: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    row_labels: bool = False


def for_model(options: TableOptions, table: str, columns: Sequence[str]) -> tuple[TableOptions, list[str]]:
    """The options to read a table for a trained model, with notes.

    Only the model's channels are read, if the table has them, and a column that only a split needs may be
    missing: no sequence is grouped or assigned to a split by it.
    """
    notes = []
    for option, named in (("group", options.group), ("split_column", options.split)):
        if named not in (None, NONE) and named not in columns:
            options = replace(options, group=NONE) if option == "group" else replace(options, split=NONE)
            notes.append(f"{table} has no column '{named}' (dataset.{option}): done without.")
    if options.channels is None:
        known = {*columns, *(channel for channel, _ in places(columns).values())}
        if known.issuperset(options.of_model):
            options = replace(options, channels=options.of_model)
    return options, notes
