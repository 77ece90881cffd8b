"""Intervals and comparisons over repeated runs, test sequences and data sets. Torch-free.

Distributions come from scipy.special: scipy.stats, which has the tests ready-made, takes a second to import.
It is used where several data sets are compared.
Shapes: R runs, N test sequences, D data sets, M methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rnnclf.metrics import wilson_interval

if TYPE_CHECKING:
    from rnnclf.data.recordings import Array

from rnnclf.metrics import percent

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


def mean_and_sd(found: Spread) -> str:
    """A share and its standard deviation, if there is one."""
    return percent(found.mean) if found.sd is None else f"{100 * found.mean:.2f} ± {100 * found.sd:.2f} %"


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


# Comparing two


@dataclass(frozen=True)
class Difference:
    """By how much one share is higher than another, and how sure that is.

    The half width of an interval is the root of the sum of two squares: that over runs, by Student's
    distribution, and that over test sequences, by the normal distribution.
    """

    mean: float
    error: float = 0.0
    """The standard error over runs."""
    freedom: float = math.inf
    """Student's degrees of freedom of that error."""
    error_over_sequences: float = 0.0
    """What another choice of test sequences adds."""

    @property
    def is_sure(self) -> bool:
        """Whether nothing varies at all, so that there is nothing to judge by."""
        return self.error == self.error_over_sequences == 0

    @property
    def interval95(self) -> tuple[float, float]:
        half = self._half_width(0.025)
        return max(self.mean - half, -1.0), min(self.mean + half, 1.0)

    @property
    def p(self) -> float:
        """Two-sided, of the hypothesis that there is no difference."""
        if self.is_sure:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * self._beyond(abs(self.mean))

    def chances(self, equal: float) -> tuple[float, float, float]:
        """The probabilities that the first is better, that the two differ by at most `equal`, and that the
        second is better.

        The posterior of a flat prior: with folds, the Bayesian correlated t test of Benavoli et al. 2017,
        https://jmlr.org/papers/v18/16-305.html.
        """
        if self.is_sure:
            return float(self.mean > equal), float(abs(self.mean) <= equal), float(self.mean < -equal)
        first, second = self._beyond(equal - self.mean), self._beyond(equal + self.mean)
        return first, max(1 - first - second, 0.0), second

    def _half_width(self, tail: float) -> float:
        """The deviation that is exceeded in each direction with the probability `tail`, at most 0.5."""
        from scipy.special import ndtri, stdtrit

        over_sequences = float(ndtri(tail)) * self.error_over_sequences
        return math.hypot(float(stdtrit(self.freedom, tail)) * self.error, over_sequences)

    def _beyond(self, distance: float) -> float:
        """The probability of a deviation of more than `distance` in one direction."""
        from scipy.special import ndtr, stdtr

        if distance < 0:
            return 1 - self._beyond(-distance)
        # neither part alone is wider than both together
        over_runs = float(stdtr(self.freedom, -distance / self.error)) if self.error else 0.0
        if not self.error_over_sequences:
            return over_runs
        low = max(over_runs, float(ndtr(-distance / self.error_over_sequences)), 1e-300)
        high = 0.5
        for _ in range(40):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self._half_width(middle) > distance else (low, middle)
        return high


def paired(differences: Sequence[float], folds: int | None = None) -> Difference | None:
    """Of two methods over the seeds or folds that they share; None for fewer than LEAST_RUNS.

    `folds` as in `paired_p`.
    """
    n = len(differences)
    if n < LEAST_RUNS:
        return None
    sd = _root(stdev(differences) ** 2)
    return Difference(fmean(differences), sd * _scale(n, folds), n - 1)


def crossed(difference_RN: Array) -> Difference | None:
    """Of two methods over seeds and test sequences, both of which might have been others.

    difference_RN: for each of R seeds and N sequences 1 if the first method alone is right, -1 if the second
        alone is right, else 0.

    The variance of the mean is the sum of those over seeds and over sequences less that of the remainder,
    which both contain (Cameron et al. 2011, https://doi.org/10.1198/jbes.2010.07136). The interval is never
    narrower than that over seeds alone. None for fewer than LEAST_RUNS seeds or two sequences.
    """
    import numpy as np

    r, n = difference_RN.shape
    if r < LEAST_RUNS or n < 2:
        return None
    seeds_R, sequences_N = difference_RN.mean(axis=1), difference_RN.mean(axis=0)
    mean = float(seeds_R.mean())
    over_seeds, over_sequences = float(seeds_R.var(ddof=1)) / r, float(sequences_N.var(ddof=1)) / n
    # the sum of squares of what is left without the effects of seeds and sequences
    total = float(np.square(difference_RN, dtype=np.float64).sum()) - r * n * mean**2
    rest = total - n * (r - 1) * over_seeds * r - r * (n - 1) * over_sequences * n
    remainder = max(rest, 0.0) / ((r - 1) * (n - 1)) / (r * n)
    return Difference(mean, _root(over_seeds), r - 1, _root(over_sequences - remainder))


def _root(variance: float) -> float:
    """Of a variance, which is 0 if rounding alone made it differ from 0."""
    return math.sqrt(variance) if variance > 1e-24 else 0.0


