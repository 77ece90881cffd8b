"""The nearest neighbour by summaries that rnnclf data check tries."""

import numpy as np
import pytest

from rnnclf.baselines import quick
from rnnclf.baselines.quick import nearest_by_summary
from rnnclf.data.recordings import recordings_of
from rnnclf.data.survey import moments


def quick_of(values_NT, labels, which=None, **more):
    recordings = recordings_of(np.asarray(values_NT, np.float64)[..., None], labels, **more)
    which = np.arange(len(recordings)) if which is None else which
    return nearest_by_summary(recordings, moments(recordings), which)


@pytest.fixture
def means():
    """30 sequences whose mean tells the class: two clusters far apart."""
    random = np.random.RandomState(0)
    labels = ["ab"[n % 3 == 0] for n in range(30)]
    return np.array([(label == "a") + 0.01 * random.standard_normal(6) for label in labels]), labels


def test_classes_that_differ_in_their_mean_are_told_apart(means):
    assert quick_of(*means) == (30, 20, 30)
    assert quick_of(*means, which=np.arange(12)) == (12, 8, 12)


def test_values_of_any_size_are_compared(means):
    values_NT, labels = means
    assert quick_of(values_NT * 1e300, labels).correct == 30
    assert quick_of(values_NT * 1e-300, labels).correct == 30


def test_a_neighbour_of_the_same_group_does_not_count():
    person_N = np.arange(40) // 4
    values_NT = 10.0 * person_N[:, None] + np.sin(np.arange(5.0)) + 0.1 * (np.arange(40) % 4)[:, None]
    labels = ["ab"[person % 2] for person in person_N]
    assert quick_of(values_NT, labels).correct == 40
    assert quick_of(values_NT, labels, groups_N=person_N).correct == 0


def test_lengths_and_gaps_tell_classes_too():
    values_NT = np.tile(np.sin(np.arange(9.0)), (20, 1))
    labels = ["ab"[n % 2] for n in range(20)]
    lengths_N = np.where(np.arange(20) % 2, 9, 5)
    assert quick_of(values_NT, labels, lengths_N=lengths_N).correct == 20
    values_NT[1::2] = np.nan
    assert quick_of(values_NT, labels).correct == 20


def test_few_sequences_or_one_group_say_nothing(means):
    values_NT, labels = means
    assert quick_of(values_NT[:9], labels[:9]) is None
    assert quick_of(values_NT, labels, groups_N=np.zeros(30, np.int64)) is None


def test_of_many_sequences_some_are_compared(means, monkeypatch):
    monkeypatch.setattr(quick, "MOST", 10)
    assert quick_of(*means).total == 10
