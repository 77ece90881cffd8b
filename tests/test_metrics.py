"""Intervals against scipy, metrics against scikit-learn, confusions and calibration by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from rnnclf import metrics
from rnnclf.metrics import METRICS, Confusion, Evaluation, Score, wilson_interval

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


def evaluation_of(pairs, classes=K):
    """An Evaluation of (true, predicted) pairs; the other logits are drawn below that of the prediction."""
    true_N, predicted_N = np.array(pairs).T
    rng = np.random.default_rng(len(pairs))
    logits_NK = rng.normal(size=(len(pairs), classes)).astype(np.float32)
    logits_NK[np.arange(len(pairs)), predicted_N] = logits_NK.max(axis=1) + rng.uniform(0.1, 1, len(pairs))
    return Evaluation(tuple("abcdefgh"[:classes]), true_N, logits_NK, np.arange(len(pairs)))


def probabilities(found):
    exact = np.exp(found.logits_NK.astype(np.float64))
    return exact / exact.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(labels)
def test_scores_of_classes_equal_those_of_sklearn(pairs):
    true, predicted = zip(*pairs, strict=True)
    expected = sk.precision_recall_fscore_support(true, predicted, labels=range(K), zero_division=0)
    rows = evaluation_of(pairs).by_class()
    assert [row.name for row in rows] == list("abcd")
    for values, wanted in zip(list(zip(*rows, strict=True))[1:], expected, strict=True):
        assert values == pytest.approx(tuple(wanted))


@settings(deadline=None)
@given(labels)
def test_macro_means_leave_out_absent_classes_as_sklearn_does(pairs):
    true, predicted = zip(*pairs, strict=True)
    precision, _, f1, _ = sk.precision_recall_fscore_support(
        true, predicted, average="macro", zero_division=0
    )
    recall = sk.recall_score(true, predicted, labels=sorted(set(true)), average="macro")
    found = evaluation_of(pairs)
    assert found.macro() == pytest.approx((precision, recall, f1))
    assert found.metrics["balanced_accuracy"] == pytest.approx(recall)
    assert found.metrics["macro_f1"] == pytest.approx(f1)


def test_a_class_without_sequences_does_not_lower_the_mean_recall():
    found = evaluation_of([(0, 0), (1, 1), (1, 1)])
    assert found.metrics["balanced_accuracy"] == 1.0
    assert found.metrics["macro_f1"] == 1.0


@settings(deadline=None)
@given(labels)
def test_score_counts_what_is_correct_and_the_loss_is_that_of_sklearn(pairs):
    found = evaluation_of(pairs)
    assert found.score.correct == sum(true == predicted for true, predicted in pairs)
    assert found.score.total == len(pairs)
    assert found.score.accuracy == found.score.correct / found.score.total
    true = [true for true, _ in pairs]
    assert found.score.loss == pytest.approx(
        sk.log_loss(true, probabilities(found), labels=range(K)), rel=1e-6
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40))
def test_auroc_of_two_classes_is_that_of_sklearn(pairs):
    found, true = evaluation_of(pairs, classes=2), [true for true, _ in pairs]
    if len(set(true)) == 1:
        assert found.metrics["auroc"] is None
    else:
        expected = sk.roc_auc_score(true, probabilities(found)[:, 1])
        assert found.metrics["auroc"] == pytest.approx(expected)


@settings(deadline=None)
@given(labels)
def test_auroc_of_more_classes_is_the_mean_over_those_that_occur(pairs):
    found, true = evaluation_of(pairs), np.array([true for true, _ in pairs])
    areas = [sk.roc_auc_score(true == k, probabilities(found)[:, k]) for k in set(true) if (true != k).any()]
    assert found.metrics["auroc"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_auroc_counts_ties_as_half():
    logits_NK = np.array([[0, 1], [0, 1], [0, 1], [0, 0]], np.float32)
    found = Evaluation(("a", "b"), np.array([1, 0, 1, 0]), logits_NK, np.arange(4))
    assert found.metrics["auroc"] == (0.5 + 1 + 0.5 + 1) / 4


@settings(deadline=None)
@given(labels)
def test_calibration_error_is_the_weighted_gap_of_confidence_and_accuracy(pairs):
    found = evaluation_of(pairs)
    confidence = probabilities(found).max(axis=1)
    right = np.array([true == predicted for true, predicted in pairs])
    expected = 0.0
    for low in np.arange(15) / 15:
        here = (confidence > low) & (confidence <= low + 1 / 15)
        if here.any():
            expected += here.mean() * abs(confidence[here].mean() - right[here].mean())
    assert found.metrics["calibration_error"] == pytest.approx(expected, abs=1e-9)


@given(labels)
def test_guessing_is_the_share_of_the_commonest_class(pairs):
    true = [true for true, _ in pairs]
    expected = max(map(true.count, true)) / len(true)
    assert evaluation_of(pairs).metrics["commonest_rate"] == expected


def test_logits_of_any_size_give_finite_metrics():
    logits_NK = np.array([[3e4, -3e4], [-3e4, 3e4], [3e4, -3e4]], np.float32)
    found = Evaluation(("a", "b"), np.array([0, 1, 1]), logits_NK, np.arange(3))
    assert found.score.loss == pytest.approx(2e4)
    assert all(value is not None for value in found.metrics.values())


def test_what_is_not_a_number_is_no_metric():
    logits_NK = np.full((3, 2), np.nan, np.float32)
    found = Evaluation(("a", "b"), np.array([0, 1, 1]), logits_NK, np.arange(3))
    assert math.isnan(found.score.loss)
    assert set(found.metrics.values()) == {None}


def test_many_sequences_are_evaluated_in_pieces(monkeypatch):
    pairs = [(n % 4, n * n % 4) for n in range(50)]
    whole = evaluation_of(pairs)
    monkeypatch.setattr(metrics, "CHUNK", 9)
    found = evaluation_of(pairs)
    assert found.to_dict() == whole.to_dict()
    assert (found.predicted_N == whole.predicted_N).all()


def test_each_metric_has_a_key_a_title_and_says_what_it_is():
    for metric in METRICS:
        assert metric.key.isidentifier()
        assert metric.title
        assert metric.compute.__doc__
        assert metric.of({metric.key: 0.5}) == metric.format(0.5)
        assert metric.of({}) == "–"


@settings(deadline=None)
@given(labels, st.integers(0, K * K))
def test_confusions_are_the_greatest_counts_beside_the_diagonal(pairs, most):
    true, predicted = zip(*pairs, strict=True)
    table = sk.confusion_matrix(true, predicted, labels=range(K))
    assert evaluation_of(pairs).counts == tuple(map(tuple, table.tolist()))
    np.fill_diagonal(table, 0)
    confusions = evaluation_of(pairs).confusions(most)
    assert [pair.count for pair in confusions] == sorted(table[table > 0].tolist(), reverse=True)[:most]
    for pair in confusions:
        assert table["abcd".index(pair.true), "abcd".index(pair.predicted)] == pair.count


def of_counts(counts):
    return evaluation_of(
        [(i, j) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)], 3
    )


def test_equally_frequent_confusions_keep_the_order_of_the_classes():
    assert of_counts(((9, 1, 2), (1, 9, 0), (2, 1, 9))).confusions(4) == [
        Confusion("a", "c", 2),
        Confusion("c", "a", 2),
        Confusion("a", "b", 1),
        Confusion("b", "a", 1),
    ]


def test_nothing_confused_gives_no_confusions():
    assert of_counts(((5, 0, 0), (0, 5, 0), (0, 0, 1))).confusions(3) == []
