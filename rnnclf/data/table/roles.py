"""What each column of a table is. Torch-free.  Shapes: T steps of a row, C channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rnnclf.data.table.cells import USUAL, Missing
from rnnclf.data.table.wide import Steps, numbered


@dataclass(frozen=True)
class Roles:
    """The columns of a table by role.

    label: None if the table is read without labels: then sequences keep the order in which they come.
    id: the columns that identify a sequence together; none if each row is a sequence, or a step of the only
        recording.
    steps_TC: with one row per sequence, the columns of each step (T, C); with one row per step, the
        channels (1, C).
    time_kind: how times are written, see rnnclf.data.table.times.
    categorical: the channels whose values are names.
    ignored: columns that are no channels because of what their first values are, with what that is.
    """

    form: str
    id: tuple[str, ...]
    time: str | None
    label: str | None
    group: str | None
    split: str | None
    channels: tuple[str, ...]
    steps_TC: Steps
    notes: tuple[str, ...]
    missing: Missing = USUAL
    time_kind: str = "number"
    categorical: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    row_labels: bool = False
    lenient: bool = False
    """Whether what is no number is read as infinite, instead of being refused."""
    truth: str | None = None
    """A column with labels of a table that is read without: they are kept, whatever it holds."""

    @property
    def channel_of(self) -> dict[str, str]:
        """The channel of each column with values."""
        steps = (zip(step, self.channels, strict=True) for step in self.steps_TC)
        return {column: channel for step in steps for column, channel in step}

    @property
    def id_words(self) -> str:
        return " and ".join(self.id) or "recording"

    @property
    def values(self) -> list[str]:
        """The columns with values, step by step."""
        return [name for step in self.steps_TC for name in step]

    def to_plain(self) -> dict[str, Any]:
        """What another table of the same kind is read by: form, id, time and label, the columns that only
        splits need (aside), and the columns of the steps if their names have no numbers."""
        steps = [] if self.form == "long" or len(self.channels) > 1 else self.values
        return {
            "form": self.form,
            "id": list(self.id),
            "time": self.time,
            "label": self.label,
            "aside": list(filter(None, (self.group, self.split))),
            "steps": [] if numbered(steps) else steps,
        }

    @property
    def columns(self) -> list[str]:
        others = (*self.id, self.time, self.label, self.group, self.split, self.truth)
        return list(dict.fromkeys([*filter(None, others), *self.values]))
