"""Finds the role of each column of a table: by options, by its name or by its values. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from rnnclf.data.table.blocks import Block
from rnnclf.data.table.cells import Missing, all_numbers, is_numeric
from rnnclf.data.table.guess import Guesses
from rnnclf.data.table.names import GROUP, ID, LABEL, ROW_NUMBERS, SPLIT, TIME, is_clock, standard
from rnnclf.data.table.options import NONE, TableOptions
from rnnclf.data.table.roles import Roles
from rnnclf.data.table.times import kind_of, times
from rnnclf.data.table.wide import Steps, by_number, in_order, numbered, places
from rnnclf.errors import ConfigError, DataError
from rnnclf.registry import did_you_mean

MOST_IDS = 100  # columns to look for ids in, since each takes some milliseconds
ROLES = ("label", "id", "split", "group", "time")  # in the order in which guesses are told


def find_roles(first: Block, options: TableOptions) -> Roles:
    """The roles of the columns of the table that begins with block `first`.

    Raises ConfigError if they are ambiguous, naming the option to set.
    """
    finder = _Finder(first, options)
    finder.find_ids()
    label = finder.find_label()
    split = finder.find("split", "split_column", options.split, SPLIT)
    finder.find("group", "group", options.group, GROUP)
    if options.labelled:
        finder.refine_ids()
    form = finder.form()
    if form == "wide" and options.time not in (None, NONE):
        raise ConfigError(
            f"dataset.time={options.time} has no effect if each row is a sequence: leave it out."
        )
    time = finder.find_time() if form == "long" else None
    channels, steps_TC = finder.channels() if form == "long" else finder.steps()
    categorical = finder.categorical(channels, steps_TC)
    return Roles(
        form,
        finder.id,
        time,
        label,
        finder.role_of["group"],
        split,
        channels,
        steps_TC,
        (*finder.guesses(form), *finder.notes),
        finder.missing,
        finder.time_kind(time),
        categorical,
        finder.ignored,
        options.row_labels and form == "long" and label is not None,
        options.lenient,
        options.label if not options.labelled and not options.row_labels else None,
    )


class _Finder:
    """Assigns the columns of one table to roles, each to at most one."""

    def __init__(self, first: Block, options: TableOptions) -> None:
        self.first, self.options = first, options
        self.name = first.name
        self.columns = first.frame.columns
        self.missing = Missing.given(options.missing)
        self.id: tuple[str, ...] = ()
        self.role_of: dict[str, str | None] = {}
        self.guessed: dict[str, str] = {}
        self.notes: list[str] = []
        self.ignored: dict[str, str] = {}
        named = [options.time, options.label, options.split, *(options.channels or ()), *(options.id or ())]
        named += [name for name in options.categorical if name not in (options.channels or ())]
        if options.group not in (options.id or ()):  # the sequences of a person: an id of person and trial
            named.append(options.group)
        self.taken: set[str] = {*options.aside}.difference(named)
        for name in named:
            if name in self.taken and name != NONE:
                raise ConfigError(
                    f"Two dataset options name column '{name}': a column can have only one role."
                )
            self.taken.update([] if name is None else [name])

    @property
    def free(self) -> list[str]:
        return [name for name in self.columns if name not in self.taken]

    @cached_property
    def numeric(self) -> set[str]:
        frame = self.first.frame
        plain = all_numbers(frame)
        return {name for name in self.columns if name in plain or is_numeric(frame[name], self.missing)}

    @property
    def numbered(self) -> set[str]:
        """The free columns that are numbered like steps, if most are: of all, or of those of numbers."""
        return numbered(self.free) or numbered([name for name in self.free if name in self.numeric])

    @property
    def values(self) -> Guesses:
        return Guesses(self.first, self.id, self.role_of.get("label"), self.options.row_labels)

    def choose(self, option: str) -> str:
        return f"Choose dataset.{option} from its columns: {listed(self.columns)}."

    def take(self, role: str, *columns: str, words: str | None = None) -> None:
        """Gives a role to columns that no option names."""
        self.taken.update(columns)
        self.guessed[role] = f"{' and '.join(map(repr, columns))} as the {words or role}"

    def named(self, option: str, asked: str) -> str:
        """A column that an option names. Raises ConfigError if there is none."""
        if asked in self.columns:
            return asked
        hint = did_you_mean(asked, self.columns)
        raise ConfigError(f"{self.name} has no column '{asked}'.{hint} {self.choose(option)}")

    def find(self, role: str, option: str, asked: str | None, words: Sequence[Sequence[str]]) -> str | None:
        """The column for a role, None if there is none. Raises ConfigError."""
        found = None
        if asked not in (None, NONE):
            found = self.named(option, str(asked))
        elif asked is None:
            ranks = ([n for n in self.free if standard(n) in rank] for rank in words)
            found = self.only(role, option, next(filter(None, ranks), []))
        self.role_of[role] = found
        return found

    def only(self, role: str, option: str, candidates: list[str]) -> str | None:
        """The only candidate for a role, now taken; None if there is none. Raises ConfigError."""
        if len(candidates) > 1:
            raise ConfigError(
                f"{self.name}: {listed(candidates)} could each be the {role}. {self.choose(option)}"
            )
        if candidates:
            self.take(role, candidates[0])
        return candidates[0] if candidates else None

    def find_ids(self) -> None:
        """The id by options or by name."""
        asked = self.options.id
        if asked and NONE not in asked:
            self.id = tuple(self.named("id", name) for name in asked)
        elif asked is None and (found := self.find("id", "id", None, ID)):
            self.id = (found,)

    def find_label(self) -> str | None:
        """The label by options, by name, or as the only text that repeats. Raises ConfigError.

        None if sequences need no labels; a column that looks like one is no channel then.
        """
        words = [rank for rank in LABEL if rank != ("y",) or not self._has_axes()]
        if not self.options.labelled:
            if self.options.label is None:
                self.taken.update(n for n in self.free if any(standard(n) in rank for rank in words))
            self.role_of["label"] = None
            return None
        label = self.find("label", "label", self.options.label, words)
        if label is None and self.options.label is None:
            steps = self.numbered
            text = [name for name in self.free if name not in self.numeric and name not in steps]
            candidates = self.values.labels(text)
            label = candidates[0] if len(candidates) == 1 else None
            if label is not None:
                self.take("label", label, words="label (if not: dataset.label)")
        if label is None:
            raise ConfigError(f"{self.name}: no column is recognisable as the label. {self.choose('label')}")
        self.role_of["label"] = label
        return label

    def _has_axes(self) -> bool:
        """Whether y is one of several coordinates, and not the label of x."""
        return {"x", "y", "z"} <= {standard(name) for name in self.columns}

    def refine_ids(self) -> None:
        """Adds a column to ids that start again in each of its values; looks for ids by their values."""
        options, group = self.options, self.role_of["group"]
        mine = [] if options.group or group is None else [group]
        others = [name for name in (*self.free, *mine) if not is_clock(name, counters=True)]
        clocks = [name for name in self.columns if name == options.time or standard(name) in TIME]
        clock = clocks[0] if clocks else None
        if len(self.id) == 1 and (options.id is None or len(options.id) == 1):
            if outer := self.values.outer_ids(others, clock):
                self._join_ids(outer)
        elif options.id is None and self._cut:
            likely = [name for name in others if name not in self.numbered]
            counters = [name for name in self.free if is_clock(name, counters=True)]
            if found := self.values.recording_ids(group, likely, next(iter([*clocks, *counters]), None)):
                self._take_ids(*found)
        elif options.id is None and options.form != "wide":
            self._ids_by_values(others)

    def _join_ids(self, outer: list[str]) -> None:
        """Raises ConfigError if an option says otherwise, or if several columns could be meant."""
        pair = f"[{outer[0]},{self.id[0]}]"
        if len(outer) > 1 or self.options.id is not None:
            where = " or ".join(f"'{name}'" for name in outer)
            raise ConfigError(
                f"{self.name}: the values of '{self.id[0]}' start again for each {where}, so that they do"
                f" not tell sequences apart. Set dataset.id={pair}."
            )
        self.id = (outer[0], self.id[0])
        self.take("id", *self.id)

    @property
    def _cut(self) -> bool:
        """Whether rows are steps of recordings from which windows are cut."""
        options = self.options
        if not options.labelled:
            return options.row_labels and options.form != "wide"
        if not options.row_labels or options.form != "auto":
            return options.row_labels and options.form == "long"
        timed = options.time not in (None, NONE) or any(map(is_clock, self.free))
        repeated = bool(self.id) and self.values.repeated
        return timed or repeated or not self.numbered or self.values.one_recording(True)

    def _take_ids(self, *names: str) -> None:
        """Takes columns as the id: the group is none then, unless it is a part of the id or an option."""
        self.id = names
        self.take("id", *names)
        if names == (self.role_of["group"],) and self.options.group is None:
            self.role_of["group"] = None
            self.guessed.pop("group", None)

    def _ids_by_values(self, others: list[str]) -> None:
        steps = self.numbered
        sure, doubtful = self.values.ids([name for name in others if name not in steps][:MOST_IDS])
        if sure and (self.options.form == "long" or not steps):
            self._take_ids(sure)
        elif found := sure or doubtful:
            raise ConfigError(
                f"{self.name}: rows with the same '{found}' have the same label. Set dataset.id={found} if"
                " each row is a step, or dataset.form=wide if each row is a sequence."
            )

    def guesses(self, form: str) -> list[str]:
        """A note on everything that was guessed; none if nothing was."""
        row = {"long": "each row as a step", "wide": "each row as a sequence"}
        guessed = [self.guessed[role] for role in ROLES if role in self.guessed]
        guessed = [*([row[form]] if self.options.form == "auto" else []), *guessed]
        return [f"{self.name}: using {', '.join(guessed)}."] if guessed else []

    def form(self) -> str:
        """long or wide; if not set, long if ids repeat or a time column is named. Raises ConfigError."""
        asked = self.options.form
        if self._cut:
            if not self.id:
                note = "is read as one recording: if it holds several, set dataset.id."
                self.notes.append(f"{self.name} {note}")
            return "long"
        if asked == "long" and not self.id:
            raise ConfigError(f"{self.name}: no column is recognisable as the id. {self.choose('id')}")
        if asked != "auto":
            return asked
        repeated = bool(self.id) and self.values.repeated
        times = [name for name in self.free if is_clock(name)]
        timed = self.options.time not in (None, NONE)
        if not repeated and (times or (timed and not self.id)):
            long = "set dataset.form=long" if self.id else "set dataset.id"
            ids = f"no '{' and '.join(self.id)}' occurs twice" if self.id else "no id"
            cut = "" if self.id else ", dataset.window=128 to cut a recording into windows"
            raise ConfigError(
                f"{self.name} has times, but {ids}: {long} if each row is a step{cut},"
                f" or dataset.form=wide if each row is a sequence. Its columns: {listed(self.columns)}."
            )
        if not self.id and not timed and self.options.labelled:
            self._refuse_recording()
        return "long" if repeated or timed else "wide"

    def _refuse_recording(self) -> None:
        """Raises ConfigError if rows seem to be steps of a recording, each with a label."""
        if self.values.one_recording(len(self.numbered)):
            raise ConfigError(
                f"{self.name} seems to be a recording with a label in each row, and no column is recognisable"
                " as the id of its sequences. Set dataset.window=128 to cut it into windows of so many steps,"
                " dataset.id if it holds sequences, or dataset.form=wide if each row is one. Its columns:"
                f" {listed(self.columns)}."
            )

    def find_time(self) -> str | None:
        """The time by options, name or values. Raises ConfigError if a column may be one or not."""
        options = self.options
        time = self.find("time", "time", options.time, (TIME,))
        if time is not None or options.time == NONE:
            return time
        known = self.values
        named = [name for name in self.free if is_clock(name, counters=True)]
        if len(named) > 1:  # a row number beside seconds, or seconds beside milliseconds
            named = [n for n in named if not known.counts_rows(n)]
            named = [n for n in named if known.is_clock(n)][:1] or named
        time = self.only("time", "time", named or known.times(self.free)[:1])
        if time is None and options.channels is None and (rising := known.rising(self.free)):
            raise ConfigError(
                f"{self.name}: '{rising[0]}' rises in every sequence. Set dataset.time={rising[0]} if it is"
                " the time, or dataset.time=none if it is a channel."
            )
        self.role_of["time"] = time
        return time

    def time_kind(self, time: str | None) -> str:
        """How the times are written. Raises ConfigError for times of day that pass midnight."""
        if time is None:
            return "number"
        kind = kind_of(self.first, time, self.options.time_format)
        if kind == "clock" and self.values.passes_midnight(times(self.first, time, kind)):
            raise ConfigError(
                f"{self.name}: the times of day in '{time}' pass midnight, so that they cannot be sorted."
                " Write them with their dates, or set dataset.time=none if the rows are in order."
            )
        return kind

    def channels(self) -> tuple[tuple[str, ...], Steps]:
        """The channels of a table with one row per step, and the columns of its one step."""
        channels = self.options.channels
        if not channels:
            left_out = self.values.no_channels(self.free, self.role_of["time"])
            words = [name for name in self.free if name not in self.numeric]
            chosen = {*self._usable(left_out, self.values.names(words)), *self.options.categorical}
            channels = tuple(name for name in self.columns if name in chosen)
            channels += tuple(name for name in self.options.categorical if name not in channels)
        self._refuse_unknown([name for name in channels if name not in self.columns], self.columns)
        self._note_untrained(channels)
        return tuple(channels), (tuple(channels),)

    def steps(self) -> tuple[tuple[str, ...], Steps]:
        """The channels of a table with one row per sequence, and the columns of each step."""
        wanted = self.options.channels
        others = {*self.id, *(name for name in self.role_of.values() if name)}
        found = places([name for name in self.columns if name not in others])
        known = [channel for channel, _ in found.values()]
        if wanted is not None:
            unknown = [w for w in wanted if w not in self.columns and w not in known]
            self._refuse_unknown(unknown, [*known, *self.columns])
            chosen = [n for n in self.columns if n in wanted or (n in found and found[n][0] in wanted)]
            self._note_untrained(chosen)
        else:
            words = [name for name in self.numbered if name not in self.numeric]
            chosen = self._steps_if_any(self._usable(self.values.indices(self.free, self.columns[0]), words))
        with_step = [name for name in chosen if name in found]
        if not with_step:
            chosen = in_order(self.name, chosen)
            one = f"column {chosen[0]} is the only step"
            many = f"columns {chosen[0]} to {chosen[-1]} are the steps of one channel"
            self.notes.append(f"{self.name}: {one if len(chosen) == 1 else many}.")
            return ("value",), tuple((name,) for name in chosen)
        if other := [name for name in chosen if name not in found]:
            raise ConfigError(
                f"{self.name}: column '{with_step[0]}' names a channel and a step, '{other[0]}' does not."
                f" Choose dataset.channels from: {listed(list(dict.fromkeys(known)))}."
            )
        return by_number(self.name, wanted or (), {name: found[name] for name in chosen})

    def _steps_if_any(self, chosen: list[str]) -> list[str]:
        """Of these columns those that are numbered like steps, for a model whose only channel has no name."""
        steps = numbered(chosen) if not self.options.labelled else set()
        if not steps or len(steps) == len(chosen):
            return chosen
        found = [name for name in chosen if name in steps]
        self._note_untrained(found)
        return found

    def categorical(self, channels: Sequence[str], steps_TC: Steps) -> tuple[str, ...]:
        """The channels of names: those that an option says, and those of which most columns hold words."""
        asked = self.options.categorical
        self._refuse_unknown([name for name in asked if name not in channels], channels)
        if self.options.of_model:
            return asked
        found = []
        for channel, columns in zip(channels, zip(*steps_TC, strict=True), strict=True):
            words = sum(name not in self.numeric for name in columns)
            if channel in asked or words * 2 > len(columns):
                found.append(channel)
        if guessed := [name for name in found if name not in asked]:
            hold = "holds" if len(guessed) == 1 else "hold"
            self.notes.append(f"{self.name}: {listed(guessed)} {hold} names rather than numbers.")
        return tuple(found)

    def _usable(self, left_out: dict[str, str], words: Sequence[str]) -> list[str]:
        """The columns of numbers without a role, but those left out, and those of words, in their order.

        Raises DataError if there are none. left_out: columns, each with what its values are.
        """
        free = self.free
        numeric = [name for name in free if name in self.numeric or name in words]
        numeric = [name for name in numeric if not ROW_NUMBERS.fullmatch(name)]
        if other := list(dict.fromkeys(free).keys() - {*numeric}):
            other.sort(key=free.index)
            self.notes.append(f"{self.name}: ignored columns of text or row numbers: {listed(other)}.")
        for why in dict.fromkeys(left_out[name] for name in numeric if name in left_out):
            some = [name for name in numeric if left_out.get(name) == why]
            self.notes.append(
                f"{self.name}: ignored {listed(some)}, {why}: to use it, list all channels in"
                " dataset.channels."
            )
        if numeric and left_out.keys() >= set(numeric):
            raise ConfigError(
                f"{self.name}: no column is recognisable as a channel: '{numeric[0]}' is a column"
                f" {left_out[numeric[0]]}. {self.choose('channels')}"
            )
        self.ignored = {name: left_out[name] for name in numeric if name in left_out}
        numeric = [name for name in numeric if name not in left_out]
        if not numeric:
            text = [name for name in self.columns if name not in {*self.numeric, self.role_of.get("label")}]
            spelt = self.values.spelt(text)
            way = (
                ""
                if spelt is None
                else f" To use '{spelt}', write each of its letters in a column of its own."
            )
            raise DataError(f"{self.name} has no numeric columns besides {listed(sorted(self.taken))}.{way}")
        return numeric

    def _note_untrained(self, read: Sequence[str]) -> None:
        """Notes the columns that a trained model does not know: those of numbers or, to predict, all."""
        options = self.options
        extra = [n for n in self.free if n not in read and (n in self.numeric or not options.labelled)]
        if options.of_model and extra:
            self.notes.append(
                f"{self.name}: the model was not trained on {listed(extra)}, which"
                f" {'is' if len(extra) == 1 else 'are'} left out."
            )

    def _refuse_unknown(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ConfigError(f"{self.name} has no channel '{unknown[0]}'.{hint} {self.choose('channels')}")


def listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} … ({len(names)})" if len(names) > limit else shown
