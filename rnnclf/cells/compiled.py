"""The compiled engine's side of Python: weights laid out for machine_code.py, its results as tensors.

Shapes: T time, B batch, I inputs, H hidden, P hidden in whole vectors, G gates × P, K = P + 1 + I: a state, a
one, inputs; S = T + 1 states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rnnclf.cells import machine_code
from rnnclf.cells.fused import Gradients, OverTime

if TYPE_CHECKING:
    from rnnclf.cells.base import Parameters

Block = tuple[int, int, Tensor]
"""The row and the column of a matrix where these numbers begin."""


def packed(rows: int, columns: int, blocks: Sequence[Block]) -> Any:
    """A matrix of these blocks, each transposed, and zeros between, as compiled products want it."""
    dtype = blocks[0][2].dtype
    columns = machine_code.whole(columns, dtype.itemsize)
    weights = torch.zeros(rows * columns, dtype=dtype).numpy()
    for row, column, block in blocks:
        machine_code.pack(weights, rows, row, column, columns, block.numpy())
    return weights


def beginning_with(start_BH: Tensor, steps: int, row: int, wide: int) -> Any:
    """Place for the states (S, B, row), of which the first is there already, with zeros behind it."""
    states_SBP = torch.empty(steps + 1, len(start_BH), row, dtype=start_BH.dtype).numpy()
    hidden = start_BH.shape[1]
    states_SBP[0, :, :hidden] = start_BH.numpy()
    states_SBP[0, :, hidden:wide] = 0
    return states_SBP


class Compiled(OverTime):
    """One run in compiled loops."""

    order: ClassVar[tuple[int, ...]]
    """The gates in the order in which their sums lie beside each other, by their places in the weights."""

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        steps, batch, self.inputs = x_TBI.shape
        self.running_T = np.full(steps, batch) if self.running is None else np.array(self.running)
        self.hidden, size = cell.hidden_size, x_TBI.dtype.itemsize
        self.wide = machine_code.whole(self.hidden, size)
        self.operands = self.wide + 1 + self.inputs
        row = machine_code.row_of(self.operands, size)
        self.a_SBK = beginning_with(state[0], steps, row, self.wide)
        """The operands of all steps, which hold the states."""
        self.a_SBK[:, :, self.wide] = 1
        self.a_SBK[:-1, :, self.wide + 1 : self.operands] = x_TBI.numpy()

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Also `forward`: all weights (K, G) in one matrix; and `back`: those between state and state (G, P),
        the other way."""
        hidden = cell.hidden_size
        wide = machine_code.whole(hidden, p.bias.dtype.itemsize)
        forward: list[Block] = []
        back: list[Block] = []
        for place, gate in enumerate(cls.order):
            rows = slice(gate * hidden, (gate + 1) * hidden)
            w_HI, u_HH, b_H = p.input_weight[rows], p.recurrent_weight[rows], p.bias[rows]
            column = place * wide
            forward += [(0, column, u_HH), (wide, column, b_H[:, None]), (wide + 1, column, w_HI)]
            back += [(column, 0, u_HH.t())]
        operands, width = wide + 1 + p.input_weight.shape[1], len(cls.order) * wide
        weights = {"forward": packed(operands, width, forward), "back": packed(width, wide, back)}
        return type(p)(**vars(p), **weights)

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """The states that stand at the beginning of rows."""
        return tuple(torch.from_numpy(array)[..., : self.hidden] for array in arrays)

    def narrowed(self, block_KG: Any) -> Tensor:
        """Without what makes vectors whole: (K, gates × H)."""
        block = torch.from_numpy(block_KG)
        return block.view(len(block), -1, self.wide)[..., : self.hidden].flatten(1)

    def gradients(self, dz_TBG: Any, dweight_KG: Any, inputs: bool) -> Gradients:
        """Those of weights that lie in one matrix."""
        dweight = self.narrowed(dweight_KG)
        bias = self.wide
        weights = [dweight[bias + 1 :], dweight[: self.hidden], dweight[bias]]
        return Gradients(weights, self.of_inputs(dz_TBG) if inputs else None)

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the sums."""
        width = len(self.order) * self.wide
        gates = self.p.input_weight.split(self.hidden)
        blocks = [(place * self.wide, 0, gates[gate].t()) for place, gate in enumerate(self.order)]
        dx_RI = machine_code.of_inputs(dz_TBG, packed(width, self.inputs, blocks), width, self.inputs)
        return torch.from_numpy(dx_RI)[:, : self.inputs].view(*dz_TBG.shape[:2], -1)


def _array(dy_TBH: Tensor | None, like_BH: Any) -> Any:
    """The gradients of all outputs, or none."""
    return like_BH[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    order = (0,)

    def run(self) -> None:
        how = self.running_T, self.started, self.cell.nonlinearity == "relu"
        machine_code.basic(self.a_SBK, self.operands, self.wide, self.p.forward, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        relu, (dh,) = self.cell.nonlinearity == "relu", (d.numpy() for d in dstates)
        how = self.p.back, self.running_T, self.started, relu
        found: Any = machine_code.basic_back(self.a_SBK, self.operands, *how, _array(dy_TBH, dh), dh)
        da_TBP, dweight_KP = found
        return self.gradients(da_TBP, dweight_KP, inputs)


class CompiledLSTM(Compiled):
    order = (0, 1, 2, 3)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.c_SBP = beginning_with(state[1], len(x_TBI), self.wide, self.wide)

    def run(self) -> None:
        how = self.p.forward, self.running_T, self.started
        self.gates_TBG: Any = machine_code.lstm(self.a_SBK, self.operands, self.c_SBP, *how)
        self.states_SBH = self.states_in(self.a_SBK, self.c_SBP)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh, dc = (d.numpy() for d in dstates)
        made, how = (self.c_SBP, self.gates_TBG, self.p.back), (self.running_T, self.started)
        dy: Any = _array(dy_TBH, dh)
        dweight_KG = machine_code.lstm_back(self.a_SBK, self.operands, *made, *how, dy, dh, dc)
        return self.gradients(self.gates_TBG, dweight_KG, inputs)


class CompiledGRU(Compiled):
    """Gates r, u, n; the sums of the candidate n come first."""

    own_parameters = ("candidate_bias",)
    order = (2, 0, 1)

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Also the weights as `machine_code.gru` and `gru_back` take them."""
        hidden, inputs = cell.hidden_size, p.input_weight.shape[1]
        wide = machine_code.whole(hidden, p.bias.dtype.itemsize)
        (w_r, w_u, w_n), (u_r, u_u, u_n), (b_r, b_u, b_n) = (
            w.split(hidden) for w in (p.input_weight, p.recurrent_weight, p.bias)
        )
        gates: list[Block] = []
        for column, w, u, b in ((0, w_r, u_r, b_r), (wide, w_u, u_u, b_u)):
            gates += [(0, column, u), (wide, column, b[:, None]), (wide + 1, column, w)]
        back = [(0, 0, u_r.t()), (wide, 0, u_u.t()), (2 * wide, 0, u_n.t())]
        weights = {
            "gates": packed(wide + 1 + inputs, 2 * wide, gates),
            "of_input": packed(1 + inputs, wide, [(0, 0, b_n[:, None]), (1, 0, w_n)]),
            "of_state": packed(wide + 1, wide, [(0, 0, u_n), (wide, 0, p.candidate_bias[:, None])]),
            "back": packed(3 * wide, wide, back),
        }
        return type(p)(**vars(p), **weights)

    def run(self) -> None:
        p, how = self.p, (self.running_T, self.started)
        weights = p.gates, p.of_input, p.of_state
        self.z_TBG: Any = machine_code.gru(self.a_SBK, self.operands, self.wide, *weights, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh,) = (d.numpy() for d in dstates)
        how = self.p.back, self.running_T, self.started
        found: Any = machine_code.gru_back(
            self.a_SBK, self.operands, self.z_TBG, *how, _array(dy_TBH, dh), dh
        )
        dgates_KG, dinput_KH, dstate_KH = map(self.narrowed, found)
        dinput_weight = torch.cat((dgates_KG[self.wide + 1 :], dinput_KH[1:]), 1)
        drecurrent = torch.cat((dgates_KG[: self.hidden], dstate_KH[: self.hidden]), 1)
        dbias = torch.cat((dgates_KG[self.wide], dinput_KH[0]))
        dx_TBI = self.of_inputs(self.z_TBG) if inputs else None
        return Gradients([dinput_weight, drecurrent, dbias, dstate_KH[self.wide]], dx_TBI)
