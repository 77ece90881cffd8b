"""Eligibility of a classifier and its data for compiled training steps. Does not import Numba."""

from __future__ import annotations

import torch

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine.choose import engines_for_layers
from rnnclf.model import RecurrentLayer, SequenceClassifier
from rnnclf.stack import Stack

MOST_LAYERS = 4
"""The code is compiled for each number of layers, and each layer adds to the compilation time."""
RAW_TYPES = (torch.uint8, torch.float32)
"""Types of raw sequences that the compiled code reads."""


def is_eligible(model: SequenceClassifier, train: SequenceDataset) -> bool:
    """Whether training steps of this classifier on these data can run as compiled code.

    The model must have a few layers of a cell that the compiled engine supports, in one direction, with a
    head on the last output of the top layer, and without dropout and normalisation. The sequences must be of
    equal length, without gaps to fill.
    """
    return _is_eligible_model(model) and _are_eligible_data(train)


def _is_eligible_model(model: SequenceClassifier) -> bool:
    stack, cell = model.stack, cell_modules(model)[0].cell
    residual = stack.residual and stack.layers == 1  # where it has no effect
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
    return issubclass(kind, Compiled) and kind.buffers.__func__ is not Compiled.buffers.__func__  # type: ignore[attr-defined]


def _are_eligible_data(train: SequenceDataset) -> bool:
    x_NTI, preparation = train.whole_NTI, train.preparation
    if (
        x_NTI is None
        or x_NTI.dtype not in RAW_TYPES
        or not x_NTI.is_contiguous()
        or x_NTI.device.type != "cpu"
    ):
        return False
    return preparation is None or not preparation.fills_gaps


def cell_modules(model: SequenceClassifier) -> list[CellModule]:
    """The forward cell of each layer, lowest first."""
    modules = []
    for layer in model.layers:
        assert isinstance(layer, RecurrentLayer)
        module = layer.directions["forward_cell"]
        assert isinstance(module, CellModule)
        modules.append(module)
    return modules
