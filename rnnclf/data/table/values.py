"""What the values of columns say about their meaning: ids, times and row numbers. Torch-free.

Shapes: R rows, K keys.  A key numbers the distinct values of one or more columns, an int64 for each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array

if TYPE_CHECKING:
    import polars as pl

EVIDENCE = 10  # values that must agree before they say something; in fewer they may agree by chance


def key_of(*columns: pl.Series) -> Array:
    """The key of one or more columns; missing cells are a value, too."""
    import numpy as np
    import polars as pl

    key_R = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        texts = column.cast(pl.String, strict=False).str.strip_chars().fill_null("")
        own_R = texts.rank("dense").to_numpy().astype(np.int64) - 1
        _, key_R = np.unique(key_R * (own_R.max(initial=0) + 1) + own_R, return_inverse=True)
    return key_R


def count(key_R: Array) -> int:
    return int(key_R.max(initial=-1)) + 1


def together(key_R: Array, other_R: Array) -> Array:
    """The key of both."""
    import numpy as np

    both_R: Array = np.unique(key_R * (count(other_R) or 1) + other_R, return_inverse=True)[1]
    return both_R


def runs(key_R: Array) -> int:
    """The number of runs of equal values, in the order of the rows."""
    import numpy as np

    return int(np.count_nonzero(np.diff(key_R))) + (len(key_R) > 0)


def in_runs(key_R: Array) -> bool:
    """Whether the rows of each value follow each other."""
    return runs(key_R) == count(key_R)


def decides(key_R: Array, other_R: Array) -> bool:
    """Whether `other` is constant where `key` is."""
    return count(together(key_R, other_R)) == count(key_R)


def sorted_by_label(label_R: Array) -> bool:
    """Whether equal labels follow each other far more often than in rows that were shuffled."""
    import numpy as np

    shares_K = np.bincount(label_R) / len(label_R)
    expected = 1 + (len(label_R) - 1) * (1 - (shares_K**2).sum())
    return len(label_R) >= EVIDENCE and count(label_R) > 1 and runs(label_R) * 2 <= expected


def exact(column: pl.Series) -> Array | None:
    """The cells as float64 (R,); None if any is missing or no finite number."""
    import numpy as np
    import polars as pl

    if column.dtype == pl.Boolean or column.dtype.is_nested():
        return None
    cells = column.str.strip_chars() if column.dtype == pl.String else column
    if not (cells.dtype == pl.String or cells.dtype.is_numeric()):
        return None
    values_R: Array = cells.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    return values_R if np.isfinite(values_R).all() else None


def whole(values_R: Array | None) -> bool:
    import numpy as np

    return values_R is not None and bool((values_R == np.floor(values_R)).all())


def counts_rows(values_R: Array | None) -> bool:
    """Whether whole numbers rise by one through the file or, in shuffled rows, would if they were sorted."""
    import numpy as np

    return (
        values_R is not None
        and len(values_R) >= EVIDENCE
        and whole(values_R)
        and bool((np.diff(np.sort(values_R)) == 1).all())
    )


def ascends(values_R: Array | None) -> bool:
    """Whether whole numbers rise from each row to the next."""
    import numpy as np

    enough = values_R is not None and len(values_R) >= EVIDENCE
    return enough and whole(values_R) and bool((np.diff(values_R) > 0).all())  # type: ignore[arg-type]


def rises_within(key_R: Array, values_R: Array) -> bool:
    """Whether the values rise from each row of a key to its next, in the order of the rows."""
    import numpy as np

    order_R = np.argsort(key_R, kind="stable")
    same = np.diff(key_R[order_R]) == 0
    steps = np.diff(values_R[order_R])[same]
    return len(steps) >= EVIDENCE and bool((steps > 0).all())


def falls_within(key_R: Array, values_R: Array, by: float) -> bool:
    """Whether values fall by more than `by` from any row of a key to its next."""
    import numpy as np

    order_R = np.argsort(key_R, kind="stable")
    same = np.diff(key_R[order_R]) == 0
    return bool((np.diff(values_R[order_R])[same] < -by).any())


def even_within(key_R: Array, values_R: Array) -> bool:
    """Whether the values of each key, once sorted, have the same distance throughout the file."""
    import numpy as np

    order_R = np.lexsort((values_R, key_R))
    steps = np.diff(values_R[order_R])[np.diff(key_R[order_R]) == 0]
    longest = np.bincount(key_R).max()
    if len(steps) < EVIDENCE or longest < 3 or steps.min() <= 0:
        return False
    rounding = np.abs(values_R).max() * 1e-15
    return bool(np.ptp(steps) <= steps.min() * 1e-6 + 4 * rounding)


def differs_within(key_R: Array, values_R: Array) -> bool:
    """Whether no key has the same value twice."""
    import numpy as np

    order_R = np.lexsort((values_R, key_R))
    same = np.diff(key_R[order_R]) == 0
    return not bool((np.diff(values_R[order_R])[same] == 0).any())
