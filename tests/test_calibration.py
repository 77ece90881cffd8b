"""Temperature against SciPy, sets of classes by simulation, reliability by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from rnnclf import metrics
from rnnclf.calibration import (
    SCORES,
    Calibration,
    _half_N,
    calibrate,
    class_sets,
    fitted_temperature,
    helpful_temperature,
    level_of,
    probabilities,
    reliability,
    sequences_for,
    sets_found,
)
from rnnclf.errors import ConfigError
from rnnclf.metrics import Evaluation


def drawn(sequences: int, classes: int = 5, scale: float = 1.0, seed: int = 0) -> Evaluation:
    """Labels drawn by their true probabilities, and their logits times `scale`: the best temperature."""
    rng = np.random.default_rng(seed)
    true_NK = rng.normal(size=(sequences, classes)) * 3
    y_N = (softmax(true_NK, axis=1).cumsum(axis=1) > rng.random((sequences, 1))).argmax(axis=1)
    return evaluation(true_NK * scale, y_N)


def evaluation(logits_NK: np.ndarray, y_N: np.ndarray, temperature: float = 1.0) -> Evaluation:
    names = tuple("abcdefghijklmnopqrst"[: logits_NK.shape[1]])
    return Evaluation(names, y_N, logits_NK.astype(np.float32), np.arange(len(y_N)), temperature=temperature)


# The temperature


@pytest.mark.parametrize("scale", [0.02, 0.3, 1, 5, 40])
@pytest.mark.parametrize(("sequences", "classes"), [(7, 2), (400, 3), (300, 20)])
def test_the_fitted_temperature_is_that_of_scipy(sequences, classes, scale):
    found = drawn(sequences, classes, scale)
    target_NK = np.full((sequences, classes), 1 / (sequences + 2) / (classes - 1))
    target_NK[np.arange(sequences), found.y_N] = (sequences + 1) / (sequences + 2)

    def loss(log_temperature):
        log_p_NK = log_softmax(found.logits_NK.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -(target_NK * log_p_NK).sum(axis=1).mean()

    bounds, tight = (np.log(0.01), np.log(100)), {"xatol": 1e-9}
    expected = np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options=tight).x)
    assert fitted_temperature(found.logits_NK, found.y_N) == pytest.approx(expected, rel=1e-4)
    if sequences > 100:
        assert expected == pytest.approx(scale, rel=0.3)


def test_sequences_that_are_all_right_do_not_make_the_model_certain():
    rng = np.random.default_rng(0)
    for n in (2, 20, 200):
        y_N = rng.integers(0, 3, n)
        found = evaluation(np.eye(3)[y_N] + rng.normal(size=(n, 3)) / 9, y_N)
        assert (found.predicted_N == y_N).all()
        tempered = dataclasses.replace(found, temperature=helpful_temperature(found))
        assert tempered.temperature < 1
        assert tempered.confidence_N.mean() < (n + 1.5) / (n + 2)


def test_a_temperature_that_helps_is_kept_in_whatever_order_the_sequences_come():
    for scale in (0.4, 2.5):
        found = drawn(300, 4, scale)
        by_class_N = np.argsort(found.y_N, kind="stable")
        in_turn_N = by_class_N[np.argsort(np.arange(300) % 75, kind="stable")]
        for order_N in (np.arange(300), by_class_N, in_turn_N):
            kept = helpful_temperature(evaluation(found.logits_NK[order_N], found.y_N[order_N]))
            assert kept == pytest.approx(scale, rel=0.25)


def test_where_there_is_nothing_to_mend_it_mostly_stays_one():
    found = [drawn(300, 4, seed=seed) for seed in range(20)]
    assert all(fitted_temperature(each.logits_NK, each.y_N) != 1 for each in found)
    assert sum(helpful_temperature(each) == 1 for each in found) >= 14


def test_windows_of_a_recording_are_in_the_same_half_and_classes_in_both():
    rng = np.random.default_rng(0)
    recording_N = rng.permutation(np.repeat(np.arange(14), 5))
    found = evaluation(rng.normal(size=(70, 3)), recording_N % 3)
    for named in (recording_N, np.array(list("qwertzuiopasdf"))[recording_N]):
        half_N = _half_N(dataclasses.replace(found, recordings_N=named))
        halves = {recording: set(half_N[recording_N == recording].tolist()) for recording in range(14)}
        assert all(len(half) == 1 for half in halves.values())
        for k in range(3):
            ones = sum(halves[recording] == {1} for recording in range(k, 14, 3))
            assert ones in (2, 3)  # of 5 or 4 recordings of the class
    assert len(set(_half_N(found)[recording_N == 0].tolist())) == 2  # without recordings, each by itself


def test_too_little_to_learn_from_keeps_a_temperature_of_one():
    one = evaluation(np.array([[3.0, 1.0]]), np.array([0]))
    same = evaluation(np.zeros((20, 3)), np.arange(20) % 3)
    assert helpful_temperature(one) == helpful_temperature(same) == 1


def test_few_of_many_sequences_are_enough(monkeypatch):
    found = drawn(4000, 4, 0.5)
    whole = helpful_temperature(found)
    monkeypatch.setattr("rnnclf.calibration.FITTED_LOGITS", 4000)
    part = helpful_temperature(found)
    assert part != whole
    assert part == pytest.approx(whole, rel=0.15)


# What it does to an evaluation


def test_a_temperature_of_one_changes_no_bit():
    found = drawn(200, 7, 1.3)
    logits_NK = found.logits_NK  # as probabilities were computed before there were temperatures
    top_N1 = logits_NK.max(axis=1, keepdims=True).astype(np.float64)
    normaliser_N = np.log(np.exp(logits_NK - top_N1).sum(axis=1)) + top_N1[:, 0]
    n = np.arange(200)
    assert (found.confidence_N == np.exp(logits_NK[n, logits_NK.argmax(axis=1)] - normaliser_N)).all()
    assert (found.probabilities_of(2, 5, 50) == np.exp(logits_NK[5:50, 2] - normaliser_N[5:50])).all()
    assert found.score.loss == float((normaliser_N - logits_NK[n, found.y_N]).mean())


@pytest.mark.parametrize("temperature", [0.3, 0.7, 3.0])
def test_it_divides_the_logits_and_never_changes_a_class(temperature):
    found = drawn(500, 4)
    found.logits_NK[:50, 3] = np.nextafter(found.logits_NK[:50].max(axis=1), np.float32(np.inf))
    tempered = dataclasses.replace(found, temperature=temperature)
    expected_NK = softmax(found.logits_NK.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(probabilities(found.logits_NK, temperature), expected_NK, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(list(tempered.probability_chunks())), expected_NK, rtol=1e-10)
    np.testing.assert_allclose(tempered.probabilities_of(1), expected_NK[:, 1], rtol=1e-10)
    np.testing.assert_allclose(tempered.confidence_N, expected_NK.max(axis=1), rtol=1e-10)
    assert (tempered.predicted_N == found.predicted_N).all()
    assert tempered.score.correct == found.score.correct
    loss = -log_softmax(found.logits_NK.astype(np.float64) / temperature, axis=1)[np.arange(500), found.y_N]
    assert tempered.score.loss == pytest.approx(loss.mean(), rel=1e-9)
    area = roc_auc_score(found.y_N, expected_NK, multi_class="ovr")
    assert tempered.metrics["auroc"] == pytest.approx(area)


# Sets of classes


def test_the_least_number_of_sequences_for_a_level():
    assert [sequences_for(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)] == [1, 4, 9, 19, 99, 999]
    for level in (0.9, 0.95, 0.99):
        least = sequences_for(level)
        enough, less = (Calibration(1.0, n, 0.0, 0.0, (0.5,) * n) for n in (least, least - 1))
        assert enough.limit(level, "--sets") == 0.5
        message = rf"--sets needs at least {least} validation sequences, but .* with {least - 1}\."
        with pytest.raises(ConfigError, match=message):
            less.limit(level, "--sets")
    fitted_again = enough.without_scores()
    with pytest.raises(ConfigError, match=r"--abstain 0\.9 needs the scores .* train it again"):
        fitted_again.limit(0.9, "--abstain 0.9")


@pytest.mark.parametrize("value", [0, 1, 95, -0.5, True, "0.95x", None, float("nan")])
def test_a_level_is_a_share(value):
    with pytest.raises(ConfigError, match=r"sets must be a share between 0 and 1 such as 0\.95, got"):
        level_of(value, "sets")
    assert level_of(0.95, "sets") == 0.95


@pytest.mark.parametrize(
    ("sequences", "level", "repeats"), [(19, 0.95, 800), (60, 0.9, 400), (2500, 0.95, 60)]
)
def test_sets_contain_the_true_class_as_often_as_promised(sequences, level, repeats):
    new = drawn(2000, 4, seed=1)
    new_score_N = 1 - np.concatenate(list(new.probability_chunks()))[np.arange(2000), new.y_N]
    pool = drawn(20_000, 4, seed=2)
    score_N = 1 - np.concatenate(list(pool.probability_chunks()))[np.arange(20_000), pool.y_N]
    rng, covered = np.random.default_rng(3), []
    kept = min(sequences, SCORES)
    for _ in range(repeats):
        drawn_n = np.sort(score_N[rng.integers(0, 20_000, sequences)])
        scores = tuple(drawn_n[-(-np.arange(1, kept + 1) * sequences // kept) - 1].tolist())
        limit = Calibration(1.0, sequences, 0.0, 0.0, scores).limit(level, "--sets")
        covered.append((new_score_N <= limit).mean())
    assert level - 0.01 < np.mean(covered) < level + 1 / (sequences + 1) + 1 / SCORES + 0.01


def test_scores_are_quantiles_that_promise_nothing_too_much():
    for sequences in (3, 999, 1001, 2717):
        found = drawn(sequences, 4)
        made = calibrate(found)
        assert made.temperature == 1
        exact_N = np.sort(
            1 - np.concatenate(list(found.probability_chunks()))[np.arange(sequences), found.y_N]
        )
        assert len(made.scores) == min(sequences, SCORES)
        for j, score in enumerate(made.scores, 1):
            exact = exact_N[-(-j * sequences // len(made.scores)) - 1]
            assert exact - 1e-12 <= score < exact + 1.1e-6
        if sequences > 99:
            rank = int(np.ceil((sequences + 1) * 0.99 - 1e-9))
            assert exact_N[rank - 1] <= made.limit(0.99, "") <= exact_N[min(rank + 3, sequences - 1)] + 1e-6


def test_sets_are_counted_as_by_hand(monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 6)  # two sequences at a time
    shares = np.array(
        [[0.9, 0.06, 0.04], [0.6, 0.3, 0.1], [0.45, 0.45, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1]]
    )
    found = evaluation(np.log(shares) * 2, np.array([0, 1, 2, 0, 2]), temperature=2.0)
    sets_NK = class_sets(shares, 0.55)
    assert sets_NK.astype(int).tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]
    counts = sets_found(found, 0.9, 0.5501)
    assert (counts.total, counts.covered, counts.classes) == (5, 2, 6)
    assert (counts.single, counts.single_correct) == (4, 2)
    assert counts.to_dict()["coverage"] == 0.4
    assert counts.to_dict()["mean_size"] == 1.2
    empty = sets_found(found, 0.9, 0.05)
    assert (empty.covered, empty.classes, empty.single) == (0, 0, 0)


# Reliability, and what is stored


def test_reliability_is_that_of_plain_numpy():
    found = dataclasses.replace(drawn(600, 4, 0.5), temperature=0.5)
    p_N, right_N = found.confidence_N, found.predicted_N == found.y_N
    rows = reliability(found)
    assert sum(row.sequences for row in rows) == 600
    for row in rows:
        here_N = (p_N >= row.low) & ((p_N < row.high) | (row.high == 1))
        assert row.sequences == here_N.sum()
        assert row.correct == right_N[here_N].sum()
        assert row.probability == pytest.approx(p_N[here_N].mean())
    certain = evaluation(np.array([[99.0, 0.0], [0.0, 99.0]]), np.array([0, 0]))
    assert [dataclasses.astuple(row) for row in reliability(certain)] == [(0.99, 1.0, 2, 1.0, 1)]


def test_the_errors_before_and_after_are_those_of_plain_numpy():
    found = drawn(400, 4, 0.3)
    made = calibrate(found)
    for temperature, error in ((1.0, made.ece_before), (made.temperature, made.ece_after)):
        p_NK = softmax(found.logits_NK.astype(np.float64) / temperature, axis=1)
        confidence_N, right_N = p_NK.max(axis=1), p_NK.argmax(axis=1) == found.y_N
        expected = 0.0
        for i in range(15):
            here_N = (confidence_N > i / 15) & (confidence_N <= (i + 1) / 15)
            if here_N.any():
                gap = abs(confidence_N[here_N].mean() - right_N[here_N].mean())
                expected += here_N.mean() * gap
        assert error == pytest.approx(expected, abs=1e-9)
    assert made.ece_after < made.ece_before / 2


def test_what_is_stored_is_read_back_and_nothing_else():
    made = calibrate(drawn(30, 4, 0.3))
    plain = made.to_plain()
    assert Calibration.from_plain(plain) == made
    assert Calibration.from_plain(made.without_scores().to_plain()).scores == ()
    assert "scores" not in made.summary()
    for change in (
        {"temperature": 0},
        {"temperature": True},
        {"temperature": "1"},
        {"temperature": 1e9},
        {"temperature": 10**400},
        {"sequences": 0},
        {"sequences": 30.0},
        {"sequences": 31},
        {"ece_after": -0.1},
        {"ece_before": None},
        {"scores": None},
        {"scores": plain["scores"][:-1]},
        {"scores": plain["scores"][::-1]},
        {"scores": [*plain["scores"][:-1], 1.5]},
        {"scores": [*plain["scores"][:-1], [1]]},
        {"more": 1},
    ):
        with pytest.raises(ValueError, match="not a calibration"):
            Calibration.from_plain({**plain, **change})
    for other in (None, [], {}, 1.0):
        with pytest.raises(ValueError, match="not a calibration"):
            Calibration.from_plain(other)
