"""Finds the role of each column of a table: as set by options, otherwise by its name. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rnnclf.data.table.blocks import Block
from rnnclf.data.table.cells import is_numeric
from rnnclf.errors import ConfigError, DataError
from rnnclf.registry import did_you_mean

if TYPE_CHECKING:
    import polars as pl

SAMPLE = 1000  # rows to look at when deciding whether a column is numeric
NONE = "none"  # option value: there is no such column

# For each role the names that identify it; later tuples only count if no column matches an earlier one.
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
NUMBERED = re.compile(r"(.*?)(\d{1,9})$")  # t0, t1 …: the steps of a single channel


@dataclass(frozen=True)
class TableOptions:
    """The options of a table that name columns; None: find the column by its name.

    literal_names: whether words such as NA are names, and not missing entries.
    of_model: the channels of the trained model for which the table is read.
    """

    form: str
    id: str | None
    time: str | None
    label: str | None
    group: str | None
    split: str | None
    channels: tuple[str, ...] | None
    literal_names: bool = False
    of_model: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """The columns of a table by role.

    steps_TC: with one row per sequence, the columns of each step (T, C); with one row per step, the
        channels (1, C).
    """

    form: str
    id: str | None
    time: str | None
    label: str
    group: str | None
    split: str | None
    channels: tuple[str, ...]
    steps_TC: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    literal_names: bool = False

    @property
    def values(self) -> list[str]:
        """The columns with values, step by step."""
        return [name for step in self.steps_TC for name in step]

    @property
    def columns(self) -> list[str]:
        others = (self.id, self.time, self.label, self.group, self.split)
        return [*filter(None, others), *self.values]


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
        known = {*columns, *(match[1] for name in columns if (match := STEP.fullmatch(name)))}
        if known.issuperset(options.of_model):
            options = replace(options, channels=options.of_model)
    return options, notes


def find_roles(first: Block, options: TableOptions) -> Roles:
    """The roles of the columns of the table that begins with block `first`.

    Raises ConfigError if they are ambiguous, naming the option to set.
    """
    finder = _Finder(first, options)
    label = finder.find("label", "label", options.label, LABEL)
    if label is None:
        raise ConfigError(f"{finder.name}: no column is recognisable as the label. {finder.choose('label')}")
    id_ = finder.find("id", "id", options.id, ID)
    split = finder.find("split", "split_column", options.split, SPLIT)
    group = finder.find("group", "group", options.group, GROUP)
    form = finder.form(id_)
    if form == "wide" and options.time not in (None, NONE):
        raise ConfigError(
            f"dataset.time={options.time} has no effect if each row is a sequence: leave it out."
        )
    time = finder.find("time", "time", options.time, TIME) if form == "long" else None
    channels, steps_TC = finder.channels() if form == "long" else finder.steps()
    return Roles(
        form,
        id_,
        time,
        label,
        group,
        split,
        channels,
        steps_TC,
        (*finder.guesses(form), *finder.notes),
        options.literal_names,
    )


class _Finder:
    """Assigns the columns of one table to roles, each to at limit one."""

    def __init__(self, first: Block, options: TableOptions) -> None:
        self.first, self.options = first, options
        self.name = first.name
        self.columns = first.frame.columns
        named = (
            options.id,
            options.time,
            options.label,
            options.group,
            options.split,
            *(options.channels or ()),
        )
        self.taken: set[str] = set()
        self.guessed: list[str] = []
        self.notes: list[str] = []
        for name in named:
            if name in self.taken and name != NONE:
                raise ConfigError(
                    f"Two dataset options name column '{name}': a column can have only one role."
                )
            self.taken.update([] if name is None else [name])

    def choose(self, option: str) -> str:
        return f"Choose dataset.{option} from its columns: {_listed(self.columns)}."

    def find(self, role: str, option: str, asked: str | None, words: Sequence[Sequence[str]]) -> str | None:
        """The column for a role, None if there is none. Raises ConfigError."""
        if asked is not None and asked in self.columns:
            return asked
        if asked == NONE:
            return None
        if asked is not None:
            hint = did_you_mean(asked, self.columns)
            raise ConfigError(f"{self.name} has no column '{asked}'.{hint} {self.choose(option)}")
        free = [name for name in self.columns if name not in self.taken]
        candidates = next(
            filter(None, ([n for n in free if _standard_name(n) in rank] for rank in words)), []
        )
        if len(candidates) > 1:
            raise ConfigError(
                f"{self.name}: {_listed(candidates)} could each be the {role}. {self.choose(option)}"
            )
        if not candidates:
            return None
        self.taken.add(candidates[0])
        self.guessed.append(f"'{candidates[0]}' as the {role}")
        return candidates[0]

    def guesses(self, form: str) -> list[str]:
        """A note on everything that was guessed; none if nothing was."""
        row = {"long": "each row as a step", "wide": "each row as a sequence"}
        guessed = [*([row[form]] if self.options.form == "auto" else []), *self.guessed]
        return [f"{self.name}: using {', '.join(guessed)}."] if guessed else []

    def form(self, id_: str | None) -> str:
        """long or wide; if not set, long if ids repeat or a time column is named. Raises ConfigError."""
        asked = self.options.form
        repeated = id_ is not None and bool(self.first.frame[id_].drop_nulls().is_duplicated().any())
        if asked == "long" and id_ is None:
            raise ConfigError(f"{self.name}: no column is recognisable as the id. {self.choose('id')}")
        if asked != "auto":
            return asked
        free = [name for name in self.columns if name not in self.taken]
        times = [name for name in free if _standard_name(name) in TIME[0]]
        timed = self.options.time not in (None, NONE)
        if not repeated and (times or (timed and id_ is None)):
            long = "set dataset.id" if id_ is None else "set dataset.form=long"
            ids = "no id" if id_ is None else f"no '{id_}' occurs twice"
            raise ConfigError(
                f"{self.name} has times, but {ids}: {long} if each row is a step,"
                f" or dataset.form=wide if each row is a sequence. Its columns: {_listed(self.columns)}."
            )
        return "long" if repeated or timed else "wide"

    def channels(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The channels of a table with one row per step, and the columns of its one step."""
        channels = self.options.channels or self._numeric()
        self._refuse_unknown([name for name in channels if name not in self.columns], self.columns)
        self._note_untrained(channels)
        return tuple(channels), (tuple(channels),)

    def steps(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The channels of a table with one row per sequence, and the columns of each step."""
        found = {name: STEP.fullmatch(name) for name in self.columns}
        channel_of = {name: match[1] for name, match in found.items() if match}
        wanted = self.options.channels
        if wanted is not None:
            self._refuse_unknown(
                [w for w in wanted if w not in found and w not in channel_of.values()],
                [*channel_of.values(), *self.columns],
            )
            chosen = [n for n in self.columns if n in wanted or channel_of.get(n) in wanted]
            self._note_untrained(chosen)
        else:
            chosen = self._numeric()
        numbered = [name for name in chosen if name in channel_of]
        if not numbered:
            chosen = self._in_order(chosen)
            one = f"column {chosen[0]} is the only step"
            many = f"columns {chosen[0]} to {chosen[-1]} are the steps of one channel"
            self.notes.append(f"{self.name}: {one if len(chosen) == 1 else many}.")
            return ("value",), tuple((name,) for name in chosen)
        if other := [name for name in chosen if name not in channel_of]:
            raise ConfigError(
                f"{self.name}: column '{numbered[0]}' names a channel and a step, '{other[0]}' does not."
                f" Choose dataset.channels from: {_listed(list(dict.fromkeys(channel_of.values())))}."
            )
        return self._by_number({name: (m[1], int(m[2] or m[3])) for name in chosen if (m := found[name])})

    def _in_order(self, chosen: list[str]) -> list[str]:
        """The columns of the steps of one channel, by number if that is what tells their names apart.

        Raises ConfigError for a column that is no step among others that are.
        """
        found = {name: match for name in chosen if (match := NUMBERED.fullmatch(name))}
        if len({match[1] for match in found.values()}) != 1 or len(found) <= len(chosen) / 2:
            return chosen
        if other := [name for name in chosen if name not in found]:
            raise ConfigError(
                f"{self.name}: column '{next(iter(found))}' is a step, '{other[0]}' is not. List the columns"
                " of the steps in dataset.channels."
            )
        return sorted(chosen, key=lambda name: int(found[name][2]))

    def _by_number(
        self, places: dict[str, tuple[str, int]]
    ) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        present = dict.fromkeys(channel for channel, _ in places.values())
        wanted = [name for name in self.options.channels or () if name in present]
        channels = tuple(dict.fromkeys([*wanted, *present]))
        column_of = {place: name for name, place in places.items()}
        steps = sorted({step for _, step in column_of})
        for name, place in places.items():
            if column_of[place] != name:
                raise DataError(f"{self.name}: columns '{name}' and '{column_of[place]}' are the same step.")
        for channel in channels:
            for step in steps:
                if (channel, step) not in column_of:
                    raise DataError(
                        f"{self.name}: channel '{channel}' has no column for step {step}, but others have."
                        " List the channels to read in dataset.channels."
                    )
        return channels, tuple(tuple(column_of[channel, step] for channel in channels) for step in steps)

    def _numeric(self) -> list[str]:
        """The numeric columns without a role. Raises DataError if there are none."""
        sample: pl.DataFrame = self.first.frame.head(SAMPLE)
        free = [name for name in self.columns if name not in self.taken]
        numeric = [name for name in free if is_numeric(sample[name]) and not ROW_NUMBERS.fullmatch(name)]
        if other := [name for name in free if name not in numeric]:
            self.notes.append(f"{self.name}: ignored columns of text or row numbers: {_listed(other)}.")
        if not numeric:
            raise DataError(f"{self.name} has no numeric columns besides {_listed(sorted(self.taken))}.")
        return numeric

    def _note_untrained(self, read: Sequence[str]) -> None:
        """Notes the numeric columns that a trained model does not know."""
        sample = self.first.frame.head(SAMPLE)
        free = [name for name in self.columns if name not in self.taken and name not in read]
        if self.options.of_model and (extra := [name for name in free if is_numeric(sample[name])]):
            self.notes.append(
                f"{self.name}: the model was not trained on {_listed(extra)}, which"
                f" {'is' if len(extra) == 1 else 'are'} left out."
            )

    def _refuse_unknown(self, unknown: list[str], known: list[str]) -> None:
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ConfigError(f"{self.name} has no channel '{unknown[0]}'.{hint} {self.choose('channels')}")


def _standard_name(name: str) -> str:
    """The column name in a standard form: 'sequence' for 'Sequence_ID' and 'sequenceId'."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s\-.]+", "_", name.strip()).lower()
    return snake.removesuffix("_id") or snake


def _listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} … ({len(names)})" if len(names) > limit else shown
