"""Whole steps read what torch prepares for autograd, wherever values need more than a shift and a scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rnnclf import checkpoint
from rnnclf.augment import Augment, ImageAugment, SeriesAugment
from rnnclf.data import SequenceDataset
from rnnclf.data.layout import PictureLayout
from rnnclf.data.preparation import Preparation
from rnnclf.engine.parts import parts_of_batches
from rnnclf.errors import DivergedError
from rnnclf.optim import Adam, Constant
from rnnclf.training import epoch as epoch_steps
from rnnclf.training import evaluation
from rnnclf.training.evaluation import evaluate_model, score_model
from rnnclf.training.loop import fit
from rnnclf.training.recipe import CrossEntropy, Recipe
from rnnclf.training.state import Training

pytest.importorskip("llvmlite")

from rnnclf.training.eligibility import engine_used, is_eligible
from rnnclf.training.step_source import RawData, source_of
from rnnclf.training.whole_step import WholeSteps
from tests.training.small import without_seconds
from tests.training.whole_steps import CLASSES, EXACT, as_read, assert_as_by_autograd, classifier, ready

PLAIN = CrossEntropy.plain(CLASSES)
CHANNELS = 4


def read(missing="error", patch=1, dtype=torch.float32, ragged=True, timed=False, shift=0.5, n=40):
    """Sequences as they were read: of 1 to 9 steps, a fifth of their values missing if those may be."""
    generator = torch.Generator().manual_seed(4)
    lengths_N = torch.randint(1, 10, (n,), generator=generator) if ragged else torch.full((n,), 9)
    steps = int(lengths_N.sum())
    x_SC = 20 * torch.randn(steps, CHANNELS, generator=generator, dtype=torch.float64) + shift
    if missing != "error":
        x_SC[torch.rand(steps, CHANNELS, generator=generator) < 0.2] = torch.nan
    times_S = torch.rand(steps, generator=generator, dtype=torch.float64).cumsum(0) if timed else None
    preparation = Preparation(
        tuple("abcd"), missing, (shift,) * CHANNELS, (19.0, 20.0, 21.0, 22.0), patch=patch, timed=timed
    )
    y_N = torch.randint(CLASSES, (n,), generator=generator)
    starts_N = lengths_N.cumsum(0) - lengths_N
    classes = tuple(map(str, range(CLASSES)))
    return SequenceDataset(x_SC.to(dtype), starts_N, lengths_N, y_N, classes, times_S, preparation)


PREPARED = {
    "gaps filled": read("interpolate"),
    "gaps masked": read("mask"),
    "gaps with times": read("mask", timed=True),
    "patches": read(patch=3),
    "patches of equal length": read(patch=3, ragged=False),
    "gaps and patches": read("mask", patch=2),
    "int16": read(dtype=torch.int16),
    "float64": read(dtype=torch.float64),
    "far from zero": read(dtype=torch.float32, shift=1e6),
    "not contiguous": replace(ready(ragged=True, inputs=8), x_SI=ready(inputs=8).x_SI[:, ::2]),
}
RAW = {"bytes": as_read(), "in memory": ready(ragged=True), "only scaled": read()}


QUICK = ("gaps filled", "patches of equal length", "int16")
"""The data that the default run of the tests tries."""


def quick(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]


def model_for(data, case="basic", **stack):
    return classifier(case, inputs=data.input_size, **stack)


@pytest.mark.parametrize("name", [*PREPARED, *RAW])
def test_torch_prepares_only_what_machine_code_cannot(name):
    data = {**PREPARED, **RAW}[name]
    assert isinstance(source_of(data), RawData) == (name in RAW)
    assert not isinstance(source_of(data, lambda batch: batch), RawData)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", quick(PREPARED))
def test_loss_and_gradients_are_those_of_autograd(name, dtype, cores):
    cores(2)
    data = PREPARED[name]
    model = model_for(data, readout="mean", bidirectional=True).to(dtype)
    assert_as_by_autograd(model, PLAIN, data, torch.arange(3, 20), EXACT[dtype])


@pytest.mark.parametrize("name", quick(["gaps masked", "gaps filled", "patches of equal length"]))
def test_batches_leave_nothing_behind_for_later_ones(name):
    data = PREPARED[name]
    model = model_for(data, readout="max")
    short_first = data.lengths_N.argsort()
    fresh, used = WholeSteps(model, PLAIN, data), WholeSteps(model, PLAIN, data)
    expected = fresh(short_first[10:20])
    gradients = [weight.grad.clone() for weight in model.parameters()]
    for other in (short_first[-10:], short_first[:10]):
        used(other)
    assert used(short_first[10:20]) == expected
    assert all(torch.equal(w.grad, g) for w, g in zip(model.parameters(), gradients, strict=True))
    fresh.close(), used.close()


@pytest.mark.parametrize("name", quick(["gaps filled", "gaps and patches", "int16"]))
def test_predictions_are_those_of_the_general_way(name, monkeypatch):
    data = PREPARED[name]
    model = model_for(data)
    assert is_eligible(model, data)
    found, score = evaluate_model(model, data), score_model(model, data)
    monkeypatch.setattr(evaluation, "is_eligible", lambda model, data: False)
    expected = evaluate_model(model, data)
    np.testing.assert_allclose(found.logits_NK, expected.logits_NK, rtol=1e-4, atol=1e-5)
    assert score.correct == expected.score.correct
    assert score.loss == pytest.approx(expected.score.loss, rel=1e-5)


# Augmentation


class Stretched(Augment):
    """Every other batch has twice as many steps as its data."""

    active = True
    calls = 0

    def __call__(self, x_BTI, lengths_B, layout=None, values=None, codes=0):
        self.calls += 1
        if self.calls % 2:
            return x_BTI, lengths_B
        return x_BTI.repeat_interleave(2, dim=1), None if lengths_B is None else 2 * lengths_B


AUGMENTED = {
    "noise": (ready(), {"augment": SeriesAugment()}),
    "crops": (ready(), {"augment": SeriesAugment(crop=0.5, time_mask=0.4, channel_drop=0.2)}),
    "crops of ragged": (ready(ragged=True), {"augment": SeriesAugment(crop=0.5)}),
    "crops of patches": (
        read("mask", patch=2),
        {"augment": SeriesAugment(crop=0.5), "values": 2 * CHANNELS, "patch": 2},
    ),
    "pictures": (
        as_read(steps=4),
        {"augment": ImageAugment(elastic=5.0, flip=0.5), "layout": PictureLayout(4, 4, 1)},
    ),
    "longer than the data": (ready(), {"augment": Stretched()}),
}


@pytest.mark.parametrize("name", AUGMENTED)
def test_sequences_are_of_equal_length_to_machine_code_where_augmentation_keeps_it(name):
    data, changes = AUGMENTED[name]
    model = model_for(data)
    steps = epoch_steps.compiled_steps(model, recipe(**changes), data)
    assert steps.source.ragged == (name not in ("noise", "pictures"))
    steps.close()


def recipe(**changes):
    return Recipe(**{"epochs": 2, "batch_size": 16, "optimizer": Adam(), "schedule": Constant(), **changes})


def results(training, data):
    torch.manual_seed(3)
    return list(fit(training, data, data.subset(torch.arange(10))))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if "patches" in name else name for name in AUGMENTED],
)
def test_augmented_training_comes_to_what_the_general_way_comes_to(name, cores, monkeypatch):
    """With dropout, which takes random numbers from the same generator."""
    cores(2)
    data, changes = AUGMENTED[name]

    def fresh():
        return Training(model_for(data, dropout=0.2), recipe(**changes))

    one, other = fresh(), fresh()
    assert engine_used(one.model, one.recipe, data).words == "machine, whole steps"
    found = results(one, data)
    random = torch.get_rng_state()
    monkeypatch.setattr(epoch_steps, "compiled_steps", lambda *what: None)
    if isinstance(other.recipe.augment, Stretched):
        other.recipe.augment.calls = 0
    for result, wanted in zip(found, results(other, data), strict=True):
        assert result.train.correct == wanted.train.correct
        assert result.train.loss == pytest.approx(wanted.train.loss, rel=1e-5)
    assert torch.equal(torch.get_rng_state(), random)
    for weight, wanted in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=0, atol=1e-4)


class InterruptedHereError(Exception):
    """Training was stopped in the middle of an epoch."""


@pytest.mark.parametrize(
    "name", ["crops", pytest.param("crops of patches", marks=pytest.mark.long), "pictures"]
)
def test_training_resumed_within_an_epoch_goes_on_bit_for_bit(name, tmp_path):
    data, changes = AUGMENTED[name]

    def fresh():
        return Training(model_for(data), recipe(**changes))

    whole, interrupted, resumed = fresh(), fresh(), fresh()
    expected = results(whole, data)
    saved = {}

    def after_batch(progress):
        if progress.epoch == 1 and interrupted.so_far.batches == 2:
            header = {"config": {}, "classes": [], "input_size": 2, "preparation": {}, "reading": {}}
            header |= {"fingerprint": "", "epoch": 0, "training": interrupted.state()}
            checkpoint.save(tmp_path / "last", header, interrupted.tensors())
            saved.update(interrupted.tensors())
            raise InterruptedHereError

    torch.manual_seed(3)
    with pytest.raises(InterruptedHereError):
        list(fit(interrupted, data, data, after_batch))
    assert saved
    last = checkpoint.load(tmp_path / "last")
    torch.manual_seed(99)
    resumed.restore(last.tensors, last.header["training"])
    found = list(fit(resumed, data, data.subset(torch.arange(10))))
    assert without_seconds(found) == without_seconds(expected)
    tensors = resumed.tensors()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in whole.tensors().items())


def test_a_value_that_is_not_finite_is_found_in_the_batch_that_lost_the_loss(monkeypatch):
    data = ready()
    data.x_SI[7 * 6 + 3] = torch.nan
    messages, states = [], []
    for _ in range(2):
        training = Training(model_for(data), recipe(augment=SeriesAugment()))
        with pytest.raises(DivergedError) as error:
            results(training, data)
        messages.append(str(error.value))
        states.append(torch.get_rng_state())
        monkeypatch.setattr(epoch_steps, "compiled_steps", lambda *what: None)
    assert "sequence 7 of the training split" in messages[0]
    assert messages[0] == messages[1]
    assert torch.equal(*states)


@pytest.mark.parametrize(
    "stack",
    [
        {"dropout": 0.4},
        {"input_dropout": 0.4},
        pytest.param(
            {"dropout": 0.4, "layers": 2, "bidirectional": True, "variational": True}, marks=pytest.mark.long
        ),
    ],
)
def test_dropout_falls_on_the_same_values_of_ragged_sequences_as_in_the_general_way(stack, cores):
    """They are computed in another order."""
    cores(2)
    data, indices_B = ready(ragged=True), torch.arange(20)
    model = classifier(**stack)
    with parts_of_batches():
        steps = WholeSteps(model, PLAIN, data)
        torch.manual_seed(5)
        loss, _, _ = steps(indices_B)
        steps.close()
    model.stack.engine = "loop"
    torch.manual_seed(5)
    x_BTI, y_B, lengths_B = data.batch(indices_B)
    assert loss == pytest.approx(functional.cross_entropy(model(x_BTI, lengths_B), y_B).item(), rel=1e-6)
