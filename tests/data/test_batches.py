"""Batches: cut, padded, prepared, ordered; what fits into memory and what does not give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset, padded_dataset
from rnnclf.data.base import Learned, assembled
from rnnclf.data.order import POOL, epoch_batches
from rnnclf.data.preparation import fitted
from rnnclf.data.recordings import Recordings, recordings_of
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack


def ragged(n: int = 40, seed: int = 0, steps: int = 9) -> Recordings:
    random = np.random.default_rng(seed)
    x_NTC = random.normal(size=(n, steps, 2))
    x_NTC[random.random(x_NTC.shape) < 0.2] = np.nan
    return recordings_of(x_NTC, np.arange(n) % 3, random.integers(1, steps + 1, n))


def raw(recordings: Recordings, missing: str = "mask") -> SequenceDataset:
    """Prepared batch by batch, as data larger than memory are."""
    preparation = fitted(recordings, np.arange(len(recordings)), missing, "standard")
    return SequenceDataset(
        x_SI=torch.from_numpy(recordings.values_SC),
        starts_N=torch.from_numpy(recordings.starts_N),
        lengths_N=torch.from_numpy(recordings.lengths_N),
        y_N=torch.from_numpy(recordings.labels_N),
        classes=recordings.classes,
        preparation=preparation,
    )


def valid(data: SequenceDataset, indices_B: torch.Tensor) -> list[torch.Tensor]:
    """The steps of each sequence, without padding."""
    x_BTI, _, lengths_B = data.batch(indices_B)
    lengths = lengths_B.tolist() if lengths_B is not None else [x_BTI.shape[1]] * len(x_BTI)
    return [x_TI[:length] for x_TI, length in zip(x_BTI, lengths, strict=True)]


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
@pytest.mark.parametrize("whole", [False, True])
def test_prepared_once_or_batch_by_batch_is_the_same(missing, whole):
    recordings = ragged()
    if whole:
        x_NTC = recordings.values_SC.reshape(40, 9, 2)
        recordings = recordings_of(x_NTC, np.arange(40) % 3)
    by_batch = raw(recordings, missing)
    at_once = by_batch.prepared()
    assert at_once.preparation is None
    assert at_once.input_size == by_batch.input_size
    for indices_B in torch.randperm(40).split(7):
        for one, other in zip(valid(by_batch, indices_B), valid(at_once, indices_B), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_what_fits_into_memory_is_prepared_at_once(monkeypatch):
    recordings = ragged()
    learned = Learned(raw(recordings).preparation, recordings.classes)
    assert assembled(recordings, learned).preparation is None
    monkeypatch.setattr("rnnclf.data.dataset.RESIDENT", 100)
    assert assembled(recordings, learned).preparation is not None


def bytes_of_pictures() -> Recordings:
    x_NTC = np.random.default_rng(0).integers(0, 256, (40, 9, 2), dtype=np.uint8)
    return recordings_of(x_NTC, np.arange(40) % 3, unit=255.0)


@pytest.mark.parametrize("normalise", ["none", "standard"])
def test_bytes_stay_the_bytes_that_were_read_and_are_prepared_bit_for_bit(normalise):
    recordings = bytes_of_pictures()
    learned = Learned(fitted(recordings, np.arange(40), "error", normalise), recordings.classes)
    data = assembled(recordings, learned)
    assert data.x_SI.data_ptr() == recordings.values_SC.ctypes.data
    preparation = learned.preparation
    shift_C, scale_C = np.float32(preparation.shift_C), np.float32(preparation.scale_C)
    expected_NTI = ((recordings.values_SC.astype(np.float32) - shift_C) / scale_C).reshape(40, 9, 2)
    indices_B = torch.randperm(40)[:15]
    assert np.array_equal(data.batch(indices_B).x_BTI.numpy(), expected_NTI[indices_B])


def test_bytes_with_masks_are_prepared_at_once():
    recordings = bytes_of_pictures()
    learned = Learned(fitted(recordings, np.arange(40), "mask", "none"), recordings.classes)
    assert assembled(recordings, learned).preparation is None


def test_what_fits_lies_ready_on_another_device():
    data, meta = raw(bytes_of_pictures(), "error"), torch.device("meta")
    there = data.subset(torch.arange(7)).to(meta)
    assert there.preparation is None
    assert (there.x_SI.shape, there.x_SI.dtype, there.x_SI.device.type) == ((7 * 9, 2), torch.float32, "meta")
    assert data.to(torch.device("cpu")).x_SI is data.x_SI


def test_a_batch_holds_the_sequences_asked_for_with_labels_and_lengths():
    data = raw(ragged()).prepared()
    indices_B = torch.tensor([31, 4, 17])
    x_BTI, y_B, lengths_B = data.batch(indices_B)
    assert y_B.tolist() == [31 % 3, 4 % 3, 17 % 3]
    assert lengths_B.tolist() == data.lengths_N[indices_B].tolist()
    assert x_BTI.shape == (3, int(lengths_B.max()), 6)
    assert data.batch(torch.tensor([4])).lengths_B is None  # alone, it needs no padding


def test_evaluation_batches_hold_every_sequence_once():
    for data in (raw(ragged()), raw(ragged()).prepared()):
        batches = list(data.batches(7))
        assert [len(batch.y_B) for batch in batches] == [7] * 5 + [5]
        firsts = torch.cat([batch.x_BTI[:, 0, :] for batch in batches])
        expected = torch.stack([data.batch(torch.tensor([n])).x_BTI[0, 0] for n in range(40)])
        assert sorted(firsts.tolist()) == sorted(expected.tolist())


def test_a_subset_keeps_labels_and_lengths_beside_their_sequences():
    data = raw(ragged()).prepared()
    part = data.subset(torch.tensor([5, 30])).subset(torch.tensor([1]))
    assert part.y_N.tolist() == [0]
    assert part.lengths_N.tolist() == [int(data.lengths_N[30])]
    assert torch.equal(valid(part, torch.tensor([0]))[0], valid(data, torch.tensor([30]))[0])


@pytest.mark.parametrize("name", ["basic", "lstm", "mingru", "s4d"])
def test_the_result_does_not_depend_on_padding_or_company(name):
    """Each sequence alone, in batches, and padded further with absurd values: the same logits."""
    recordings = ragged()
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS[name](hidden_size=5), 6, 3, Stack(bidirectional=True)).eval()
    data = raw(recordings).prepared()
    with torch.no_grad():
        alone = torch.cat([model(x, lengths) for x, _, lengths in data.batches(1)])
        together = torch.cat([model(x, lengths) for x, _, lengths in data.batches(16)])
        x_BTI, _, lengths_B = data.batch(torch.arange(40))
        far = torch.full((40, 30, 6), 1e6)
        behind = torch.arange(x_BTI.shape[1]) >= lengths_B.unsqueeze(-1)
        far[:, : x_BTI.shape[1]] = x_BTI.masked_fill(behind.unsqueeze(-1), -1e6)
        padded = model(far, lengths_B)[data.lengths_N.argsort(stable=True)]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


# The order of an epoch


def test_every_sequence_comes_once_an_epoch():
    for data in (raw(ragged(501)), padded_dataset(torch.zeros(501, 2, 1), torch.arange(501) % 2, ("a", "b"))):
        batches = epoch_batches(data, 16)
        assert torch.cat(batches).sort().values.tolist() == list(range(501))
        assert sorted(map(len, batches)) == sorted([16] * 31 + [5])
        assert sum(map(len, epoch_batches(data, 16, whole_only=True))) == 31 * 16


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(50, 16, [13, 13, 12, 12]), (16, 16, [16]), (3, 16, [3])]
)
def test_even_batches_are_as_many_and_of_about_equal_size(count, size, expected):
    equal = padded_dataset(torch.zeros(count, 2, 1), torch.arange(count) % 2, ("a", "b"))
    for data in (equal, raw(ragged(count))):
        batches = epoch_batches(data, size, "even")
        assert torch.cat(batches).sort().values.tolist() == list(range(count))
        assert sorted(map(len, batches), reverse=True) == expected


def test_ragged_batches_need_little_padding_and_are_new_each_epoch():
    data = raw(ragged(4000, steps=100))
    torch.manual_seed(0)
    first, second = epoch_batches(data, 20), epoch_batches(data, 20)
    work = sum(len(batch) * int(data.lengths_N[batch].max()) for batch in first)
    assert work / int(data.lengths_N.sum()) < 1.05  # a plain shuffle: about 1.9
    company = [{frozenset(batch.tolist()) for batch in epoch} for epoch in (first, second)]
    assert not company[0] & company[1]
    means = torch.tensor([data.lengths_N[batch].double().mean() for batch in first])
    assert abs(float(torch.corrcoef(torch.stack((means, torch.arange(len(means)).double())))[0, 1])) < 0.2


def test_sequences_of_one_length_come_as_a_plain_shuffle():
    data = padded_dataset(torch.zeros(POOL * 3, 2, 1), torch.arange(POOL * 3) % 2, ("a", "b"))
    torch.manual_seed(3)
    batches = epoch_batches(data, 4)
    torch.manual_seed(3)
    assert torch.equal(torch.cat(batches), torch.randperm(POOL * 3))


def test_balanced_sampling_draws_each_class_equally_often():
    y_N = torch.tensor([0] * 900 + [1] * 90 + [3] * 10)
    data = padded_dataset(torch.zeros(1000, 1, 1), y_N, ("a", "b", "nobody", "c"))
    torch.manual_seed(0)
    drawn = torch.cat([torch.cat(epoch_batches(data, 50, "balanced")) for _ in range(30)])
    shares = torch.bincount(y_N[drawn], minlength=4) / len(drawn)
    assert shares.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.015)
    counts = torch.bincount(drawn, minlength=1000)
    assert counts[-10:].min() > 0.8 * len(drawn) / 30  # each of the rare about equally
    assert (counts > 0).float().mean() > 0.95


# What is refused


@pytest.mark.parametrize(
    ("x", "y", "lengths", "words"),
    [
        ((4, 3), 4, None, r"shape \(N, T, I\), got \(4, 3\)"),
        ((4, 3, 2), 5, None, r"y must have shape \(4,\), one label per sequence, got \(5,\)"),
        ((1, 3, 2), 1, 0, "between 1 and the number of steps, 3"),
        ((1, 3, 2), 1, 4, "between 1 and the number of steps, 3"),
    ],
)
def test_sequences_of_a_wrong_shape_or_length_are_refused(x, y, lengths, words):
    lengths_N = None if lengths is None else torch.tensor([lengths])
    with pytest.raises(ValueError, match=words):
        padded_dataset(torch.zeros(x), torch.zeros(y, dtype=torch.int64), ("a",), lengths_N)
