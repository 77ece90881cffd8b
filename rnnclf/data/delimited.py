"""Parses numbers from delimited text, with missing values and the position of errors. Torch-free."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from rnnclf.data.recordings import Array
from rnnclf.errors import DataError
from rnnclf.system.memory import excess

DELIMITERS = ("\t", ";", ",")  # tried in this order; a line with none of them is split at spaces
COPIES = 3  # of a file in memory while it is read: its bytes, its text, its lines
MISSING = {"", "nan", "na", "n/a", "null", "none", "?"}  # in lower case


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a text file, without empty ones at the end. Messages call the file `what`.

    Raises DataError if it cannot be read, is too large for memory, is empty or is not UTF-8.
    """
    try:
        if taken := excess(COPIES * path.stat().st_size):
            raise DataError(f"Reading {what} takes {taken}: is it a text file of sequences?")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{what}, line {line} is not UTF-8 text: save the file as UTF-8.") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and _is_blank(lines[-1]):
        lines.pop()
    if not lines:
        raise DataError(f"{what} is empty.")
    return lines


def refuse_empty_lines(lines: Sequence[str], what: str, first: int = 0) -> None:
    """Raises DataError for an empty line: it could be a missing value of a single column, or no row."""
    for place, line in enumerate(lines[first:], start=first + 1):
        if _is_blank(line):
            raise DataError(
                f"{what}, line {place} is empty: write nan for a missing value, or delete the line."
            )


def _is_blank(line: str) -> bool:
    """Whether a line has no fields; a line of tabs has missing values."""
    return not line.strip() and "\t" not in line


def delimiter_of(line: str) -> str | None:
    return next((delimiter for delimiter in DELIMITERS if delimiter in line), None)


def unquoted(field: str) -> str:
    """The field without surrounding spaces and quotation marks."""
    return field.strip().strip('"').strip()


def excerpt(text: str, limit: int = 40) -> str:
    """The beginning of untrusted text, made safe for a message: one line, printable characters only."""
    line = " ".join(text.split())[:limit]
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )


def is_number(field: str) -> bool:
    """Whether a field is a number or marks a missing one."""
    try:
        number(field, "")
    except DataError:
        return False
    return True


def number(field: str, where: str) -> float:
    """The value of a field, NaN if it is missing. Raises DataError, whose message starts with `where`."""
    bare = unquoted(field)
    if bare.lower() in MISSING:
        return float("nan")
    try:
        if "_" not in bare:  # Python would read 1_0 as 10
            return float(bare)
    except ValueError:
        pass
    raise DataError(f"{where}: '{excerpt(bare)}' is not a number.")


def numbers(rows: list[list[str]], first_line: int, first_column: int, what: str) -> Array:
    """Rows of fields as float64 (rows, fields). Messages count lines and columns from the given first ones.

    Raises DataError for rows of different lengths, text that is not a number, and infinity.
    """
    import numpy as np

    width, found = len(rows[0]), array("d")
    for line, fields in enumerate(rows, start=first_line):
        if len(fields) != width:
            before, now = width + first_column - 1, len(fields) + first_column - 1
            raise DataError(f"{what}, line {line} has {now} fields, line {first_line} has {before}.")
        try:
            row = [float(field) for field in fields if "_" not in field]
        except ValueError:
            row = []
        if len(row) != width:  # a field is missing, quoted, or wrong
            places = [f"{what}, line {line}, column {c}" for c in range(first_column, first_column + width)]
            row = [number(field, where) for field, where in zip(fields, places, strict=True)]
        found.extend(row)
    values = np.frombuffer(found, np.float64).reshape(len(rows), width)
    if np.isinf(values).any():
        row_index, column = np.argwhere(np.isinf(values))[0].tolist()
        raise DataError(
            f"{what}, line {first_line + row_index}, column {first_column + column}: the value is infinite."
            " Write a number, or nan for a missing value."
        )
    return values
