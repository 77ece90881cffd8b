"""A whole training step in machine code, for layers of any cell.

The code of a cell (emit.py) takes one layer through all time steps, forward or backward. The driver does
everything around it, so that a training step is one call: it gathers the raw sequences of a batch, hands
outputs from layer to layer, computes the readout, the linear head, the loss and their gradients, and hands
gradients down again. It knows no cell: layers are called by address, and everything else is in tables
(driver_tables.py). So it is compiled once for all cells, sizes and numbers of layers.

Each thread computes a part of the batch from the sequences to the gradients of the weights:

    lead ─┬─ compute ─ pack, gather │ forward, readout, head, loss, backward │ ─ reduce
    serve ┴─ compute ─ pack, gather │ forward, readout, head, loss, backward │
                                    all weights are packed                   all gradients are there
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.driver.data import write_copy, write_gather, write_move, write_multiply
from rnnclf.engine.machine.driver.function import DriverFunction
from rnnclf.engine.machine.driver.loss import write_loss
from rnnclf.engine.machine.driver.readouts import write_read, write_read_backward
from rnnclf.engine.machine.driver.reduction import write_clip, write_reduce
from rnnclf.engine.machine.driver.tables import Part, Run, Shared, Span
from rnnclf.engine.machine.driver.threads import ARRIVED, advance, write_lead, write_serve, write_wait
from rnnclf.engine.machine.emit.instructions import I64, CodeModule, Target
from rnnclf.engine.machine.emit.products import PACK, write_products


class Driver(NamedTuple):
    """The functions of the driver, to be called with addresses of tables; each releases the GIL.

    lead(part, reduction): runs a batch. serve(part): serves as a worker until it is stopped.
    clip(gradients, length in bytes, max_norm, norm): clips gradients.
    """

    lead: Callable[[int, int], None]
    serve: Callable[[int], None]
    clip: Callable[[int, int, int, int], None]


@cache
def driver(double: bool) -> Driver:
    """The driver for models in float64 or float32; compiled on first use."""
    at = compiled(str(DriverModule(double).ir), Driver._fields)
    arguments = {"lead": 2, "serve": 1, "clip": 4}
    return Driver(
        *(ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments[name])(at[name]) for name in Driver._fields)
    )


class DriverModule(CodeModule):
    """The LLVM text of the driver."""

    def __init__(self, double: bool, target: Target | None = None) -> None:
        super().__init__(double, target)
        self.products = write_products(self)
        self.wait = write_wait(self)
        self.gather, self.copy = write_gather(self), write_copy(self)
        self.read, self.read_backward = write_read(self), write_read_backward(self)
        self.multiply, self.loss = write_multiply(self), write_loss(self)
        compute = self._write_compute(self._write_forward(), self._write_backward())
        reduce = write_reduce(self, write_move(self), write_clip(self))
        write_serve(self, compute, self.wait)
        write_lead(self, compute, self.wait, reduce)

    def _write_compute(self, forward: Any, backward: Any) -> Any:
        """compute(part): one part of a batch, from its sequences to the loss and, if wanted, the
        gradients."""
        c = DriverFunction(self, "compute", "part")
        b, address = c.b, c.a["part"]
        part = c.record(Part, address)
        shared = c.record(Shared, part.shared)
        _pack_share(c, self.products.pack, part, shared)
        b.call(self.gather, [address])
        arrived = c.add(shared.counters, ARRIVED)
        advance(c, shared.counters, ARRIVED)
        b.call(self.wait, [arrived, b.mul(c.add(c.mul(part.job, 2), -1), shared.parts)])
        b.call(forward, [address])
        with c.each_record(Span, part.zeros, part.zero_count) as span:
            c.fill_zeros(span.begin, span.length)
        b.call(self.loss, [address])
        with b.if_then(c.is_set(shared.learns)):
            b.call(backward, [address])
        advance(c, shared.counters, ARRIVED)
        return c.end()

    def _write_forward(self) -> Any:
        """forward(part): the logits."""
        c = DriverFunction(self, "forward_pass", "part")
        b, address = c.b, c.a["part"]
        part = c.record(Part, address)
        shared = c.record(Shared, part.shared)
        with c.each_record(Run, part.runs, part.run_count) as run:
            b.call(self.copy, [run.inputs, run.input_count, address])
            _call(c, run.forward, run.forward_arguments)
        b.call(self.read, [address])
        b.call(self.multiply, [part.features, address])
        with c.loop(0, part.rows) as row:
            z = c.at(part.z, (row, shared.z_row))
            c.each_column(
                c.mul(shared.classes, c.size),
                lambda offset, kind: c.store(c.load(c.add(shared.bias, offset), kind), c.add(z, offset)),
            )
        b.call(self.products.product, [
            I64(1), part.features, shared.features_row, part.rows,
            shared.head, shared.features, shared.features, part.z, shared.z_row, shared.z_row,
        ])  # fmt: skip
        return c.end()

    def _write_backward(self) -> Any:
        """backward(part): the gradients of all weights, summed over the part, from those of the logits."""
        c = DriverFunction(self, "backward_pass", "part")
        b, address = c.b, c.a["part"]
        part = c.record(Part, address)
        shared = c.record(Shared, part.shared)
        b.call(self.products.outer, [
            part.features, shared.features_row, shared.features, part.z, shared.z_row, shared.z_row,
            part.rows, part.head_sums, shared.z_row,
        ])  # fmt: skip
        b.call(self.products.product, [
            I64(0), part.z, shared.z_row, part.rows,
            shared.head_backward, shared.classes, shared.classes, part.d_features, shared.features_row,
            shared.features_row,
        ])  # fmt: skip
        b.call(self.multiply, [part.d_features, address])
        b.call(self.read_backward, [address])
        with c.countdown(part.run_count) as n:
            run = c.record(Run, c.at(part.runs, (n, 8 * len(Run._fields))))
            with b.if_then(c.is_set(run.backward)):
                b.call(self.copy, [run.d_outputs, run.d_output_count, address])
                _call(c, run.backward, run.backward_arguments)
        return c.end()


def _pack_share(c: DriverFunction, pack: Any, part: Part, shared: Shared) -> None:
    """Packs every n-th block of the weights, n being the number of parts, for the products of all parts."""
    with c.loop(0, shared.pack_count) as n:
        mine = c.b.icmp_signed("==", c.b.srem(n, shared.parts), part.number)
        with c.b.if_then(mine):
            block = c.at(shared.packs, (n, 8 * len(PACK)))
            c.b.call(pack, [c.load(c.add(block, 8 * k), I64) for k in range(len(PACK))])


def _call(c: DriverFunction, function: Any, arguments: Any) -> None:
    """Calls a cell's forward or backward function by its address."""
    kind = ir.FunctionType(ir.VoidType(), [I64.as_pointer()]).as_pointer()
    c.b.call(c.b.inttoptr(function, kind), [c.b.inttoptr(arguments, I64.as_pointer())])
