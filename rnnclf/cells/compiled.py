"""The compiled engine's side of Python: weights laid out for machine_code.py, its results as tensors.

Shapes: T time, B batch, I inputs, H hidden, P hidden in whole vectors, G gates × P, K = P + 1 + I: a state, a
one, inputs; S = T + 1 states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnnclf.cells import machine_code
from rnnclf.cells.fused import SHARED, Gradients, OverTime

if TYPE_CHECKING:
    from rnnclf.cells.base import Parameters

Arrays = Mapping[str, Any]
"""Parameters, or their gradients, by name."""


class Block(NamedTuple):
    """Where in a matrix the rows of one gate of one parameter lie, transposed."""

    row: int
    column: int
    parameter: str
    gate: int

    def of(self, arrays: Arrays, hidden: int) -> Any:
        """Those rows (H, …)."""
        rows = arrays[self.parameter][self.gate * hidden : (self.gate + 1) * hidden]
        return rows[:, None] if rows.ndim == 1 else rows


class Matrix(NamedTuple):
    """A matrix (rows, columns) of blocks with zeros between them, with which operands are multiplied."""

    rows: int
    columns: int
    blocks: Sequence[Block]

    def packed(self, arrays: Arrays, hidden: int) -> Any:
        """As compiled products want it."""
        dtype = arrays["bias"].dtype
        columns = machine_code.whole(self.columns, dtype.itemsize)
        weights = np.zeros(self.rows * columns, dtype)
        for block in self.blocks:
            machine_code.pack(weights, self.rows, block.row, block.column, columns, block.of(arrays, hidden))
        return weights

    def add_to(self, gradients: Arrays, sums_KG: Any, hidden: int) -> None:
        """Adds the gradient of the matrix to those of what it is made of."""
        for block in self.blocks:
            machine_code.add_block(block.of(gradients, hidden), block.row, block.column, sums_KG)


class Sizes(NamedTuple):
    """Of a cell: its inputs, its hidden units, these in whole vectors, and the bytes of a number."""

    inputs: int
    hidden: int
    wide: int
    itemsize: int

    @classmethod
    def of(cls, p: Parameters) -> Sizes:
        itemsize = p.bias.dtype.itemsize
        inputs, hidden = p.input_weight.shape[1], p.recurrent_weight.shape[1]
        return cls(inputs, hidden, machine_code.whole(hidden, itemsize), itemsize)

    @property
    def operands(self) -> int:
        """A state, a one, the inputs."""
        return self.wide + 1 + self.inputs

    def forward(self, gates: Sequence[int]) -> Matrix:
        """From operands to the sums of these gates, beside each other."""
        blocks = []
        for place, gate in enumerate(gates):
            rows = {"recurrent_weight": 0, "bias": self.wide, "input_weight": self.wide + 1}
            blocks += [Block(row, place * self.wide, name, gate) for name, row in rows.items()]
        return Matrix(self.operands, len(gates) * self.wide, blocks)


class Compiled(OverTime):
    """One run in compiled loops."""

    gates: ClassVar[tuple[int, ...]]
    """The gates in the order in which their sums lie beside each other, by their places in the weights."""

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        steps, batch, _ = x_TBI.shape
        self.running_T = np.full(steps, batch) if self.running is None else np.array(self.running)
        self.sizes = sizes = Sizes.of(p)
        row = machine_code.row_of(sizes.operands, sizes.itemsize)
        self.a_SBK = beginning_with(state[0], steps, row, sizes.wide)
        """The operands of all steps, which hold the states."""
        self.a_SBK[:, :, sizes.wide] = 1
        self.a_SBK[:-1, :, sizes.wide + 1 : sizes.operands] = x_TBI.numpy()

    @classmethod
    @cache
    def matrices(cls, sizes: Sizes) -> Mapping[str, Matrix]:
        """What operands are multiplied with on the way forward."""
        return {"forward": sizes.forward(cls.gates)}

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Also, laid out for compiled products, `matrices`, and `back`, those between state and state."""
        sizes = Sizes.of(p)
        arrays = {name: weight.detach().numpy() for name, weight in vars(p).items()}
        packed = {name: made.packed(arrays, sizes.hidden) for name, made in cls.matrices(sizes).items()}
        back = cls.through(sizes, arrays["recurrent_weight"], sorted(cls.gates))
        return type(p)(**vars(p), arrays=arrays, back=back, **packed)

    @staticmethod
    def through(sizes: Sizes, weight_GK: Any, gates: Sequence[int]) -> Any:
        """The weights of these gates, from gradients of their sums, which lie beside each other, to those of
        what the weights were multiplied with."""
        wide, hidden, inner = sizes.wide, sizes.hidden, weight_GK.shape[1]
        columns = machine_code.whole(inner, sizes.itemsize)
        weights = np.zeros(len(gates) * wide * columns, weight_GK.dtype)
        for place, gate in enumerate(gates):
            block_KH = weight_GK[gate * hidden : (gate + 1) * hidden].T
            machine_code.pack(weights, len(gates) * wide, place * wide, 0, columns, block_KH)
        return weights

    @classmethod
    def summed(cls, cell: Any, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """parts: of each the gradients of `matrices`, in their order."""
        names, sizes = (*SHARED, *cls.own_parameters), Sizes.of(p)
        gradients = {name: torch.zeros_like(getattr(p, name)) for name in names}
        arrays = {name: gradient.numpy() for name, gradient in gradients.items()}
        for sums in parts:
            for matrix, sums_KG in zip(cls.matrices(sizes).values(), sums, strict=True):
                matrix.add_to(arrays, sums_KG, sizes.hidden)
        return list(gradients.values())

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """The states that stand at the beginning of rows."""
        return tuple(torch.from_numpy(array)[..., : self.sizes.hidden] for array in arrays)

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the sums."""
        weights = self.through(self.sizes, self.p.arrays["input_weight"], self.gates)
        inputs = self.sizes.inputs
        dx_RI = machine_code.of_inputs(dz_TBG, weights, len(self.gates) * self.sizes.wide, inputs)
        return torch.from_numpy(dx_RI)[:, :inputs].view(*dz_TBG.shape[:2], -1)


def beginning_with(start_BH: Tensor, steps: int, row: int, wide: int) -> Any:
    """Place for the states (S, B, row), of which the first is there already, with zeros behind it."""
    states_SBP = torch.empty(steps + 1, len(start_BH), row, dtype=start_BH.dtype).numpy()
    hidden = start_BH.shape[1]
    states_SBP[0, :, :hidden] = start_BH.numpy()
    states_SBP[0, :, hidden:wide] = 0
    return states_SBP


def _array(dy_TBH: Tensor | None, like_BH: Any) -> Any:
    """The gradients of all outputs, or none."""
    return like_BH[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    gates = (0,)

    def run(self) -> None:
        sizes, how = self.sizes, (self.running_T, self.started, self.cell.nonlinearity == "relu")
        machine_code.basic(self.a_SBK, sizes.operands, sizes.wide, self.p.forward, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        relu, (dh,) = self.cell.nonlinearity == "relu", (d.numpy() for d in dstates)
        how = self.p.back, self.running_T, self.started, relu
        found: Any = machine_code.basic_back(self.a_SBK, self.sizes.operands, *how, _array(dy_TBH, dh), dh)
        da_TBP, dweight_KP = found
        return Gradients([dweight_KP], self.of_inputs(da_TBP) if inputs else None)


class CompiledLSTM(Compiled):
    gates = (0, 1, 2, 3)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.c_SBP = beginning_with(state[1], len(x_TBI), self.sizes.wide, self.sizes.wide)

    def run(self) -> None:
        how = self.p.forward, self.running_T, self.started
        self.gates_TBG: Any = machine_code.lstm(self.a_SBK, self.sizes.operands, self.c_SBP, *how)
        self.states_SBH = self.states_in(self.a_SBK, self.c_SBP)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh, dc = (d.numpy() for d in dstates)
        made, how = (self.c_SBP, self.gates_TBG, self.p.back), (self.running_T, self.started)
        dy: Any = _array(dy_TBH, dh)
        dweight_KG = machine_code.lstm_back(self.a_SBK, self.sizes.operands, *made, *how, dy, dh, dc)
        return Gradients([dweight_KG], self.of_inputs(self.gates_TBG) if inputs else None)


class CompiledGRU(Compiled):
    """Gates r, u, n; the sums of the candidate n come first, W x + b and U h + c apart."""

    own_parameters = ("candidate_bias",)
    gates = (2, 0, 1)

    @classmethod
    @cache
    def matrices(cls, sizes: Sizes) -> Mapping[str, Matrix]:
        wide = sizes.wide
        of_state = [Block(0, 0, "recurrent_weight", 2), Block(wide, 0, "candidate_bias", 0)]
        return {
            "of_gates": sizes.forward((0, 1)),
            "of_input": Matrix(
                1 + sizes.inputs, wide, [Block(0, 0, "bias", 2), Block(1, 0, "input_weight", 2)]
            ),
            "of_state": Matrix(wide + 1, wide, of_state),
        }

    def run(self) -> None:
        sizes, p = self.sizes, self.p
        weights, how = (p.of_gates, p.of_input, p.of_state), (self.running_T, self.started)
        self.z_TBG: Any = machine_code.gru(self.a_SBK, sizes.operands, sizes.wide, *weights, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh,) = (d.numpy() for d in dstates)
        how = self.p.back, self.running_T, self.started
        found: Any = machine_code.gru_back(
            self.a_SBK, self.sizes.operands, self.z_TBG, *how, _array(dy_TBH, dh), dh
        )
        return Gradients(found, self.of_inputs(self.z_TBG) if inputs else None)
