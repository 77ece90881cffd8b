"""Eligibility of a classifier and its data for compiled training steps, and the engine that trains it.

Does not import Numba.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine.choose import choose, engine_for, why_not_faster
from rnnclf.model import RecurrentLayer, SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.recipe import Recipe

MOST_LAYERS = 4
"""The code is compiled for each number of layers, and each layer adds to the compilation time."""
RAW_TYPES = (torch.uint8, torch.float32)
"""Types of raw sequences that the compiled code reads."""


@dataclass(frozen=True)
class EngineUsed:
    """What trains a classifier.

    name: the engine of its layers, as in the option `engine`; several if the layers have different ones.
    whole_steps: whether loss, gradients and all layers of a training step run as one piece of compiled code.
    reason: why something faster that exists is not used; '' if there is nothing faster.
    """

    name: str
    whole_steps: bool
    reason: str

    @property
    def words(self) -> str:
        return f"{self.name}, whole steps" if self.whole_steps else self.name


def engine_used(model: SequenceClassifier, recipe: Recipe, train: SequenceDataset) -> EngineUsed:
    """The engine that trains this classifier on these data."""
    stack, module, device = model.stack, cell_modules(model)[0], model.head.weight.device.type
    situation: dict[str, Any] = {
        "ragged": train.ragged,
        "bf16": stack.precision == "bf16",
        "zoneout": stack.zoneout > 0,
        "asked": stack.engine,
    }
    each_layer = {model.readout.every_step, stack.layers > 1}
    names = {engine_for(module, device, every_step=every_step, **situation) for every_step in each_layer}
    obstacle = recipe_obstacle(recipe) or step_obstacle(model, train)
    reason = why_not_faster(module, device, every_step=model.readout.every_step, **situation)
    if not reason and names == {"compiled"}:
        reason = obstacle
    return EngineUsed(" and ".join(sorted(names)), not obstacle, reason)


def is_eligible(model: SequenceClassifier, data: SequenceDataset) -> bool:
    """Whether training steps and scores of this classifier on these data can run as compiled code.

    The model must have a few layers of a cell that the compiled engine supports, in one direction, with a
    head on the last output of the top layer, and without dropout and normalisation. The sequences must be of
    equal length, without gaps to fill.
    """
    return not step_obstacle(model, data)


def step_obstacle(model: SequenceClassifier, data: SequenceDataset) -> str:
    """Why a whole step of this classifier on these data cannot run as compiled code; '' if it can."""
    return _obstacle_in_model(model) or _obstacle_in_data(data)


def recipe_obstacle(recipe: Recipe) -> str:
    """Why a training step of this recipe cannot run as compiled code; '' if it can."""
    if recipe.focal:
        return "focal is not part of the compiled step"
    return "augment is not part of the compiled step" if recipe.augment.active else ""


def _obstacle_in_model(model: SequenceClassifier) -> str:
    stack, cell = model.stack, cell_modules(model)[0].cell
    if model.names is not None:
        return "channels of names are not part of the compiled step"
    residual = stack.residual and stack.layers == 1  # where it has no effect
    bare = Stack(engine=stack.engine, layers=stack.layers, residual=residual, variational=stack.variational)
    for option in fields(Stack):
        if getattr(stack, option.name) != getattr(bare, option.name):
            return f"{option.name} is not part of the compiled step"
    if stack.layers > MOST_LAYERS:
        return f"the compiled step has at most {MOST_LAYERS} layers"
    if not all(w.requires_grad and w.dtype == torch.float32 for w in model.parameters()):
        return "the compiled step trains all weights, in float32"
    device = model.head.weight.device.type
    engines = {
        choose(cell, device, every_step, asked=stack.engine) for every_step in {False, stack.layers > 1}
    }
    if device != "cpu" or engines != {"compiled"} or type(cell).prepare is not Cell.prepare:
        return f"cell={cell.name} has no compiled step here"
    assert isinstance(cell, GatedCell)
    from rnnclf.engine.compiled.layout import Compiled

    kind = cell.compiled_steps()
    own = issubclass(kind, Compiled) and kind.buffers.__func__ is not Compiled.buffers.__func__  # type: ignore[attr-defined]
    return "" if own else f"cell={cell.name} has no compiled step"


def _obstacle_in_data(data: SequenceDataset) -> str:
    x_NTI, preparation = data.whole_NTI, data.preparation
    if x_NTI is None:
        return "the compiled step needs sequences of equal length"
    if x_NTI.dtype not in RAW_TYPES or not x_NTI.is_contiguous() or x_NTI.device.type != "cpu":
        return "the compiled step reads float32 and uint8 values in memory"
    return "the compiled step fills no gaps" if preparation is not None and preparation.fills_gaps else ""


def cell_modules(model: SequenceClassifier) -> list[CellModule]:
    """The forward cell of each layer, lowest first."""
    modules = []
    for layer in model.layers:
        assert isinstance(layer, RecurrentLayer)
        module = layer.directions["forward_cell"]
        assert isinstance(module, CellModule)
        modules.append(module)
    return modules
