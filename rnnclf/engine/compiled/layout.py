"""The compiled engine's side of Python: weights laid out for kernels.py, its results as tensors.

Shapes: T time, B batch, I inputs, H hidden, P hidden in whole vectors, G gates × P, K columns of operands,
which are inputs, a one, a state; S = T + 1 states.
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
    """An array that begins where a line of the caches does: a vector across two of them costs two reads."""
    line, length = 64, int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(length + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + length].view(dtype).reshape(shape)


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    array = empty(shape, dtype)
    array.fill(0)
    return array


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
        return cls(inputs, hidden, kernels.whole(hidden, itemsize), itemsize)

    @property
    def at(self) -> recurrence.Row:
        """Where in a row of operands what lies."""
        first = kernels.whole(self.inputs + 1, self.itemsize)
        return recurrence.Row(self.inputs, first, self.hidden, self.wide)

    @property
    def operands(self) -> int:
        return self.at.first + self.wide

    @property
    def begin(self) -> int:
        """Where the inputs begin in a row of operands."""
        return self.at.first - self.inputs - 1


class Block(NamedTuple):
    """Where in a matrix the rows of one gate of one parameter lie: transposed, or `upright`, as they are."""

    row: int
    column: int
    parameter: str
    gate: int
    upright: bool = False


class Matrix(NamedTuple):
    """A matrix (rows, columns) of blocks with zeros between them; what is multiplied with it begins at
    `first` in a row of operands."""

    rows: int
    columns: int
    blocks: Sequence[Block]
    first: int = 0


def ahead(sizes: Sizes, gates: Sequence[int]) -> Matrix:
    """From operands to the sums of these gates, beside each other."""
    blocks = []
    for place, gate in enumerate(gates):
        rows = {"input_weight": 0, "bias": sizes.inputs, "recurrent_weight": sizes.inputs + 1}
        blocks += [Block(row, place * sizes.wide, name, gate) for name, row in rows.items()]
    rows_in_all = sizes.inputs + 1 + sizes.hidden
    return Matrix(rows_in_all, len(gates) * sizes.wide, blocks, sizes.begin)


def back(sizes: Sizes, parameter: str, columns: int, gates: Sequence[int]) -> Matrix:
    """From gradients of the sums of these gates, beside each other, to those of what a parameter was
    multiplied with."""
    blocks = [Block(place * sizes.wide, 0, parameter, gate, True) for place, gate in enumerate(gates)]
    return Matrix((len(gates) - 1) * sizes.wide + sizes.hidden, columns, blocks)


class Layout:
    """Where parameters lie in matrices, by name, and the ways there and back."""

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
        """The same for sums over operands, which begin where a vector does."""
        self.unpack_N9[:, 7] += np.array(shifts)[self.pack_N9[:, 6]]

    def packed(self, p: Parameters) -> dict[str, Any]:
        """The matrices as compiled products want them."""
        weights = [getattr(p, name).detach().contiguous() for name in self.parameters]
        dtype = NUMBERS[weights[0].dtype]
        made = self.places(dtype)
        kernels.pack(
            self.pack_N9, addresses(weights), self.matrices_at(made), dtype.itemsize, dtype.type(0), 0, 1
        )
        return dict(zip(self.matrices, made, strict=True))

    def places(self, dtype: Any) -> list[Any]:
        """Place for the matrices."""
        return [zeros([rows * columns], dtype) for rows, columns in self.sizes]

    def matrices_at(self, places: Sequence[Any]) -> Any:
        """Of each its address, rows, columns."""
        return np.array([(m.ctypes.data, *size) for m, size in zip(places, self.sizes, strict=True)])

    def gradients(self, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """Of the parameters, from those of the matrices, transposed (G, K), of all parts of a batch: the
        first of these become the sums over all."""
        found = [torch.empty(getattr(p, name).shape, dtype=p.bias.dtype) for name in self.parameters]
        for sums_GK, *others in zip(*parts, strict=True):
            for other_GK in others:
                kernels.add(sums_GK, other_GK)
        dtype = NUMBERS[p.bias.dtype]
        kernels.unpack(self.unpack_N9, addresses(found), rows_at(parts[0]), dtype.itemsize, dtype.type(0))
        return found

    @property
    def shapes_of_sums(self) -> list[tuple[int, int]]:
        """Of the gradients of the matrices, transposed."""
        return [
            (matrix.columns, row) for matrix, row in zip(self.matrices.values(), self.widths, strict=True)
        ]


def addresses(tensors: Sequence[Tensor]) -> Any:
    return np.array([tensor.data_ptr() for tensor in tensors])


def rows_at(arrays: Sequence[Any]) -> Any:
    """Of each its address and its step from row to row."""
    return np.array([(array.ctypes.data, array.strides[0]) for array in arrays])


class Needs(NamedTuple):
    """Of what a layer has to give the gradients."""

    weights: bool
    inputs: bool


class Compiled(OverTime):
    """One run in compiled loops."""

    gates: ClassVar[tuple[int, ...]]
    """The gates in the order in which their sums lie beside each other, by their places in the weights."""

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.steps, self.batch, _ = x_TBI.shape
        self.running_T = np.full(self.steps, self.batch) if self.running is None else np.array(self.running)
        self.sizes, self.dtype = Sizes.of(p), NUMBERS[x_TBI.dtype]
        self.kept = self.steps if self.learns else 1
        """The steps whose gates are needed after them."""
        self.a_SBK = self.of_steps(self.steps + 1, self.sizes.operands)
        """The operands of all steps, which hold the states."""
        x_steps = tuple(step * self.sizes.itemsize for step in x_TBI.stride())
        self.given: Any = (
            self.a_SBK,
            self.sizes.at,
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
    @cache
    def layout_of_layer(cls, sizes: Sizes, lowest: bool) -> Layout:
        """Of `matrices`, `back`, and what leads to the gradients of the inputs, which is empty where nobody
        needs them."""
        there = cls.layouts(sizes)[1]
        inward = Matrix(0, 0, ()) if lowest else _inward(sizes, cls.gates).matrices["input_weight"]
        return Layout(sizes, {**there.matrices, "inward": inward}, there.parameters)

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
        return _of_steps(steps, self.batch, width, self.dtype)

    def widened(self, d_BH: Tensor) -> Any:
        """(B, P): zeros behind."""
        d_BP = zeros([self.batch, self.sizes.wide], self.dtype)
        d_BP[:, : self.sizes.hidden] = d_BH.numpy()
        return d_BP

    def states_in(self, *arrays: Any) -> tuple[Tensor, ...]:
        """The states that stand at the beginning of rows."""
        return tuple(torch.from_numpy(array)[..., : self.sizes.hidden] for array in arrays)

    def states_in_operands(self) -> Tensor:
        return self.states_in(self.a_SBK[..., self.sizes.at.first :])[0]

    def give(self, dstates: Sequence[Tensor], *found: Any) -> None:
        """Puts what came back to the first states where it is wanted."""
        for d_BH, found_BH in zip(dstates, self.states_in(*found), strict=True):
            d_BH.copy_(found_BH)

    def sums(self) -> list[Any]:
        """Zeros to add the gradients of `matrices` to, transposed."""
        return [zeros(shape, self.dtype) for shape in self.layouts(self.sizes)[0].shapes_of_sums]

    @classmethod
    def place(cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needs: Needs) -> Any:
        """Where whole_step.py computes so many sequences again and again, all of them from zeros."""
        how = "cell, sizes, steps, batch, dtype, needs"
        raise NotImplementedError(f"{cls.__name__} must define place({how}).")

    @classmethod
    def columns_to_inputs(cls, sizes: Sizes) -> int:
        """How many of the columns of the gradients of all sums lead to the inputs: the first."""
        return (len(cls.gates) - 1) * sizes.wide + sizes.hidden

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        """The gradients of the inputs, from those of the sums."""
        sizes, name = self.sizes, "input_weight"
        weights = _inward(sizes, self.gates).packed(self.p)[name]
        dz_RG = dz_TBG.reshape(-1, dz_TBG.shape[-1])[:, : self.columns_to_inputs(sizes)]
        columns = kernels.whole(sizes.inputs, sizes.itemsize)
        dx_RI = np.empty((len(dz_RG), columns), dz_RG.dtype)
        kernels.product_of_many(dz_RG, weights, dx_RI)
        return torch.from_numpy(dx_RI)[:, : sizes.inputs].view(self.steps, self.batch, sizes.inputs)


def _of_steps(steps: int, batch: int, width: int, dtype: Any) -> Any:
    return empty([steps, batch, kernels.row_of(width, dtype.itemsize)], dtype)


def _operands(sizes: Sizes, steps: int, batch: int, dtype: Any) -> Any:
    """With the first states, zeros, and ones beside all of them, the last ones, too, for the head."""
    a_SBK = _of_steps(steps + 1, batch, sizes.operands, dtype)
    a_SBK[0] = 0
    a_SBK[..., sizes.at.first - 1] = 1
    return a_SBK


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
        sums_BP = empty([self.batch, self.sizes.wide], self.dtype)
        how = *self.given, sums_BP, self.p.forward, self.running_T, self.started, self.relu
        recurrence.basic(*how)
        self.states_SBH = (self.states_in_operands(),)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.widened(dstates[0]), self.sums()
        da_TBP = self.of_steps(self.steps if inputs else 1, self.sizes.wide)
        how = self.p.back, self.running_T, self.started, self.relu, _array(dy_TBH, dh_BP)
        recurrence.basic_back(self.a_SBK, self.sizes.at, da_TBP, *how, dh_BP, *sums)
        self.give(dstates, dh_BP)
        return Gradients(sums, self.of_inputs(da_TBP) if inputs else None)

    @classmethod
    def place(cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needs: Needs) -> Any:
        return whole_step.BasicPlace(
            _operands(sizes, steps, batch, dtype),
            empty([batch, sizes.wide], dtype),
            _of_steps(steps if needs.inputs else 1, batch, sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
            cell.nonlinearity == "relu",
        )


class CompiledLSTM(Compiled):
    gates = (0, 1, 2, 3)

    def run(self) -> None:
        self.c_SBP = empty([self.steps + 1, self.batch, self.sizes.wide], self.dtype)
        self.gates_TBG = self.of_steps(self.kept, 4 * self.sizes.wide)
        how = *self.given, self.c_SBP, self.gates_TBG, self.p.forward, self.running_T, self.started
        recurrence.lstm(*how)
        self.states_SBH = (self.states_in_operands(), *self.states_in(self.c_SBP))

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh_BP, dc_BP), sums = map(self.widened, dstates), self.sums()
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        recurrence.lstm_back(self.a_SBK, self.sizes.at, self.c_SBP, self.gates_TBG, *how, dh_BP, dc_BP, *sums)
        self.give(dstates, dh_BP, dc_BP)
        return Gradients(sums, self.of_inputs(self.gates_TBG) if inputs else None)

    @classmethod
    def place(cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needs: Needs) -> Any:
        return whole_step.LSTMPlace(
            _operands(sizes, steps, batch, dtype),
            zeros([steps + 1, batch, sizes.wide], dtype),
            _of_steps(steps if needs.weights else 1, batch, 4 * sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
        )


class CompiledGRU(Compiled):
    """Gates r, u, n; the sums of the candidate n come first, W x + b and U h + c apart."""

    own_parameters = ("candidate_bias",)
    gates = (2, 0, 1)

    @classmethod
    def matrices(cls, sizes: Sizes) -> dict[str, Matrix]:
        wide, inputs = sizes.wide, sizes.inputs
        of_input = [Block(0, 0, "input_weight", 2), Block(inputs, 0, "bias", 2)]
        of_state = [Block(0, 0, "candidate_bias", 0), Block(1, 0, "recurrent_weight", 2)]
        return {
            "of_gates": ahead(sizes, (0, 1)),
            "of_input": Matrix(inputs + 1, wide, of_input, sizes.begin),
            "of_state": Matrix(1 + sizes.hidden, wide, of_state, sizes.at.first - 1),
        }

    def run(self) -> None:
        self.z_TBG, p = self.of_steps(self.kept, 4 * self.sizes.wide), self.p
        weights = p.of_gates, p.of_input, p.of_state
        how = *self.given, self.z_TBG, *weights, self.running_T, self.started
        recurrence.gru(*how)
        self.states_SBH = (self.states_in_operands(),)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh_BP, sums = self.widened(dstates[0]), self.sums()
        how = self.p.back, self.running_T, self.started, _array(dy_TBH, dh_BP)
        recurrence.gru_back(self.a_SBK, self.sizes.at, self.z_TBG, *how, dh_BP, *sums)
        self.give(dstates, dh_BP)
        return Gradients(sums, self.of_inputs(self.z_TBG) if inputs else None)

    @classmethod
    def place(cls, cell: Any, sizes: Sizes, steps: int, batch: int, dtype: Any, needs: Needs) -> Any:
        return whole_step.GRUPlace(
            _operands(sizes, steps, batch, dtype),
            _of_steps(steps if needs.weights else 1, batch, 4 * sizes.wide, dtype),
            empty([batch, sizes.wide], dtype),
            np.full(steps, batch),
            sizes.at,
        )
