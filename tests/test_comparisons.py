"""Comparisons of two and of several: figures of other libraries, and how often ties are called different."""

from __future__ import annotations

import numpy as np
import pytest

from rnnclf.statistics import (
    Difference,
    crossed,
    holm,
    improvement,
    mcnemar_p,
    paired,
    paired_interval,
    paired_p,
    ranks_over_data,
    unpaired,
    wilcoxon_p,
)

# ten accuracies of each of two methods
X = [0.918989, 0.946834, 0.945607, 0.932739, 0.924274, 0.931322, 0.91847, 0.932607, 0.93003, 0.93532]
Y = [0.934504, 0.942328, 0.921117, 0.935434, 0.917083, 0.916054, 0.918819, 0.91518, 0.934803, 0.934232]
DIFFERENCES = [x - y for x, y in zip(X, Y, strict=True)]

# four methods on twelve data sets
SCORES = np.array(
    [
        [0.9109, 0.844, 0.82, 0.7769], [0.814, 0.8629, 0.8197, 0.7557], [0.8834, 0.7753, 0.8018, 0.7748],
        [0.8388, 0.8017, 0.8471, 0.8226], [0.9073, 0.8502, 0.7571, 0.7848], [0.8123, 0.8629, 0.8569, 0.8126],
        [0.8355, 0.8297, 0.8166, 0.7416], [0.8654, 0.8523, 0.7866, 0.7826], [0.8662, 0.8115, 0.7754, 0.8304],
        [0.8681, 0.9113, 0.7687, 0.728], [0.8968, 0.8824, 0.7785, 0.7403], [0.8571, 0.7739, 0.7942, 0.7116],
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # of statsmodels.stats.contingency_tables.mcnemar(exact=True)
    [(121, 59, 0.000004), (70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221),
     (10, 10, 1.0), (38, 24, 0.0979544405)],
)  # fmt: skip
def test_mcnemars_p_is_that_of_statsmodels(only_first, only_second, p):
    assert mcnemar_p(only_first, only_second) == pytest.approx(p, abs=5e-7)
    assert mcnemar_p(only_second, only_first) == mcnemar_p(only_first, only_second)


def test_two_that_never_differ_are_not_told_apart():
    assert mcnemar_p(0, 0) == 1.0
    low, high = paired_interval(90, 0, 0, 10)
    assert low == -high < 0  # nor is it sure that they are the same


def test_the_interval_of_a_difference_turns_with_the_sides_and_narrows_with_agreement():
    low, high = paired_interval(80, 12, 2, 6)
    assert paired_interval(80, 2, 12, 6) == pytest.approx((-high, -low))
    assert low < 0.1 < high
    assert paired_interval(1, 1, 0, 0)[1] <= 1.0
    wide = paired_interval(50, 30, 10, 10)
    narrow = paired_interval(70, 20, 0, 10)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


@pytest.mark.parametrize(
    "shares", [(0.85, 0.05, 0.05, 0.05), (0.9, 0.06, 0.01, 0.03), (0.97, 0.01, 0.01, 0.01)]
)
def test_the_interval_of_two_accuracies_holds_the_truth_as_often_as_it_says(shares):
    counts_T4 = np.random.default_rng(0).multinomial(360, shares, 2000)
    intervals = [paired_interval(*map(int, counts)) for counts in counts_T4]
    held = np.mean([low <= shares[1] - shares[2] <= high for low, high in intervals])
    assert held >= 0.95 - 2 * (0.05 * 0.95 / 2000) ** 0.5


def test_chances_are_those_of_baycomp():
    # of an implementation by scipy.stats.t that was held against baycomp 1.0.3 to six digits
    found = paired(DIFFERENCES, folds=10)
    assert found.chances(0.005) == pytest.approx((0.476050, 0.469162, 0.054788), abs=1e-6)
    assert found.interval95 == pytest.approx((-0.0076497, 0.0169773), abs=1e-6)
    assert found.p == pytest.approx(paired_p(DIFFERENCES, folds=10))


def test_the_probability_of_improvement_is_that_of_rliable():
    # of an implementation that was held against rliable 1.2.0
    assert improvement(X, Y) == pytest.approx(0.6)
    assert improvement([1.0, 1.0], [1.0]) == 0.5


def test_welchs_test_is_that_of_scipy():
    # scipy.stats.ttest_ind(X, Y[:6], equal_var=False)
    found = unpaired(X, Y[:6])
    assert (found.p, found.freedom) == (pytest.approx(0.4947302927), pytest.approx(9.4790383669))
    assert unpaired(X, Y[:2]) is None


@pytest.mark.long
def test_ranks_over_data_are_those_of_autorank_and_aeon():
    found = ranks_over_data(SCORES)
    assert found.mean == pytest.approx((1.5833, 2.1667, 2.6667, 3.5833), abs=1e-4)
    assert found.critical == pytest.approx(1.3540, abs=1e-4)  # as autorank 1.3.0 has it for 4 on 12
    assert found.friedman_p == pytest.approx(0.0014355859)  # aeon.benchmarking.stats.check_friedman
    assert found.p == pytest.approx(0.0002940542)
    # Holm's correction of twice the p of aeon.benchmarking.stats.wilcoxon_test, which are one-sided
    assert found.pairs == pytest.approx(
        {(0, 1): 0.1543, (0, 2): 0.0371, (0, 3): 0.0059, (1, 2): 0.1543, (1, 3): 0.0244, (2, 3): 0.1274},
        abs=1e-4,
    )
    assert found.groups == ((0, 1), (1, 2), (2, 3))
    assert found.needed == 8


@pytest.mark.long
@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.0625),  # 2 / 2^5: the least that there can be
        ([0.1, 0.2, 0.3, 0.4, -0.5], 0.625),
        ([0.1, 0.1, 0.1, 0.0], 0.25),  # ties share ranks, zeros do not count
        ([0.1, -0.1], 1.0),
        ([0.0, 0.0], 1.0),
    ],
)
def test_wilcoxons_p_is_exact_with_few_data_sets_and_ties(differences, p):
    assert wilcoxon_p(np.array(differences)) == pytest.approx(p)
    assert wilcoxon_p(-np.array(differences)) == pytest.approx(p)


