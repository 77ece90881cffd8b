"""What the tests of machine code share: classifiers, data, gradients by autograd."""

from __future__ import annotations

import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset, padded_dataset
from rnnclf.data.preparation import Preparation
from rnnclf.engine.parts import parts_of_batches
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

pytest.importorskip("numba")

from rnnclf.training.compiled_step import CompiledSteps

CASES = {
    "basic": {},
    "relu": {"nonlinearity": "relu"},
    "lstm": {},
    "gru": {},
}
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
    return padded_dataset(x_NTI, y_N, tuple(map(str, range(classes))))


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
    with parts_of_batches():
        steps = CompiledSteps(model, loss, data, max_norm)
        found = steps(indices_B)
        steps.close()
    return found, {name: weight.grad.clone() for name, weight in model.named_parameters()}
