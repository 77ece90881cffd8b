"""A cell together with its weights, as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnclf.cells.base import Cell, Parameters, State


class CellModule(nn.Module):
    """A cell on `input_size` features with freshly drawn weights.

    Called with one step (x_BI, state) it returns (output_BH, state). On torch's meta device nothing
    is drawn and nothing allocated: such a module knows the shapes its weights must have.
    """

    def __init__(self, cell: Cell, input_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.input_size = input_size
        for name, spec in cell.parameters(input_size).items():
            weight = torch.empty(spec.shape)
            if not weight.is_meta:
                with torch.no_grad():
                    spec.fill(weight)
            self.register_parameter(name, nn.Parameter(weight))

    def weights(self) -> Parameters:
        """The weights as the argument `p` of the cell's functions."""
        return Parameters(**dict(self.named_parameters()))

    def initial_state(self, x_BI: Tensor) -> State:
        return self.cell.initial_state(x_BI)

    def forward(self, x_BI: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step in time; without a state, the first one."""
        if x_BI.ndim != 2 or x_BI.shape[1] != self.input_size:
            raise ValueError(f"x must have shape (batch, {self.input_size}), got {tuple(x_BI.shape)}.")
        p = self.weights()
        state = self.initial_state(x_BI) if state is None else state
        return self.cell.step(p, self.cell.inputs(p, x_BI), state)
