"""What a model remembers of its training data, and how it compares others with them."""

from __future__ import annotations

import numpy as np
import pytest

from rnnclf.data.recordings import recordings_of
from rnnclf.data.survey import moments
from rnnclf.data.training_data import Likeness, TrainingData
from rnnclf.errors import ConfigError

COLUMNS = {"form": "long", "id": ["id"], "time": None, "label": "y", "aside": [], "steps": []}


def trained(lengths: tuple[int, int] = (5, 9)) -> TrainingData:
    return TrainingData(COLUMNS, (10.0, 0.0), (2.0, 1.0), lengths)


def remarks(values_NTC: np.ndarray, names: tuple[str, ...] = ()) -> list[str]:
    likeness = Likeness(trained(), ("a", "b"), {*names})
    for part in np.array_split(values_NTC, 3):  # which come in parts
        likeness.add(part.reshape(-1, 2), np.full(len(part), part.shape[1]))
    return likeness.remarks()


def like(n: int = 400, steps: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal((10, 0), (2, 1), (n, steps, 2))


def test_facts_are_those_of_the_training_split():
    x = like(20)
    recordings = recordings_of(x, [0, 1] * 10)
    found = TrainingData.of(recordings, np.arange(5), moments(recordings))
    assert np.allclose(found.mean_C, x[:5].mean(axis=(0, 1)))
    assert np.allclose(found.deviation_C, x[:5].std(axis=(0, 1)))
    assert found.lengths == (6, 6)
    assert TrainingData.from_plain(found.to_plain(), 2) == found


@pytest.mark.parametrize(
    "change",
    [
        {"columns": 5},
        {"columns": {**COLUMNS, "form": "deep"}},
        {"columns": {**COLUMNS, "id": [3]}},
        {"columns": {"form": "long"}},
        {"mean_C": [1.0]},
        {"mean_C": [1e999, 0.0]},
        {"deviation_C": None},
        {"lengths": [3]},
    ],
)
def test_crafted_facts_are_refused(change):
    with pytest.raises(ConfigError, match="The facts about the training data are not valid"):
        TrainingData.from_plain({**trained().to_plain(), **change}, 2)


def test_a_channel_is_doubted_where_its_mean_or_its_deviation_is_another():
    assert remarks(like()) == []
    (told,) = remarks(like() + np.array([2, 0]))
    assert told.startswith("These data are unlike the training data: 'a' has mean 12 and deviation")
    assert "'b'" not in told
    assert "'b' has mean" in remarks(like() * (1, 3))[0]
    assert remarks(like() + np.array([0, 9]), names=("b",)) == []  # codes of names have no mean


def test_few_sequences_are_given_more_room():
    assert remarks(like(1) + np.array([2, 0])) == []
    assert remarks(like(1) + np.array([20, 0])) != []


def test_missing_values_count_for_nothing():
    x = like()
    x[::2, 1:, 0] = np.nan
    assert remarks(x) == []


def test_lengths_are_doubted_where_most_are_outside():
    assert remarks(like(steps=4))[0].startswith("400 of 400 sequences are shorter than all training")
    assert "which had at most 9 steps" in remarks(like(steps=10))[0]
    assert remarks(like(steps=9)) == []
