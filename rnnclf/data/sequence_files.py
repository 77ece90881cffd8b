"""Reads a file that holds one sequence: text, a table, an .npy array or a .wav recording. Torch-free.

Shapes: T steps of a file, C channels.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rnnclf.data import sequence_tables
from rnnclf.data.delimited import (
    delimiter_of,
    excerpt,
    is_number,
    lines_of,
    numbers,
    refuse_empty_lines,
    unquoted,
)
from rnnclf.data.npy import mapped, refuse_other_than_numbers, to_trainable
from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import Block
from rnnclf.data.table.times import in_seconds, times
from rnnclf.errors import DataError

TEXT = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT, ".npy", ".wav", *sequence_tables.SUFFIXES)
DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
UNNAMED = "index"  # what a column without a name is called: pandas writes its index so


class Contents(NamedTuple):
    """What a file holds: values_TC (T, C) and the line number of the first step.

    names: of the columns, if it names them. dates: those of the columns that held dates, now in seconds.
    rate: samples per second of a sound.
    """

    values_TC: Array
    names: tuple[str, ...] | None
    line: int
    dates: tuple[str, ...] = ()
    rate: int | None = None
    unnamed: bool = False
    """Whether the column UNNAMED has no name in the file."""


def contents_of(path: Path, place: str) -> Contents:
    """Reads a file, which messages call `place`. Raises DataError."""
    import numpy as np

    if path.suffix.lower() == ".wav":
        return _sound(path, place)
    if path.suffix.lower() in sequence_tables.SUFFIXES:
        return Contents(*sequence_tables.steps_of(path, place))
    if path.suffix.lower() != ".npy":
        return _text(path, place)
    array = np.array(mapped(path, place)[0])  # a memory map would keep each file open
    refuse_other_than_numbers(array, place)
    if array.ndim not in (1, 2):
        raise DataError(f"{place} has shape {array.shape}; it must be (T,) or (T, C).")
    return Contents(to_trainable(array, place).reshape(len(array), -1), None, 0)


def _sound(path: Path, place: str) -> Contents:
    """The samples of a .wav file, from -1 to 1 whatever the number of bits in the file."""
    import numpy as np
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of the file that are not samples
            rate, samples = wavfile.read(path)
        samples_TC: Array = np.asarray(samples).reshape(len(samples), -1)
        if not samples_TC.size:
            raise ValueError("it has no samples")
    except Exception as error:  # scipy does not document what it raises for a damaged file
        reason = excerpt(str(error), 120).rstrip(".") or type(error).__name__
        raise DataError(f"{place} is not a .wav file, or is damaged ({reason}).") from error
    kind = samples_TC.dtype
    if kind.kind in "iu":
        middle = 2.0 ** (8 * kind.itemsize - 1)  # samples of 8 bits have their zero there
        samples_TC = samples_TC.astype(np.float32 if kind.itemsize <= 2 else np.float64)
        samples_TC = (samples_TC - (middle if kind.kind == "u" else 0.0)) / middle
    refuse_other_than_numbers(samples_TC, place)
    return Contents(to_trainable(samples_TC, place), None, 0, rate=int(rate))


def _text(path: Path, place: str) -> Contents:
    lines = lines_of(path, place)
    refuse_empty_lines(lines, place)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else delimiter_of(lines[0])
    rows = [line.split(delimiter) for line in lines]
    names = tuple(map(unquoted, rows[0]))
    if all(map(is_number, names)) or any(name and is_number(name) for name in names):
        return Contents(numbers(rows, 1, 1, place), None, 1)
    if len(rows) == 1:
        raise DataError(f"{place} has a header but no steps.")
    if len(rows[1]) != len(names):
        raise DataError(f"{place}, line 2 has {len(rows[1])} fields, line 1 has {len(names)}.")
    unnamed, names = "" in names, _named(names, place)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{place}, line 1: two columns are named '{excerpt(repeated[0])}'.")
    dates = [c for c, field in enumerate(rows[1]) if DATE.fullmatch(unquoted(field))]
    body = _without_dates(rows, dates, names, place) if dates else rows[1:]
    return Contents(numbers(body, 2, 1, place), names, 2, tuple(names[c] for c in dates), unnamed=unnamed)


def _named(names: tuple[str, ...], place: str) -> tuple[str, ...]:
    """The names of the columns, with one for the index of pandas. Raises DataError for others without."""
    if "" not in names:
        return names
    if names.count("") == 1 and names[0] == "" and UNNAMED not in names and len(names) > 1:
        return (UNNAMED, *names[1:])
    raise DataError(f"{place}, line 1: column {names.index('') + 1} has no name.")


def _without_dates(
    rows: list[list[str]], dates: list[int], names: tuple[str, ...], place: str
) -> list[list[str]]:
    """The rows below the header, with dates as seconds since 1970. Raises DataError for other text."""
    import numpy as np
    import polars as pl

    body = rows[1:]
    if any(len(row) != len(names) for row in body):
        return body  # `numbers` says where
    lines = np.arange(2, len(rows) + 1)
    for c in dates:
        cells = pl.DataFrame({names[c]: [unquoted(row[c]) for row in body]})
        dates_R = times(Block(place, "line", cells, lines, 1.0), names[c], "ymd")
        for row, time in zip(body, in_seconds(dates_R, "ymd").tolist(), strict=True):
            row[c] = repr(time)
    return body


def ordered_as(first: Contents, now: Contents, first_place: str, place: str) -> Contents:
    """The contents with the columns in the order of the first file. Raises DataError for other columns."""
    if now.names == first.names and now.values_TC.shape[1] == first.values_TC.shape[1]:
        return now
    if first.names is not None and now.names is not None and sorted(first.names) == sorted(now.names):
        order = [now.names.index(name) for name in first.names]
        return now._replace(values_TC=now.values_TC[:, order], names=first.names)
    described = [columns_of(contents) for contents in (now, first)]
    raise DataError(
        f"{place} has {described[0]}, but {first_place} has {described[1]}: all files need the same columns."
    )


def columns_of(contents: Contents) -> str:
    number = contents.values_TC.shape[1]
    words = f"{number} column{'' if number == 1 else 's'}"
    return (
        f"{words} without names"
        if contents.names is None
        else f"{words}, {excerpt(', '.join(contents.names), 120)}"
    )
