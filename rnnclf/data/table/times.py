"""Reads the cells of time columns: numbers, and dates and times of day as people write them. Torch-free.

A kind says how the cells of a column are written: `number`; `whole`, whole numbers too large for float64;
`ymd`, `dmy` or `mdy`, dates by the order of their parts; `clock`, times of day; or a format such as %d.%m.%Y.
Shapes: R rows of a block.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import Block
from rnnclf.data.table.cells import short
from rnnclf.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

SECOND = 10**9  # nanoseconds
DAY = 86400 * SECOND
HALF_DAY = DAY // 2
EXACT = 2**53  # float64 holds whole numbers exactly up to this

CLOCK = (
    r"(?<hours>\d{1,2}):(?<minutes>[0-5]\d)(?::(?<seconds>[0-5]\d)(?:[.,](?<fraction>\d{1,9})\d*)?)?"
    r"(?:\s*(?<half>[AaPp])\.?[Mm]\.?)?"
)
ZONE = r"(?:Z|(?<sign>[+-])(?<zone_hours>\d\d):?(?<zone_minutes>\d\d))?"
YEAR, MONTH, AND_DAY = r"(?<year>\d{4})", r"(?<month>\d{1,2})", r"(?<day>\d{1,2})"
DATES = {
    "ymd": rf"{YEAR}[-/.]{MONTH}[-/.]{AND_DAY}",
    "dmy": rf"{AND_DAY}[-/.]{MONTH}[-/.]{YEAR}",
    "mdy": rf"{MONTH}[-/.]{AND_DAY}[-/.]{YEAR}",
}
WRITTEN = {
    **{kind: rf"^{date}(?:(?:T|,?\s+){CLOCK}\s*{ZONE})?$" for kind, date in DATES.items()},
    "clock": rf"^{CLOCK}$",
}
YEAR_LAST = r"^(\d{1,2})([-/.])(\d{1,2})[-/.]\d{4}(?:\D|$)"


def kind_of(block: Block, column: str, asked: str | None = None) -> str:
    """How the times of a column are written. Raises ConfigError if day and month cannot be told apart."""
    import polars as pl

    cells = block.frame[column].drop_nulls()
    if asked is not None and cells.dtype == pl.String:
        return asked
    if cells.dtype.is_temporal():
        return "ymd"
    if cells.dtype != pl.String:
        return "whole" if _large(cells) else "number"
    bare = cells.str.strip_chars()
    bare = bare.filter(bare != "")
    if bare.cast(pl.Float64, strict=False).is_not_null().any():
        return "whole" if _large(bare) else "number"
    if bare.str.contains(r"^\d{1,2}:\d\d").any():
        return "clock"
    return _order_of_days(block.name, column, bare)


def _large(cells: pl.Series) -> bool:
    import polars as pl

    numbers = cells.cast(pl.Int64, strict=False)
    return not numbers.has_nulls() and bool((numbers.abs() > EXACT).any())


def _order_of_days(table: str, column: str, bare: pl.Series) -> str:
    import polars as pl

    parts = bare.str.extract_groups(YEAR_LAST).struct.unnest().drop_nulls()
    if parts.is_empty():
        return "ymd"
    first, mark, second = parts.columns
    large = parts.select(pl.col(first, second).cast(pl.Int64) > 12)
    day_first, month_first = bool(large[first].any()), bool(large[second].any())
    if day_first != month_first:
        return "dmy" if day_first else "mdy"
    if not day_first and (parts[mark] == ".").all():
        return "dmy"  # dots are not used with the month first
    sign, clock = parts[mark][0], _clock_format(bare[0])
    raise ConfigError(
        f"{table}, column '{column}': '{short(bare[0])}' does not tell whether the day or the month comes"
        f" first. Set 'dataset.time_format=%d{sign}%m{sign}%Y{clock}' or"
        f" 'dataset.time_format=%m{sign}%d{sign}%Y{clock}'."
    )


def _clock_format(text: str) -> str:
    """The format of the time of day behind a date; '' if there is none."""
    found = re.search(r"(\D*?)\d{1,2}:\d\d(:\d\d)?([.,]\d+)?(\s*[AaPp][Mm])?\s*$", text)
    if found is None:
        return ""
    gap, seconds, fraction, half = found.groups()
    clock = ("%I:%M" if half else "%H:%M") + (":%S" if seconds else "") + ("%.f" if fraction else "")
    return gap + clock + (half[:-2] + "%p" if half else "")


def is_time(cells: pl.Series) -> bool:
    """Whether all cells of a column of text are dates or times of day."""
    import polars as pl

    if cells.dtype.is_temporal():
        return True
    if cells.dtype != pl.String or cells.is_empty() or cells.has_nulls():
        return False
    bare = cells.str.strip_chars()
    return any(bool(bare.str.contains(pattern).all()) for pattern in WRITTEN.values())


def times(block: Block, column: str, kind: str) -> Array:
    """The cells as times (R,): float64 numbers as they are, or int64 nanoseconds or whole numbers.

    Raises DataError, which names the line, for anything else.
    """
    import numpy as np

    cells = block.frame[column]
    found = _parsed(cells, kind)
    if kind == "number":
        times_R = found.fill_null(float("nan")).to_numpy()
        wrong_R = ~np.isfinite(times_R)
    else:
        times_R, wrong_R = found.fill_null(0).to_numpy(), found.is_null().to_numpy()
    if wrong_R.any():
        row = int(wrong_R.argmax())
        text = cells[row]
        empty = text is None or not str(text).strip()
        what = " is empty" if empty else f": '{short(str(text))}' is not a time"
        if "%" in kind and not empty:
            raise DataError(f"{block.place(row)}, column '{column}'{what} written as {kind}.")
        raise DataError(
            f"{block.place(row)}, column '{column}'{what}: write numbers, or dates like 2024-12-31T23:59:59."
            + ("" if empty else " For dates in another form, set dataset.time_format.")
        )
    return times_R


def in_seconds(exact_S: Array, kind: str) -> Array:
    """Exact times, counted from some start, as float64: dates in seconds, numbers in their own unit."""
    seconds_S: Array = exact_S / (1 if kind == "whole" else SECOND)
    return seconds_S


def _parsed(cells: pl.Series, kind: str) -> pl.Series:
    """float64 for kind `number`, otherwise int64; null for what is no time of this kind."""
    import polars as pl

    if cells.dtype.is_temporal():
        if kind in ("number", "whole"):
            return pl.repeat(None, len(cells), dtype=pl.Float64 if kind == "number" else pl.Int64, eager=True)
        return _nanoseconds(cells)
    if kind in ("number", "whole"):
        bare = cells.str.strip_chars() if cells.dtype == pl.String else cells
        return bare.cast(pl.Float64 if kind == "number" else pl.Int64, strict=False)
    bare = cells.cast(pl.String, strict=False).str.strip_chars()
    return _formatted(bare, kind) if "%" in kind else _written(bare, kind)


def _nanoseconds(cells: pl.Series) -> pl.Series:
    import polars as pl

    if cells.dtype == pl.Date:
        return cells.cast(pl.Int32).cast(pl.Int64) * DAY
    per_tick = {"ms": 10**6, "us": 10**3, "ns": 1}
    unit = cells.dtype.time_unit if isinstance(cells.dtype, pl.Datetime | pl.Duration) else "ns"
    return cells.cast(pl.Int64) * per_tick[unit]


def _formatted(bare: pl.Series, kind: str) -> pl.Series:
    import polars as pl

    form = kind.replace(".%f", "%.f")  # a fraction of any length
    has_date, has_clock = bool(re.search("%[yYjsFDx]", form)), bool(re.search("%[HIklTRrsXp]", form))
    try:
        if has_date and not has_clock:
            return _nanoseconds(bare.str.to_date(form, strict=False))
        if not has_date:
            return _nanoseconds(bare.str.to_time(form, strict=False))
        return _nanoseconds(bare.str.to_datetime(form, time_unit="ns", strict=False))
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"dataset.time_format: '{kind}' is not a format of dates such as '%d.%m.%Y %H:%M:%S'."
        ) from error


def _written(bare: pl.Series, kind: str) -> pl.Series:
    import polars as pl

    def number(part: str) -> pl.Expr:
        return pl.col(part).cast(pl.Int64).fill_null(0)

    found = bare.str.extract_groups(WRITTEN[kind]).struct.unnest()
    hours = pl.col("hours").cast(pl.Int64)
    half = pl.when(pl.col("half").str.to_lowercase() == "p").then(12).otherwise(0)
    hours = pl.when(pl.col("half").is_null()).then(hours).otherwise(hours % 12 + half)
    fraction = pl.col("fraction").str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    clock = (hours.fill_null(0) * 60 + number("minutes")) * 60 + number("seconds")
    time = clock * SECOND + fraction
    late = (hours >= 24).fill_null(False)
    if kind == "clock":
        return found.select(pl.when(pl.col("hours").is_null() | late).then(None).otherwise(time)).to_series()
    two = [pl.col(part).str.zfill(2) for part in ("month", "day")]
    date = pl.concat_str([pl.col("year"), *two], separator="-").str.to_date("%Y-%m-%d", strict=False)
    days = date.cast(pl.Int32).cast(pl.Int64)
    held = days.is_between(-106_000, 106_000)  # what 64 bits of nanoseconds hold: 1679 to 2260
    zone = (number("zone_hours") * 60 + number("zone_minutes")) * 60 * SECOND
    local = pl.when(pl.col("sign") == "-").then(-zone).otherwise(zone)
    return found.select(pl.when(held & ~late).then(days * DAY + time - local)).to_series()
