"""Adding up the results of all parts of a batch, and clipping the gradients."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.driver.function import F64, DriverFunction
from rnnclf.engine.machine.driver.tables import Reduction
from rnnclf.engine.machine.emit.instructions import I64, CodeModule


def write_reduce(module: CodeModule, move: Any, clip: Any) -> Any:
    """reduce(reduction): adds up losses, correct predictions and gradients in the place of the first part,
    moves the gradients to their weights and clips them.

    Where there are no gradients or the loss is not finite, the norm is NaN and the gradients of the weights
    stay as they were.
    """
    c = DriverFunction(module, "reduce", "reduction")
    b, it = c.b, c.record(Reduction, c.a["reduction"])
    with c.loop(1, it.parts) as part, c.loop(0, 16, 8) as offset:
        _add(c, F64, c.at(it.totals, (part, 16), (offset, 1)), c.add(it.totals, offset))
    c.store(F64(math.nan), it.norm)
    loss = c.load(it.totals, F64)
    is_finite = b.fcmp_ordered("==", b.fsub(loss, loss), F64(0.0))
    with b.if_then(b.and_(c.is_set(it.learns), is_finite)):
        with c.loop(1, it.parts) as part:
            other = c.at(it.sums, (part, it.sums_part))

            def one(offset: Any, kind: Any) -> None:
                _add(c, kind, c.add(other, offset), c.add(it.sums, offset))

            c.each_column(it.sums_part, one)
        b.call(move, [it.moves, it.move_count])
        with b.if_then(c.is_set(it.is_complete)):
            b.call(clip, [it.gradients, it.gradients_length, it.max_norm, it.norm])
    return c.end()


def _add(c: DriverFunction, kind: Any, source: Any, target: Any) -> None:
    c.store(c.b.fadd(c.load(target, kind), c.load(source, kind)), target)


def write_clip(module: CodeModule) -> Any:
    """clip(gradients, length, max_norm, norm): writes the norm of the gradients and, if it is larger than
    `max_norm` and finite, scales them to that norm as torch does."""
    c = DriverFunction(module, "clip", "gradients", "length", "max_norm", "norm")
    b, a = c.b, c.a
    norm = b.call(module.declare("llvm.sqrt.f64", F64, F64), [_sum_of_squares(c)])
    c.store(norm, a["norm"])
    most = c.load(a["max_norm"], F64)
    with b.if_then(b.and_(b.fcmp_ordered(">", norm, most), b.fcmp_ordered("<", norm, F64(math.inf)))):
        factor = c.narrowed(b.fdiv(most, b.fadd(norm, F64(1e-6))))

        def scale(offset: Any, kind: Any) -> None:
            place = c.add(a["gradients"], offset)
            c.store(b.fmul(c.load(place, kind), c.spread(factor, kind)), place)

        c.each_column(a["length"], scale)
    return c.end()


def _sum_of_squares(c: DriverFunction) -> Any:
    """Of all gradients, in float64; each lane of a vector has a sum of its own."""
    b, wide = c.b, ir.VectorType(F64, c.lanes)
    (lanes,), (rest,) = c.variables(wide, ir.Constant(wide, None)), c.variables(F64, F64(0.0))

    def one(offset: Any, kind: Any) -> None:
        is_vector = isinstance(kind, ir.VectorType)
        value = c.load(c.add(c.a["gradients"], offset), kind)
        value = value if c.double else b.fpext(value, wide if is_vector else F64)
        c.add_to(lanes if is_vector else rest, b.fmul(value, value))

    c.each_column(c.a["length"], one)
    total, sums = b.load(rest), b.load(lanes)
    for lane in range(c.lanes):
        total = b.fadd(total, b.extract_element(sums, I64(lane)))
    return total
