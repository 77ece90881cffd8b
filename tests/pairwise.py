"""Few cases instead of all combinations of options."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any


def pairwise(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Rows with one value of each axis: any two values of two axes are together in one row at least.

    Faults that only a combination shows need two options, seldom three; see Kuhn, Wallace and Gallo 2004,
    https://doi.org/10.1109/TSE.2004.24.
    """
    values = [list(axis) for axis in axes]
    rows = list(product(*(range(len(axis)) for axis in values)))
    missing = {pair for row in rows for pair in combinations(enumerate(row), 2)}
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(missing.intersection(combinations(enumerate(row), 2))))
        missing.difference_update(combinations(enumerate(best), 2))
        chosen.append(tuple(axis[index] for axis, index in zip(values, best, strict=True)))
    return chosen
