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

_NUMBERS: Mapping[torch.dtype, Any] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


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


class Block(NamedTuple):
    """Where in a matrix the rows of one gate of one parameter lie: transposed, or `upright`, as they are."""

    row: int
    column: int
    parameter: str
    gate: int
    upright: bool = False


class Matrix(NamedTuple):
    """A matrix (rows, columns) of blocks with zeros between them, with which numbers are multiplied."""

    rows: int
    columns: int
    blocks: Sequence[Block]


def ahead(sizes: Sizes, gates: Sequence[int]) -> Matrix:
    """From operands to the sums of these gates, beside each other."""
    blocks = []
    for place, gate in enumerate(gates):
        rows = {"recurrent_weight": 0, "bias": sizes.wide, "input_weight": sizes.wide + 1}
        blocks += [Block(row, place * sizes.wide, name, gate) for name, row in rows.items()]
    return Matrix(sizes.operands, len(gates) * sizes.wide, blocks)


def back(sizes: Sizes, parameter: str, columns: int, gates: Sequence[int]) -> Matrix:
    """From gradients of the sums of these gates, beside each other, to those of what a parameter was
    multiplied with."""
    blocks = [Block(place * sizes.wide, 0, parameter, gate, True) for place, gate in enumerate(gates)]
    return Matrix(len(gates) * sizes.wide, columns, blocks)


