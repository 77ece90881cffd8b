"""What the tests of whole steps share: classifiers, data, gradients by autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset, padded_dataset
from rnnclf.data.preparation import Preparation
from rnnclf.engine.parts import parts_of_batches
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.engine.machine.users_cells import COVERED

pytest.importorskip("llvmlite")

from rnnclf.training.whole_step import WholeSteps

CASES = {
    "basic": {},
    "relu": {"nonlinearity": "relu"},
    "lstm": {},
    "gru": {},
}
"""The cells that are tested most. With them nearly everything is done by machine code."""

OTHERS = ("lem", "slstm", "lnlstm", "cornn", "fastgrnn", "exprnn", "lmu", "esn", "output_beside_the_state")
"""Cells with something of their own: several parts of the state, sums over a row, gradients that torch makes
from sums (fastgrnn), prepared weights (exprnn, lmu), no trained weights (esn), a user's own step."""

CLASSES = 3
EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}


def cell(case, hidden):
    if case in COVERED:
        return COVERED[case](hidden_size=hidden)
    return CELLS["basic" if case == "relu" else case](hidden_size=hidden, **CASES.get(case, {}))


def classifier(case="basic", hidden=10, inputs=4, classes=CLASSES, **stack):
    torch.manual_seed(0)
    return SequenceClassifier(cell(case, hidden), inputs, classes, Stack(**stack))


def ready(n=40, steps=6, inputs=4, classes=CLASSES, ragged=False):
    """Sequences that are ready for a model, whole or with lengths from 1 to `steps`."""
    generator = torch.Generator().manual_seed(1)
    x_NTI = torch.randn(n, steps, inputs, generator=generator)
    y_N = torch.randint(classes, (n,), generator=generator)
    lengths_N = torch.randint(1, steps + 1, (n,), generator=generator) if ragged else None
    return padded_dataset(x_NTI, y_N, tuple(map(str, range(classes))), lengths_N)


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


def one_step(model, loss, data, indices_B, max_norm=None):
    """The results of a step, which is not the first one, and its gradients."""
    with parts_of_batches():
        steps = WholeSteps(model, loss, data, max_norm)
        steps(indices_B.flip(0) // 2)
        found = steps(indices_B)
        steps.close()
    gradients = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    return found, gradients


def by_autograd(model, loss, data, indices_B):
    """Loss, gradients and correct predictions as the loop and autograd find them, in float64."""
    copy = SequenceClassifier(
        model.layers[0].directions["forward_cell"].cell,
        model.input_size,
        len(data.classes),
        replace(model.stack, engine="loop"),
    )
    copy.load_state_dict(model.state_dict())
    copy.double().train(model.training)
    x_BTI, y_B, lengths_B = data.batch(indices_B)
    logits_BK = copy(x_BTI.double(), lengths_B)
    weight_C = torch.tensor(loss.weight_K, dtype=torch.float64)
    value = functional.cross_entropy(logits_BK, y_B, weight_C, label_smoothing=loss.smoothing)
    value.backward()
    gradients = {name: w.grad for name, w in copy.named_parameters() if w.grad is not None}
    return value.item(), gradients, int((logits_BK.argmax(dim=-1) == y_B).sum())


def assert_as_by_autograd(model, loss, data, indices_B, tolerance):
    (value, norm, correct), found = one_step(model, loss, data, indices_B)
    expected_value, expected, expected_correct = by_autograd(model, loss, data, indices_B)
    assert value == pytest.approx(expected_value, rel=tolerance)
    assert correct == expected_correct
    total = torch.linalg.vector_norm(torch.stack([g.norm() for g in expected.values()])).item()
    assert norm == pytest.approx(total, rel=tolerance)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(
            gradient.double(), expected[name], rtol=0, atol=tolerance * scale, msg=name
        )
