"""Which classifiers are plain: those whose training steps machine code makes as a whole.

Shapes: C classes.
"""

from __future__ import annotations

import torch

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine.choose import engines_for_layers
from rnnclf.model import RecurrentLayer, SequenceClassifier
from rnnclf.stack import Stack

MOST_LAYERS = 4
"""For each number of layers machine code is made anew, and it takes longer with each of them."""
READ = (torch.uint8, torch.float32)
"""Types of sequences that are taken as they were read."""


def is_eligible(model: SequenceClassifier, train: SequenceDataset) -> bool:
    """Whether machine code makes the steps of this classifier on these sequences: a few layers of a cell that
    the compiled engine runs, in one direction, of which the top one is read at its last step, nothing dropped
    or normalised; whole sequences, of which no gaps are to be filled."""
    return _is_plain(model) and _are_plain(train)


def _is_plain(model: SequenceClassifier) -> bool:
    stack, cell = model.stack, cell_modules(model)[0].cell
    residual = stack.residual and stack.layers == 1  # to which it is nothing
    bare = Stack(engine=stack.engine, layers=stack.layers, residual=residual, variational=stack.variational)
    if stack != bare or stack.layers > MOST_LAYERS:
        return False
    if not all(w.requires_grad and w.dtype == torch.float32 for w in model.parameters()):
        return False
    device = model.head.weight.device.type
    engines = engines_for_layers(cell, device, stack.layers, asked=stack.engine)
    if device != "cpu" or engines != {"compiled"} or type(cell).prepare is not Cell.prepare:
        return False
    assert isinstance(cell, GatedCell)
    from rnnclf.engine.compiled.layout import Compiled

    kind = cell.compiled_steps()
    return issubclass(kind, Compiled) and kind.place is not Compiled.place


def _are_plain(train: SequenceDataset) -> bool:
    x_NTI, preparation = train.whole_NTI, train.preparation
    if x_NTI is None or x_NTI.dtype not in READ or not x_NTI.is_contiguous() or x_NTI.device.type != "cpu":
        return False
    return preparation is None or not preparation.fills_gaps


def cell_modules(model: SequenceClassifier) -> list[CellModule]:
    """The cell of each layer, the lowest first, in the first direction."""
    modules = []
    for layer in model.layers:
        assert isinstance(layer, RecurrentLayer)
        module = layer.directions["forward_cell"]
        assert isinstance(module, CellModule)
        modules.append(module)
    return modules
