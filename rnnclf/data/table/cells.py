"""Parses the cells of columns: numbers, times, names. Torch-free.  Shapes: R rows, C columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import Block
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

LONGEST_NAME = 1000  # bytes of an id or a class name
ADVICE = (
    "If it marks a missing value, list it in dataset.missing_values; if the values are names, list the"
    " column in dataset.categorical; to leave it out, list the others in dataset.channels."
)
TRUTH = {"true": 1.0, "false": 0.0}  # in lower case


@dataclass(frozen=True)
class Missing:
    """What is read as missing besides empty cells.

    words: in columns of numbers; names: in ids, labels, groups and splits; numbers: in columns of numbers.
    In any case, unless `exact`.
    """

    words: tuple[str, ...] = ("nan", "na", "n/a", "#n/a", "<na>", "null", "none", "?", "-", "--")
    names: tuple[str, ...] = ("nan", "na", "n/a", "null", "?")  # not those that can be the name of a class
    numbers: tuple[float, ...] = ()
    exact: bool = False

    @classmethod
    def given(cls, values: Sequence[float | str] | None) -> Missing:
        """As dataset.missing_values says; None: the usual words."""
        if values is None:
            return cls()
        words = tuple(value for value in values if isinstance(value, str))
        numbers = tuple(float(value) for value in values if not isinstance(value, str))
        return cls(words, words, numbers, exact=True)

    def marked(self, bare: pl.Series, words: tuple[str, ...]) -> pl.Series:
        """Which texts, without spaces around them, are missing."""
        return (bare if self.exact else bare.str.to_lowercase()).is_in(["", *words])


USUAL = Missing()


def is_numeric(column: pl.Series, missing: Missing = USUAL) -> bool:
    """Whether any cell is a number, or all are true, false or missing."""
    import polars as pl

    if column.dtype == pl.String:
        bare = column.drop_nulls().str.strip_chars()
        present = bare.filter(~missing.marked(bare, missing.words))
        if bool(present.str.to_lowercase().is_in(list(TRUTH)).all()):
            return True
        return bool(present.cast(pl.Float64, strict=False).is_not_null().any())
    return column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)


def all_numbers(frame: pl.DataFrame) -> set[str]:
    """The columns of text without any other text than numbers; fast for thousands of columns."""
    import polars as pl
    from polars.selectors import string

    texts = frame.select(string())
    cast = texts.select(pl.all().cast(pl.Float64, strict=False))
    counts = zip(texts.columns, _null_counts(texts, cast), strict=True)
    return {name for name, (before, after) in counts if before == after}


def numbers(
    block: Block,
    columns: Sequence[str],
    missing: Missing = USUAL,
    lenient: bool = False,
    advice: str = ADVICE,
) -> Array:
    """The cells as float64 (R, C), NaN if missing; 1 and 0 for true and false.

    Raises DataError, which names line and column, for text, with `advice`, and for numbers too large for
    float64; if `lenient`, these are infinite.
    """
    import numpy as np
    import polars as pl
    from polars.selectors import by_name

    frame = block.frame.select(by_name(columns))
    with np.errstate(over="ignore"):
        cast = frame.select(pl.all().cast(pl.Float64, strict=False))
        for name, (before, after) in zip(columns, _null_counts(frame, cast), strict=True):
            if before != after:
                cast = cast.with_columns(_cleaned(block, name, cast[name], missing, lenient, advice))
        values_RC = np.ascontiguousarray(cast.fill_null(float("nan")).to_numpy())
        if missing.numbers:
            values_RC = np.where(np.isin(values_RC, missing.numbers), np.nan, values_RC)
    infinite_RC = np.isinf(values_RC)
    if infinite_RC.any() and not lenient:
        row, place = (int(part[0]) for part in np.nonzero(infinite_RC))
        text = frame[columns[place]][row]
        raise DataError(
            f"{block.place(row)}, column '{columns[place]}': {text} is infinite or too large."
            " Write a number below 1.8e308, or leave the cell empty."
        )
    return values_RC


def _null_counts(before: pl.DataFrame, after: pl.DataFrame) -> list[tuple[int, int]]:
    return list(zip(before.null_count().row(0), after.null_count().row(0), strict=True))


def _cleaned(
    block: Block, name: str, cast: pl.Series, missing: Missing, lenient: bool, advice: str
) -> pl.Series:
    """The numbers of a column in which some cells have spaces around them or are words."""
    import polars as pl

    texts = block.frame[name]
    if texts.dtype != pl.String:
        raise DataError(f"{block.name}: column '{name}' is not numeric ({texts.dtype}).")
    bare = texts.str.strip_chars()
    cleaned = bare.cast(cast.dtype, strict=False)
    truth = bare.str.to_lowercase().replace_strict(TRUTH, default=None, return_dtype=cast.dtype)
    cleaned = cleaned.zip_with(cleaned.is_not_null(), truth)
    invalid = cleaned.is_null() & bare.is_not_null() & ~missing.marked(bare, missing.words)
    if invalid.any() and lenient:
        return cleaned.set(invalid.fill_null(False), float("inf")).alias(name)
    if invalid.any():
        row = invalid.arg_max()
        assert row is not None
        raise DataError(
            f"{block.place(row)}, column '{name}': '{short(texts[row])}' is not a number. {advice}"
        )
    return cleaned.alias(name)


def names(block: Block, column: str, missing: Missing = USUAL, optional: bool = False) -> pl.Series:
    """The cells as text without surrounding spaces; whole numbers lose their fraction, 1.0 becomes 1.

    Missing ones are null if they are `optional`. Raises DataError, which names the line, for one that is too
    long, and for one that is missing otherwise.
    """
    texts = _bare_names(block, column)
    lacking = texts.is_null() | missing.marked(texts, missing.names)
    if optional:
        texts = texts.set(lacking.fill_null(True), None)
    elif lacking.any():
        row = lacking.arg_max()
        assert row is not None
        raise DataError(f"{block.place(row)}, column '{column}' {_lack(texts[row])}")
    too_long = texts.str.len_bytes() > LONGEST_NAME
    if too_long.any():
        row = too_long.arg_max()
        assert row is not None
        raise DataError(f"{block.place(row)}, column '{column}' has more than {LONGEST_NAME:,} bytes.")
    return texts


def optional_names(block: Block, column: str, missing: Missing = USUAL) -> pl.Series:
    """The cells as in `names`, however long; null for a missing one."""
    import polars as pl

    texts = _bare_names(block, column)
    return texts.set(missing.marked(texts, missing.names).fill_null(False), None).cast(pl.String)


def _bare_names(block: Block, column: str) -> pl.Series:
    import polars as pl

    cells = block.frame[column]
    return cells.cast(pl.String, strict=False).str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")


def _lack(text: str | None) -> str:
    """What is wrong with a missing name."""
    if not text:
        return "is empty: every row needs a value there."
    return (
        f"has '{text}', which is read as missing: every row needs a value there. If it is a name, set"
        " dataset.missing_values=[], or list there the words that do mark missing values."
    )


def short(text: str, limit: int = 40) -> str:
    """The text shortened to one line for a message."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"
