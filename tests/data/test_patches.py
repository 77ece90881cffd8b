"""Neighbouring steps side by side: dataset.patch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnclf.data import DATASETS
from rnnclf.data.arrays import Arrays
from rnnclf.data.patches import apart, side_by_side
from rnnclf.data.preparation import Preparation
from rnnclf.errors import ConfigError

LENGTHS = (7, 3, 1, 6)
CHANNELS = 2


def preparation(missing="error", patch=3) -> Preparation:
    return Preparation(("a", "b"), missing, (0.0,) * CHANNELS, (1.0,) * CHANNELS, patch=patch)


def by_hand(x_TC, patch):
    """Patches of one sequence, value by value: the values of the first step, of the second, …"""
    steps = len(x_TC)
    return [
        [x_TC[min(start + step, steps - 1)][c] for step in range(patch) for c in range(x_TC.shape[1])]
        for start in range(0, steps, patch)
    ]


@pytest.mark.parametrize("patch", [1, 2, 3, 7, 9])
def test_patches_are_those_of_each_sequence_alone_whatever_the_padding(patch):
    x_BTC = torch.randn(len(LENGTHS), max(LENGTHS) + 2, CHANNELS)
    lengths_B = torch.tensor(LENGTHS)
    prepared = preparation(patch=patch)
    found = prepared(x_BTC, lengths_B, None)
    assert found.shape[2] == prepared.input_size == patch * CHANNELS
    for n, length in enumerate(LENGTHS):
        expected = by_hand(x_BTC[n, :length].numpy(), patch)
        assert prepared.steps_of(lengths_B)[n] == len(expected)
        np.testing.assert_array_equal(found[n, : len(expected)].numpy(), expected)


def test_with_masks_the_values_of_a_patch_come_first():
    x_BTC = torch.randn(1, 5, CHANNELS)
    x_BTC[0, 1, 0] = torch.nan
    masked = preparation("mask")
    found = masked(x_BTC, torch.tensor([5]), None)
    alone = replace(masked, patch=1)(x_BTC, torch.tensor([5]), None)
    assert masked.values == 6
    for feature in range(3):  # values, presence, time since
        part = alone[0, :, feature * CHANNELS : (feature + 1) * CHANNELS].numpy()
        np.testing.assert_array_equal(found[0, :, feature * 6 : (feature + 1) * 6].numpy(), by_hand(part, 3))


def test_a_dataset_is_the_same_prepared_at_once_or_batch_by_batch(tmp_path):
    data = source(tmp_path, [50, 20, 1, 33] * 10, patch=4).load().train
    raw = source(tmp_path, [50, 20, 1, 33] * 10, patch=1).load().train
    assert data.preparation is None
    assert data.steps == 13
    assert data.input_size == 4 * CHANNELS
    assert data.ragged
    batch = data.batch(torch.arange(len(data)))
    assert batch.lengths_B.tolist() == [-(-length // 4) for length in raw.lengths_N.tolist()]
    for n, length in enumerate(raw.lengths_N.tolist()):
        x_TC = raw.batch(torch.tensor([n])).x_BTI[0, :length].numpy()
        np.testing.assert_array_equal(batch.x_BTI[n, : batch.lengths_B[n]].numpy(), by_hand(x_TC, 4))


def test_sequences_of_equal_length_once_prepared_are_not_ragged(tmp_path):
    data = source(tmp_path, [5, 6, 7, 8] * 10, patch=4).load().train
    assert not data.ragged
    assert data.batch(torch.tensor([0, 1])).lengths_B is None


@pytest.mark.parametrize(("steps", "patch"), [(300, 1), (301, 5), (1460, 20)])
def test_auto_leaves_about_75_steps_of_long_sequences(tmp_path, steps, patch):
    found = source(tmp_path, [steps] * 20, patch="auto").load()
    assert found.learned.preparation.patch == patch
    assert found.train.steps == -(-steps // patch)


def test_one_long_sequence_among_short_ones_makes_no_patches(tmp_path):
    assert source(tmp_path, [5] * 19 + [2000], patch="auto").load().learned.preparation.patch == 1


def test_what_is_no_patch_is_refused():
    for value in ("many", 0):
        with pytest.raises(ConfigError, match=r"patch must be"):
            Arrays(patch=value)


def test_a_preparation_of_an_earlier_version_has_no_patches():
    plain = preparation(patch=1).to_plain()
    del plain["patch"]
    assert Preparation.from_plain(plain) == preparation(patch=1)


def source(folder, lengths, **options):
    random = np.random.default_rng(0)
    x = random.normal(size=(len(lengths), max(lengths), CHANNELS))
    np.savez(folder / "my.npz", x=x, y=np.arange(len(lengths)) % 2, lengths=np.array(lengths))
    return DATASETS["arrays"](path=str(folder / "my.npz"), **options)


@pytest.mark.parametrize("features", [1, 3])
def test_patches_can_be_taken_apart_again(features):
    x_BTFC = torch.randn(2, 6, features, CHANNELS)
    patches_BTI = side_by_side(x_BTFC, torch.tensor([6, 6]), 3)
    assert torch.equal(apart(patches_BTI, 3, features), x_BTFC.flatten(2))
