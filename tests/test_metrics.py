"""Intervals against scipy, scores of classes against scikit-learn, confusions by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from rnnclf.metrics import Confusion, Evaluation, Score, wilson_interval

counts = st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@settings(deadline=None)
@given(counts)
def test_wilson_interval_equals_that_of_scipy(count):
    correct, total = count
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts)
def test_wilson_interval_holds_the_share_and_stays_between_zero_and_one(count):
    correct, total = count
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert low < high


def test_interval_of_9809_in_10000():
    low, high = Score(correct=9_809, total=10_000, loss=0.0).interval95
    assert f"{low:.2%} {high:.2%}" == "97.80% 98.34%"


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(ValueError, match=f"got {correct} of {total}"):
        wilson_interval(correct, total)


def test_score_as_it_stands_in_results_json():
    assert Score(correct=3, total=4, loss=0.5).to_dict() == {
        "accuracy": 0.75,
        "correct": 3,
        "total": 4,
        "interval95": list(wilson_interval(3, 4)),
        "loss": 0.5,
    }


K = 4
labels = st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), min_size=1, max_size=60)


def evaluation_of(pairs):
    """An Evaluation of (true, predicted) pairs, counted one by one."""
    table = np.zeros((K, K), dtype=int)
    for true, predicted in pairs:
        table[true, predicted] += 1
    return Evaluation(tuple("abcd"), tuple(map(tuple, table.tolist())), loss=0.0)


@settings(deadline=None)
@given(labels)
def test_scores_of_classes_equal_those_of_sklearn(pairs):
    true, predicted = zip(*pairs, strict=True)
    expected = precision_recall_fscore_support(true, predicted, labels=range(K), zero_division=0)
    rows = evaluation_of(pairs).by_class()
    assert [row.name for row in rows] == list("abcd")
    for values, wanted in zip(list(zip(*rows, strict=True))[1:], expected, strict=True):
        assert values == pytest.approx(tuple(wanted))


@settings(deadline=None)
@given(labels)
def test_macro_means_equal_those_of_sklearn(pairs):
    true, predicted = zip(*pairs, strict=True)
    expected = precision_recall_fscore_support(
        true, predicted, labels=range(K), average="macro", zero_division=0
    )
    assert evaluation_of(pairs).macro() == pytest.approx(expected[:3])


@settings(deadline=None)
@given(labels)
def test_score_counts_the_diagonal(pairs):
    score = evaluation_of(pairs).score
    assert score.correct == sum(true == predicted for true, predicted in pairs)
    assert score.total == len(pairs)
    assert score.accuracy == score.correct / score.total


@settings(deadline=None)
@given(labels, st.integers(0, K * K))
def test_confusions_are_the_greatest_counts_beside_the_diagonal(pairs, most):
    true, predicted = zip(*pairs, strict=True)
    table = confusion_matrix(true, predicted, labels=range(K))
    np.fill_diagonal(table, 0)
    confusions = evaluation_of(pairs).confusions(most)
    assert [pair.count for pair in confusions] == sorted(table[table > 0].tolist(), reverse=True)[:most]
    for pair in confusions:
        assert table["abcd".index(pair.true), "abcd".index(pair.predicted)] == pair.count


def test_equally_frequent_confusions_keep_the_order_of_the_classes():
    evaluation = Evaluation(("a", "b", "c"), ((9, 1, 2), (1, 9, 0), (2, 1, 9)), loss=0.0)
    assert evaluation.confusions(4) == [
        Confusion("a", "c", 2),
        Confusion("c", "a", 2),
        Confusion("a", "b", 1),
        Confusion("b", "a", 1),
    ]


def test_nothing_confused_gives_no_confusions():
    assert Evaluation(("a", "b"), ((5, 0), (0, 5)), loss=0.0).confusions(3) == []
