"""The options of a table that say how to read its columns, also for a trained model. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rnnclf.data.recordings import numbered
from rnnclf.data.table.wide import places
from rnnclf.errors import DataError
from rnnclf.registry import did_you_mean

NONE = "none"  # option value: there is no such column


@dataclass(frozen=True)
class TableOptions:
    """The options of a table that say how to read its columns; None: find the column by name and values.

    missing: what marks missing values, None for the usual words.
    of_model: the channels of the trained model for which the table is read.
    categorical: the channels of names; others are added, unless the table is read for a model.
    row_labels: whether the label may change from row to row, because windows are cut.
    labelled: whether sequences need labels; without, the label is a column that is left out.
    aside: columns that are no channels, and are not told as such.
    lenient: whether what is no number is read as infinite, instead of being refused.
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
    labelled: bool = True
    lenient: bool = False
    aside: tuple[str, ...] = ()


def for_model(options: TableOptions, table: str, columns: Sequence[str]) -> tuple[TableOptions, list[str]]:
    """The options to read a table for a trained model, with notes.

    Only the model's channels are read, if the table has them, and a column that only a split needs may be
    missing: no sequence is grouped or assigned to a split by it.
    """
    notes: list[str] = []
    if not options.labelled:
        options, notes = _for_prediction(options, table, columns)
    for option, named in (("group", options.group), ("split_column", options.split)):
        if named not in (None, NONE) and named not in columns:
            options = replace(options, group=NONE) if option == "group" else replace(options, split=NONE)
            notes.append(f"{table} has no column '{named}' (dataset.{option}): done without.")
    if options.channels is None:
        known = {*columns, *(channel for channel, _ in places(columns).values())}
        if known.issuperset(options.of_model):
            options = replace(options, channels=options.of_model)
    return options, notes


def _for_prediction(
    options: TableOptions, table: str, columns: Sequence[str]
) -> tuple[TableOptions, list[str]]:
    """The options without the columns that are missing and not needed to classify, with notes.

    Raises DataError if a channel of the model is missing.
    """
    notes = []
    if options.time not in (None, NONE, *columns):
        notes.append(f"{table} has no column '{options.time}': steps are taken in the order of the rows.")
        options = replace(options, time=NONE)
    if options.form == "wide" and options.id and not {*options.id} <= {*columns}:
        notes.append(f"{table} has no column '{' and '.join(options.id)}': sequences are called by numbers.")
        options = replace(options, id=(NONE,))
    label = options.label if options.label in columns else None
    wanted = options.channels or options.of_model
    known = {*columns, *(channel for channel, _ in places(columns).values())}
    lacking = [name for name in wanted if name not in known]
    nameless = not options.channels and (wanted == ("value",) or wanted == numbered(len(wanted)))
    if lacking and not nameless:
        named = ", ".join(f"'{name}'" for name in lacking[:12])
        what = "a column of that name" if len(lacking) == 1 else "columns of these names"
        hint = did_you_mean(lacking[0], columns)
        raise DataError(f"{table} has no {named}: the model was trained on {what}.{hint}")
    return replace(options, label=label, group=NONE, split=NONE), notes
