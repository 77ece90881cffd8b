"""Training and scoring in machine code come to what the general way comes to."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnclf.errors import DivergedError
from rnnclf.optim import SGD, Adam, AdamW, Constant, RMSprop
from rnnclf.training import epoch as epoch_steps
from rnnclf.training import evaluation
from rnnclf.training.evaluation import evaluate_model, score_model
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Training

pytest.importorskip("llvmlite")

from rnnclf.training import whole_step
from rnnclf.training.eligibility import is_eligible
from rnnclf.training.recipe import CrossEntropy
from rnnclf.training.whole_step import SCORED_AT_ONCE, THREAD, WholeSteps
from tests.pairwise import pairwise
from tests.training.whole_steps import CASES, CLASSES, as_read, classifier, one_step, ready

LAYERS = [1, pytest.param(2, marks=pytest.mark.long)]


def quick(combinations):
    """All combinations; what takes a cell that has to be compiled for it is left to the long run."""
    return [
        pytest.param(*some, marks=() if some[0] in ("basic", "lstm") else pytest.mark.long)
        for some in combinations
    ]


def ragged(n=40):
    return ready(n, ragged=True)


# Training


def recipe(**changes):
    return Recipe(**{"epochs": 3, "batch_size": 16, "optimizer": Adam(), "schedule": Constant(), **changes})


def trained(model, plan, data):
    torch.manual_seed(3)
    return list(fit(Training(model, plan), data, data.subset(torch.arange(10))))


@pytest.fixture
def by_hand(monkeypatch):
    """Has training take the general way."""
    return lambda: monkeypatch.setattr(epoch_steps, "compiled_steps", lambda *what: None)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(
    ("case", "optimizer", "make"),
    quick(pairwise(CASES, (Adam(), AdamW(), SGD(), RMSprop()), (ready, as_read, ragged))),
)
def test_training_comes_to_what_the_general_way_comes_to(case, layers, optimizer, make, by_hand):
    plan = recipe(optimizer=optimizer, clip=0.5, label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5))
    one, other = classifier(case, layers=layers), classifier(case, layers=layers)
    assert epoch_steps.compiled_steps(one, plan, make()) is not None
    results = trained(one, plan, make())
    by_hand()
    expected = trained(other, plan, make())
    for result, wanted in zip(results, expected, strict=True):
        assert result.train.correct == wanted.train.correct
        assert result.train.loss == pytest.approx(wanted.train.loss, rel=1e-4)
        assert result.validation.loss == pytest.approx(wanted.validation.loss, rel=1e-4)
    for weight, wanted in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", ["basic", "lstm"])
def test_a_loss_that_is_too_large_for_its_type_is_told_as_elsewhere(case, by_hand):
    messages = []
    for _ in range(2):
        with pytest.raises(DivergedError) as error:
            trained(classifier(case), recipe(optimizer=SGD(lr=1e38), batch_size=8), ready())
        messages.append(str(error.value))
        by_hand()
    assert messages[0] == messages[1]


@pytest.mark.parametrize("case", ["basic", "lstm"])
def test_a_lost_loss_leaves_the_gradients_of_the_step_before(case):
    model = classifier(case)
    steps = WholeSteps(model, CrossEntropy.plain(CLASSES), ready())
    try:
        with torch.no_grad():
            kept = model.head.weight.clone()
            model.head.weight.fill_(math.nan)
        steps(torch.arange(8))
        assert all(weight.grad is None for weight in model.parameters())
        with torch.no_grad():
            model.head.weight.copy_(kept)
        steps(torch.arange(8))
        before = [weight.grad.clone() for weight in model.parameters()]
        with torch.no_grad():
            model.head.weight.fill_(math.nan)
        for batch in (torch.arange(8, 16), torch.arange(16, 20)):  # the second is of another size
            steps(batch)
            for weight, gradient in zip(model.parameters(), before, strict=True):
                assert torch.equal(weight.grad, gradient)
    finally:
        steps.close()


# Scoring


def by_the_general_way(model, data, monkeypatch):
    with monkeypatch.context() as changed:
        changed.setattr(evaluation, "is_eligible", lambda model, data: False)
        return evaluate_model(model, data)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(
    ("case", "n", "make"),
    quick(pairwise(CASES, (1, SCORED_AT_ONCE, 2 * SCORED_AT_ONCE + 10), (ready, as_read, ragged))),
)
def test_scores_are_those_of_the_general_way(case, layers, n, make, monkeypatch):
    model, data = classifier(case, layers=layers), make(n)
    assert is_eligible(model, data)
    found, expected = evaluate_model(model, data), by_the_general_way(model, data, monkeypatch)
    assert found.counts == expected.counts
    assert found.score.loss == pytest.approx(expected.score.loss, rel=1e-6)
    np.testing.assert_allclose(found.logits_NK, expected.logits_NK, rtol=1e-4, atol=1e-5)
    score = score_model(model, data)
    assert score.correct == found.score.correct
    assert score.loss == pytest.approx(found.score.loss, rel=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_scores_are_the_same_with_any_number_of_cores(parts, cores, monkeypatch):
    cores(parts)
    model, data = classifier("gru"), ready(200)
    found, expected = evaluate_model(model, data), by_the_general_way(model, data, monkeypatch)
    assert found.counts == expected.counts
    assert found.score.loss == pytest.approx(expected.score.loss, rel=1e-6)
    assert working() == 0


def test_of_equal_logits_the_first_is_taken_as_by_torch(monkeypatch):
    model, data = classifier(), ready()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 1.0]))
    found = evaluate_model(model, data)
    assert found.counts == by_the_general_way(model, data, monkeypatch).counts
    assert all(row[0] == row[2] == 0 for row in found.counts)


def test_scoring_takes_machine_code_and_leaves_gradients_and_weights_alone(monkeypatch):
    calls = []
    real = WholeSteps.__call__
    monkeypatch.setattr(WholeSteps, "__call__", lambda *what: calls.append(what) or real(*what))
    model, data = classifier(), ready()
    evaluate_model(model, data)
    assert calls
    assert all(weight.grad is None for weight in model.parameters())
    _, gradients = one_step(model, CrossEntropy.plain(CLASSES), data, torch.arange(20))
    weights = [weight.clone() for weight in model.parameters()]
    evaluate_model(model, data)
    assert all(torch.equal(weight.grad, gradients[name]) for name, weight in model.named_parameters())
    assert all(map(torch.equal, model.parameters(), weights))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("compiled", [True, False])
def test_weights_that_are_no_numbers_give_no_loss_and_no_predictions(wrong, compiled, monkeypatch):
    model, data = classifier(), ready()
    with torch.no_grad():
        model.head.weight[1] = wrong
    if not compiled:
        monkeypatch.setattr(evaluation, "is_eligible", lambda model, data: False)
    assert not math.isfinite(score_model(model, data).loss)
    with pytest.raises(DivergedError, match="outputs are not finite"):
        evaluate_model(model, data)


def working():
    return sum(thread.name == THREAD for thread in threading.enumerate())


def test_each_core_but_the_first_has_a_thread_and_none_is_left_waiting(cores):
    cores(3)
    seen = []
    fresh = Training(classifier(), recipe())
    list(fit(fresh, ready(), ready(), on_batch=lambda progress: seen.append(working())))
    assert set(seen) == {2}
    assert working() == 0


def test_nobody_is_left_waiting_after_an_error(cores):
    cores(3)

    def on_batch(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(fit(Training(classifier(), recipe()), ready(), ready(), on_batch))
    assert working() == 0


def test_who_cannot_work_says_why_and_keeps_nobody_waiting(cores, monkeypatch):
    real = whole_step.driver

    def fail(part):
        raise MemoryError("no room")

    cores(2)
    monkeypatch.setattr(whole_step, "driver", lambda double: real(double)._replace(serve=fail))
    with pytest.raises(MemoryError, match="no room"):
        trained(classifier(), recipe(), ready())


OTHERS = {
    "what jumps over layers": ({"layers": 2, "residual": True}, {}),
    "all layers read": ({"layers": 2, "readout_layers": "all"}, {}),
    "zoneout": ({"zoneout": 0.1}, {}),
    "norm": ({"norm": "layer"}, {}),
    "another readout": ({"readout": "attention"}, {}),
    "another engine": ({"engine": "fused"}, {}),
    "bf16": ({"precision": "bf16"}, {}),
    "focal loss": ({}, {"focal": 2.0}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_is_asked_for_takes_the_general_way(what):
    stack, changes = OTHERS[what]
    assert epoch_steps.compiled_steps(classifier(**stack), recipe(**changes), ready()) is None


def test_another_cell_takes_the_general_way():
    assert not is_eligible(classifier("s4d"), ready())


def test_other_data_take_the_general_way():
    model, data = classifier(), ready()
    assert is_eligible(model, data)
    assert is_eligible(model, as_read())
    assert is_eligible(model, ragged())
    assert not is_eligible(model, replace(data, x_SI=data.x_SI.double()))
    assert not is_eligible(model, data.to(torch.device("meta")))


def test_frozen_weights_take_the_general_way():
    model = classifier()
    model.head.bias.requires_grad_(False)
    assert not is_eligible(model, ready())


def test_what_was_trained_is_what_is_scored():
    """The weights of torch are the only ones: nothing is to be brought back."""
    model, data = classifier(), ready()
    (result, *_) = trained(model, recipe(epochs=1), data)
    assert score_model(model, data.subset(torch.arange(10))) == result.validation
