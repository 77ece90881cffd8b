"""Intervals and paired comparisons over repeated runs. Torch-free.

Distributions come from scipy.special: scipy.stats, which has the tests ready-made, takes a second to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEAST_RUNS = 3
"""Below this number, an interval or a comparison over runs says nothing: with two, t is 12.7."""


@dataclass(frozen=True)
class Spread:
    """The mean of some values and how they vary."""

    n: int
    mean: float
    sd: float | None
    """The standard deviation of a sample; None for a single value."""
    interval95: tuple[float, float] | None
    """Student's 95 % interval of the mean; None for fewer than LEAST_RUNS values."""


def spread(values: Sequence[float], folds: int | None = None) -> Spread:
    """The spread of one or more shares, whose interval stays within 0 and 1. `folds` as in `paired_p`."""
    from scipy.special import stdtrit

    n, mean = len(values), fmean(values)
    sd = stdev(values) if n > 1 else None
    if sd is None or n < LEAST_RUNS:
        return Spread(n, mean, sd, None)
    half = float(stdtrit(n - 1, 0.975)) * sd * _scale(n, folds)
    return Spread(n, mean, sd, (max(mean - half, 0.0), min(mean + half, 1.0)))


def paired_p(differences: Sequence[float], folds: int | None = None) -> float | None:
    """The two-sided p of a paired t test that the mean difference is 0; None for fewer than LEAST_RUNS pairs.

    Args:
        differences: of two methods, for each seed or fold that they share.
        folds: the number of folds if the pairs are those of a cross-validation, for `_scale`.

    Differences that are all the same have no deviation to judge by; p is then that of a sign test.
    """
    from scipy.special import stdtr

    n = len(differences)
    if n < LEAST_RUNS:
        return None
    mean, sd = fmean(differences), stdev(differences)
    if sd <= 1e-12:
        return 1.0 if abs(mean) <= 1e-12 else 2 * 0.5**n
    return float(2 * stdtr(n - 1, -abs(mean / (sd * _scale(n, folds)))))


def _scale(n: int, folds: int | None) -> float:
    """The standard error of the mean of n values as a multiple of their deviation.

    The training sets of a cross-validation overlap, so that its variance is s² · (1/n + 1/(folds - 1)), not
    s²/n: Nadeau and Bengio 2003, https://doi.org/10.1023/A:1024068626366.
    """
    return math.sqrt(1 / n + (0.0 if folds is None else 1 / (folds - 1)))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p values adjusted for being several (Holm 1979); those that are None are no comparisons."""
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted
