"""Moving data in the driver: raw sequences into the operands of the lowest layer, outputs and gradients from
layer to layer, gradients to where the optimizer finds them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.driver.function import DriverFunction
from rnnclf.engine.machine.driver.tables import Copy, Move, Part, Shared
from rnnclf.engine.machine.emit.instructions import I64, CodeModule

BYTE = ir.IntType(8)


def write_gather(module: CodeModule) -> Any:
    """gather(part): copies the raw values, bytes or float32, of the part's sequences into the operands of the
    lowest layer as (value - shift) / scale, in the precision of the model."""
    c = DriverFunction(module, "gather", "part")
    part = c.record(Part, c.a["part"])
    shared = c.record(Shared, part.shared)
    of_bytes = c.is_set(shared.x_is_bytes)
    for raw, condition in ((BYTE, of_bytes), (ir.FloatType(), c.b.not_(of_bytes))):
        with c.b.if_then(condition), c.loop(0, part.rows) as row:
            sequence = c.load_integer(shared.chosen, c.add(part.first, row))
            x = c.at(shared.x, (c.load_integer(shared.starts, sequence), shared.x_t))
            with c.loop(0, c.load_integer(part.lengths, row)) as t:
                target = c.at(part.x, (t, part.x_t), (row, part.x_row))
                _prepare_row(c, shared, raw, c.at(x, (t, shared.x_t)), target)
    return c.end()


def _prepare_row(c: DriverFunction, shared: Shared, raw: Any, source: Any, target: Any) -> None:
    """One step of a sequence."""
    raw_size, lanes = 1 if raw is BYTE else 4, c.lanes
    whole = c.b.and_(shared.inputs, I64(-lanes))
    for begin, end, count in ((0, whole, lanes), (whole, shared.inputs, 1)):
        with c.loop(begin, end, count) as i:
            kind, number = (ir.VectorType(raw, lanes), c.vector) if count > 1 else (raw, c.number)
            value = c.b.load(c.pointer(c.at(source, (i, raw_size)), kind), align=raw_size)
            if raw is BYTE:
                value = c.b.uitofp(value, number)
            elif c.double:
                value = c.b.fpext(value, number)
            offset = c.mul(i, c.size)
            shift, scale = (c.load(c.add(base, offset), number) for base in (shared.shift, shared.scale))
            c.store(c.b.fdiv(c.b.fsub(value, shift), scale), c.add(target, offset))


def write_copy(module: CodeModule) -> Any:
    """copy(copies, count, part): copies columns between the memory of two layers, see `Copy`."""
    c = DriverFunction(module, "copy", "copies", "count", "part")
    b, part = c.b, c.record(Part, c.a["part"])
    with (
        c.each_record(Copy, c.a["copies"], c.a["count"]) as copy,
        c.loop(0, part.steps) as t,
        c.loop(0, c.load_integer(part.running, t)) as row,
    ):
        mirrored = b.sub(c.add(c.load_integer(part.lengths, row), -1), t)
        target_t, factors_t = (
            b.select(c.is_set(flag), mirrored, t) for flag in (copy.reverse, copy.factors_reverse)
        )
        source = c.at(copy.source, (t, copy.source_t), (row, copy.source_row))
        target = c.at(copy.target, (target_t, copy.target_t), (row, copy.target_row))
        factors = c.at(copy.factors, (factors_t, copy.factors_t), (row, copy.factors_row))
        _copy_row(c, copy, source, target, factors)
    return c.end()


def _copy_row(c: DriverFunction, copy: Copy, source: Any, target: Any, factors: Any) -> None:
    """One step of a sequence. What is not wanted is loaded from anywhere, then replaced by 1 or 0."""
    b, adds, multiplies = c.b, c.is_set(copy.add), c.is_set(copy.factors)
    readable = b.select(multiplies, factors, source)

    def one(offset: Any, kind: Any) -> None:
        place = c.add(target, offset)
        factor = b.select(multiplies, c.load(c.add(readable, offset), kind), c.spread(c.number(1.0), kind))
        already = b.select(adds, c.load(place, kind), ir.Constant(kind, None))
        value = b.fmul(c.load(c.add(source, offset), kind), factor)
        c.store(b.fadd(value, already), place)

    c.each_column(copy.width, one)


def write_multiply(module: CodeModule) -> Any:
    """multiply(values, part): multiplies features, or their gradients, by the factors of dropout, if there
    are any."""
    c = DriverFunction(module, "multiply", "values", "part")
    part = c.record(Part, c.a["part"])
    shared = c.record(Shared, part.shared)
    with c.b.if_then(c.is_set(part.factors)), c.loop(0, part.rows) as row:
        values = c.at(c.a["values"], (row, shared.features_row))
        factors = c.at(part.factors, (row, part.factors_row))

        def one(offset: Any, kind: Any) -> None:
            place = c.add(values, offset)
            c.store(c.b.fmul(c.load(place, kind), c.load(c.add(factors, offset), kind)), place)

        c.each_column(c.mul(shared.features, c.size), one)
    return c.end()


def write_move(module: CodeModule) -> Any:
    """move(moves, count): copies blocks of gradients, see `Move`."""
    c = DriverFunction(module, "move", "moves", "count")
    with c.each_record(Move, c.a["moves"], c.a["count"]) as move, c.loop(0, move.rows) as row:
        source = c.at(move.source, (row, move.source_row))
        target = c.at(move.target, (row, move.target_row))
        with c.loop(0, move.columns) as column:
            value = c.load(c.at(source, (column, move.source_column)), c.number)
            c.store(value, c.at(target, (column, move.target_column)))
    return c.end()
