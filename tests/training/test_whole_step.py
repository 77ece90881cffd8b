"""A training step in one call of machine code: what autograd finds, however many threads share it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("llvmlite")

from rnnclf.cells import CELLS
from rnnclf.engine.machine import code
from rnnclf.engine.machine.driver import part
from rnnclf.engine.parts import parts_of_batches, rows_of_parts
from rnnclf.model import SequenceClassifier
from rnnclf.training import step_gradients as sums
from rnnclf.training import step_memory as memory
from rnnclf.training.recipe import CrossEntropy
from rnnclf.training.whole_step import WORTH, WholeSteps
from tests.engine.machine.buffers import Buffers
from tests.pairwise import pairwise
from tests.training.whole_steps import (
    CASES,
    CLASSES,
    EXACT,
    OTHERS,
    as_read,
    assert_as_by_autograd,
    by_autograd,
    classifier,
    one_step,
    ready,
)

PLAIN = CrossEntropy.plain(CLASSES)
QUICK = ("basic", "lstm", "fastgrnn")
"""The cells that the default run of the tests tries."""
FLOATS = [torch.float32, pytest.param(torch.float64, marks=pytest.mark.long)]


def quick(cases):
    """All cases, of which some are left to the long run."""
    return [case if case in QUICK else pytest.param(case, marks=pytest.mark.long) for case in cases]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("parts", [pytest.param(1, marks=[pytest.mark.long, pytest.mark.slow]), 3])
@pytest.mark.parametrize("case", quick([*CASES, *OTHERS]))
def test_loss_and_gradients_are_those_of_autograd(case, parts, dtype, cores):
    cores(parts)
    model = classifier(case).to(dtype)
    with parts_of_batches():
        assert len(rows_of_parts(17, 10**9, WORTH)) == parts
    assert_as_by_autograd(model, PLAIN, ready(), torch.arange(3, 20), EXACT[dtype])


@pytest.mark.parametrize(
    ("hidden", "inputs", "case"),
    [(17, 16, "basic"), *(pytest.param(*some, marks=pytest.mark.long) for some in
     pairwise((1, 16, 33), (1, 7, 16), ("relu", "lstm", "gru")))],
)  # fmt: skip
@pytest.mark.long
def test_every_size_is_right(case, hidden, inputs):
    model, data = classifier(case, hidden, inputs), ready(inputs=inputs)
    assert_as_by_autograd(model, PLAIN, data, torch.arange(5), EXACT[torch.float32])


@pytest.mark.parametrize(
    ("case", "layers"),
    [
        ("basic", 5),
        *(
            pytest.param(case, 3, marks=pytest.mark.long)
            for case in ("gru", "lem", "exprnn", "output_beside_the_state")
        ),
    ],
)
def test_layers_hand_states_up_and_gradients_down(case, layers, cores):
    cores(2)
    model = classifier(case, layers=layers)
    assert_as_by_autograd(model, PLAIN, ready(), torch.arange(3, 20), 4e-5)


@pytest.mark.parametrize(
    ("case", "readout", "directions", "layers", "ragged", "parts"),
    [
        (case, readout, *rest)
        if case in QUICK
        else pytest.param(case, readout, *rest, marks=[pytest.mark.long, pytest.mark.slow])
        for case, readout, *rest in pairwise(
            ("basic", "output_beside_the_state", "lnlstm"), ("last", "mean", "max"), (1, 2), (1, 2),
            (False, True), (1, 2)
        )
    ],
)  # fmt: skip
def test_every_architecture_is_right(case, readout, directions, layers, ragged, parts, cores):
    cores(parts)
    model = classifier(case, readout=readout, bidirectional=directions == 2, layers=layers)
    data = ready(ragged=ragged)
    dtype = torch.float32 if case in QUICK else torch.float64
    assert_as_by_autograd(model.to(dtype), PLAIN, data, torch.arange(5, 30), EXACT[dtype])


@pytest.mark.parametrize("ragged", [pytest.param(False, marks=pytest.mark.long), True])
def test_steps_that_share_a_maximum_share_its_gradient(ragged):
    model, data = classifier("relu", readout="max"), ready(ragged=ragged)
    with torch.no_grad():
        model.layers[0].directions["forward_cell"].bias.fill_(1.0)
        data.x_SI.zero_()
        model.layers[0].directions["forward_cell"].recurrent_weight.zero_()
    assert_as_by_autograd(model, PLAIN, data, torch.arange(20), EXACT[torch.float32])


def test_nothing_behind_the_end_of_a_sequence_is_read():
    data = ready(ragged=True)
    behind = torch.arange(6) >= data.lengths_N.unsqueeze(-1)
    data.x_SI.view(40, 6, 4)[behind] = torch.nan
    model = classifier(readout="mean", bidirectional=True)
    assert_as_by_autograd(model, PLAIN, data, torch.arange(20), EXACT[torch.float32])


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_batches_of_ragged_sequences_leave_nothing_behind_for_later_ones(readout):
    model, data = (
        classifier(readout=readout, layers=2, bidirectional=True),
        ready(ragged=True),
    )
    short_first = data.lengths_N.argsort()
    fresh = WholeSteps(model, PLAIN, data)
    expected = fresh(short_first[10:20])
    used = WholeSteps(model, PLAIN, data)
    used(short_first[-10:])
    used(short_first[:10])
    assert used(short_first[10:20]) == expected


@pytest.mark.parametrize(("case", "steps", "classes"), [("basic", 1, 2), ("basic", 60, 17), ("basic", 2, 40)])
def test_every_length_and_number_of_classes_is_right(case, steps, classes):
    model, data = classifier(case, classes=classes), ready(steps=steps, classes=classes)
    assert_as_by_autograd(model, CrossEntropy.plain(classes), data, torch.arange(12), 1e-4)


@pytest.mark.long
def test_sums_larger_than_near_caches_are_right():
    """More than 2 MiB."""
    model, data = classifier("basic", hidden=760), ready(steps=3)
    assert_as_by_autograd(model, PLAIN, data, torch.arange(9), 1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight_C", [(1.0, 1.0, 1.0), (0.5, 3.0, 1.25)])
def test_classes_are_weighted_and_labels_smoothed_as_by_torch(weight_C, smoothing):
    loss = CrossEntropy(weight_C, smoothing)
    assert_as_by_autograd(classifier(), loss, ready(), torch.arange(20), EXACT[torch.float32])


@pytest.mark.parametrize("dtype", FLOATS)
def test_sequences_are_prepared_as_batches_are(dtype):
    model, indices_B = classifier(inputs=11).to(dtype), torch.tensor([3, 39, 0, 17, 17])
    assert_as_by_autograd(model, PLAIN, as_read(inputs=11), indices_B, 1e-5)  # a batch is of float32


@pytest.mark.parametrize(
    "case", ["basic", "fastgrnn"]
)  # clipped in machine code, and after torch has had its turn
def test_gradients_are_clipped_as_by_torch(case):
    model = classifier(case)
    (_, norm, _), whole = one_step(model, PLAIN, ready(), torch.arange(20))
    (_, again, _), short = one_step(model, PLAIN, ready(), torch.arange(20), max_norm=norm / 3)
    assert again == norm
    for name, weight in model.named_parameters():
        weight.grad = whole[name].clone()
    nn.utils.clip_grad_norm_(model.parameters(), norm / 3)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(short[name], weight.grad)
    (_, _, _), long = one_step(model, PLAIN, ready(), torch.arange(20), max_norm=norm * 3)
    assert all(torch.equal(long[name], whole[name]) for name in whole)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_the_same_to_the_last_bit_each_time(parts, ragged, cores):
    cores(parts)
    model, data = classifier("lstm"), ready(ragged=ragged)
    with parts_of_batches():
        steps = WholeSteps(model, PLAIN, data)
        found = [
            (steps(torch.arange(20)), [weight.grad.clone() for weight in model.parameters()])
            for _ in range(5)
        ]
        steps.close()
    for numbers, gradients in found[1:]:
        assert numbers == found[0][0]
        assert all(map(torch.equal, gradients, found[0][1]))


@pytest.mark.parametrize("case", quick(["basic", "exprnn"]))
def test_a_step_reads_the_weights_as_they_are_by_then(case):
    model, data = classifier(case), ready()
    steps = WholeSteps(model, PLAIN, data)
    steps(torch.arange(20))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    assert steps(torch.arange(20)) == one_step(model, PLAIN, data, torch.arange(20))[0]


@pytest.mark.parametrize(
    "stack",
    [
        pytest.param({"recurrent_dropout": 0.5}, marks=pytest.mark.long),
        pytest.param({"dropout": 0.4, "layers": 2}, marks=pytest.mark.long),
        pytest.param({"input_dropout": 0.4}, marks=pytest.mark.long),
        {"input_dropout": 0.4, "variational": True, "bidirectional": True},
        {"dropout": 0.4, "layers": 2, "bidirectional": True, "variational": True, "recurrent_dropout": 0.3},
    ],
)
def test_the_same_values_are_dropped_as_in_the_general_way(stack, cores):
    cores(2)
    model, data, indices_B = classifier("lstm", **stack), ready(), torch.arange(20)
    with parts_of_batches():
        steps = WholeSteps(model, PLAIN, data)
        steps(indices_B.flip(0))
        torch.manual_seed(5)
        loss, _, _ = steps(indices_B)
        steps.close()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = None
    model.stack.engine = "loop"
    torch.manual_seed(5)
    expected = nn.functional.cross_entropy(model(data.batch(indices_B).x_BTI), data.y_N[indices_B])
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=0, atol=1e-6)


def test_nothing_is_dropped_outside_training():
    model = classifier(dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5, layers=2).eval()
    data = ready(ragged=True)
    scoring = WholeSteps(model, PLAIN, data, needs_gradients=False)
    loss, _, _ = scoring(torch.arange(20))
    assert loss == pytest.approx(by_autograd(model, PLAIN, data, torch.arange(20))[0], rel=1e-6)


@pytest.mark.parametrize("case", quick(["basic", "lmu", "lnlstm", "output_beside_the_state", "esn"]))
@pytest.mark.parametrize(
    "stack",
    [
        pytest.param({}, marks=pytest.mark.long),
        {"readout": "max"},
        {"layers": 2, "bidirectional": True, "readout": "mean", "dropout": 0.3},
    ],
)
@pytest.mark.parametrize("needs_gradients", [True, False])
def test_nothing_is_written_outside_of_its_memory(case, stack, needs_gradients, cores, monkeypatch):
    buffers = Buffers(np.float32)

    def guarded(fill):
        return lambda shape, dtype: buffers.new(str(len(buffers.memory)), shape, fill)

    monkeypatch.setattr(part, "aligned_empty", guarded(np.nan))
    for module in (part, code, memory, sums):
        monkeypatch.setattr(module, "aligned_zeros", guarded(0.0))
    cores(2)
    model, data = classifier(case, hidden=9, **stack), ready(ragged=True)
    with parts_of_batches():
        steps = WholeSteps(model, PLAIN, data, needs_gradients=needs_gradients)
        loss, norm, _ = steps(torch.arange(19))
        steps.close()
    assert math.isfinite(loss)
    assert math.isfinite(norm) == needs_gradients
    assert len(buffers.memory) > 20
    assert not buffers.damaged()


def test_weights_without_gradients_have_none_afterwards():
    """As by autograd: an optimizer with weight decay then leaves them alone."""

    class OneUnused(CELLS["basic"]):
        def parameters(self, input_size):
            return {**super().parameters(input_size), "unused": super().parameters(input_size)["bias"]}

    model = SequenceClassifier(OneUnused(hidden_size=10), 4, CLASSES)
    steps = WholeSteps(model, PLAIN, ready())
    steps(torch.arange(20))
    assert model.layers[0].directions["forward_cell"].unused.grad is None
    assert model.head.weight.grad is not None
