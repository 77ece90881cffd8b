"""Weights made from their specifications, and a cell with its weights, as torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.cells.parameters import Parameters, ParameterSpec, State

if TYPE_CHECKING:
    from rnnclf.cells.base import Cell


class Weights(nn.Module):
    """Newly initialised weights, by name. On torch's meta device only the shapes exist: nothing is allocated
    and no random numbers are drawn."""

    def __init__(self, specs: Mapping[str, ParameterSpec]) -> None:
        super().__init__()
        for name, spec in specs.items():
            weight = torch.empty(spec.shape)
            if not weight.is_meta:
                with torch.no_grad():
                    spec.fill(weight)
            if spec.trained:
                self.register_parameter(name, nn.Parameter(weight))
            else:
                self.register_buffer(name, weight)

    def weights(self) -> Parameters:
        """All weights and buffers as one argument."""
        return Parameters(**dict(self.named_parameters()), **dict(self.named_buffers()))


class CellModule(Weights):
    """A cell for `input_size` features with newly initialised weights.

    Calling it computes one step: (x_BI, state) → (output_BH, new state). `recurrent_dropout` is the fraction
    of the recurrent weights dropped during training, the same ones at all steps of a batch (DropConnect:
    Merity et al. 2017, https://arxiv.org/abs/1708.02182).
    """

    def __init__(self, cell: Cell, input_size: int) -> None:
        super().__init__(cell.parameters(input_size))
        self.cell = cell
        self.input_size = input_size
        self.recurrent_dropout = 0.0

    def prepared(self) -> Parameters:
        """The weights as the argument `p` of the cell's `inputs` and `step`."""
        p = self.cell.prepare(self.weights())
        if self.recurrent_dropout > 0 and self.training:
            names = self.cell.recurrent_weights
            dropped = {name: functional.dropout(getattr(p, name), self.recurrent_dropout) for name in names}
            p = Parameters(**{**vars(p), **dropped})
        return p

    def initial_state(self, x_BI: Tensor) -> State:
        return self.cell.initial_state(x_BI)

    def forward(self, x_BI: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step in time; without a state, from the initial state."""
        if x_BI.ndim != 2 or x_BI.shape[1] != self.input_size:
            raise ValueError(f"x must have shape (batch, {self.input_size}), got {tuple(x_BI.shape)}.")
        p = self.prepared()
        state = self.initial_state(x_BI) if state is None else state
        return self.cell.step(p, self.cell.inputs(p, x_BI), state)
