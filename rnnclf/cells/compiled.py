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
        self.steps, self.batch, _ = x_TBI.shape
        self.running_T = np.full(self.steps, self.batch) if self.running is None else np.array(self.running)
        self.sizes = sizes = Sizes.of(p)
        row = machine_code.row_of(sizes.operands, sizes.itemsize)
        self.a_SBK = self.beginning_with(state[0], row)
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
        back = through(sizes, arrays["recurrent_weight"], sorted(cls.gates))
        return type(p)(**vars(p), arrays=arrays, back=back, **packed)

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

    def beginning_with(self, start_BH: Tensor, row: int) -> Any:
        """Place for the states (S, B, row), of which the first is there already, with zeros behind it."""
        hidden, wide = self.sizes.hidden, self.sizes.wide
        states_SBP = np.empty((self.steps + 1, self.batch, row), start_BH.numpy().dtype)
        states_SBP[0, :, :hidden] = start_BH.numpy()
        states_SBP[0, :, hidden:wide] = 0
        return states_SBP

    def of_all_steps(self, width: int) -> Any:
        """Place for so many numbers and more of each step of each sequence."""
        row = machine_code.row_of(width, self.sizes.itemsize)
        return np.empty((self.steps, self.batch, row), self.a_SBK.dtype)

    def widened(self, d_BH: Tensor) -> Any:
        """(B, P): zeros behind."""
        d_BP = np.zeros((self.batch, self.sizes.wide), self.a_SBK.dtype)
        d_BP[:, : self.sizes.hidden] = d_BH.numpy()
        return d_BP

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """The states that stand at the beginning of rows."""
        return tuple(torch.from_numpy(array)[..., : self.sizes.hidden] for array in arrays)

    def give(self, dstates: Sequence[Tensor], *found: Any) -> None:
        """Puts what came back to the first states where it is wanted."""
        for d_BH, found_BH in zip(dstates, self.states_in(*found), strict=True):
            d_BH.copy_(found_BH)

    def over_rows(self, operands: slice, dz_TBG: Any, columns: slice) -> Any:
        """The gradient of a matrix: the product of these operands and these gradients, over all steps."""
        a_RK, dz_RG = below(self.a_SBK[:-1])[:, operands], below(dz_TBG)[:, columns]
        sums_KG = np.zeros((a_RK.shape[1], dz_RG.shape[1]), a_RK.dtype)
        machine_code.product_over_rows(a_RK, dz_RG, sums_KG)
        return sums_KG

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the sums."""
        weights = through(self.sizes, self.p.arrays["input_weight"], self.gates)
        inputs, dz_RG = self.sizes.inputs, below(dz_TBG)[:, : len(self.gates) * self.sizes.wide]
        columns = machine_code.whole(inputs, self.sizes.itemsize)
        dx_RI = np.empty((len(dz_RG), columns), dz_RG.dtype)
        machine_code.product(dz_RG, weights, dx_RI[:, :columns], 0, 0)
        return torch.from_numpy(dx_RI)[:, :inputs].view(self.steps, self.batch, inputs)


def through(sizes: Sizes, weight_GK: Any, gates: Sequence[int]) -> Any:
    """The weights of these gates, from gradients of their sums, which lie beside each other, to those of what
    the weights were multiplied with; as compiled products want them."""
    rows, columns = len(gates) * sizes.wide, machine_code.whole(weight_GK.shape[1], sizes.itemsize)
    weights = np.zeros(rows * columns, weight_GK.dtype)
    for place, gate in enumerate(gates):
        block_KH = weight_GK[gate * sizes.hidden : (gate + 1) * sizes.hidden].T
        machine_code.pack(weights, rows, place * sizes.wide, 0, columns, block_KH)
    return weights


def below(a_TBN: Any) -> Any:
    """All steps of all sequences below each other."""
    return a_TBN.reshape(-1, a_TBN.shape[-1])


def _array(dy_TBH: Tensor | None, like_BP: Any) -> Any:
    """The gradients of all outputs, or none."""
    return like_BP[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    gates = (0,)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.relu = cell.nonlinearity == "relu"

    def run(self) -> None:
        sums_BP = np.empty((self.batch, self.sizes.wide), self.a_SBK.dtype)
        how = self.p.forward, self.running_T, self.started, self.relu
        machine_code.basic(self.a_SBK, self.sizes.operands, sums_BP, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP = self.widened(dstates[0])
        da_TBP = self.of_all_steps(self.sizes.wide)
        how = self.p.back, self.running_T, self.started, self.relu, _array(dy_TBH, dh_BP)
        machine_code.basic_back(self.a_SBK, da_TBP, *how, dh_BP)
        self.give(dstates, dh_BP)
        weights = [self.over_rows(slice(self.sizes.operands), da_TBP, slice(self.sizes.wide))]
        return Gradients(weights, self.of_inputs(da_TBP) if inputs else None)


class CompiledLSTM(Compiled):
    gates = (0, 1, 2, 3)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.c_SBP = self.beginning_with(state[1], self.sizes.wide)
        self.gates_TBG = self.of_all_steps(4 * self.sizes.wide)

    def run(self) -> None:
        how = self.p.forward, self.running_T, self.started
        machine_code.lstm(self.a_SBK, self.sizes.operands, self.c_SBP, self.gates_TBG, *how)
        self.states_SBH = self.states_in(self.a_SBK, self.c_SBP)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, dc_BP = map(self.widened, dstates)
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        machine_code.lstm_back(self.c_SBP, self.gates_TBG, *how, dh_BP, dc_BP)
        self.give(dstates, dh_BP, dc_BP)
        sizes = self.sizes
        weights = [self.over_rows(slice(sizes.operands), self.gates_TBG, slice(4 * sizes.wide))]
        return Gradients(weights, self.of_inputs(self.gates_TBG) if inputs else None)


class CompiledGRU(Compiled):
    """Gates r, u, n; the sums of the candidate n come first, W x + b and U h + c apart."""

    own_parameters = ("candidate_bias",)
    gates = (2, 0, 1)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.z_TBG = self.of_all_steps(4 * self.sizes.wide)

    @classmethod
    @cache
    def matrices(cls, sizes: Sizes) -> Mapping[str, Matrix]:
        wide = sizes.wide
        of_input = [Block(0, 0, "bias", 2), Block(1, 0, "input_weight", 2)]
        of_state = [Block(0, 0, "recurrent_weight", 2), Block(wide, 0, "candidate_bias", 0)]
        return {
            "of_gates": sizes.forward((0, 1)),
            "of_input": Matrix(1 + sizes.inputs, wide, of_input),
            "of_state": Matrix(wide + 1, wide, of_state),
        }

    def run(self) -> None:
        sizes, p = self.sizes, self.p
        weights, how = (p.of_gates, p.of_input, p.of_state), (self.running_T, self.started)
        machine_code.gru(self.a_SBK, sizes.operands, sizes.wide, self.z_TBG, *weights, *how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP = self.widened(dstates[0])
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        machine_code.gru_back(self.a_SBK, self.z_TBG, *how, dh_BP)
        self.give(dstates, dh_BP)
        wide, operands = self.sizes.wide, self.sizes.operands
        weights = [
            self.over_rows(slice(operands), self.z_TBG, slice(wide, 3 * wide)),
            self.over_rows(slice(wide, operands), self.z_TBG, slice(wide)),
            self.over_rows(slice(wide + 1), self.z_TBG, slice(3 * wide, 4 * wide)),
        ]
        return Gradients(weights, self.of_inputs(self.z_TBG) if inputs else None)
