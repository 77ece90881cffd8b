"""A training step in one call of machine code: what autograd finds, however many work on it."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from rnnclf.augment import SeriesAugment
from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset, sequences
from rnnclf.data.preparation import Preparation
from rnnclf.engine.parts import parts_of_batches, rows_of_parts
from rnnclf.errors import DivergedError
from rnnclf.model import SequenceClassifier
from rnnclf.optim import SGD, Adam, AdamW, Constant, RMSprop
from rnnclf.stack import Stack
from rnnclf.training import epoch as epoch_steps
from rnnclf.training import evaluation
from rnnclf.training.evaluation import evaluate_model
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Training

pytest.importorskip("numba")

from rnnclf.engine.compiled import whole_step
from rnnclf.training.compiled_step import SCORED_AT_ONCE, THREAD, CompiledSteps
from rnnclf.training.eligibility import MOST_LAYERS, is_eligible
from rnnclf.training.recipe import CrossEntropy

CASES = {
    "basic": {},
    "relu": {"nonlinearity": "relu"},
    "lstm": {},
    "gru": {},
}
EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}
CLASSES = 3


def classifier(case="basic", hidden=10, inputs=4, classes=CLASSES, **stack):
    torch.manual_seed(0)
    name = "basic" if case == "relu" else case
    return SequenceClassifier(
        CELLS[name](hidden_size=hidden, **CASES.get(case, {})), inputs, classes, Stack(**stack)
    )


def ready(n=40, steps=6, inputs=4, classes=CLASSES):
    """Whole sequences, ready for a model."""
    generator = torch.Generator().manual_seed(1)
    x_NTI = torch.randn(n, steps, inputs, generator=generator)
    y_N = torch.randint(classes, (n,), generator=generator)
    return sequences(x_NTI, y_N, tuple(map(str, range(classes))))


def as_read(n=40, steps=6, inputs=4):
    """Bytes that become numbers when a batch is cut, in another order than they lie."""
    generator = torch.Generator().manual_seed(2)
    preparation = Preparation(
        tuple(map(str, range(inputs))), "error", tuple(range(inputs)), tuple(255.0 - i for i in range(inputs))
    )
    return SequenceDataset(
        torch.randint(0, 256, (n * steps, inputs), dtype=torch.uint8, generator=generator),
        torch.arange(n).flip(0) * steps,
        torch.full((n,), steps),
        torch.randint(CLASSES, (n,), generator=generator),
        tuple(map(str, range(CLASSES))),
        preparation=preparation,
    )


def by_autograd(model, loss, data, indices_B):
    """Loss, gradients and right answers as the loop and autograd find them, in float64."""
    copy = SequenceClassifier(
        model.layers[0].directions["forward_cell"].cell,
        model.input_size,
        len(data.classes),
        replace(model.stack, engine="loop"),
    )
    copy.load_state_dict(model.state_dict())
    copy.double()
    x_BTI, y_B, _ = data.batch(indices_B)
    logits_BK = copy(x_BTI.double())
    weight_C = torch.tensor(loss.weight_K, dtype=torch.float64)
    value = functional.cross_entropy(logits_BK, y_B, weight_C, label_smoothing=loss.smoothing)
    value.backward()
    gradients = {name: weight.grad for name, weight in copy.named_parameters()}
    return value.item(), gradients, int((logits_BK.argmax(dim=-1) == y_B).sum())


@pytest.fixture
def cores(monkeypatch):
    """Has as many parts made of a batch as are asked for, however small they are."""

    def make(number):
        monkeypatch.setattr("rnnclf.engine.parts.LEAST", 1)
        monkeypatch.setattr("rnnclf.engine.parts.WORTH", 1)
        torch.set_num_threads(number)

    before = torch.get_num_threads()
    yield make
    torch.set_num_threads(before)


def one_step(model, loss, data, indices_B, longest=None):
    with parts_of_batches():
        steps = CompiledSteps(model, loss, data, longest)
        found = steps(indices_B)
        steps.close()
    return found, {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_as_by_autograd(model, loss, data, indices_B, tolerance):
    (value, norm, right), found = one_step(model, loss, data, indices_B)
    expected_value, expected, expected_right = by_autograd(model, loss, data, indices_B)
    assert value == pytest.approx(expected_value, rel=tolerance)
    assert right == expected_right
    total = torch.linalg.vector_norm(torch.stack([g.norm() for g in expected.values()])).item()
    assert norm == pytest.approx(total, rel=tolerance)
    for name, gradient in found.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(
            gradient.double(), expected[name], rtol=0, atol=tolerance * scale, msg=name
        )


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_autograd(case, parts, dtype, cores):
    cores(parts)
    model = classifier(case).to(dtype)
    with parts_of_batches():
        assert len(rows_of_parts(17, 10**9)) == parts
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(3, 20), EXACT[dtype])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("inputs", [1, 7, 15, 16, 17])
def test_every_size_is_right(case, hidden, inputs):
    model, data = classifier(case, hidden, inputs), ready(inputs=inputs)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), data, torch.arange(5), EXACT[torch.float32])


@pytest.mark.long
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("case", CASES)
def test_layers_hand_states_up_and_gradients_down(case, dtype, cores):
    cores(2)
    model = classifier(case, layers=2).to(dtype)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(3, 20), EXACT[dtype])


@pytest.mark.long
@pytest.mark.parametrize("layers", [3, MOST_LAYERS])
def test_every_number_of_layers_is_right(layers):
    model = classifier("gru", layers=layers)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(20), EXACT[torch.float32])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("inputs", [1, 16, 40])
def test_layers_of_every_size_are_right(case, hidden, inputs):
    model, data = classifier(case, hidden, inputs, layers=2), ready(inputs=inputs)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), data, torch.arange(5), 1e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("classes", [2, 17, 40])
def test_every_length_and_number_of_classes_is_right(case, steps, classes):
    model, data = classifier(case, classes=classes), ready(steps=steps, classes=classes)
    assert_as_by_autograd(model, CrossEntropy.plain(classes), data, torch.arange(12), 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_sums_larger_than_near_caches_are_right(case):
    """More than 2 MiB."""
    model, data = classifier(case, hidden=760), ready(steps=3)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), data, torch.arange(9), 1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight_C", [(1.0, 1.0, 1.0), (0.5, 3.0, 1.25)])
def test_classes_are_weighed_and_labels_smoothed_as_by_torch(weight_C, smoothing):
    loss = CrossEntropy(weight_C, smoothing)
    assert_as_by_autograd(classifier(), loss, ready(), torch.arange(20), EXACT[torch.float32])


def test_sequences_are_prepared_as_batches_are():
    model = classifier().double()
    loss, indices_B = CrossEntropy.plain(CLASSES), torch.tensor([3, 39, 0, 17, 17])
    assert_as_by_autograd(model, loss, as_read(), indices_B, 1e-6)  # a batch is of float32


def test_gradients_are_shortened_as_by_torch():
    model, loss = classifier(), CrossEntropy.plain(CLASSES)
    (_, norm, _), whole = one_step(model, loss, ready(), torch.arange(20))
    (_, again, _), short = one_step(model, loss, ready(), torch.arange(20), longest=norm / 3)
    assert again == norm
    for weight, name in zip(model.parameters(), whole, strict=True):
        weight.grad = whole[name].clone()
    nn.utils.clip_grad_norm_(model.parameters(), norm / 3)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(short[name], weight.grad)
    (_, _, _), long = one_step(model, loss, ready(), torch.arange(20), longest=norm * 3)
    assert all(torch.equal(long[name], whole[name]) for name in whole)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_step_is_the_same_to_the_last_bit_each_time(parts, cores):
    cores(parts)
    model, loss, data = classifier("gru"), CrossEntropy.plain(CLASSES), ready()
    with parts_of_batches():
        steps = CompiledSteps(model, loss, data)
        found = [
            (steps(torch.arange(20)), [weight.grad.clone() for weight in model.parameters()])
            for _ in range(5)
        ]
        steps.close()
    for numbers, gradients in found[1:]:
        assert numbers == found[0][0]
        assert all(map(torch.equal, gradients, found[0][1]))


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


@pytest.mark.parametrize("make", [ready, as_read])
@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), SGD(), RMSprop()])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("case", CASES)
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


@pytest.mark.parametrize("case", CASES)
def test_a_loss_that_is_too_large_for_its_type_is_told_as_elsewhere(case, by_hand):
    messages = []
    for _ in range(2):
        with pytest.raises(DivergedError) as error:
            trained(classifier(case), recipe(optimizer=SGD(lr=1e38), batch_size=8), ready())
        messages.append(str(error.value))
        by_hand()
    assert messages[0] == messages[1]


@pytest.mark.parametrize("case", CASES)
def test_a_lost_loss_leaves_the_gradients_of_the_step_before(case):
    model = classifier(case)
    steps = CompiledSteps(model, CrossEntropy.plain(CLASSES), ready())
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


@pytest.mark.parametrize("make", [ready, as_read])
@pytest.mark.parametrize("n", [1, SCORED_AT_ONCE - 1, SCORED_AT_ONCE, 2 * SCORED_AT_ONCE + 10])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_general_way(case, layers, n, make, monkeypatch):
    model, data = classifier(case, layers=layers), make(n)
    assert is_eligible(model, data)
    found, expected = evaluate_model(model, data), by_the_general_way(model, data, monkeypatch)
    assert found.counts == expected.counts
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_scores_are_the_same_with_any_number_of_cores(parts, cores, monkeypatch):
    cores(parts)
    model, data = classifier("gru"), ready(200)
    found, expected = evaluate_model(model, data), by_the_general_way(model, data, monkeypatch)
    assert found.counts == expected.counts
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
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
    real = whole_step.work_on_part
    monkeypatch.setattr(whole_step, "work_on_part", lambda *what: calls.append(what) or real(*what))
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
def test_a_loss_that_is_no_number_is_one_as_elsewhere(wrong, monkeypatch):
    model, data = classifier(), ready()
    with torch.no_grad():
        model.head.weight[1] = wrong
    found, expected = evaluate_model(model, data), by_the_general_way(model, data, monkeypatch)
    assert not math.isfinite(found.loss)
    assert not math.isfinite(expected.loss)


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
    real = whole_step.work_on_part

    def fail(crew, part, result, longest, leads):
        if not leads:
            raise MemoryError("no room")
        return real(crew, part, result, longest, leads)

    cores(2)
    monkeypatch.setattr(whole_step, "work_on_part", fail)
    with pytest.raises(MemoryError, match="no room"):
        trained(classifier(), recipe(), ready())


OTHERS = {
    "many layers": ({"layers": MOST_LAYERS + 1}, {}),
    "what jumps over layers": ({"layers": 2, "residual": True}, {}),
    "all layers read": ({"layers": 2, "readout_layers": "all"}, {}),
    "both directions": ({"bidirectional": True}, {}),
    "dropout": ({"dropout": 0.1}, {}),
    "recurrent dropout": ({"recurrent_dropout": 0.1}, {}),
    "zoneout": ({"zoneout": 0.1}, {}),
    "norm": ({"norm": "layer"}, {}),
    "another readout": ({"readout": "mean"}, {}),
    "another engine": ({"engine": "fused"}, {}),
    "bf16": ({"precision": "bf16"}, {}),
    "focal loss": ({}, {"focal": 2.0}),
    "augmentation": ({}, {"augment": SeriesAugment()}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_is_asked_for_takes_the_general_way(what):
    stack, changes = OTHERS[what]
    assert epoch_steps.compiled_steps(classifier(**stack), recipe(**changes), ready()) is None


def test_another_cell_takes_the_general_way():
    assert not is_eligible(classifier("indrnn"), ready())


def test_other_data_take_the_general_way():
    model, data = classifier(), ready()
    ragged = sequences(
        torch.zeros(4, 5, 4), torch.zeros(4, dtype=torch.long), ("a", "b", "c"), torch.tensor([1, 2, 3, 5])
    )
    assert is_eligible(model, data)
    assert is_eligible(model, as_read())
    assert not is_eligible(model, ragged)
    filled = replace(as_read().preparation, missing="interpolate")
    assert not is_eligible(model, replace(as_read(), preparation=filled))
    assert not is_eligible(model, replace(data, x_SI=data.x_SI.double()))


def test_frozen_weights_take_the_general_way():
    model = classifier()
    model.head.bias.requires_grad_(False)
    assert not is_eligible(model, ready())


def test_what_was_trained_is_what_is_scored():
    """The weights of torch are the only ones: nothing is to be brought back."""
    model, data = classifier(), ready()
    (result, *_) = trained(model, recipe(epochs=1), data)
    assert evaluate_model(model, data.subset(torch.arange(10))).score == result.validation
