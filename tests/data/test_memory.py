"""What X and y may be, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas
import polars
import pytest
import torch
from sklearn.model_selection import cross_val_score

from rnnclf import RNNClassifier
from rnnclf.data.memory import LongFrame
from rnnclf.errors import DataError
from tests.waves import LABELS, assert_same_weights, ragged, small, waves, weights


def long_frame(x: list[np.ndarray], y: np.ndarray) -> dict[str, list[object]]:
    """The columns of a table with a row for each step, the last step of each sequence first."""
    rows = [
        (f"s{n:03}", float(t), *map(float, x[n][t]), f"class {y[n]}")
        for n in reversed(range(len(x)))
        for t in reversed(range(len(x[n])))
    ]
    return dict(zip(("who", "when", "ax", "ay", "what"), map(list, zip(*rows, strict=True)), strict=True))


def test_channels_first_is_the_transpose():
    x, y = waves()
    last = small().fit(x, y)
    first = small(layout="channels_first").fit(x.transpose(0, 2, 1), y)
    assert_same_weights(weights(last), weights(first))
    assert first.n_features_in_ == last.n_features_in_ == 2
    assert (first.predict_proba(x.transpose(0, 2, 1)) == last.predict_proba(x)).all()
    lists = small(layout="channels_first").fit([sequence.T for sequence in x], y)
    assert_same_weights(weights(last), weights(lists))


@pytest.mark.long
def test_sequences_of_different_lengths_are_a_list():
    x, y = ragged()
    model = small(epochs=30, optimizer__lr=0.05).fit(x, y)
    assert model.score(x, y) > 0.8
    alone = np.concatenate([model.predict_proba([sequence]) for sequence in x])
    np.testing.assert_allclose(alone, model.predict_proba(x), atol=1e-5)
    objects = np.empty(len(x), object)
    objects[:] = x
    assert (model.predict(objects) == model.predict(x)).all()
    assert (model.predict([torch.tensor(sequence) for sequence in x]) == model.predict(x)).all()


def test_lists_of_ragged_sequences_can_be_cross_validated():
    assert cross_val_score(small(), *ragged(), cv=2).shape == (2,)


def test_a_list_of_vectors_is_sequences_of_one_channel():
    x, y = ragged()
    model = small().fit([sequence[:, 0] for sequence in x], y)
    assert model.n_features_in_ == 1


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_a_long_frame_has_a_row_for_each_step(kind):
    x, y = ragged()
    frame = kind(long_frame(x, y))
    model = small(id="who", time="when", label="what").fit(frame)
    same = small().fit([s.astype(np.float32) for s in x[::-1]], y[::-1])
    assert_same_weights(weights(model), weights(same))
    assert model.classes_.tolist() == ["class 0", "class 1", "class 2"]
    given = small(id="who", time="when", channels=["ax", "ay"]).fit(frame, y[::-1])
    assert_same_weights(weights(given), weights(same))
    unlabelled = frame[["who", "when", "ax", "ay"]]
    assert (model.predict(unlabelled) == [f"class {k}" for k in same.predict(x[::-1])]).all()
    assert model.score(frame) == same.score(x, y)
    assert model.n_features_in_ == 2


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_times_may_be_dates_and_decide_how_long_ago_a_value_was_seen(kind):
    x, y = ragged()
    table = long_frame(x, y)
    table["ax"][5] = None
    start = np.datetime64("2026-01-01T00:00:00", "us")
    dates = [start + np.timedelta64(int(1e6 * t), "us") for t in table["when"]]
    words = {"id": "who", "time": "when", "label": "what", "missing": "mask"}
    one = RNNClassifier(**words).fit(kind(table))
    other = RNNClassifier(**words).fit(kind({**table, "when": np.array(dates)}))
    assert one.model_.input_size == 6
    assert_same_weights(weights(one), weights(other))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({}, {"id": "whom"}, "No column named 'whom'. Did you mean 'who'?"),
        ({}, {"label": None}, "requires y to be passed, but the target y is None"),
        ({}, {"channels": ["ax", "what"]}, "Column 'what' holds no numbers"),
        ({"what": 0}, {}, "Sequence 's059' has the labels 'other' and 'class 2'"),
        ({"who": 0}, {}, "Row 0 (counted from 0) has no 'who'"),
        ({"when": 0}, {}, "Sequence 's059' has two steps at the time 1"),
    ],
)
def test_a_frame_that_is_not_what_it_should_be_is_refused(change, words, message):
    table = long_frame(*ragged())
    for name, row in change.items():
        table[name][row] = {"what": "other", "who": None, "when": 1.0}[name]
    with pytest.raises(DataError) as caught:
        small(**{"id": "who", "time": "when", "label": "what", **words}).fit(polars.DataFrame(table))
    assert message in str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize(("three", "classes"), LABELS, ids=str)
def test_labels_keep_their_type_and_order(three, classes):
    x, y = waves()
    labels = [three[k] for k in y]
    model = small(epochs=12, optimizer__lr=0.05).fit(x, labels)
    if classes is not None:
        assert model.classes_.tolist() == classes
    assert set(map(type, model.classes_.tolist())) == set(map(type, three))
    predicted = model.predict(x)
    assert set(predicted.tolist()) <= set(three)
    right = np.mean([a == b for a, b in zip(predicted.tolist(), labels, strict=True)])
    assert model.score(x, labels) == right > 0.6
    proba = model.predict_proba(x)
    assert (model.classes_[proba.argmax(axis=1)] == predicted).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None, "a", "b"], "The label of sequence 0 (counted from 0) is missing"),
        ([float("nan"), 1.0, 2.0], "NaN"),
        ([0.5, 1.5, 2.5], "Unknown label type"),
        ([1, "1", 2], "The labels 1 and '1' have the same name"),
        (["a", "a", "a"], "only one class, 'a'"),
    ],
)
def test_labels_that_name_no_classes_are_refused(labels, message):
    x, y = waves()
    with pytest.raises(ValueError, match=r".") as caught:
        small().fit(x, [labels[k] for k in y])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            [np.zeros((3, 2)), np.zeros((3, 4))],
            "Sequence 1 (counted from 0) has 4 channels",
        ),
        ([np.zeros((3, 2)), np.zeros((0, 2))], "Sequence 1 (counted from 0) has no steps"),
        ([np.zeros((3, 2)), np.zeros((3, 2, 2))], "Sequence 1 (counted from 0) has the shape (3, 2, 2)"),
        ([np.zeros((3, 2)), np.full((3, 2), "a")], "holds text"),
        (np.zeros((2, 3, 2, 2)), "must be (N, T) or (N, T, C)"),
        (np.zeros((2, 3, 2), complex), "omplex"),
        (np.full((2, 3, 2), np.inf), "inf"),
        (np.zeros(2), "1D array"),
        ([], "has no sequences"),
    ],
)
def test_what_holds_no_sequences_is_refused(x, message):
    with pytest.raises(ValueError, match=r".") as caught:
        small().fit(x, np.arange(len(x)) % 2)
    assert message in str(caught.value)


def test_missing_values_are_refused_until_one_says_what_they_mean():
    x, y = waves()
    x[4, 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Choose missing=mask") as caught:
        small().fit(x, y)
    assert "X, sequence 4, step 3" in str(caught.value)
    whole = small().fit(*waves())
    with pytest.raises(ValueError, match="NaN"):
        whole.predict(x)
    for missing in ("mask", "interpolate", "drop"):
        model = small(missing=missing).fit(x, y)
        assert model.predict(x).shape == (60,)
        assert model.predict(x[4:5]) == model.predict(x)[4]


def test_a_sequence_without_values_is_classified_where_that_can_be():
    x, y = waves()
    x[4, 3, 1] = np.nan
    nothing = np.full((1, 7, 2), np.nan)
    assert small(missing="mask").fit(x, y).predict(nothing).shape == (1,)
    with pytest.raises(DataError, match=r"sequence 1, step 0 .* no values at all"):
        small(missing="drop").fit(x, y).predict(np.concatenate((x[:1], nothing)))


def test_sequences_of_other_channels_are_not_classified():
    model = small().fit(*waves(channels=2))
    with pytest.raises(ValueError, match="3 channels"):
        model.predict(waves(channels=3)[0])


def test_sequences_may_be_longer_than_those_of_the_training():
    model = small().fit(*waves(steps=7))
    assert model.predict(waves(steps=11)[0]).shape == (60,)


def test_a_frame_keeps_digits_that_only_float64_holds():
    column = 1e9 + np.array([0.1, 0.2, 0.4])
    frame = polars.DataFrame({"id": [0, 0, 1], "x": column})
    np.testing.assert_array_equal(
        LongFrame(frame, "id", None, None, None).recordings().values_SC[:, 0], column
    )


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300, 1e-42])
def test_a_frame_keeps_values_that_only_float64_holds(scale):
    column = scale * np.array([1.0, 2.0, 4.0])
    frame = polars.DataFrame({"id": [0, 0, 1], "x": column})
    values_SC = LongFrame(frame, "id", None, None, None).recordings().values_SC
    np.testing.assert_allclose(values_SC[:, 0], column, rtol=1e-6)
    assert (values_SC.dtype == np.float32) == (scale == 1)
