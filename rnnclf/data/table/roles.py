"""Which column of a table is what: as the user says, else what is plain by its name. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnclf.data.table.blocks import Block
from rnnclf.data.table.cells import is_numeric
from rnnclf.errors import ConfigError, DataError
from rnnclf.registry import did_you_mean

if TYPE_CHECKING:
    import polars as pl

SAMPLE = 1000  # rows that decide whether a column holds numbers or text
NONE = "none"  # for an option: there is no such column

# For each role the names that are plain; those behind only where none of those before is there.
ID = (
    ("id", "uid", "sequence", "seq", "series", "sample", "record", "recording", "case", "trial", "instance"),
    ("example", "segment"),
)
TIME = (("time", "timestamp", "datetime", "date"), ("t", "step", "index"))
LABEL = (("label", "class", "target", "category"), ("y",))
GROUP = (("group", "patient", "subject", "person"),)
SPLIT = (("split",),)

ROW_NUMBERS = re.compile(r"Unnamed: \d+|__index_level_\d+__")  # columns that pandas adds
STEP = re.compile(r"(.*[^\W\d_].*?)(?:[_.](\d{1,9})|\[(\d{1,9})\])$")


@dataclass(frozen=True)
class Asked:
    """The options of a table that name columns; None: by its name."""

    form: str
    id: str | None
    time: str | None
    label: str | None
    group: str | None
    split: str | None
    channels: tuple[str, ...] | None


@dataclass(frozen=True)
class Roles:
    """The columns of a table. steps_TC: with a row for each sequence, the columns of each step (T, C);
    with a row for each step, the channels (1, C)."""

    form: str
    id: str | None
    time: str | None
    label: str
    group: str | None
    split: str | None
    channels: tuple[str, ...]
    steps_TC: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def values(self) -> list[str]:
        """The columns of values, step by step."""
        return [name for step in self.steps_TC for name in step]

    @property
    def columns(self) -> list[str]:
        others = (self.id, self.time, self.label, self.group, self.split)
        return [*filter(None, others), *self.values]


def find_roles(first: Block, asked: Asked) -> Roles:
    """The roles of the columns of a table that begins with `first`.

    Raises ConfigError where they are not plain, with the option that would make them so.
    """
    finder = _Finder(first, asked)
    label = finder.find("label", "label", asked.label, LABEL)
    if label is None:
        raise ConfigError(f"{finder.name}: no column is plainly the label. {finder.choose('label')}")
    id_ = finder.find("id", "id", asked.id, ID)
    split = finder.find("split", "split_column", asked.split, SPLIT)
    group = finder.find("group", "group", asked.group, GROUP)
    form = finder.form(id_)
    if form == "wide" and asked.time not in (None, NONE):
        raise ConfigError(f"dataset.time={asked.time} says nothing of rows that are sequences: leave it out.")
    time = finder.find("time", "time", asked.time, TIME) if form == "long" else None
    channels, steps_TC = finder.channels() if form == "long" else finder.steps()
    return Roles(
        form, id_, time, label, group, split, channels, steps_TC, (*finder.guesses(form), *finder.notes)
    )


class _Finder:
    """Gives the columns of one table away, each to one role."""

    def __init__(self, first: Block, asked: Asked) -> None:
        self.first, self.asked = first, asked
        self.name = first.name
        self.columns = first.frame.columns
        named = (asked.id, asked.time, asked.label, asked.group, asked.split, *(asked.channels or ()))
        self.taken: set[str] = set()
        self.guessed: list[str] = []
        self.notes: list[str] = []
        for name in named:
            if name in self.taken and name != NONE:
                raise ConfigError(f"The options of the table name column '{name}' twice: once is enough.")
            self.taken.update([] if name is None else [name])

    def choose(self, option: str) -> str:
        return f"Choose dataset.{option} from its columns: {_listed(self.columns)}."

    def find(self, role: str, option: str, asked: str | None, words: Sequence[Sequence[str]]) -> str | None:
        """The column of a role, None where there is none."""
        if asked is not None and asked in self.columns:
            return asked
        if asked == NONE:
            return None
        if asked is not None:
            hint = did_you_mean(asked, self.columns)
            raise ConfigError(f"{self.name} has no column '{asked}'.{hint} {self.choose(option)}")
        free = [name for name in self.columns if name not in self.taken]
        candidates = next(filter(None, ([n for n in free if _bare(n) in rank] for rank in words)), [])
        if len(candidates) > 1:
            raise ConfigError(
                f"{self.name}: {_listed(candidates)} can each be the {role}. {self.choose(option)}"
            )
        if not candidates:
            return None
        self.taken.add(candidates[0])
        self.guessed.append(f"'{candidates[0]}' for the {role}")
        return candidates[0]

    def guesses(self, form: str) -> list[str]:
        """What nobody asked for, in one sentence."""
        row = {"long": "each row for a step", "wide": "each row for a sequence"}
        guessed = [*([row[form]] if self.asked.form == "auto" else []), *self.guessed]
        return [f"{self.name}: took {', '.join(guessed)}."] if guessed else []

    def form(self, id_: str | None) -> str:
        """long or wide; a row for each step where ids come again."""
        asked = self.asked.form
        repeated = id_ is not None and bool(self.first.frame[id_].drop_nulls().is_duplicated().any())
        if asked == "long" and id_ is None:
            raise ConfigError(f"{self.name}: no column plainly names the sequences. {self.choose('id')}")
        if asked != "auto":
            return asked
        free = [name for name in self.columns if name not in self.taken]
        times = [name for name in free if _bare(name) in TIME[0]]
        if not repeated and (times or self.asked.time not in (None, NONE)):
            raise ConfigError(
                f"{self.name} has times, and no id that comes again: set dataset.id where each row is a step,"
                f" dataset.form=wide where it is a sequence. Its columns: {_listed(self.columns)}."
            )
        return "long" if repeated else "wide"

    def channels(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The channels of a table with a row for each step."""
        channels = self.asked.channels or self._numeric()
        self._refuse_unknown([name for name in channels if name not in self.columns], self.columns)
        return tuple(channels), (tuple(channels),)

    def steps(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The channels of a table with a row for each sequence, and the columns of each step."""
        found = {name: STEP.fullmatch(name) for name in self.columns}
        channel_of = {name: match[1] for name, match in found.items() if match}
        wanted = self.asked.channels
        if wanted is not None:
            self._refuse_unknown(
                [w for w in wanted if w not in found and w not in channel_of.values()],
                [*channel_of.values(), *self.columns],
            )
            chosen = [n for n in self.columns if n in wanted or channel_of.get(n) in wanted]
        else:
            chosen = self._numeric()
        numbered = [name for name in chosen if name in channel_of]
        if not numbered:
            self.notes.append(
                f"{self.name}: the steps are the columns {chosen[0]} to {chosen[-1]}, one channel."
            )
            return ("value",), tuple((name,) for name in chosen)
        if other := [name for name in chosen if name not in channel_of]:
            raise ConfigError(
                f"{self.name}: column '{numbered[0]}' names a channel and a step, '{other[0]}' does not."
                f" Choose dataset.channels: {_listed(list(dict.fromkeys(channel_of.values())))}."
            )
        return self._by_number({name: (m[1], int(m[2] or m[3])) for name in chosen if (m := found[name])})

    def _by_number(
        self, places: dict[str, tuple[str, int]]
    ) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        there = dict.fromkeys(channel for channel, _ in places.values())
        wanted = [name for name in self.asked.channels or () if name in there]
        channels = tuple(dict.fromkeys([*wanted, *there]))
        column_of = {place: name for name, place in places.items()}
        steps = sorted({step for _, step in column_of})
        for name, place in places.items():
            if column_of[place] != name:
                raise DataError(f"{self.name}: columns '{name}' and '{column_of[place]}' are the same step.")
        for channel in channels:
            for step in steps:
                if (channel, step) not in column_of:
                    raise DataError(
                        f"{self.name}: channel '{channel}' has no column for step {step}, others have."
                        " Name the channels to read in dataset.channels."
                    )
        return channels, tuple(tuple(column_of[channel, step] for channel in channels) for step in steps)

    def _numeric(self) -> list[str]:
        """The columns without a role that hold numbers."""
        sample: pl.DataFrame = self.first.frame.head(SAMPLE)
        free = [name for name in self.columns if name not in self.taken]
        numeric = [name for name in free if is_numeric(sample[name]) and not ROW_NUMBERS.fullmatch(name)]
        if other := [name for name in free if name not in numeric]:
            self.notes.append(f"{self.name}: left out, as text or row numbers: {_listed(other)}.")
        if not numeric:
            raise DataError(f"{self.name} has no column of numbers beside {_listed(sorted(self.taken))}.")
        return numeric

    def _refuse_unknown(self, unknown: list[str], known: list[str]) -> None:
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ConfigError(f"{self.name} has no channel '{unknown[0]}'.{hint} {self.choose('channels')}")


def _bare(name: str) -> str:
    """The word in the name of a column: 'sequence' for 'Sequence_ID' and 'sequenceId'."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s\-.]+", "_", name.strip()).lower()
    return snake.removesuffix("_id") or snake


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} … ({len(names)})" if len(names) > most else shown
