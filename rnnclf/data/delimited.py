"""Numbers in delimited text: a line per row, missing values, where the text is no number. Torch-free."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

DELIMITERS = ("\t", ";", ",")  # in this order; where a line has none of them, fields are parted by spaces
MISSING = {"", "nan", "na", "n/a", "null", "none", "?"}  # in small letters


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a text file, without empty ones at its end. Errors call the file `what`.

    Raises DataError where it cannot be read, is empty or not UTF-8.
    """
    try:
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
    """Raises DataError for an empty line: it may be a missing value of a single column, or nothing."""
    for place, line in enumerate(lines[first:], start=first + 1):
        if _is_blank(line):
            raise DataError(f"{what}, line {place} is empty: write nan for missing values, or leave it out.")


def _is_blank(line: str) -> bool:
    """Whether a line holds nothing; one of tabs holds missing values."""
    return not line.strip() and "\t" not in line


def delimiter_of(line: str) -> str | None:
    return next((delimiter for delimiter in DELIMITERS if delimiter in line), None)


def unquoted(field: str) -> str:
    """The field without blanks and quotation marks around it."""
    return field.strip().strip('"').strip()


def shown(text: str, most: int = 40) -> str:
    """The beginning of a text of unknown origin as a message can hold it: one line, all printable."""
    line = " ".join(text.split())[:most]
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )


def is_number(field: str) -> bool:
    """Whether a field is a number, or says that one is missing."""
    try:
        number(field, "")
    except DataError:
        return False
    return True


def number(field: str, where: str) -> float:
    """The value of a field, NaN where it is missing. Raises DataError, which says `where`."""
    bare = unquoted(field)
    if bare.lower() in MISSING:
        return float("nan")
    try:
        if "_" not in bare:  # Python would read 1_0 as 10
            return float(bare)
    except ValueError:
        pass
    raise DataError(f"{where}: '{shown(bare)}' is not a number.")


def numbers(rows: list[list[str]], first_line: int, first_column: int, what: str) -> Array:
    """Rows of fields as float64 (rows, fields). The lines and columns of messages are counted from these.

    Raises DataError for rows of different lengths, text that is no number, and infinity.
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
        if len(row) != width:  # something missing, in quotation marks, or wrong
            places = [f"{what}, line {line}, column {c}" for c in range(first_column, first_column + width)]
            row = [number(field, where) for field, where in zip(fields, places, strict=True)]
        found.extend(row)
    values = np.frombuffer(found, np.float64).reshape(len(rows), width)
    if np.isinf(values).any():
        row_index, column = np.argwhere(np.isinf(values))[0].tolist()
        raise DataError(
            f"{what}, line {first_line + row_index}, column {first_column + column}: the value is infinite."
            " Write a number, or nan where it is missing."
        )
    return values