class Layout:
    """Where parameters lie in matrices, by name, and the ways there and back."""

    def __init__(self, sizes: Sizes, matrices: Mapping[str, Matrix], parameters: Sequence[str]) -> None:
        self.matrices, self.parameters = matrices, parameters
        self.sizes = [(m.rows, machine_code.whole(m.columns, sizes.itemsize)) for m in matrices.values()]
        widths = {"input_weight": sizes.inputs, "recurrent_weight": sizes.hidden}
        rows = []
        for number, matrix in enumerate(matrices.values()):
            for block in matrix.blocks:
                width = widths.get(block.parameter, 1)
                steps, counts = (width * sizes.itemsize, sizes.itemsize), (sizes.hidden, width)
                begin = block.gate * sizes.hidden * steps[0]
                if block.upright:
                    steps, counts = steps[::-1], counts[::-1]
                parameter = parameters.index(block.parameter)
                rows.append([parameter, begin, *steps, *counts, number, block.row, block.column])
        self.rows_N9 = np.array(rows)

    def packed(self, p: Parameters) -> dict[str, Any]:
        """The matrices as compiled products want them."""
        weights = [getattr(p, name).detach().contiguous() for name in self.parameters]
        dtype = _NUMBERS[weights[0].dtype]
        made = [np.zeros(rows * columns, dtype) for rows, columns in self.sizes]
        places = np.array([(m.ctypes.data, *size) for m, size in zip(made, self.sizes, strict=True)])
        machine_code.lay_out(self.rows_N9, _addresses(weights), places, dtype.itemsize, dtype.type(0))
        return dict(zip(self.matrices, made, strict=True))

    def gradients(self, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """Of the parameters, from those of the matrices (K, G) of all parts of a batch, the first of which
        become the sums over all."""
        found = [torch.empty(getattr(p, name).shape, dtype=p.bias.dtype) for name in self.parameters]
        for sums_KG, *others in zip(*parts, strict=True):
            for other_KG in others:
                sums_KG += other_KG
        places = np.array([(sums_KG.ctypes.data, sums_KG.strides[0]) for sums_KG in parts[0]])
        dtype = _NUMBERS[p.bias.dtype]
        machine_code.take_back(self.rows_N9, _addresses(found), places, dtype.itemsize, dtype.type(0))
        return found


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return np.array([tensor.data_ptr() for tensor in tensors])


class Compiled(OverTime):
    """One run in compiled loops."""

    gates: ClassVar[tuple[int, ...]]
    """The gates in the order in which their sums lie beside each other, by their places in the weights."""

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.steps, self.batch, inputs = x_TBI.shape
        self.running_T = np.full(self.steps, self.batch) if self.running is None else np.array(self.running)
        self.sizes, self.dtype = Sizes.of(p), _NUMBERS[x_TBI.dtype]
        self.a_SBK = self.of_steps(self.steps + 1, self.sizes.operands)
        """The operands of all steps, which hold the states."""
        x_steps = *(step * self.sizes.itemsize for step in x_TBI.stride()), inputs
        self.given: Any = (
            self.a_SBK,
            x_TBI.data_ptr(),
            x_steps,
            *(part.contiguous().numpy() for part in state),
        )

    @classmethod
    def matrices(cls, sizes: Sizes) -> dict[str, Matrix]:
        """What operands are multiplied with on the way forward."""
        return {"forward": ahead(sizes, cls.gates)}

    @classmethod
    @cache
    def layouts(cls, sizes: Sizes) -> tuple[Layout, Layout]:
        """Of `matrices`, and of these and `back`, between state and state, together."""
        matrices, parameters = cls.matrices(sizes), (*SHARED, *cls.own_parameters)
        through = back(sizes, "recurrent_weight", sizes.hidden, sorted(cls.gates))
        return Layout(sizes, matrices, parameters), Layout(sizes, matrices | {"back": through}, parameters)

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Also `matrices` and `back`, laid out for compiled products."""
        return type(p)(**vars(p), **cls.layouts(Sizes.of(p))[1].packed(p))

    @classmethod
    def summed(cls, cell: Any, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """parts: of each the gradients of `matrices`, in their order."""
        return cls.layouts(Sizes.of(p))[0].gradients(p, parts)

    def of_steps(self, steps: int, width: int) -> Any:
        """Place for so many numbers and more of each sequence at each step."""
        return np.empty((steps, self.batch, machine_code.row_of(width, self.sizes.itemsize)), self.dtype)

    def widened(self, d_BH: Tensor) -> Any:
        """(B, P): zeros behind."""
        d_BP = np.zeros((self.batch, self.sizes.wide), self.dtype)
        d_BP[:, : self.sizes.hidden] = d_BH.numpy()
        return d_BP

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """The states that stand at the beginning of rows."""
        return tuple(torch.from_numpy(array)[..., : self.sizes.hidden] for array in arrays)

    def give(self, dstates: Sequence[Tensor], *found: Any) -> None:
        """Puts what came back to the first states where it is wanted."""
        for d_BH, found_BH in zip(dstates, self.states_in(*found), strict=True):
            d_BH.copy_(found_BH)

    def sums(self) -> list[Any]:
        """Place for the gradients of `matrices`."""
        return [
            np.empty((matrix.rows, machine_code.whole(matrix.columns, self.sizes.itemsize)), self.dtype)
            for matrix in self.layouts(self.sizes)[0].matrices.values()
        ]

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the sums."""
        sizes, name = self.sizes, "input_weight"
        weights = _inward(sizes, self.gates).packed(self.p)[name]
        dz_RG = dz_TBG.reshape(-1, dz_TBG.shape[-1])[:, : len(self.gates) * sizes.wide]
        columns = machine_code.whole(sizes.inputs, sizes.itemsize)
        dx_RI = np.empty((len(dz_RG), columns), dz_RG.dtype)
        machine_code.product_of_many(dz_RG, weights, dx_RI)
        return torch.from_numpy(dx_RI)[:, : sizes.inputs].view(self.steps, self.batch, sizes.inputs)


@cache
def _inward(sizes: Sizes, gates: tuple[int, ...]) -> Layout:
    name = "input_weight"
    return Layout(sizes, {name: back(sizes, name, sizes.inputs, gates)}, (name,))


def _array(dy_TBH: Tensor | None, like_BP: Any) -> Any:
    """The gradients of all outputs, or none."""
    return like_BP[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    gates = (0,)

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.relu = cell.nonlinearity == "relu"

    def run(self) -> None:
        sums_BP = np.empty((self.batch, self.sizes.wide), self.dtype)
        how = *self.given, sums_BP, self.p.forward, self.running_T, self.started, self.relu
        machine_code.basic(*how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.widened(dstates[0]), self.sums()
        da_TBP = self.of_steps(self.steps, self.sizes.wide)
        how = self.p.back, self.running_T, self.started, self.relu, _array(dy_TBH, dh_BP)
        machine_code.basic_back(self.a_SBK, da_TBP, *how, dh_BP, *sums)
        self.give(dstates, dh_BP)
        return Gradients(sums, self.of_inputs(da_TBP) if inputs else None)


class CompiledLSTM(Compiled):
    gates = (0, 1, 2, 3)

    def run(self) -> None:
        self.c_SBP = np.empty((self.steps + 1, self.batch, self.sizes.wide), self.dtype)
        self.gates_TBG = self.of_steps(self.steps, 4 * self.sizes.wide)
        how = *self.given, self.c_SBP, self.gates_TBG, self.p.forward, self.running_T, self.started
        machine_code.lstm(*how)
        self.states_SBH = self.states_in(self.a_SBK, self.c_SBP)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh_BP, dc_BP), sums = map(self.widened, dstates), self.sums()
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        machine_code.lstm_back(self.a_SBK, self.c_SBP, self.gates_TBG, *how, dh_BP, dc_BP, *sums)
        self.give(dstates, dh_BP, dc_BP)
        return Gradients(sums, self.of_inputs(self.gates_TBG) if inputs else None)


class CompiledGRU(Compiled):
    """Gates r, u, n; the sums of the candidate n come first, W x + b and U h + c apart."""

    own_parameters = ("candidate_bias",)
    gates = (2, 0, 1)

    @classmethod
    def matrices(cls, sizes: Sizes) -> dict[str, Matrix]:
        wide = sizes.wide
        of_input = [Block(0, 0, "bias", 2), Block(1, 0, "input_weight", 2)]
        of_state = [Block(0, 0, "recurrent_weight", 2), Block(wide, 0, "candidate_bias", 0)]
        return {
            "of_gates": ahead(sizes, (0, 1)),
            "of_input": Matrix(1 + sizes.inputs, wide, of_input),
            "of_state": Matrix(wide + 1, wide, of_state),
        }

    def run(self) -> None:
        self.z_TBG, p = self.of_steps(self.steps, 4 * self.sizes.wide), self.p
        weights = p.of_gates, p.of_input, p.of_state
        how = *self.given, self.sizes.wide, self.z_TBG, *weights, self.running_T, self.started
        machine_code.gru(*how)
        self.states_SBH = self.states_in(self.a_SBK)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.widened(dstates[0]), self.sums()
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        machine_code.gru_back(self.a_SBK, self.z_TBG, *how, dh_BP, *sums)
        self.give(dstates, dh_BP)
        return Gradients(sums, self.of_inputs(self.z_TBG) if inputs else None)
