"""Which classifiers are plain: those whose training steps machine code makes as a whole.

Shapes: C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine import choose
from rnnclf.model import RecurrentLayer, SequenceClassifier
from rnnclf.stack import Stack

READ = (torch.uint8, torch.float32)
"""Types of sequences that are taken as they were read."""


class Loss(NamedTuple):
    """Cross-entropy: the weight of each class, label smoothing."""

    weight_C: tuple[float, ...]
    smoothing: float


def suits(model: SequenceClassifier, train: SequenceDataset) -> bool:
    """Whether machine code makes the steps of this classifier on these sequences: one layer of a cell that
    the compiled engine runs, in one direction, read at its last step, nothing dropped or normalised; whole
    sequences, of which no gaps are to be filled."""
    return _is_plain(model) and _are_plain(train)


def _is_plain(model: SequenceClassifier) -> bool:
    stack, module = model.stack, cell_module(model)
    bare = Stack(engine=stack.engine, residual=stack.residual, variational=stack.variational)
    if stack != bare or not all(w.requires_grad and w.dtype == torch.float32 for w in model.parameters()):
        return False
    cell, device = module.cell, model.head.weight.device.type
    engine = choose(cell, device, every_step=False) if stack.engine == "auto" else stack.engine
    if device != "cpu" or engine != "compiled" or type(cell).prepare is not Cell.prepare:
        return False
    assert isinstance(cell, GatedCell)
    from rnnclf.cells.compiled import Compiled

    kind = cell.compiled_steps()
    return issubclass(kind, Compiled) and kind.place is not Compiled.place


def _are_plain(train: SequenceDataset) -> bool:
    x_NTI, preparation = train.whole_NTI, train.preparation
    if x_NTI is None or x_NTI.dtype not in READ or not x_NTI.is_contiguous() or x_NTI.device.type != "cpu":
        return False
    return preparation is None or not preparation.fills_gaps


def cell_module(model: SequenceClassifier) -> CellModule:
    (layer, *_) = model.layers
    assert isinstance(layer, RecurrentLayer)
    module = layer.directions["forward_cell"]
    assert isinstance(module, CellModule)
    return module
