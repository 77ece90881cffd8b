"""The Python side of the compiled engine: packs weights for kernels.py, and wraps its results as tensors.

Shapes: T time, B batch, I inputs, H hidden, P H padded to whole vectors, G gates × P, K columns of operands
(inputs, a one, a state), S = T + 1 states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnnclf.engine.compiled import kernels, recurrence, whole_step
from rnnclf.engine.fused_steps import SHARED, Gradients, OverTime

if TYPE_CHECKING:
    from rnnclf.cells.parameters import Parameters

NUMBERS: Mapping[torch.dtype, Any] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """An uninitialised array aligned to cache lines: a vector across two lines would take two reads."""
    line, length = 64, int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(length + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + length].view(dtype).reshape(shape)


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    """An array of zeros, aligned as in `empty`."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


class Sizes(NamedTuple):
    """The sizes of a cell: inputs, hidden units, hidden units padded to whole vectors, and bytes per
    number."""

    inputs: int
    hidden: int
    wide: int
    itemsize: int

    @classmethod
    def of(cls, p: Parameters) -> Sizes:
        itemsize = p.bias.dtype.itemsize
        inputs, hidden = p.input_weight.shape[1], p.recurrent_weight.shape[1]
        return cls(inputs, hidden, kernels.whole(hidden, itemsize), itemsize)

    @property
    def at(self) -> recurrence.Row:
        """The layout of an operand row."""
        first = kernels.whole(self.inputs + 1, self.itemsize)
        return recurrence.Row(self.inputs, first, self.hidden, self.wide)

    @property
    def operands(self) -> int:
        """The length of an operand row."""
        return self.at.first + self.wide

    @property
    def begin(self) -> int:
        """The column of an operand row at which the inputs begin."""
        return self.at.first - self.inputs - 1


class Block(NamedTuple):
    """The position in a matrix of one gate's rows of a parameter: transposed, or as they are if `upright`."""

    row: int
    column: int
    parameter: str
    gate: int
    upright: bool = False


class Matrix(NamedTuple):
    """A matrix (rows, columns) of blocks, with zeros between them; its left factor begins at column `first`
    of an operand row."""

    rows: int
    columns: int
    blocks: Sequence[Block]
    first: int = 0


def forward_matrix(sizes: Sizes, gates: Sequence[int]) -> Matrix:
    """Maps operands to the preactivations of these gates, one gate after the other."""
    blocks = []
    for position, gate in enumerate(gates):
        rows = {"input_weight": 0, "bias": sizes.inputs, "recurrent_weight": sizes.inputs + 1}
        blocks += [Block(row, position * sizes.wide, name, gate) for name, row in rows.items()]
    total_rows = sizes.inputs + 1 + sizes.hidden
    return Matrix(total_rows, len(gates) * sizes.wide, blocks, sizes.begin)


def backward_matrix(sizes: Sizes, parameter: str, columns: int, gates: Sequence[int]) -> Matrix:
    """Maps gradients of the preactivations of these gates, one gate after the other, to those of the factor
    that was multiplied by the parameter."""
    blocks = [Block(position * sizes.wide, 0, parameter, gate, True) for position, gate in enumerate(gates)]
    return Matrix((len(gates) - 1) * sizes.wide + sizes.hidden, columns, blocks)


