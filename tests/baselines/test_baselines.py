"""Baselines predict what their definitions say."""

import numpy as np
import pytest

from rnnclf.baselines import BASELINES, Clock, Sequences
from rnnclf.baselines import base as base_module
from rnnclf.baselines import forest as forest_module
from rnnclf.baselines.base import LeftOutError, at_length, in_columns
from rnnclf.durations import roughly
from rnnclf.errors import ConfigError

random = np.random.RandomState(0)


def waves(lengths, classes=3, channels=2):
    """Sequences whose frequency is their class; the last class does not occur."""
    y_N = np.arange(len(lengths)) % (classes - 1)
    x_N = [
        np.sin(np.linspace(0, 3 * (k + 1), t)) + 0.1 * random.standard_normal((channels, t))
        for k, t in zip(y_N, lengths, strict=True)
    ]
    return Sequences(tuple(x_CT.astype(np.float32) for x_CT in x_N), y_N, classes)


@pytest.fixture
def small_forest(monkeypatch):
    monkeypatch.setattr(forest_module, "TREES", 50)


def dtw(a_CT, b_CT):
    """The least sum of squared differences along an alignment that strays at most 10 % from the diagonal."""
    n, m = a_CT.shape[1], b_CT.shape[1]
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            if abs(i - j) <= 0.1 * n:
                step = ((a_CT[:, i - 1].astype(float) - b_CT[:, j - 1]) ** 2).sum()
                cost[i, j] = step + min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
    return cost[n, m]


@pytest.mark.slow  # aeon is compiled at first use, which takes a minute
def test_the_nearest_by_dtw_is_that_of_the_definition():
    known, asked = waves([30] * 7), waves([30] * 4)
    baseline = BASELINES["dtw"]()
    baseline.prepare(known)
    logits_NK = baseline.logits(known, asked, Clock())
    for x_CT, logits_K in zip(asked.x_N, logits_NK, strict=True):
        distance_M = np.array([dtw(x_CT, other) for other in known.x_N])
        nearest_K = [distance_M[known.y_N == k].min() for k in range(2)]
        assert np.exp(-logits_K[:2]) == pytest.approx(nearest_K, rel=1e-4)
        assert logits_K[2] < logits_K[:2].min()


@pytest.mark.slow
def test_minirocket_predicts_what_aeon_predicts():
    from aeon.classification.convolution_based import MiniRocketClassifier

    known, asked = waves([7, *[30] * 11]), waves([30] * 8)
    baseline = BASELINES["minirocket"](seed=4)
    baseline.prepare(known)
    logits_NK = baseline.logits(known, asked, Clock())
    theirs = MiniRocketClassifier(random_state=4).fit(at_length(known, 30), known.y_N)
    assert logits_NK.argmax(axis=1).tolist() == theirs.predict(at_length(asked, 30)).tolist()
    assert logits_NK.shape == (8, 3)


def test_the_forest_learns_and_repeats(small_forest):
    known, asked = waves([9, *[12] * 19]), waves([12, 14, 10, 12, 12, 12])
    first, second, other = (BASELINES["forest"](seed).logits(known, asked, Clock()) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()
    assert first.argmax(axis=1).tolist() == asked.y_N.tolist()
    probability_NK = np.exp(first)
    assert probability_NK.sum(axis=1) == pytest.approx(np.ones(6), rel=1e-5)
    assert probability_NK[:, 2] == pytest.approx(np.full(6, 1 / 3 / 51), rel=1e-4)


def test_a_forest_of_as_many_classes_as_sequences_warns_of_nothing(small_forest):
    known = waves([12] * 22, classes=22)  # in these tests, a warning is an error
    found_NK = BASELINES["forest"](1).logits(known, known, Clock())
    assert (found_NK.argmax(axis=1) == known.y_N).mean() > 0.9


def test_the_trees_that_are_added_in_parts_are_those_of_one_forest(small_forest):
    from sklearn.ensemble import RandomForestClassifier

    known, asked = waves([12] * 20), waves([12] * 5)
    whole = RandomForestClassifier(50, random_state=3).fit([x.ravel() for x in known.x_N], known.y_N)
    share_NK = whole.predict_proba([x.ravel() for x in asked.x_N])
    found_NK = np.exp(BASELINES["forest"](3).logits(known, asked, Clock()))[:, :2]
    assert found_NK == pytest.approx((50 * share_NK + 1 / 3) / 51, rel=1e-4)


def test_a_forest_that_does_not_fit_into_memory_is_left_out(monkeypatch):
    monkeypatch.setattr(forest_module, "MOST_VALUES", 100)
    with pytest.raises(LeftOutError, match=r"would need all values in memory at once, 0\.0 GiB"):
        BASELINES["forest"]().logits(waves([12] * 20), waves([12]), Clock())


def test_more_sequences_than_minirocket_is_for_leave_it_out(monkeypatch):
    from rnnclf.baselines import minirocket

    monkeypatch.setattr(minirocket, "MOST", 5)
    with pytest.raises(LeftOutError, match="is for up to 5 sequences; these are 20"):
        BASELINES["minirocket"]().logits(waves([12] * 20), waves([12]), Clock())


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time is set by hand."""
    now = [100.0]
    monkeypatch.setattr(base_module.time, "perf_counter", lambda: now[0])
    return now


def test_work_that_would_take_too_long_is_stopped(clock):
    told = []
    watch = Clock(60, told.append, began=100.0)
    clock[0] += 0.4
    watch(0.001)  # nothing is believed yet
    clock[0] += 9.6
    watch(0.5)
    with pytest.raises(LeftOutError, match=r"^would take about 17 min: allow it with max_time=25m$"):
        watch(0.01)
    assert told == [0.001, 0.5, 0.01]


def test_work_that_is_done_is_kept_however_long_it_took(clock):
    told = []
    watch = Clock(60, told.append, began=100.0)
    clock[0] += 1000
    watch(1.0)
    assert told == [1.0]


def test_the_parts_of_a_part_are_shares_of_the_whole(clock):
    told = []
    Clock(tell=told.append, began=100.0).between(0.5, 1).between(0.5, 1)(0.5)
    assert told == [0.875]


def test_durations_are_rough():
    times = {2.4: "2 s", 99.4: "99 s", 99.6: "2 min", 700: "12 min", 5969: "99 min", 5971: "1.7 h"}
    hours = {5: "5 h", 5.04: "5 h", 9.94: "9.9 h", 9.96: "10 h", 30.4: "30 h", 1234: "1,234 h"}
    times |= {3600 * number: words for number, words in hours.items()}
    assert {seconds: roughly(seconds) for seconds in times} == times


def test_sequences_are_cut_and_padded():
    found = at_length(waves([3, 5]), 4)
    assert found.shape == (2, 2, 4)
    assert (found[0, :, 3] == 0).all()
    assert (found[1] != 0).all()


def test_columns_of_some_classes_become_those_of_all():
    assert in_columns(np.array([[1.0, 2.0]]), [0, 2], 4, -9).tolist() == [[1, -9, 2, -9]]


def test_without_its_package_a_baseline_names_what_to_install(monkeypatch):
    monkeypatch.setattr(base_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"The baseline dtw needs aeon: pip install 'rnnclf\[archive\]'\.$"):
        BASELINES["dtw"].refuse_missing()
    BASELINES["forest"].refuse_missing()
