"""The machine engine: any cell over whole sequences in machine code.  Shapes: T time, B batch, I inputs, H
hidden.

Autograd sees one operation. Each core computes all steps of a part of the batch, forward and backward.
Sequences of a ragged batch are sorted by decreasing length, and each step computes only those that are
still running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.cells.base import Cell
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.machine.code import CellCode, PackedWeights, aligned_empty, aligned_zeros
from rnnclf.engine.machine.emit import module as emit
from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.planner import Place
from rnnclf.engine.parts import Share, Worth, run_parts
from rnnclf.engine.plan import Plan

WORTH = Worth(8, 15_000_000)  # with less, waking a thread forward and another backward costs more. Measured.


def over_time(
    code: CellCode, cell: Cell, p: Parameters, x_TBI: Tensor, state: Any, plan: Plan
) -> tuple[Tensor, Any]:
    """Runs a cell with its code and prepared weights. Returns what `unroll` does.

    Raises ValueError if inputs and weights differ in type.
    """
    weights = [getattr(p, name) for name in code.graph.names]
    if x_TBI.dtype != weights[0].dtype:
        raise ValueError(f"x must be {weights[0].dtype}, as the weights are, got {x_TBI.dtype}.")
    start = cell.initial_state(x_TBI[0]) if state is None else state
    steps, batch, _ = x_TBI.shape
    work = 2 * batch * sum(weight.numel() for weight in weights)
    share = Share(plan.lengths_B, steps, batch, work, x_TBI.device, WORTH)
    x_TBI, states = share.ordered(x_TBI, leaves(start))
    run = _Run(code, share, plan.every_step)
    output, *last = _Machine.apply(run, x_TBI, *weights, *states)
    return share.restored(output, last, start)


class _Run:
    """One call of the engine: its arguments, and what the forward pass keeps for the backward pass."""

    def __init__(self, code: CellCode, share: Share, every_step: bool) -> None:
        self.code, self.share, self.every_step = code, share, every_step
        self.needs_gradients = torch.is_grad_enabled()
        self.packed: PackedWeights | None = None
        self.parts: list[_Part] = []


class _Machine(torch.autograd.Function):
    """(inputs, weights, initial states) → (outputs, final states)."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x_TBI: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        code, count = run.code, len(run.code.graph.names)
        packed = code.packed(rest[:count])
        needs_gradients = run.needs_gradients and any(ctx.needs_input_grad)
        parts = [
            _Part(packed, x_TBI[:, rows], [leaf[rows] for leaf in rest[count:]], running, needs_gradients)
            for rows, running in zip(run.share.rows, run.share.running, strict=True)
        ]
        run_parts(lambda n: parts[n].forward(), len(parts))
        ctx.set_materialize_grads(False)
        steps, dim = (slice(0, None), 1) if run.every_step else (-1, 0)
        output = _joined([part.outputs(steps) for part in parts], dim)
        last = [_joined(leaf, 0) for leaf in zip(*(part.states(-1) for part in parts), strict=True)]
        if needs_gradients:
            run.packed, run.parts, ctx.run = packed, parts, run
            ctx.save_for_backward(*rest)
        else:
            code.release(packed)
        return output, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        packed, parts, run.packed, run.parts = run.packed, run.parts, None, []
        if packed is None:
            raise RuntimeError("This engine supports one backward pass: use engine=loop for a second one.")
        _ = ctx.saved_tensors  # raises if weights were changed since the forward pass
        count = len(run.code.graph.names)
        inputs, states = ctx.needs_input_grad[1], any(ctx.needs_input_grad[2 + count :])

        def backward(n: int) -> tuple[Any, Tensor | None, list[Tensor]]:
            rows = run.share.rows[n]
            return parts[n].backward(
                None if dy is None else dy[..., rows, :],
                run.every_step,
                [None if d is None else d[rows] for d in dlast],
                inputs,
                states,
            )

        sums, dx_TBI, dstates = zip(*run_parts(backward, len(parts)), strict=True)
        total = sums[0]
        for other in sums[1:]:
            total += other
        gradients = run.code.gradients(total, packed)
        run.code.release(packed)
        dstart = [_joined(leaf, 0) for leaf in zip(*dstates, strict=True)]
        return None, _joined(dx_TBI, 1) if inputs else None, *gradients, *dstart


