"""A training step in one call of machine code: what autograd finds, however many work on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from rnnclf.engine.parts import parts_of_batches, rows_of_parts
from rnnclf.model import SequenceClassifier

pytest.importorskip("numba")

from rnnclf.training.compiled_step import CompiledSteps
from rnnclf.training.eligibility import MOST_LAYERS
from rnnclf.training.recipe import CrossEntropy
from tests.pairwise import pairwise
from tests.training.compiled import CASES, CLASSES, as_read, classifier, one_step, ready

EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}


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


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.long)])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_autograd(case, parts, dtype, cores):
    cores(parts)
    model = classifier(case).to(dtype)
    with parts_of_batches():
        assert len(rows_of_parts(17, 10**9)) == parts
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(3, 20), EXACT[dtype])


@pytest.mark.parametrize(
    ("hidden", "inputs", "case"), pairwise((1, 15, 16, 17, 33), (1, 7, 15, 16, 17), CASES)
)
def test_every_size_is_right(case, hidden, inputs):
    model, data = classifier(case, hidden, inputs), ready(inputs=inputs)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), data, torch.arange(5), EXACT[torch.float32])


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_layers_hand_states_up_and_gradients_down(case, dtype, cores):
    cores(2)
    model = classifier(case, layers=2).to(dtype)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(3, 20), EXACT[dtype])


@pytest.mark.slow  # each number of layers is compiled anew
@pytest.mark.parametrize("layers", [3, MOST_LAYERS])
def test_every_number_of_layers_is_right(layers):
    model = classifier("gru", layers=layers)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), ready(), torch.arange(20), EXACT[torch.float32])


@pytest.mark.long
@pytest.mark.parametrize(("hidden", "inputs", "case"), pairwise((1, 15, 16, 17, 33), (1, 16, 40), CASES))
def test_layers_of_every_size_are_right(case, hidden, inputs):
    model, data = classifier(case, hidden, inputs, layers=2), ready(inputs=inputs)
    assert_as_by_autograd(model, CrossEntropy.plain(CLASSES), data, torch.arange(5), 1e-4)


@pytest.mark.parametrize(("case", "steps", "classes"), pairwise(CASES, (1, 2, 100), (2, 17, 40)))
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


@pytest.mark.long
def test_sequences_are_prepared_as_batches_are():
    model = classifier().double()
    loss, indices_B = CrossEntropy.plain(CLASSES), torch.tensor([3, 39, 0, 17, 17])
    assert_as_by_autograd(model, loss, as_read(), indices_B, 1e-6)  # a batch is of float32


def test_gradients_are_shortened_as_by_torch():
    model, loss = classifier(), CrossEntropy.plain(CLASSES)
    (_, norm, _), whole = one_step(model, loss, ready(), torch.arange(20))
    (_, again, _), short = one_step(model, loss, ready(), torch.arange(20), max_norm=norm / 3)
    assert again == norm
    for weight, name in zip(model.parameters(), whole, strict=True):
        weight.grad = whole[name].clone()
    nn.utils.clip_grad_norm_(model.parameters(), norm / 3)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(short[name], weight.grad)
    (_, _, _), long = one_step(model, loss, ready(), torch.arange(20), max_norm=norm * 3)
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