class Layout:
    """The positions of parameters in matrices; packs parameters, and unpacks the matrices' gradients."""

    def __init__(self, sizes: Sizes, matrices: Mapping[str, Matrix], parameters: Sequence[str]) -> None:
        self.matrices, self.parameters = matrices, parameters
        self.sizes = [(m.rows, kernels.whole(m.columns, sizes.itemsize)) for m in matrices.values()]
        widths = {"input_weight": sizes.inputs, "recurrent_weight": sizes.hidden}
        rows = []
        shifts = [matrix.first % kernels.lanes(sizes.itemsize) for matrix in matrices.values()]
        self.widths = [
            kernels.whole(shift + matrix.rows, sizes.itemsize)
            for shift, matrix in zip(shifts, matrices.values(), strict=True)
        ]
        for number, matrix in enumerate(matrices.values()):
            for block in matrix.blocks:
                width = widths.get(block.parameter, 1)
                steps, counts = (width * sizes.itemsize, sizes.itemsize), (sizes.hidden, width)
                begin = block.gate * sizes.hidden * steps[0]
                if block.upright:
                    steps, counts = steps[::-1], counts[::-1]
                parameter = parameters.index(block.parameter)
                rows.append([parameter, begin, *steps, *counts, number, block.row, block.column])
        self.pack_N9 = np.array(rows)
        self.unpack_N9 = self.pack_N9.copy()
        """The same for gradients of the matrices, whose columns start at a vector boundary."""
        self.unpack_N9[:, 7] += np.array(shifts)[self.pack_N9[:, 6]]

    def packed(self, p: Parameters) -> dict[str, Any]:
        """The matrices, by name, packed for compiled products."""
        weights = [getattr(p, name).detach().contiguous() for name in self.parameters]
        dtype = NUMBERS[weights[0].dtype]
        matrices = self.allocate(dtype)
        kernels.pack(
            self.pack_N9, addresses(weights), self.described(matrices), dtype.itemsize, dtype.type(0), 0, 1
        )
        return dict(zip(self.matrices, matrices, strict=True))

    def allocate(self, dtype: Any) -> list[Any]:
        """Allocates the packed matrices."""
        return [zeros([rows * columns], dtype) for rows, columns in self.sizes]

    def described(self, matrices: Sequence[Any]) -> Any:
        """The address, rows and columns of each packed matrix, as `pack` expects them."""
        return np.array([(m.ctypes.data, *size) for m, size in zip(matrices, self.sizes, strict=True)])

    def gradients(self, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """The gradients of the parameters, from those of the matrices, transposed (G, K), of all parts of a
        batch. These are added up in place in the first part."""
        gradients = [torch.empty(getattr(p, name).shape, dtype=p.bias.dtype) for name in self.parameters]
        for sums_GK, *others in zip(*parts, strict=True):
            for other_GK in others:
                kernels.add(sums_GK, other_GK)
        dtype = NUMBERS[p.bias.dtype]
        kernels.unpack(self.unpack_N9, addresses(gradients), strided(parts[0]), dtype.itemsize, dtype.type(0))
        return gradients

    @property
    def shapes_of_sums(self) -> list[tuple[int, int]]:
        """The shapes of the gradients of the matrices, transposed."""
        return [
            (matrix.columns, row) for matrix, row in zip(self.matrices.values(), self.widths, strict=True)
        ]


def addresses(tensors: Sequence[Tensor]) -> Any:
    """The addresses of tensors in memory."""
    return np.array([tensor.data_ptr() for tensor in tensors])


def strided(arrays: Sequence[Any]) -> Any:
    """The address and the row stride, in bytes, of each array."""
    return np.array([(array.ctypes.data, array.strides[0]) for array in arrays])


class NeededGradients(NamedTuple):
    """Which gradients a layer has to compute."""

    weights: bool
    inputs: bool


class Compiled(OverTime):
    """Steps as compiled loops."""

    gates: ClassVar[tuple[int, ...]]
    """The order of the gates' preactivations, as indices of the gates in the weights."""

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.steps, self.batch, _ = x_TBI.shape
        self.running_T = np.full(self.steps, self.batch) if self.running is None else np.array(self.running)
        self.sizes, self.dtype = Sizes.of(p), NUMBERS[x_TBI.dtype]
        self.kept = self.steps if self.needs_gradients else 1
        """The number of steps whose gates are stored."""
        self.a_SBK = self.allocate(self.steps + 1, self.sizes.operands)
        """The operands of all steps, which contain the states."""
        x_steps = tuple(step * self.sizes.itemsize for step in x_TBI.stride())
        self.arguments: Any = (
            self.a_SBK,
            self.sizes.at,
            x_TBI.data_ptr(),
            x_steps,
            *(part.contiguous().numpy() for part in state),
        )

    @classmethod
    def matrices(cls, sizes: Sizes) -> dict[str, Matrix]:
        """The matrices by which operands are multiplied in the forward pass."""
        return {"forward": forward_matrix(sizes, cls.gates)}

    @classmethod
    @cache
    def layouts(cls, sizes: Sizes) -> tuple[Layout, Layout]:
        """The layout of `matrices`, and of these together with `backward`, the recurrent weights."""
        matrices, parameters = cls.matrices(sizes), (*SHARED, *cls.own_parameters)
        recurrent = backward_matrix(sizes, "recurrent_weight", sizes.hidden, sorted(cls.gates))
        both = matrices | {"backward": recurrent}
        return Layout(sizes, matrices, parameters), Layout(sizes, both, parameters)

    @classmethod
    @cache
    def layout_of_layer(cls, sizes: Sizes, lowest: bool) -> Layout:
        """The layout of `matrices`, `backward`, and `to_inputs`, which yields the gradients of the inputs:
        empty in the lowest layer, which does not need them."""
        layout = cls.layouts(sizes)[1]
        to_inputs = Matrix(0, 0, ()) if lowest else _input_layout(sizes, cls.gates).matrices["input_weight"]
        return Layout(sizes, {**layout.matrices, "to_inputs": to_inputs}, layout.parameters)

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Adds `matrices` and `backward`, packed for compiled products."""
        return type(p)(**vars(p), **cls.layouts(Sizes.of(p))[1].packed(p))

    @classmethod
    def summed(cls, cell: Any, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """parts: for each, the gradients of `matrices`, in order."""
        return cls.layouts(Sizes.of(p))[0].gradients(p, parts)

    def allocate(self, steps: int, width: int) -> Any:
        """Allocates (steps, batch, at least `width`)."""
        return _allocated(steps, self.batch, width, self.dtype)

    def padded(self, d_BH: Tensor) -> Any:
        """Pads (B, H) to (B, P) with zeros."""
        d_BP = zeros([self.batch, self.sizes.wide], self.dtype)
        d_BP[:, : self.sizes.hidden] = d_BH.numpy()
        return d_BP

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """Tensors of the states at the beginning of the rows of arrays."""
        return tuple(torch.from_numpy(array)[..., : self.sizes.hidden] for array in arrays)

    def states_in_operands(self) -> Tensor:
        """The states in the operands, a view."""
        return self.states_in(self.a_SBK[..., self.sizes.at.first :])[0]

    def copy_to(self, dstates: Sequence[Tensor], *arrays: Any) -> None:
        """Copies gradients of the initial states from arrays into `dstates`."""
        for d_BH, array_BH in zip(dstates, self.states_in(*arrays), strict=True):
            d_BH.copy_(array_BH)

    def sums(self) -> list[Any]:
        """Zeros, to which the gradients of `matrices`, transposed, are added."""
        return [zeros(shape, self.dtype) for shape in self.layouts(self.sizes)[0].shapes_of_sums]

    @classmethod
    def buffers(
        cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needed: NeededGradients
    ) -> Any:
        """Allocates the memory in which whole_step.py computes a layer, for sequences that start from
        zeros."""
        arguments = "cell, sizes, steps, batch, dtype, needed"
        raise NotImplementedError(f"{cls.__name__} must define buffers({arguments}).")

    @classmethod
    def columns_to_inputs(cls, sizes: Sizes) -> int:
        """The number of leading columns of the preactivations that depend on the inputs."""
        return (len(cls.gates) - 1) * sizes.wide + sizes.hidden

    def input_gradients(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the preactivations."""
        sizes, name = self.sizes, "input_weight"
        weights = _input_layout(sizes, self.gates).packed(self.p)[name]
        dz_RG = dz_TBG.reshape(-1, dz_TBG.shape[-1])[:, : self.columns_to_inputs(sizes)]
        columns = kernels.whole(sizes.inputs, sizes.itemsize)
        dx_RI = np.empty((len(dz_RG), columns), dz_RG.dtype)
        kernels.product_of_many(dz_RG, weights, dx_RI)
        return torch.from_numpy(dx_RI)[:, : sizes.inputs].view(self.steps, self.batch, sizes.inputs)


def _allocated(steps: int, batch: int, width: int, dtype: Any) -> Any:
    return empty([steps, batch, kernels.row_of(width, dtype.itemsize)], dtype)


def _operands(sizes: Sizes, steps: int, batch: int, dtype: Any) -> Any:
    """Allocates operands, with initial states of zeros and a one in front of each state (of the last, too,
    for the head)."""
    a_SBK = _allocated(steps + 1, batch, sizes.operands, dtype)
    a_SBK[0] = 0
    a_SBK[..., sizes.at.first - 1] = 1
    return a_SBK


@cache
def _input_layout(sizes: Sizes, gates: tuple[int, ...]) -> Layout:
    name = "input_weight"
    return Layout(sizes, {name: backward_matrix(sizes, name, sizes.inputs, gates)}, (name,))


def _array(dy_TBH: Tensor | None, like_BP: Any) -> Any:
    """The gradients of all outputs as an array, empty if there are none."""
    return like_BP[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    gates = (0,)

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.relu = cell.nonlinearity == "relu"

    def run(self) -> None:
        sums_BP = empty([self.batch, self.sizes.wide], self.dtype)
        arguments = *self.arguments, sums_BP, self.p.forward, self.running_T, self.started, self.relu
        recurrence.basic(*arguments)
        self.states_SBH = (self.states_in_operands(),)

    def run_backward(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.padded(dstates[0]), self.sums()
        da_TBP = self.allocate(self.steps if inputs else 1, self.sizes.wide)
        arguments = self.p.backward, self.running_T, self.started, self.relu, _array(dy_TBH, dh_BP)
        recurrence.basic_backward(self.a_SBK, self.sizes.at, da_TBP, *arguments, dh_BP, *sums)
        self.copy_to(dstates, dh_BP)
        return Gradients(sums, self.input_gradients(da_TBP) if inputs else None)

    @classmethod
    def buffers(
        cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needed: NeededGradients
    ) -> Any:
        return whole_step.BasicBuffers(
            _operands(sizes, steps, batch, dtype),
            empty([batch, sizes.wide], dtype),
            _allocated(steps if needed.inputs else 1, batch, sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
            cell.nonlinearity == "relu",
        )


class CompiledLSTM(Compiled):
    gates = (0, 1, 2, 3)

    def run(self) -> None:
        self.c_SBP = empty([self.steps + 1, self.batch, self.sizes.wide], self.dtype)
        self.gates_TBG = self.allocate(self.kept, 4 * self.sizes.wide)
        arguments = *self.arguments, self.c_SBP, self.gates_TBG, self.p.forward, self.running_T, self.started
        recurrence.lstm(*arguments)
        self.states_SBH = (self.states_in_operands(), *self.states_in(self.c_SBP))

    def run_backward(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh_BP, dc_BP), sums = map(self.padded, dstates), self.sums()
        arguments = self.p.backward, self.running_T, self.started, _array(dy_TBH, dh_BP)
        recurrence.lstm_backward(
            self.a_SBK, self.sizes.at, self.c_SBP, self.gates_TBG, *arguments, dh_BP, dc_BP, *sums
        )
        self.copy_to(dstates, dh_BP, dc_BP)
        return Gradients(sums, self.input_gradients(self.gates_TBG) if inputs else None)

    @classmethod
    def buffers(
        cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needed: NeededGradients
    ) -> Any:
        return whole_step.LSTMBuffers(
            _operands(sizes, steps, batch, dtype),
            zeros([steps + 1, batch, sizes.wide], dtype),
            _allocated(steps if needed.weights else 1, batch, 4 * sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
        )


class CompiledGRU(Compiled):
    """Gates r, u, n. The preactivations are W x + b of the candidate n, then r and u, then U h + c of n."""

    own_parameters = ("candidate_bias",)
    gates = (2, 0, 1)

    @classmethod
    def matrices(cls, sizes: Sizes) -> dict[str, Matrix]:
        wide, inputs = sizes.wide, sizes.inputs
        of_input = [Block(0, 0, "input_weight", 2), Block(inputs, 0, "bias", 2)]
        of_state = [Block(0, 0, "candidate_bias", 0), Block(1, 0, "recurrent_weight", 2)]
        return {
            "of_gates": forward_matrix(sizes, (0, 1)),
            "of_input": Matrix(inputs + 1, wide, of_input, sizes.begin),
            "of_state": Matrix(1 + sizes.hidden, wide, of_state, sizes.at.first - 1),
        }

    def run(self) -> None:
        self.z_TBG, p = self.allocate(self.kept, 4 * self.sizes.wide), self.p
        weights = p.of_gates, p.of_input, p.of_state
        arguments = *self.arguments, self.z_TBG, *weights, self.running_T, self.started
        recurrence.gru(*arguments)
        self.states_SBH = (self.states_in_operands(),)

    def run_backward(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.padded(dstates[0]), self.sums()
        arguments = self.p.backward, self.running_T, self.started, _array(dy_TBH, dh_BP)
        recurrence.gru_backward(self.a_SBK, self.sizes.at, self.z_TBG, *arguments, dh_BP, *sums)
        self.copy_to(dstates, dh_BP)
        return Gradients(sums, self.input_gradients(self.z_TBG) if inputs else None)

    @classmethod
    def buffers(
        cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needed: NeededGradients
    ) -> Any:
        return whole_step.GRUBuffers(
            _operands(sizes, steps, batch, dtype),
            _allocated(steps if needed.weights else 1, batch, 4 * sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
        )
