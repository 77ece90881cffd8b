"""Small classifiers and random inputs."""

import pytest
import torch
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.data.grid import Grid
from rnnclf.model import SequenceClassifier
from rnnclf.readout import READOUTS
from rnnclf.stack import Stack

BATCH, STEPS, INPUT, HIDDEN, CLASSES = 4, 6, 3, 5, 4
LENGTHS = (1, 4, STEPS, 3)
each_readout = pytest.mark.parametrize("readout", READOUTS.names())
each_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])


def classifier(name, **options):
    """In float64, with biases that are not zero either."""
    torch.manual_seed(0)
    cell = CELLS[name](hidden_size=HIDDEN)
    model = SequenceClassifier(cell, INPUT, CLASSES, Stack(**options), grid=Grid(STEPS, INPUT)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.4 * torch.randn_like(weight)
    return model


def random_input(steps=STEPS):
    return torch.randn(BATCH, steps, INPUT, dtype=torch.float64)


def assert_engines_agree(name, made, x_BTI):
    """Logits and gradients of a classifier are the same by each engine of its cell, in float32.

    made: gives the classifier with an engine, always with the same weights.
    """
    found = []
    for engine in ("loop", *CELLS[name]().engines):
        model = made(engine).float()
        logits_BK = model(x_BTI.float())
        functional.cross_entropy(logits_BK, torch.arange(len(x_BTI)) % CLASSES).backward()
        gradients = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
        found.append((logits_BK.detach(), torch.cat(gradients)))
    for logits_BK, gradient in found[1:]:
        torch.testing.assert_close(logits_BK, found[0][0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-3)


def features_of(model, x_BTI, lengths_B=None):
    """What the head gets to see."""
    seen = []
    handle = model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x_BTI, lengths_B)
    handle.remove()
    return seen[0]


NOT_ROUNDED = ("lem", "lmu", "esn", "lru", "s5")  # torch has no operation for types mixed as there
