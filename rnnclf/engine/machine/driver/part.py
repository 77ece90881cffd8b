"""The memory of a part of a batch in whole training steps, and the tables that describe it to the driver.

A `RunMemory` is one direction of one layer. Its outputs and their gradients are in pieces, as the cell's plan
has cut them: the output of an lstm is one piece, half of its state, in the operands of the next step; that of
a cell with four heads may be four pieces.

Shapes: T time steps of the longest sequence, N sequences of the part.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnclf.engine.machine.code import aligned_empty, aligned_zeros
from rnnclf.engine.machine.driver.layer import LayerWeights
from rnnclf.engine.machine.driver.readouts import KINDS
from rnnclf.engine.machine.driver.tables import Copy, Readout, Run, Span, address_of, stored
from rnnclf.engine.machine.emit.instructions import HOST
from rnnclf.engine.machine.emit.time_loop import BACKWARD, FORWARD


class Piece(NamedTuple):
    """Some columns of an array (T, N, width) in memory: numbers `begin` to `end` of a vector of inputs or
    outputs."""

    begin: int
    end: int
    address: int
    t: int
    row: int

    def cut(self, begin: int, end: int, size: int) -> Piece:
        """The columns from `begin` to `end`."""
        return self._replace(begin=begin, end=end, address=self.address + (begin - self.begin) * size)


class CopyOptions(NamedTuple):
    """How to copy.

    reverse: from the order of one direction to that of the other. add: to what is there. factors: what to
    multiply by, in forward order. from_backward: whether the source is in backward order.
    """

    reverse: bool = False
    add: bool = False
    factors: Piece | None = None
    from_backward: bool = False


def overlaps(sources: Sequence[Piece], targets: Sequence[Piece], size: int) -> Iterator[tuple[Piece, Piece]]:
    """All columns that pieces of two arrays have in common, as a piece of each."""
    for source in sources:
        for target in targets:
            begin, end = max(source.begin, target.begin), min(source.end, target.end)
            if begin < end:
                yield source.cut(begin, end, size), target.cut(begin, end, size)


def copies(
    sources: Sequence[Piece], targets: Sequence[Piece], size: int, options: CopyOptions
) -> Iterator[Copy]:
    """Copies all columns that sources and targets have in common. size: of a number, in bytes."""
    nothing = Piece(0, 0, 0, 0, 0)
    for a, b in overlaps(sources, targets, size):
        by = options.factors.cut(a.begin, a.end, size) if options.factors else nothing
        yield Copy(
            source=a.address,
            source_t=a.t,
            source_row=a.row,
            target=b.address,
            target_t=b.t,
            target_row=b.row,
            width=(a.end - a.begin) * size,
            reverse=options.reverse,
            add=options.add,
            factors=by.address,
            factors_t=by.t,
            factors_row=by.row,
            factors_reverse=options.from_backward,
        )


def shifted(pieces: Sequence[Piece], by: int) -> list[Piece]:
    """The same columns of a longer vector that has `by` others in front of them."""
    return [piece._replace(begin=piece.begin + by, end=piece.end + by) for piece in pieces]


class Size(NamedTuple):
    """steps, rows: T and N. learns: whether gradients are wanted."""

    steps: int
    rows: int
    learns: bool


class WantedGradients(NamedTuple):
    """inputs: whether the gradients of the inputs are wanted. outputs: whether the gradients of the outputs
    of all steps need memory of their own."""

    inputs: bool
    outputs: bool


class RunMemory:
    """One direction of one layer: its buffers, and the arguments of its machine code.

    running: for each step the number of sequences that reach it.
    sums: where the gradients of the weights are added up.
    wants: the gradients to allocate memory for.
    """

    def __init__(
        self, weights: LayerWeights, size: Size, running: Any, sums: Any, wants: WantedGradients
    ) -> None:
        self.weights, self.size, self.wants = weights, size, wants
        self.code, self.plan = weights.layer.code, weights.layer.code.plan
        self.graph, self.itemsize = self.code.graph, self.code.dtype.itemsize
        self.hidden = weights.module.cell.hidden_size
        self.running, self.sums = running, sums
        self._allocate(wants)

    def _allocate(self, wants: WantedGradients) -> None:
        widths, dtype, (steps, rows, learns) = self.plan.widths, self.code.dtype, self.size
        own_output = self.graph.out_leaf is None

        def zeros(buffer: str, times: int) -> Any:
            return aligned_zeros([times, rows, widths[buffer]], dtype)

        self.operands = zeros("operands", steps + 1)
        self.operands[:, :, self.plan.x_at + self.weights.module.input_size] = 1  # the operand of the bias
        for places, leaf, pieces in zip(
            self.plan.state_at, self.weights.layer.start, self.graph.old, strict=True
        ):
            for place, piece in zip(places, pieces, strict=True):
                begin, columns = piece.attr[1], slice(place.column, place.column + piece.width)
                self.operands[0, :, columns] = leaf[begin : begin + piece.width].numpy()
        self.saved = aligned_empty([steps if learns else 1, rows, widths["saved"]], dtype)
        self.outputs = zeros("outputs", steps if own_output else 0)
        # a cell may write to it even if it is not wanted: then all steps share one row
        self.input_gradients = zeros("input_gradients", steps if wants.inputs else 1)
        self.output_gradients = zeros("output_gradients", steps if own_output and learns else 0)
        self.state_gradients = zeros("state_gradients", 1 if learns else 0)
        self.forward_scratch, self.backward_scratch = (
            aligned_zeros([HOST.block, widths[name]], dtype)
            for name in ("forward_scratch", "backward_scratch")
        )
        separate = wants.outputs and learns and not own_output
        self.dy = aligned_zeros([steps if separate else 0, rows, self.hidden], dtype)

    def x_pieces(self) -> list[Piece]:
        """The inputs among the operands."""
        column, width = self.plan.x_at, self.weights.module.input_size
        return [self._piece(0, width, self.operands, column)]

    def y_pieces(self) -> list[Piece]:
        if self.graph.out_leaf is None:
            return list(self._pieces_of_outputs(self.outputs))
        places, pieces = self.plan.state_at[self.graph.out_leaf], self.graph.old[self.graph.out_leaf]
        return [
            self._piece(piece.attr[1], piece.width, self.operands[1:], place.column)
            for place, piece in zip(places, pieces, strict=True)
        ]

    def dx_pieces(self) -> list[Piece]:
        found, begin = [], 0
        for place, piece in zip(self.plan.dx_at, self.graph.d_x or [], strict=True):
            found.append(self._piece(begin, piece.width, self.input_gradients, place.column))
            begin += piece.width
        return found

    def dy_pieces(self) -> list[Piece]:
        """Where the gradients of the outputs of all steps are expected."""
        if self.graph.out_leaf is None:
            return list(self._pieces_of_outputs(self.output_gradients))
        return [self._piece(0, self.dy.shape[-1], self.dy, 0)]

    def dy_last_pieces(self) -> list[Piece]:
        """Where the gradients of the last outputs are expected, if there are no others."""
        if self.graph.out_leaf is None:
            return list(self._pieces_of_outputs(self.output_gradients))
        places, pieces = self.plan.carry_at[self.graph.out_leaf], self.graph.old[self.graph.out_leaf]
        return [
            self._piece(piece.attr[1], piece.width, self.state_gradients, place.column)._replace(t=0)
            for place, piece in zip(places, pieces, strict=True)
        ]

    def _piece(self, begin: int, width: int, array: Any, column: int) -> Piece:
        address = address_of(array) + column * self.itemsize
        return Piece(begin, begin + width, address, array.strides[0], array.strides[1])

    def _pieces_of_outputs(self, array: Any) -> Iterator[Piece]:
        begin = column = 0
        for piece in self.graph.out or []:
            yield self._piece(begin, piece.width, array, column)
            begin, column = begin + piece.width, column + -(-piece.width // self.plan.lanes) * self.plan.lanes

    def spans(self, ragged: bool) -> list[Span]:
        """The memory that has to be zero before each backward pass."""
        arrays = [self.state_gradients, self.sums]
        if ragged:  # else what is not written in a batch has not been written before
            arrays += [self.input_gradients, self.output_gradients, self.dy]
        return [Span(address_of(array), array.nbytes) for array in arrays if array.size]

    def run(self, inputs: list[Copy], d_outputs: list[Copy], dy: Piece | None, backward: bool) -> Run:
        """The table for the driver. dy: where the gradients of the outputs of all steps are, if they are not
        where the machine code expects them anyway."""
        if dy is None and self.dy.size:
            (dy,) = self.dy_pieces()
        forward_arguments, backward_arguments = self._arguments(dy)
        tables = stored(inputs), stored(d_outputs)
        self.keep = (forward_arguments, backward_arguments, *tables)
        return Run(
            inputs=address_of(tables[0]),
            input_count=len(inputs),
            forward=_address(self.code.forward),
            forward_arguments=address_of(forward_arguments),
            d_outputs=address_of(tables[1]),
            d_output_count=len(d_outputs),
            backward=_address(self.code.backward) if backward else 0,
            backward_arguments=address_of(backward_arguments),
        )

    def _arguments(self, dy: Piece | None) -> tuple[Any, Any]:
        known: dict[str, int] = {
            "steps": self.size.steps,
            "batch": self.size.rows,
            "operands_step": self.operands.strides[0],
            "saved_step": self.saved.strides[0] if self.size.learns else 0,
            "outputs_step": self.outputs.strides[0],
            "running": address_of(self.running),
            "weights": address_of(self.weights.packed.matrices),
            "constants": address_of(self.weights.packed.vectors),
            "sums": address_of(self.sums),
            "state_wanted": False,
            "inputs_wanted": self.wants.inputs,
            "input_gradients_step": self.input_gradients.strides[0] if self.wants.inputs else 0,
            "output_gradients_step": self.output_gradients.strides[0],
            "dy": dy.address if dy else 0,
            "dy_step": dy.t if dy else 0,
            "dy_row": dy.row if dy else 0,
        }
        buffers = (name for name in (*FORWARD, *BACKWARD) if name not in known)
        known |= {name: address_of(getattr(self, name)) for name in buffers}
        return tuple(np.array([known[name] for name in names], np.int64) for names in (FORWARD, BACKWARD))  # type: ignore[return-value]

    def set_steps(self, steps: int) -> None:
        """Has the code run through fewer steps than there is memory for."""
        self.keep[0][FORWARD.index("steps")] = self.keep[1][BACKWARD.index("steps")] = steps


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def connected(
    runs: Sequence[Sequence[RunMemory]], first_trained: int, factors: Sequence[Piece | None]
) -> list[Run]:
    """The tables of all layers, lowest first, each with its directions.

    first_trained: the lowest layer with trained weights; below it there is no backward pass. factors: of each
    layer, what its inputs are multiplied by.
    """
    tables = []
    for level, layer in enumerate(runs):
        above = runs[level + 1] if level + 1 < len(runs) else []
        factors_above = factors[level + 1] if above else None
        for direction, run in enumerate(layer):
            shared = reads_gradients_above(run.weights, above, factors_above)
            tables.append(
                run.run(
                    inputs=_inputs(runs, level, direction, factors[level]),
                    d_outputs=[] if shared else _d_outputs(layer, direction, above, factors_above),
                    dy=above[0].dx_pieces()[0] if shared else None,
                    backward=level >= first_trained and run.size.learns,
                )
            )
    return tables


def _inputs(
    runs: Sequence[Sequence[RunMemory]], level: int, direction: int, factors: Piece | None
) -> list[Copy]:
    """What a run copies before it starts: outputs of the layer below, side by side; in the lowest layer, the
    second direction copies the inputs of the first one, which the driver gathers."""
    run = runs[level][direction]
    if level == 0:
        first = runs[0][0].x_pieces() if direction else []
        return list(copies(first, run.x_pieces(), run.itemsize, CopyOptions(reverse=True)))
    found: list[Copy] = []
    begin = 0
    for other, below in enumerate(runs[level - 1]):
        options = CopyOptions(reverse=other != direction, factors=factors, from_backward=other == 1)
        found += copies(shifted(below.y_pieces(), begin), run.x_pieces(), run.itemsize, options)
        begin += below.hidden
    return found


def _d_outputs(
    layer: Sequence[RunMemory], direction: int, above: Sequence[RunMemory], factors: Piece | None
) -> list[Copy]:
    """The gradients of the outputs of a run: the sum over the directions of the layer above."""
    run = layer[direction]
    found: list[Copy] = []
    begin = sum(other.hidden for other in layer[:direction])
    for other, reader in enumerate(above):
        options = CopyOptions(
            reverse=other != direction, add=other > 0, factors=factors, from_backward=other == 1
        )
        found += copies(reader.dx_pieces(), shifted(run.dy_pieces(), begin), run.itemsize, options)
    return found


def reads_gradients_above(weights: LayerWeights, above: Sequence[RunMemory], factors: Piece | None) -> bool:
    """Whether a run reads the gradients of its outputs where the layer above writes those of its inputs."""
    is_state = weights.layer.code.graph.out_leaf is not None
    return is_state and len(above) == 1 and len(above[0].plan.dx_at) == 1 and factors is None


def readouts(top: Sequence[RunMemory], kind: str, features: Any, d_features: Any) -> list[Readout]:
    """The tables of the readout of the top layer's directions, side by side in the features."""
    found, begin = [], 0
    for run in top:
        targets, size = run.dy_last_pieces() if kind == "last" else run.dy_pieces(), run.itemsize
        for y, dy in overlaps(run.y_pieces(), targets, size):
            column = (begin + y.begin) * size
            found.append(
                Readout(
                    kind=KINDS.index(kind),
                    y=y.address,
                    y_t=y.t,
                    y_row=y.row,
                    width=(y.end - y.begin) * size,
                    features=address_of(features) + column,
                    d_features=address_of(d_features) + column,
                    dy=dy.address,
                    dy_t=dy.t,
                    dy_row=dy.row,
                )
            )
        begin += run.hidden
    return found