@pytest.mark.long
@pytest.mark.parametrize("scores", [np.full((3, 3), 0.5), np.array([[0.3, 0.2, 0.1]] * 3)])
def test_ranks_that_are_all_alike_or_all_in_order_have_a_p(scores):
    found = ranks_over_data(scores)
    assert found.p == (1.0 if scores[0, 0] == 0.5 else 0.0)
    assert found.groups == ((0, 1, 2),)  # three data sets cannot tell a pair apart


@pytest.mark.long
def test_two_methods_have_no_friedman_test():
    assert ranks_over_data(SCORES[:, :2]).p is None


def test_over_seeds_and_sequences_the_interval_is_never_narrower_than_over_seeds():
    draw = np.random.default_rng(0)
    for _ in range(20):
        right_2RN = draw.random((2, 4, 50)) < draw.uniform(0.5, 0.95, 50)
        difference_RN = right_2RN[0].astype(np.int8) - right_2RN[1]
        both, seeds = crossed(difference_RN), paired(difference_RN.mean(axis=1).tolist())
        assert both.mean == pytest.approx(seeds.mean)
        assert both.interval95[0] <= seeds.interval95[0] + 1e-12
        assert both.p >= seeds.p - 1e-9
        assert (both.p <= 0.05) == (not both.interval95[0] <= 0 <= both.interval95[1])


def test_sequences_alone_decide_where_seeds_do_not_differ():
    """Three seeds that answer alike: the interval is the normal one over sequences."""
    row_N = np.array([1] * 14 + [-1] * 4 + [0] * 82, dtype=np.int8)
    found = crossed(np.stack([row_N] * 3))
    error = (row_N.var(ddof=1) / 100) ** 0.5
    assert found.interval95 == pytest.approx((0.1 - 1.959964 * error, 0.1 + 1.959964 * error))
    assert crossed(np.zeros((3, 9), np.int8)) == Difference(0.0, 0.0, 2)
    assert crossed(np.zeros((3, 9), np.int8)).p == 1.0
    assert crossed(row_N[None]) is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "sequences", "between_seeds", "between_methods"),
    [
        (3, 360, 0.3, 0.8),
        pytest.param(3, 100, 0.0, 0.0, marks=pytest.mark.slow),
        pytest.param(5, 100, 0.1, 1.0, marks=pytest.mark.slow),
        pytest.param(5, 360, 0.5, 0.0, marks=pytest.mark.slow),
    ],
)
def test_at_most_one_of_twenty_ties_is_called_a_difference(seeds, sequences, between_seeds, between_methods):
    """2,000 tables of three methods that are equally good on the sequences that there might be.

    between_seeds, between_methods: the deviation of the logit of being right, of each run, and of each method
        on each sequence.
    """
    draw, tables, wrong = np.random.default_rng(0), 2000, 0
    for _ in range(tables):
        logit_MRN = (
            2
            + 1.5 * draw.standard_normal(sequences)
            + between_seeds * draw.standard_normal((3, seeds, 1))
            + between_methods * draw.standard_normal((3, 1, sequences))
        )
        right_MRN = (draw.random(logit_MRN.shape) < 1 / (1 + np.exp(-logit_MRN))).astype(np.int8)
        pairs = [crossed(right_MRN[i] - right_MRN[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        wrong += min(holm([pair.p for pair in pairs])) <= 0.05
    assert wrong / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
