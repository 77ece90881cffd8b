"""Eligibility of a classifier and its data for whole training steps, and the engine that trains it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine.choose import why_not_faster
from rnnclf.model import SMALLEST_SHARED, RecurrentLayer, SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.recipe import Recipe
from rnnclf.training.step_source import RAW_TYPES

INCLUDED = (
    "engine",
    "layers",
    "bidirectional",
    "readout",
    "dropout",
    "input_dropout",
    "recurrent_dropout",
    "variational",
)
"""The options of a stack that whole steps have, whatever their value."""
READOUTS_INCLUDED = ("last", "mean", "max")
SMALL = 30_000_000
"""FLOPs of a batch in all time steps, forward, up to which a whole step takes less time than autograd through
the last output of a convolution alone. Measured."""


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
    obstacle = training_obstacle(model, recipe, train)
    all_outputs = not obstacle  # whole steps compute them
    names = model.engines(device, all_outputs, **situation)
    reason = why_not_faster(module, device, model.readout.every_step or all_outputs, **situation)
    if not reason and runs_in_machine_code(names):
        reason = obstacle
    return EngineUsed(" and ".join(sorted(names)), not obstacle, reason)


def is_eligible(model: SequenceClassifier, data: SequenceDataset) -> bool:
    """Whether training steps and scores of this classifier on these data can run as compiled code.

    The model must have layers of a cell that runs in machine code, read by their last output, their mean or
    their maximum, without normalisation, and numbers in main memory as inputs.
    """
    return not step_obstacle(model, data)


def training_obstacle(model: SequenceClassifier, recipe: Recipe, train: SequenceDataset) -> str:
    """Why a training step of this recipe cannot run as compiled code, or would take longer so; '' if it
    should."""
    if recipe.focal:
        return "focal is not part of whole steps"
    step_work = model.step_work(recipe.batch_size)
    small = step_work < SMALLEST_SHARED and step_work * train.steps < SMALL
    return step_obstacle(model, train, all_outputs=small)


def step_obstacle(model: SequenceClassifier, data: SequenceDataset, all_outputs: bool = False) -> str:
    """Why a whole step of this classifier on these data cannot run as compiled code; '' if it can.

    all_outputs: whether it may also compute outputs that another engine, with less work, would not.
    """
    return _obstacle_in_model(model, all_outputs) or _obstacle_in_data(data)


def _obstacle_in_model(model: SequenceClassifier, all_outputs: bool) -> str:
    stack = model.stack
    if model.names is not None:
        return "channels of names are not part of whole steps"
    residual = stack.residual and stack.layers == 1  # where it has no effect
    bare = Stack(residual=residual, **{name: getattr(stack, name) for name in INCLUDED})
    for option in fields(Stack):
        if getattr(stack, option.name) != getattr(bare, option.name):
            return f"{option.name} is not part of whole steps"
    if stack.readout not in READOUTS_INCLUDED:
        return f"readout={stack.readout} is not part of whole steps"
    if not all(w.requires_grad and w.dtype == torch.float32 for w in model.parameters()):
        return "whole steps train all weights, in float32"
    return _obstacle_in_cell(model, all_outputs)


def _obstacle_in_cell(model: SequenceClassifier, all_outputs: bool) -> str:
    module, device = cell_modules(model)[0], model.head.weight.device.type
    engines = model.engines(device, all_outputs, asked=model.stack.engine)
    if device != "cpu" or not runs_in_machine_code(engines):
        return f"cell={module.cell.name} has no whole steps here"
    from rnnclf.engine.machine.driver.layer import layer_code
    from rnnclf.engine.machine.graph import UncoveredError

    try:  # layers differ in their inputs, and so in their code
        for module in (module for layer in modules_of_layers(model) for module in layer):
            layer_code(module)
    except UncoveredError as error:
        return f"cell={module.cell.name} has no whole steps: {error}"
    return ""


def runs_in_machine_code(engines: set[str]) -> bool:
    """Whether all of these engines run a cell in machine code."""
    return engines == {"machine"}


def _obstacle_in_data(data: SequenceDataset) -> str:
    if data.x_SI.device.type != "cpu":
        return "whole steps read values in the memory of the CPU"
    if data.preparation is None and data.x_SI.dtype not in RAW_TYPES:
        return "whole steps read float32 and uint8 values where nothing prepares them"
    return ""


def cell_modules(model: SequenceClassifier) -> list[CellModule]:
    """The forward cell of each layer, lowest first."""
    return [layer[0] for layer in modules_of_layers(model)]


def modules_of_layers(model: SequenceClassifier) -> list[list[CellModule]]:
    """The cells of each layer, lowest first: forward and, if there are two directions, backward in time."""
    layers = []
    for layer in model.layers:
        assert isinstance(layer, RecurrentLayer)
        modules = [module for module in layer.directions.values() if isinstance(module, CellModule)]
        layers.append(modules)
    return layers
