"""Parses the cells of columns: numbers, times, names. Torch-free.  Shapes: R rows, C columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import Block
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "nan", "na", "n/a", "null", "none", "?")  # in lower case
NAMELESS = tuple(word for word in MISSING if word != "none")  # "none" can be the name of a class
LONGEST_NAME = 1000  # bytes of an id or a class name
DAY = 86400  # seconds
ISO_8601 = (
    r"^(?<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?<hours>[01]\d|2[0-3]):(?<minutes>[0-5]\d)(?::(?<seconds>[0-5]\d(?:[.,]\d+)?))?"
    r"(?:Z|(?<sign>[+-])(?<zone_hours>\d\d):?(?<zone_minutes>\d\d))?)?$"
)


def is_numeric(column: pl.Series) -> bool:
    """Whether any cell is a number, or all are missing."""
    import polars as pl

    if column.dtype == pl.String:
        bare = column.drop_nulls().str.strip_chars()
        present = bare.filter(~_marks_missing(bare, MISSING))
        return present.is_empty() or bool(present.cast(pl.Float64, strict=False).is_not_null().any())
    return column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)


def numbers(block: Block, columns: Sequence[str]) -> Array:
    """The cells as float32 (R, C), NaN if missing.

    Raises DataError, which names line and column, for text and for numbers too large for float32.
    """
    import numpy as np
    import polars as pl
    from polars.selectors import by_name

    frame = block.frame.select(by_name(columns))
    with np.errstate(over="ignore"):
        cast = frame.select(pl.all().cast(pl.Float32, strict=False))
        for name, (before, after) in zip(columns, _null_counts(frame, cast), strict=True):
            if before != after:
                cast = cast.with_columns(_cleaned(block, name, cast[name]))
        values_RC = np.ascontiguousarray(cast.fill_null(float("nan")).to_numpy())
    infinite_RC = np.isinf(values_RC)
    if infinite_RC.any():
        row, place = (int(part[0]) for part in np.nonzero(infinite_RC))
        text = frame[columns[place]][row]
        raise DataError(
            f"{block.place(row)}, column '{columns[place]}': {text} is infinite or too large for 32 bits."
            " Write a number below 3.4e38, or leave the cell empty."
        )
    return values_RC


def largest(block: Block, columns: Sequence[str]) -> float:
    """The largest absolute value of some columns of numbers in float64; 0 if all are missing."""
    import polars as pl

    def exact(name: str) -> pl.Expr:
        is_text = block.frame[name].dtype == pl.String
        column = pl.col(name).str.strip_chars() if is_text else pl.col(name)
        return column.cast(pl.Float64, strict=False).fill_nan(None).abs().max()

    found = block.frame.select(map(exact, columns))
    return max((value for value in found.row(0) if value is not None), default=0.0)


def _null_counts(before: pl.DataFrame, after: pl.DataFrame) -> list[tuple[int, int]]:
    return list(zip(before.null_count().row(0), after.null_count().row(0), strict=True))


def _cleaned(block: Block, name: str, cast: pl.Series) -> pl.Series:
    """The numbers of a column in which some cells have spaces around them or words for missing values."""
    import polars as pl

    texts = block.frame[name]
    if texts.dtype != pl.String:
        raise DataError(f"{block.name}: column '{name}' is not numeric ({texts.dtype}).")
    bare = texts.str.strip_chars()
    cleaned = bare.cast(cast.dtype, strict=False)
    invalid = cleaned.is_null() & bare.is_not_null() & ~_marks_missing(bare, MISSING)
    if invalid.any():
        row = invalid.arg_max()
        assert row is not None
        raise DataError(
            f"{block.place(row)}, column '{name}': '{short(texts[row])}' is not a number."
            " Leave missing values empty or write NaN; to leave out a text column, list the other columns in"
            " dataset.channels."
        )
    return cleaned.alias(name)


def _marks_missing(bare: pl.Series, words: Sequence[str]) -> pl.Series:
    return bare.str.to_lowercase().is_in(list(words))


def names(block: Block, column: str, literal: bool = False) -> pl.Series:
    """The cells as text without surrounding spaces; whole numbers lose their fraction, 1.0 becomes 1.

    literal: only empty cells are missing; otherwise cells with words such as NA are, too.
    Raises DataError, which names the line, if one is missing or too long.
    """
    import polars as pl

    cells = block.frame[column]
    texts = cells.cast(pl.String, strict=False).str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")
    missing = texts.is_null() | _marks_missing(texts, ("",) if literal else NAMELESS)
    if missing.any():
        row = missing.arg_max()
        assert row is not None
        raise DataError(f"{block.place(row)}, column '{column}' {_lack(texts[row])}")
    too_long = texts.str.len_bytes() > LONGEST_NAME
    if too_long.any():
        row = too_long.arg_max()
        assert row is not None
        raise DataError(f"{block.place(row)}, column '{column}' has more than {LONGEST_NAME:,} bytes.")
    return texts


def _lack(text: str | None) -> str:
    """What is wrong with a missing name."""
    if not text:
        return "is empty: every row needs a value there."
    return (
        f"has '{text}', which is read as missing: every row needs a value there. If it is a name, set"
        " dataset.literal_names=true."
    )


def seconds(block: Block, column: str) -> Array:
    """The cells as times, float64 (R,): numbers as they are, dates as seconds since 1970.

    Raises DataError, which names the line, for anything else.
    """
    import numpy as np

    cells = block.frame[column]
    times_R = _times(cells).fill_null(float("nan")).to_numpy()
    wrong_R = ~np.isfinite(times_R)
    if wrong_R.any():
        row = int(wrong_R.argmax())
        text = cells[row]
        what = "is empty" if text is None else f": '{short(str(text))}' is not a time"
        raise DataError(
            f"{block.place(row)}, column '{column}'{'' if text is not None else ' '}{what}:"
            " write numbers, or dates like 2024-12-31T23:59:59."
        )
    return times_R


def _times(cells: pl.Series) -> pl.Series:
    import polars as pl

    ticks = {"ms": 1e3, "us": 1e6, "ns": 1e9}
    kind = cells.dtype
    if isinstance(kind, pl.Datetime | pl.Duration):
        return cells.cast(pl.Int64).cast(pl.Float64) / ticks[kind.time_unit]
    if kind == pl.Date:
        return cells.cast(pl.Int32).cast(pl.Float64) * DAY
    if kind == pl.Time:
        return cells.cast(pl.Int64).cast(pl.Float64) / ticks["ns"]
    if kind != pl.String:
        return cells.cast(pl.Float64, strict=False)
    plain = cells.cast(pl.Float64, strict=False)
    if plain.null_count() == cells.null_count():
        return plain
    bare = cells.str.strip_chars()
    plain = bare.cast(pl.Float64, strict=False)
    return plain.zip_with(plain.is_not_null(), _dates(bare))


def _dates(bare: pl.Series) -> pl.Series:
    """Seconds since 1970 of ISO 8601 dates; null for anything else."""
    import polars as pl

    def number(part: str) -> pl.Expr:
        return pl.col(part).str.replace(",", ".").cast(pl.Float64).fill_null(0.0)

    zone = (number("zone_hours") * 60 + number("zone_minutes")) * 60
    parts = bare.str.extract_groups(ISO_8601).struct.unnest()
    return parts.select(
        pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64) * DAY
        + number("hours") * 3600
        + number("minutes") * 60
        + number("seconds")
        - pl.when(pl.col("sign") == "-").then(-zone).otherwise(zone)
    ).to_series()


def short(text: str, limit: int = 40) -> str:
    """The text shortened to one line for a message."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"
