"""Small classifiers and random inputs."""

import pytest
import torch

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


def features_of(model, x_BTI, lengths_B=None):
    """What the head gets to see."""
    seen = []
    handle = model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x_BTI, lengths_B)
    handle.remove()
    return seen[0]


NOT_ROUNDED = ("lem", "lmu", "esn", "lru", "s5")  # torch has no operation for types mixed as there