def _joined(parts: Sequence[Any], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


class _Part:
    """One part of a batch and its memory, forward and backward. For the buffers see
    rnnclf/engine/machine/schedule/plan.py.

    x_TBI, start: the inputs and the leaves of the initial state of this part. running: the number of
    sequences that run at each step, None if all do."""

    def __init__(
        self,
        packed: PackedWeights,
        x_TBI: Tensor,
        start: Sequence[Tensor],
        running: Sequence[int] | None,
        needs_gradients: bool,
    ) -> None:
        self.packed, self.code = packed, packed.code
        plan, dtype, widths = self.code.plan, self.code.dtype, self.code.plan.widths
        self.steps, self.batch, inputs = x_TBI.shape
        self.running_T = np.full(self.steps, self.batch) if running is None else np.array(running)
        self.operands = aligned_empty([self.steps + 1, self.batch, widths["operands"]], dtype)
        one = plan.x_at + inputs
        self.operands_t = torch.from_numpy(self.operands)
        self.operands_t[:-1, :, plan.x_at : one] = x_TBI
        self.operands[:, :, one] = 1
        self.operands[0, :, one + 1 :] = 0
        for places, pieces, leaf in zip(plan.state_at, self.code.graph.old, start, strict=True):
            for place, piece in zip(places, pieces, strict=True):
                first = piece.attr[1]
                self.operands_t[0, :, place.column : place.column + piece.width] = leaf[
                    :, first : first + piece.width
                ]
        # without a backward pass, nothing is kept from step to step
        self.saved = aligned_empty([self.steps if needs_gradients else 1, self.batch, widths["saved"]], dtype)
        self.saved_step = self.saved.strides[0] if needs_gradients else 0
        self.own_outputs = aligned_empty([self.steps, self.batch, widths["outputs"]], dtype)

    def forward(self) -> None:
        scratch = aligned_empty([emit.BLOCK, self.code.plan.widths["forward_scratch"]], self.code.dtype)
        self._call(self.code.forward, emit.FORWARD, {"forward_scratch": scratch.ctypes.data})

    def _call(self, function: Any, names: Sequence[str], more: dict[str, int]) -> None:
        arguments = {
            "steps": self.steps,
            "batch": self.batch,
            "operands": self.operands.ctypes.data,
            "operands_step": self.operands.strides[0],
            "saved": self.saved.ctypes.data,
            "saved_step": self.saved_step,
            "outputs": self.own_outputs.ctypes.data,
            "outputs_step": self.own_outputs.strides[0],
            "running": self.running_T.ctypes.data,
            "weights": self.packed.matrices.ctypes.data,
            "constants": self.packed.vectors.ctypes.data,
            **more,
        }
        table = np.array([int(arguments[name]) for name in names])
        function(table.ctypes.data)

    def states(self, t: slice | int) -> list[Tensor]:
        """The leaves of the state before step t; after the last step for -1."""
        plan, graph = self.code.plan, self.code.graph
        return [
            _columns(self.operands_t[t], places, pieces)
            for places, pieces in zip(plan.state_at, graph.old, strict=True)
        ]

    def outputs(self, t: slice | int) -> Tensor:
        plan, graph = self.code.plan, self.code.graph
        if graph.out_leaf is not None:
            k = graph.out_leaf
            return _columns(self.operands_t[1:][t], plan.state_at[k], graph.old[k])
        return _columns(torch.from_numpy(self.own_outputs)[t], self._output_places(), graph.out)

    def _output_places(self) -> list[Place]:
        """Where the pieces of outputs that are no part of the state lie in their buffer."""
        places, column = [], 0
        for piece in self.code.graph.out or []:
            places.append(Place("outputs", column))
            column += -(-piece.width // self.code.plan.lanes) * self.code.plan.lanes
        return places

    def backward(
        self,
        dy: Tensor | None,
        every_step: bool,
        dlast: Sequence[Tensor | None],
        inputs: bool,
        states: bool,
    ) -> tuple[Any, Tensor | None, list[Tensor]]:
        """The sums from which come the gradients of the weights, and the gradients of inputs and initial
        state.

        dy: the gradients of all outputs (T, B, H), or of the last ones (B, H). dlast: those of the last
        state."""
        code, plan, graph, dtype = self.code, self.code.plan, self.code.graph, self.code.dtype
        scratch = aligned_empty([emit.BLOCK, plan.widths["backward_scratch"]], dtype)
        dstate = aligned_zeros([self.batch, plan.widths["state_gradients"]], dtype)
        dx = aligned_zeros([self.steps if inputs else 1, self.batch, plan.widths["input_gradients"]], dtype)
        own_steps = self.steps if graph.out_leaf is None else 0
        doutputs = aligned_zeros([own_steps, self.batch, plan.widths["output_gradients"]], dtype)
        sums = aligned_zeros([plan.sums + plan.lanes], dtype)
        dlast, where_dy_is = self._place_output_gradients(dy, every_step, dlast, doutputs)
        dstate_t = torch.from_numpy(dstate)
        for places, pieces, gradient in zip(plan.carry_at, graph.old, dlast, strict=True):
            if gradient is not None:
                _write_columns(dstate_t, places, pieces, gradient)
        self._call(
            code.backward,
            emit.BACKWARD,
            {
                "backward_scratch": scratch.ctypes.data,
                "state_gradients": dstate.ctypes.data,
                "input_gradients": dx.ctypes.data,
                "input_gradients_step": dx.strides[0] if inputs else 0,
                "output_gradients": doutputs.ctypes.data,
                "output_gradients_step": doutputs.strides[0],
                "sums": sums.ctypes.data,
                "state_wanted": states,
                "inputs_wanted": inputs,
                **where_dy_is,
            },
        )
        dstart = [
            _columns(dstate_t, places, pieces)
            for places, pieces in zip(plan.carry_at, graph.old, strict=True)
        ]
        return sums, _columns(torch.from_numpy(dx), plan.dx_at, graph.d_x) if inputs else None, dstart

    def _place_output_gradients(
        self, dy: Tensor | None, every_step: bool, dlast: Sequence[Tensor | None], doutputs: Any
    ) -> tuple[Sequence[Tensor | None], dict[str, int]]:
        """Puts the gradients of the outputs where machine code reads them: into `doutputs`, or, if the output
        is part of the state, among those of the last state, or into a table of where they are."""
        leaf, nowhere = self.code.graph.out_leaf, {"dy": 0, "dy_step": 0, "dy_row": 0}
        if dy is None:
            return dlast, nowhere
        if leaf is None:
            self._write_output_gradients(doutputs, dy, every_step)
            return dlast, nowhere
        if every_step:
            self.dy = dy.contiguous()  # kept until machine code has read it
            t_step, row_step = (step * self.code.dtype.itemsize for step in self.dy.stride()[:2])
            return dlast, {"dy": self.dy.data_ptr(), "dy_step": t_step, "dy_row": row_step}
        also = dlast[leaf]
        return [*dlast[:leaf], dy if also is None else dy + also, *dlast[leaf + 1 :]], nowhere

    def _write_output_gradients(self, doutputs: Any, dy: Tensor, every_step: bool) -> None:
        """Gradients of outputs that are no part of the state, in the buffer of their own."""
        y = torch.from_numpy(doutputs)
        _write_columns(y if every_step else y[-1], self._output_places(), self.code.graph.out, dy)
        for t in range(self.steps - 1, 0, -1):  # after its end, a sequence repeats its last output
            doutputs[t - 1, self.running_T[t] :] += doutputs[t, self.running_T[t] :]


def _columns(buffer: Tensor, places: Sequence[Place], pieces: Sequence[Node] | None) -> Tensor:
    """A value, from its pieces in a buffer."""
    assert pieces is not None
    parts = [
        buffer[..., place.column : place.column + piece.width]
        for place, piece in zip(places, pieces, strict=True)
    ]
    return _joined(parts, -1)


def _write_columns(
    buffer: Tensor, places: Sequence[Place], pieces: Sequence[Node] | None, value: Tensor
) -> None:
    """Writes a value into its pieces in a buffer."""
    assert pieces is not None
    first = 0
    for place, piece in zip(places, pieces, strict=True):
        buffer[..., place.column : place.column + piece.width] = value[..., first : first + piece.width]
        first += piece.width