def unpaired(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Of two methods without common seeds (Welch 1947); None if either has fewer than LEAST_RUNS runs."""
    if min(len(first), len(second)) < LEAST_RUNS:
        return None
    a, b = stdev(first) ** 2 / len(first), stdev(second) ** 2 / len(second)
    mean = fmean(first) - fmean(second)
    if not _root(a + b):
        return Difference(mean)
    freedom = (a + b) ** 2 / (a * a / (len(first) - 1) + b * b / (len(second) - 1))
    return Difference(mean, _root(a + b), freedom)


def improvement(first: Sequence[float], second: Sequence[float]) -> float:
    """The probability that a run of the first method beats one of the second; ties count as half.

    Agarwal et al. 2021, https://arxiv.org/abs/2108.13264.
    """
    won = sum((a > b) + 0.5 * (a == b) for a in first for b in second)
    return won / (len(first) * len(second))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The exact two-sided p that two classifiers are equally good (McNemar 1947), by the number of sequences
    that only one of them has right."""
    from scipy.special import bdtr

    n = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5)))


def paired_interval(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two accuracies on the same sequences, from the number that both,
    one alone or neither has right.

    Method 10 of Newcombe 1998, which joins two Wilson intervals:
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C
    """
    n = both + only_first + only_second + neither
    a, b = both + only_first, both + only_second
    (low_a, high_a), (low_b, high_b) = wilson_interval(a, n), wilson_interval(b, n)
    p_a, p_b = a / n, b / n
    margins = a * (n - a) * b * (n - b)
    excess = both * neither - only_first * only_second
    phi = (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(margins) if margins else 0.0

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    down, up = distance(p_a - low_a, high_b - p_b), distance(high_a - p_a, p_b - low_b)
    return max(p_a - p_b - down, -1.0), min(p_a - p_b + up, 1.0)


# Comparing several over several data sets


@dataclass(frozen=True)
class Ranks:
    """Methods ranked on each of several data sets (Demšar 2006, https://jmlr.org/papers/v7/demsar06a.html)."""

    mean: tuple[float, ...]
    """The mean rank of each method; 1 is the best."""
    p: float | None
    """Of Friedman's test that all are alike, in the form of Iman and Davenport; None for two methods."""
    friedman_p: float | None
    """The same in Friedman's own form, which is more cautious."""
    critical: float
    """Nemenyi's critical difference: mean ranks that differ by less are not told apart, if each pair is
    compared."""
    pairs: dict[tuple[int, int], float]
    """The p of Wilcoxon's signed-rank test for each pair of methods, with Holm's correction."""
    least: float
    """The smallest p that Holm's correction can leave for the first pair with so few data sets."""
    needed: int
    """The number of data sets from which on a pair can be told apart at all."""
    groups: tuple[tuple[int, ...], ...]
    """The largest sets of two and more methods, neighbours in rank, of which no pair is told apart."""


def ranks_over_data(scores_DM: Array, level: float = 0.05) -> Ranks:
    """Compares M methods by their scores, higher is better, on D data sets; D and M are at least 2."""
    import numpy as np
    from scipy import stats

    scores_DM = scores_DM.round(12)  # so that equal means of other runs are ties
    d, m = scores_DM.shape
    mean_M = stats.rankdata(-scores_DM, axis=1).mean(axis=0)
    pairs = list(combinations(range(m), 2))
    adjusted = holm([wilcoxon_p(scores_DM[:, i] - scores_DM[:, j]) for i, j in pairs])
    found = {pair: 1.0 if p is None else p for pair, p in zip(pairs, adjusted, strict=True)}
    p, friedman_p = _friedman(scores_DM) if m > 2 else (None, None)
    q = float(stats.studentized_range.ppf(1 - level, m, np.inf)) / math.sqrt(2)
    return Ranks(
        mean=tuple(mean_M.tolist()),
        p=p,
        friedman_p=friedman_p,
        critical=q * math.sqrt(m * (m + 1) / (6 * d)),
        pairs=found,
        least=min(1.0, len(pairs) * 2 * 0.5**d),
        needed=math.ceil(math.log2(2 * len(pairs) / level)),
        groups=_alike(np.argsort(mean_M, kind="stable").tolist(), found, level),
    )


def wilcoxon_p(differences_D: Array) -> float:
    """The exact two-sided p of Wilcoxon's signed-rank test, without the differences that are 0; also exact
    where some of the same size share their ranks."""
    import numpy as np
    from scipy.stats import rankdata

    there_d = differences_D[differences_D != 0]
    doubled_d = np.rint(2 * rankdata(np.abs(there_d))).astype(int)
    chance_S = np.zeros(doubled_d.sum() + 1)  # of each sum of doubled ranks, if each sign is a coin's
    chance_S[0] = 1.0
    for rank in doubled_d:
        chance_S[rank:] = (chance_S[rank:] + chance_S[:-rank]) / 2
        chance_S[:rank] /= 2
    up = int(doubled_d[there_d > 0].sum())
    return min(1.0, 2 * float(min(chance_S[: up + 1].sum(), chance_S[up:].sum())))


def _friedman(scores_DM: Array) -> tuple[float, float]:
    """The p of Iman and Davenport, and Friedman's own."""
    from scipy import stats

    d, m = scores_DM.shape
    if (scores_DM == scores_DM[:, :1]).all():
        return 1.0, 1.0
    chi, p = stats.friedmanchisquare(*scores_DM.T)
    rest = d * (m - 1) - chi
    f = (d - 1) * chi / rest if rest > 1e-9 else math.inf
    return float(stats.f.sf(f, m - 1, (m - 1) * (d - 1))), float(p)


def _alike(
    order: Sequence[int], pairs: dict[tuple[int, int], float], level: float
) -> tuple[tuple[int, ...], ...]:
    """The longest stretches of `order` of which no pair has a p of at most `level`."""
    found: list[tuple[int, ...]] = []
    last = 0
    for first in range(len(order)):
        for end in range(len(order), max(first + 1, last), -1):
            some = order[first:end]
            if all(pairs[min(pair), max(pair)] > level for pair in combinations(some, 2)):
                if len(some) > 1:
                    found.append(tuple(some))
                last = end
                break
    return tuple(found)
