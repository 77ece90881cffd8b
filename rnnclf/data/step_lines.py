"""Lines of text that hold one time step each, CSV or JSON, read as they arrive. Torch-free.

Shapes: C channels.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedIOBase
from itertools import takewhile
from typing import NamedTuple

from rnnclf.data.recordings import numbered
from rnnclf.data.table.blocks import Block, errors_of_reading
from rnnclf.data.table.cells import LONGEST_NAME, TRUTH, USUAL, Missing, short
from rnnclf.data.table.json_lines import LONGEST, Row, object_in
from rnnclf.data.table.names import ID, TIME, standard
from rnnclf.data.table.options import NONE
from rnnclf.data.table.text import DECIMAL_COMMA, DELIMITERS, NEVER_GUESSED, WHOLE_OR_THOUSANDS
from rnnclf.data.table.times import SECOND, kind_of, times
from rnnclf.errors import ConfigError, DataError
from rnnclf.registry import did_you_mean

NAN = math.nan
CHUNK = 2**16  # bytes: the most that is read at a time
EXAMPLE = '{"id": "a", "x": 0.5}'
WHOLE = re.compile(r"(-?\d+)\.0+")
COMMA = re.compile(DECIMAL_COMMA)
THOUSANDS = re.compile(WHOLE_OR_THOUSANDS)
START = datetime(1970, 1, 1, tzinfo=UTC)
ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?")


class Step(NamedTuple):
    """One time step.

    line: its number, from 1 on. id: of its sequence, None if lines have none.
    values_C: NaN if missing; of a channel of names, the place in its vocabulary.
    time: as read, exact; None without times. See `StepLines.unit`.
    """

    line: int
    id: str | None
    values_C: list[float]
    time: int | float | None


@dataclass(frozen=True)
class Wanted:
    """What to look for in the lines.

    vocabularies: of each channel of names. gaps: whether values may be missing.
    id, time: their columns; None: found by name; NONE: no such column.
    timed: whether times are read at all; needs_time: whether there must be any.
    """

    channels: tuple[str, ...]
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gaps: bool = False
    id: tuple[str, ...] | None = None
    time: str | None = None
    timed: bool = False
    needs_time: bool = False
    missing: Missing = USUAL
    delimiter: str = "auto"
    decimal: str = "auto"
    time_format: str | None = None


class StepLines:
    """Reads lines of one source, all of the same kind: CSV with a header, or a JSON object each."""

    def __init__(self, name: str, wanted: Wanted) -> None:
        """`name`: what messages call the source."""
        self.name, self.wanted = name, wanted
        self.notes: list[str] = []
        self.id: tuple[str, ...] = ()
        self._columns: list[str] = []
        self._keys: tuple[str, ...] = ()
        self._time: str | None = None
        self._mark: str | None = None  # None for JSON
        self._commas = False
        self._clock: _Clock | None = None
        self._places = {
            channel: {name: float(place) for place, name in enumerate(names, start=1)}
            for channel, names in wanted.vocabularies.items()
        }

    def begin(self, text: bytes, line: int) -> bool:
        """Reads the first line that is not blank, and says whether it was a header alone.

        Raises DataError or ConfigError if it does not name what the model needs.
        """
        place = f"{self.name}, line {line}"
        is_json = text.lstrip().startswith(b"{")
        if is_json:
            self._columns = list(object_in(text, place, EXAMPLE))
        else:
            self._columns = self._header(_decoded(text, place), place)
        self._find_roles(place)
        return not is_json

    def step(self, text: bytes, line: int) -> Step:
        """The step in a line. Raises DataError, which names the line, if it cannot be read."""
        place = f"{self.name}, line {line}"
        if self._mark is None:
            cells = self._of_object(object_in(text, place, EXAMPLE), place)
        else:
            fields = self._fields(_decoded(text, place), place)
            if len(fields) != len(self._columns):
                many = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
                raise DataError(f"{place} has {many}, but the header has {len(self._columns)} columns.")
            cells = dict(zip(self._columns, fields, strict=True))
        sequence = self._id_in(cells, place) if self.id else None
        values = self._plain(cells) or [
            self._name(cells[key], channel, place)
            if channel in self._places
            else self._number(cells[key], key, place)
            for channel, key in zip(self.wanted.channels, self._keys, strict=True)
        ]
        if not self.wanted.gaps:
            for value, key in zip(values, self._keys, strict=True):
                if value != value:
                    raise DataError(
                        f"{place}, column '{key}' has no value: the model was trained with"
                        " dataset.missing=error, so it takes no missing values."
                    )
        time = None if self._clock is None else self._clock.read(cells[str(self._time)], place, line)
        return Step(line, sequence, values, time)

    @property
    def unit(self) -> float:
        """By what the difference of two times is divided."""
        return 1.0 if self._clock is None else self._clock.unit

    # The first line

    def _header(self, text: str, place: str) -> list[str]:
        """The columns, by the delimiter with which most of the channels are found."""
        asked = self.wanted.delimiter
        marks = [mark for name, mark in DELIMITERS.items() if asked in (name, "auto")]
        if asked == "auto":
            marks.remove(DELIMITERS[NEVER_GUESSED])
        parsed = []
        for mark in marks:
            self._mark = mark
            names = [" ".join(name.split()) for name in self._fields(text, place)]
            parsed.append((len({*self.wanted.channels} & {*names}), len(names), mark, names))
        *_, self._mark, names = max(parsed, key=lambda found: found[:2])
        for number, name in enumerate(names):
            if name and name in names[:number]:
                raise DataError(
                    f"{place} has two columns named '{short(name)}': column names must be unique."
                )
        return names

    def _fields(self, text: str, place: str) -> list[str]:
        assert self._mark is not None
        if '"' not in text:
            return text.split(self._mark)
        try:
            return next(csv.reader([text], delimiter=self._mark, strict=True))
        except (csv.Error, StopIteration) as error:
            raise DataError(f"{place}: its quotation marks do not enclose whole fields.") from error

    def _find_roles(self, place: str) -> None:
        wanted, columns = self.wanted, self._columns
        free = [name for name in columns if name and name not in wanted.channels]
        self.id = self._ids(free)
        free = [name for name in free if name not in self.id]
        self._time = self._time_among(free, place) if wanted.timed else None
        if self._time is not None:
            self._clock = _Clock(self.name, self._time, wanted.time_format)
        free = [name for name in free if name != self._time]
        lacking = [name for name in wanted.channels if name not in columns]
        self._keys = wanted.channels
        if lacking and columns and all(map(_is_number, filter(None, columns))):
            raise DataError(f"{place} seems to hold values: the first line must name the columns.")
        if lacking and self._nameless and len(free) == len(wanted.channels) == len(lacking):
            self._keys, free = tuple(free), []
        elif lacking:
            named = ", ".join(f"'{name}'" for name in lacking[:12]) + (" …" if len(lacking) > 12 else "")
            hint = did_you_mean(lacking[0], free)
            known = ", ".join(short(name) for name in columns[:12]) + (" …" if len(columns) > 12 else "")
            raise DataError(
                f"{place} has no {named}, which the model was trained on.{hint} Its columns: {known}."
            )
        if free:
            self.notes.append(f"{self.name}: left out {', '.join(map(short, free[:12]))}.")

    @property
    def _nameless(self) -> bool:
        """Whether the channels had no names in training, so that they may be called anything."""
        channels = self.wanted.channels
        return channels == ("value",) or channels == numbered(len(channels))

    def _ids(self, free: Sequence[str]) -> tuple[str, ...]:
        asked = self.wanted.id
        if asked is not None and NONE in asked:
            return ()
        if asked is not None:
            lacking = [name for name in asked if name not in free]
            if lacking and len(lacking) < len(asked):
                raise DataError(f"{self.name} has no column '{lacking[0]}', a part of the id in training.")
            if lacking:
                self.notes.append(
                    f"{self.name} has no column '{' and '.join(asked)}': lines are one sequence up to the"
                    " next empty one."
                )
                return ()
            return asked
        for rank in ID:
            found = [name for name in free if standard(name) in rank]
            if len(found) > 1:
                raise ConfigError(
                    f"{self.name}: {', '.join(found)} could each be the id. Choose dataset.id={found[0]}."
                )
            if found:
                self.notes.append(f"{self.name}: using '{found[0]}' as the id.")
                return tuple(found)
        return ()

    def _time_among(self, free: Sequence[str], place: str) -> str | None:
        asked = self.wanted.time
        found = [name for name in free if (standard(name) in TIME if asked is None else name == asked)]
        if found and asked != NONE:
            return found[0]
        if self.wanted.needs_time:
            column = f"'{asked}'" if asked not in (None, NONE) else "recognisable as the time"
            raise DataError(
                f"{place}: no column is {column}, but the model was trained with the times of the steps."
            )
        return None

    # Its cells

    def _of_object(self, row: Row, place: str) -> dict[str, str]:
        """The values of an object as text; '' for those that it does not have."""
        cells = dict.fromkeys((*self._keys, *self.id, *([self._time] if self._time else [])), "")
        for key in cells:
            value = row.get(key)
            if isinstance(value, list | dict):
                raise DataError(f"{place}: '{short(key)}' is no single value: a line holds one step.")
            if value is not None:
                cells[key] = value if isinstance(value, str) else str(value)
        return cells

    def _id_in(self, cells: Mapping[str, str], place: str) -> str:
        parts = []
        for key in self.id:
            text = cells[key].strip()
            text = WHOLE.sub(r"\1", text) if WHOLE.fullmatch(text) else text
            if self._lacks(text, self.wanted.missing.names):
                raise DataError(f"{place}, column '{key}' is empty: every step needs its id.")
            if len(text) > LONGEST_NAME:
                raise DataError(f"{place}, column '{key}' has more than {LONGEST_NAME:,} characters.")
            parts.append(text)
        return "/".join(parts)

    def _lacks(self, bare: str, words: tuple[str, ...]) -> bool:
        return not bare or (bare if self.wanted.missing.exact else bare.lower()) in words

    def _name(self, text: str, channel: str, place: str) -> float:
        bare = text.strip()
        bare = WHOLE.sub(r"\1", bare) if WHOLE.fullmatch(bare) else bare
        if self._lacks(bare, self.wanted.missing.names):
            return NAN
        places = self._places[channel]
        return places.get(bare, len(places) + 1.0)

    def _plain(self, cells: Mapping[str, str]) -> list[float]:
        """The values of a step in which nothing but plain numbers occurs, in a third of the time; otherwise
        none."""
        texts = [cells[key] for key in self._keys]
        if self._places or self.wanted.missing.numbers or any("_" in text for text in texts):
            return []
        with suppress(ValueError):
            values = [*map(float, texts)]
            return values if math.isfinite(sum(values)) else []
        return []

    def _number(self, text: str, key: str, place: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = self._word(text.strip(), key, place)
        if "_" in text:  # Python would read 1_0 as 10
            value = self._word(text.strip(), key, place)
        if math.isinf(value):
            raise DataError(
                f"{place}, column '{key}': {short(text)} is infinite or too large. Write a number below"
                " 1.8e308, or leave the cell empty."
            )
        return NAN if value in self.wanted.missing.numbers else value

    def _word(self, bare: str, key: str, place: str) -> float:
        """The value of text that is no plain number."""
        if self._lacks(bare, self.wanted.missing.words):
            return NAN
        if bare.lower() in TRUTH:
            return TRUTH[bare.lower()]
        if self._mark not in (None, ",") and self.wanted.decimal != "point" and COMMA.fullmatch(bare):
            if self.wanted.decimal == "auto" and not self._commas and THOUSANDS.fullmatch(bare):
                raise ConfigError(
                    f"{place}, column '{key}': '{bare}' may be a decimal number or have a separator of"
                    " thousands. Set dataset.decimal=comma, or remove the separators."
                )
            self._commas = True
            return float(bare.replace(",", "."))
        raise DataError(f"{place}, column '{key}': '{short(bare)}' is not a number.")


class _Clock:
    """Reads times as the first one is written: numbers, or dates and times of day."""

    def __init__(self, source: str, column: str, time_format: str | None) -> None:
        self.source, self.column, self.format = source, column, time_format
        self.kind: str | None = None
        self.unit = 1.0

    def read(self, text: str, place: str, line: int) -> int | float:
        """The time, exact: a number as it is, a date in nanoseconds. Raises DataError or ConfigError."""
        bare = text.strip()
        if self.kind is None:
            self.kind = self._kind(bare, line)
            self.unit = 1.0 if self.kind == "number" else float(SECOND)
        if self.kind == "number":
            with suppress(ValueError):
                return int(bare)
            with suppress(ValueError):
                value = float(bare)
                if math.isfinite(value):
                    return value
        elif self.kind == "ymd" and ISO.fullmatch(bare):
            with suppress(ValueError):  # which a date that does not exist raises: the reader says so
                return _nanoseconds(datetime.fromisoformat(bare))
        if not bare:
            raise DataError(f"{place}, column '{self.column}' is empty: every step needs its time.")
        return int(times(self._block(bare, line), self.column, self.kind)[0])

    def _kind(self, bare: str, line: int) -> str:
        kind = kind_of(self._block(bare, line), self.column, self.format)
        return "number" if kind == "whole" else kind  # whole numbers of any size are exact in Python

    def _block(self, bare: str, line: int) -> Block:
        import numpy as np
        import polars as pl

        return Block(self.source, "line", pl.DataFrame({self.column: [bare]}), np.array([line]), 0.0)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def _nanoseconds(date: datetime) -> int:
    passed = (date if date.tzinfo else date.replace(tzinfo=UTC)) - START
    return ((passed.days * 86400 + passed.seconds) * 10**6 + passed.microseconds) * 1000


def _decoded(text: bytes, place: str) -> str:
    try:
        return text.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: save the file as UTF-8.") from error


def arrivals(file: BufferedIOBase, name: str) -> Iterator[list[tuple[int, bytes]]]:
    """The lines of a stream with their numbers, each time all that have arrived. Raises DataError."""
    with errors_of_reading(name):
        line, rest = 1, b""
        while chunk := file.read1(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from _numbered([*whole, rest] if len(rest) > LONGEST else whole, line, name)
            line += len(whole)
        yield from _numbered([rest] if rest else [], line, name)


def _numbered(texts: list[bytes], first: int, name: str) -> Iterator[list[tuple[int, bytes]]]:
    if first == 1 and texts:
        texts[0] = texts[0].removeprefix(b"\xef\xbb\xbf")
    fine = [*takewhile(lambda text: len(text) <= LONGEST, texts)]
    yield list(enumerate(fine, start=first))
    if len(fine) < len(texts):
        raise DataError(f"{name}, line {first + len(fine)} is longer than {LONGEST >> 20} MiB.")
