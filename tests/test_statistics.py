"""Intervals and comparisons over runs: figures of tables and of scipy.stats."""

from __future__ import annotations

import random

import pytest

from rnnclf.statistics import holm, paired_p, spread

ACCURACIES = [0.92, 0.94, 0.91, 0.95, 0.93]
OTHERS = [0.90, 0.93, 0.92, 0.91, 0.90]
DIFFERENCES = [a - b for a, b in zip(ACCURACIES, OTHERS, strict=True)]


def test_the_interval_is_students():
    found = spread(ACCURACIES)
    assert (found.n, found.mean) == (5, pytest.approx(0.93))
    assert found.sd == pytest.approx(0.0158113883)
    # 2.7764451 is t's quantile at 0.975 with four degrees of freedom
    assert found.interval95 == pytest.approx((0.93 - 2.7764451 * 0.0158113883 / 5**0.5, 0.9496324316))


def test_one_run_has_no_deviation_and_two_have_no_interval():
    assert (spread([0.9]).sd, spread([0.9]).interval95) == (None, None)
    assert spread([0.9, 0.8]).sd == pytest.approx(0.0707106781)
    assert spread([0.9, 0.8]).interval95 is None


def test_an_interval_of_shares_stays_within_0_and_1():
    assert spread([1.0, 1.0, 0.9]).interval95[1] == 1.0
    assert spread([0.0, 0.0, 0.1]).interval95[0] == 0.0


def test_p_is_that_of_the_paired_t_test():
    assert paired_p(DIFFERENCES) == pytest.approx(0.1045399998)  # scipy.stats.ttest_rel
    assert paired_p([-d for d in DIFFERENCES]) == pytest.approx(paired_p(DIFFERENCES))


def test_folds_need_a_larger_difference_because_they_share_training_sequences():
    # 2 * scipy.stats.t(4, scale=sd * sqrt(1/5 + 1/4)).sf(mean)
    assert paired_p(DIFFERENCES, folds=5) == pytest.approx(0.2354963603)
    assert spread(ACCURACIES, folds=5).interval95[1] == pytest.approx(
        0.93 + 2.7764451 * 0.0158113883 * 0.45**0.5
    )


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.1, 0.2], None), ([0.0] * 3, 1.0), ([0.1] * 3, 0.25), ([0.1] * 6, 0.03125)],
    ids=["too few", "no difference", "the same three times", "the same six times"],
)
def test_without_a_deviation_the_signs_decide(differences, p):
    assert paired_p(differences) == p


def test_holm_adjusts_for_the_number_of_comparisons():
    # 4 · 0.01; 3 · 0.03; the larger of that and 2 · 0.04; 0.5
    assert holm([0.01, 0.04, None, 0.03, 0.5]) == pytest.approx([0.04, 0.09, None, 0.09, 0.5])


def test_at_most_one_of_twenty_ties_is_called_different():
    """Tables of three configurations that are all alike, of which any may be the first."""
    draw, wrong, tables = random.Random(0), 0, 1000
    for _ in range(tables):
        first, *rest = ([draw.gauss(0.9, 0.02) for _ in range(5)] for _ in range(3))
        ps = holm([paired_p([a - b for a, b in zip(first, other, strict=True)]) for other in rest])
        wrong += any(p <= 0.05 for p in ps)
    assert wrong / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
