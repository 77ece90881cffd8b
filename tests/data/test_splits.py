"""Which sequences train, validate and test: in proportion, by group, by fold, as given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from rnnclf.data.recordings import Recordings, recordings_of
from rnnclf.data.splits import SPLITS, SplitPlan, divide, shared, stratified
from rnnclf.errors import ConfigError, DataError

PLAN = SplitPlan(validation=0.2, test=0.25, split="random", seed=0, folds=None, fold=0)


def recordings(labels: object, **more: object) -> Recordings:
    labels = np.asarray(labels)
    return recordings_of(np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1), labels, **more)


def balanced(n: int = 60, **more: object) -> Recordings:
    return recordings(np.arange(n) % 3, **more)


@settings(max_examples=80, deadline=None)
@given(
    members=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_stratified_draw_is_that_of_scikit_learn(members, share, seed):
    labels_N = np.random.default_rng(0).permutation(np.repeat(np.arange(len(members)), members))
    count = min(max(round(share * len(labels_N)), len(members)), len(labels_N) - len(members))
    places_N = np.arange(len(labels_N)) * 7
    rest, drawn = stratified(labels_N, count, seed, places_N)
    expected = train_test_split(places_N, test_size=count, stratify=labels_N, random_state=seed)
    assert np.array_equal(rest, expected[0])
    assert np.array_equal(drawn, expected[1])


@pytest.mark.parametrize(
    ("change", "sizes"),
    [
        ({}, [33, 12, 15]),  # shares are of all that the data do not give to the test
        ({"validation": 9, "test": 12}, [39, 9, 12]),
        ({"split": "first"}, [33, 12, 15]),
        ({"folds": 5}, [36, 12, 12]),
    ],
)
def test_the_three_splits_are_disjoint_cover_all_and_have_the_sizes_asked_for(change, sizes):
    parts = divide(balanced(), replace(PLAN, **change))
    together = np.concatenate([parts[name] for name in SPLITS])
    assert sorted(together) == list(range(60))
    assert [len(parts[name]) for name in SPLITS] == sizes


@pytest.mark.parametrize("split", ["random", "first"])
def test_a_fraction_has_room_for_each_class(split):
    """Ten classes of five and a test set: 8 sequences cannot be a validation split."""
    given_N = np.where(np.arange(100) < 50, -1, 2).astype(np.int8)
    data = recordings(np.arange(100) % 10, given_N=given_N)
    parts = divide(data, replace(PLAN, validation=0.15, split=split))
    assert [len(parts[name]) for name in SPLITS] == [40, 10, 50]
    assert set(data.labels_N[parts["validation"]]) == set(data.labels_N[parts["train"]]) == set(range(10))
    parts = divide(recordings(np.arange(30) % 10), replace(PLAN, split=split))
    assert [len(parts[name]) for name in SPLITS] == [10, 10, 10]


def test_a_class_that_is_all_in_one_given_split_does_not_hinder_the_others():
    """It is refused in training, in the words of `refuse_untrained`, and may be missing from other data."""
    given_N = np.where(np.arange(60) < 15, 1, -1).astype(np.int8)
    labels = np.where(np.arange(60) < 15, 2, np.arange(60) % 2)
    data = recordings(labels, given_N=given_N)
    for change in ({}, {"folds": 5}, {"split": "first"}):
        parts = divide(data, replace(PLAN, **change))
        assert parts["validation"].tolist() == list(range(15))
        assert set(data.labels_N[parts["test"]]) == {0, 1}


def test_few_sequences_of_each_class_in_groups_are_divided():
    data = recordings(np.arange(50) % 10, groups_N=np.arange(50) // 2)
    parts = divide(data, replace(PLAN, validation=0.05, test=0.1))
    assert all(len(parts[name]) for name in SPLITS)


def test_split_first_takes_the_first():
    parts = divide(balanced(), replace(PLAN, split="first", validation=10, test=20))
    assert parts["test"].tolist() == list(range(20))
    assert parts["validation"].tolist() == list(range(20, 30))


def test_what_the_data_name_is_followed_and_only_the_rest_is_drawn():
    given_N = np.full(60, -1, np.int8)
    given_N[:6], given_N[6:12], given_N[12:15] = 2, 0, 1
    parts = divide(balanced(given_N=given_N), PLAN)
    assert parts["test"].tolist() == list(range(6))
    assert parts["validation"].tolist() == [12, 13, 14]
    assert sorted(parts["train"]) == [*range(6, 12), *range(15, 60)]


def test_groups_stay_whole():
    groups_N = np.repeat(np.arange(12), 5)
    labels = np.tile([0, 1, 0, 1, 1], 12)
    for change in ({}, {"folds": 4, "fold": 2}, {"test": 10, "validation": 10}):
        parts = divide(recordings(labels, groups_N=groups_N), replace(PLAN, **change))
        groups = [set(groups_N[parts[name]]) for name in SPLITS]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_the_folds_cover_every_sequence_once_each_in_proportion():
    tests = [divide(balanced(), replace(PLAN, folds=5, fold=fold))["test"] for fold in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(60))
    assert all(np.bincount(part % 3).tolist() == [4, 4, 4] for part in tests)


def test_where_the_test_is_given_the_folds_are_of_the_validation():
    given_N = np.where(np.arange(60) < 15, 2, -1).astype(np.int8)
    folds = [divide(balanced(given_N=given_N), replace(PLAN, folds=3, fold=fold)) for fold in range(3)]
    assert all(parts["test"].tolist() == list(range(15)) for parts in folds)
    assert sorted(np.concatenate([parts["validation"] for parts in folds])) == list(range(15, 60))


GIVEN = np.array([2, 1, *[-1] * 58], np.int8)


@pytest.mark.parametrize(
    ("data", "change", "error", "words"),
    [
        (recordings([0, 0, 0, 0, 1]), {}, DataError, "Class '1' has only one sequence left to split"),
        (
            balanced(),
            {"validation": 2},
            ConfigError,
            "set dataset.validation to a number from 3 to 42.",
        ),
        (recordings([0, 0, 0, 1, 1, 1, 2, 2, 2]), {"test": 2}, ConfigError, "2 of 9 sequences"),
        (recordings([0, 0, 1, 1, 2, 2]), {"test": 2}, ConfigError, "classes: set dataset.test to 3."),
        (
            recordings([0, 0, 1, 1, 2, 2]),
            {},
            DataError,
            "has only one sequence left to split: the validation",
        ),
        (
            balanced(groups_N=np.arange(60) // 60),
            {},
            ConfigError,
            "Cannot make 2 parts from 1 group: add seq",
        ),
        (balanced(), {"test": 59}, ConfigError, "59 of 60 sequences cannot be the test split"),
        (balanced(), {"test": 1.5}, ConfigError, "dataset.test must be a whole number or a fraction below 1"),
        (
            balanced(),
            {"folds": 5, "fold": 5},
            ConfigError,
            "dataset.fold must be below dataset.folds, 5, got 5",
        ),
        (balanced(), {"folds": 30}, ConfigError, "Cannot make 30 parts from a class of 20"),
        (
            balanced(groups_N=np.arange(60) // 20),
            {"folds": 5},
            ConfigError,
            "Cannot make 5 parts from 3 groups",
        ),
        (
            balanced(groups_N=np.arange(60) // 20),
            {"split": "first"},
            ConfigError,
            "divide groups between splits",
        ),
        (balanced(given_N=GIVEN), {"folds": 3}, ConfigError, "dataset.folds has no effect"),
        (
            recordings([0] * 10 + [1] * 10, groups_N=np.repeat([0, 1], 10)),
            {},
            DataError,
            "are in groups of the test split: none are left to train on",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_in_words(data, change, error, words):
    with pytest.raises(error) as caught:
        divide(data, replace(PLAN, **change))
    assert words in str(caught.value)


def test_sequences_in_two_splits_are_counted():
    digests_N = np.array([b"a", b"b", b"a", b"c", b"b", b"a"], dtype="V1")
    parts = {"train": np.array([0, 1]), "validation": np.array([2, 3]), "test": np.array([4, 5])}
    assert shared(digests_N, parts) == {
        ("train", "validation"): 1,
        ("train", "test"): 2,
        ("validation", "test"): 1,
    }
