"""From what a source reads to three splits: the same for every source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rnnclf.data import DATASETS, SPLITS, Learned, Source
from rnnclf.data.recordings import Progress, Recordings, encoded, recordings_of, silent
from rnnclf.errors import CheckpointError, ConfigError, DataError


@dataclass
class Noise(Source):
    """Thirty ragged sequences of two channels, some values missing: what a test does not replace."""

    name: str = "noise"

    def read(self, progress: Progress = silent) -> Recordings:
        random = np.random.default_rng(0)
        x_NTC = random.normal(5, 2, (30, 6, 2))
        x_NTC[:, 1:][random.random((30, 5, 2)) < 0.2] = np.nan
        lengths_N = random.integers(3, 7, 30)
        return replace(recordings_of(x_NTC, np.arange(30) % 3, lengths_N), **CHANGES)


CHANGES: dict[str, object] = {}


@pytest.fixture
def changes():
    """What `Noise` reads differently in this test."""
    yield CHANGES
    CHANGES.clear()


def noise(**options: object) -> Noise:
    return Noise(**{"missing": "mask", "normalise": "standard", **options})


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_data_set_has_a_summary_and_its_options(name):
    source = DATASETS[name]()
    assert source.name == name == source.title().split()[0]
    assert {"validation", "test", "split", "split_seed", "folds", "missing", "normalise"} <= set(vars(source))
    assert type(source).__doc__.splitlines()[0].endswith(".") or "\n" in type(source).__doc__


def test_every_sequence_is_in_one_split_prepared_by_the_training_split_alone():
    splits = noise().load()
    assert [len(splits[name]) for name in SPLITS] == [21, 3, 6]
    assert splits.train.input_size == 6
    values = torch.cat([splits.train.batch(torch.tensor([n])).x_BTI[0] for n in range(21)])
    for c in range(2):
        seen = values[values[:, 2 + c] == 1, c]
        assert seen.mean().item() == pytest.approx(0, abs=1e-5)
        assert seen.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert splits.learned.classes == ("0", "1", "2")


def test_two_readings_are_the_same_and_another_seed_divides_the_same_data_differently():
    one, same, other = noise().load(), noise().load(), noise(split_seed=1).load()
    for name in SPLITS:
        assert torch.equal(one[name].x_SI, same[name].x_SI)
        assert torch.equal(one[name].starts_N, same[name].starts_N)
    assert not torch.equal(one.test.starts_N, other.test.starts_N)
    assert one.fingerprint == same.fingerprint == other.fingerprint


def test_what_was_learned_is_used_again():
    """As eval does: other splits, other data, the same preparation."""
    learned = noise().load().learned
    again = noise(split_seed=5, normalise="none").load(learned)
    assert again.learned == learned
    whole, fingerprint = noise().load_whole(learned)
    assert (len(whole), fingerprint) == (30, noise().load().fingerprint)


def test_classes_are_found_by_their_names(changes):
    """Data with fewer classes, in another order, mean what they meant in training."""
    learned = noise().load().learned
    changes.update(classes=("2", "0"), labels_N=np.arange(30) % 2)
    whole, _ = noise().load_whole(learned)
    assert whole.classes == ("0", "1", "2")
    assert whole.y_N[:4].tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": ("0", "other")}, "trained on the channels 0, 1; these data have 0, other."),
        (
            {"values_SC": np.zeros((180, 3)), "channels": ("a", "b", "c")},
            "trained on sequences with 2 features per step; these have 3.",
        ),
        ({"classes": ("0", "1", "cat")}, "knows the classes 0, 1, 2; these data also have cat."),
    ],
)
def test_data_that_a_model_was_not_made_for_are_refused(changes, change, words):
    learned = noise().load().learned
    changes.update(change)
    with pytest.raises(CheckpointError) as caught:
        noise().load_whole(learned)
    assert words in str(caught.value)


def test_channels_are_found_by_their_names(changes):
    """In another order, or with one more, data mean what they meant in training."""
    changes.update(channels=("a", "b"))
    learned = noise().load().learned
    before, fingerprint = noise().load_whole(learned)
    values_SC = noise().read().values_SC
    for order, names in (([1, 0], ("b", "a")), ([1, 0, 0], ("b", "more", "a"))):
        changes.update(values_SC=values_SC[:, order], channels=names)
        after, again = noise().load_whole(learned)
        torch.testing.assert_close(after.x_SI, before.x_SI, rtol=0, atol=0)
        assert again == fingerprint
    note = "The model was not trained on channel more, which is left out."
    assert note in noise().recordings_for(learned).notes


def test_channels_without_names_are_not_told_apart(changes):
    """The third of three may be any: which two a model was trained on cannot be known."""
    learned = noise().load().learned
    changes.update(values_SC=np.zeros((180, 3)), channels=("0", "1", "2"))
    with pytest.raises(CheckpointError, match="2 features per step; these have 3"):
        noise().load_whole(learned)


def test_one_class_is_nothing_to_train_on_but_something_to_score(changes):
    learned = noise().load().learned
    changes.update(labels_N=np.zeros(30, np.int64), classes=("1",))
    with pytest.raises(DataError, match=r"only one class, '1' \(30 sequences\)"):
        noise().load()
    assert noise().load_whole(learned)[0].y_N.tolist() == [1] * 30


def test_a_sequence_in_two_splits_is_warned_of(changes):
    changes.update(starts_N=np.arange(30, dtype=np.int64) % 15 * 6, lengths_N=np.full(30, 5))
    given_N = np.where(np.arange(30) < 15, 0, 2).astype(np.int8)
    changes.update(given_N=given_N)
    (warning,) = (w for w in noise(validation=3).load().warnings if "in the train split" in w and "test" in w)
    assert "test sequences are also in the train split: the test score will be too optimistic." in warning


def test_folds_of_a_sweep_share_nothing_but_the_data():
    tests = [noise(folds=3, fold=fold).load().test.starts_N for fold in range(3)]
    whole, _ = noise().load_whole(noise().load().learned)
    assert torch.equal(torch.cat(tests).sort().values, whole.starts_N)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"missing": "guess"}, "missing must be error, mask, interpolate, drop or auto, got 'guess'"),
        ({"normalise": "z"}, "normalise must be none, standard, minmax, robust or quantiles"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"validation": 0}, "validation must be above 0, got 0"),
        ({"test": -0.5}, "test must be above 0"),
        ({"split_seed": 2**32}, "split_seed must be at least 0 and at most"),
    ],
)
def test_an_option_out_of_range_is_refused(options, words):
    with pytest.raises(ConfigError) as caught:
        noise(**options)
    assert words in str(caught.value)


def test_names_of_classes_are_sorted_numbers_as_numbers():
    assert encoded([10, 9, "2", "-1"])[1] == ("-1", "2", "9", "10")
    assert encoded(["b", "a10", "a9"])[1] == ("a10", "a9", "b")
    labels_N, classes = encoded(np.array(["y", "x", "y"]))
    assert (labels_N.tolist(), classes) == ([1, 0, 1], ("x", "y"))


def test_a_source_that_reads_nothing_says_so():
    with pytest.raises(NotImplementedError, match="Source must define read"):
        Source().read()


def test_learned_is_a_plain_value():
    learned, again = noise().load().learned, noise().load().learned
    assert learned == again
    assert learned == Learned(again.preparation, ("0", "1", "2"), again.training)
