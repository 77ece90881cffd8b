"""Readouts in the driver: the outputs of all steps to one row of features for each sequence, and their
gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.driver.function import DriverFunction
from rnnclf.engine.machine.driver.tables import Part, Readout, Shared
from rnnclf.engine.machine.emit.instructions import I64, CodeModule

KINDS = ("last", "mean", "max")
"""Names as in the option `readout`; `Readout.kind` is the position in this list."""


class _Row:
    """What a readout needs to know of one sequence."""

    def __init__(self, c: DriverFunction, part: Part, readout: Readout, row: Any, features_row: Any) -> None:
        self.c, self.readout, self.row = c, readout, row
        self.length = c.load_integer(part.lengths, row)
        self.last = c.add(self.length, -1)
        self.padding = c.b.sub(part.steps, self.length)
        self.features = c.at(readout.features, (row, features_row))
        self.d_features = c.at(readout.d_features, (row, features_row))

    def y(self, t: Any) -> Any:
        return self.c.at(self.readout.y, (t, self.readout.y_t), (self.row, self.readout.y_row))

    def dy(self, t: Any) -> Any:
        return self.c.at(self.readout.dy, (t, self.readout.dy_t), (self.row, self.readout.dy_row))

    def number(self, integer: Any, kind: Any) -> Any:
        """An integer as a number, in all lanes if `kind` is a vector."""
        return self.c.spread(self.c.b.sitofp(integer, self.c.number), kind)


def write_read(module: CodeModule) -> Any:
    """read(part): the features of each sequence."""
    return _write(module, "read", (_read_last, _read_mean, _read_max))


def write_read_backward(module: CodeModule) -> Any:
    """read_backward(part): from the gradients of the features to those of the outputs. Where a step gets
    none, nothing is written: there must be zeros."""
    return _write(module, "read_backward", (_last_backward, _mean_backward, _max_backward))


def _write(module: CodeModule, name: str, bodies: tuple[Callable[[DriverFunction, _Row], None], ...]) -> Any:
    c = DriverFunction(module, name, "part")
    part = c.record(Part, c.a["part"])
    features_row = c.record(Shared, part.shared).features_row
    with c.each_record(Readout, part.readouts, part.readout_count) as readout:
        for kind, body in enumerate(bodies):
            with c.b.if_then(c.b.icmp_signed("==", readout.kind, I64(kind))), c.loop(0, part.rows) as row:
                body(c, _Row(c, part, readout, row, features_row))
    return c.end()


def _read_last(c: DriverFunction, row: _Row) -> None:
    y = row.y(row.last)
    c.each_column(
        row.readout.width,
        lambda offset, kind: c.store(c.load(c.add(y, offset), kind), c.add(row.features, offset)),
    )


def _last_backward(c: DriverFunction, row: _Row) -> None:
    dy = row.dy(row.last)
    c.each_column(
        row.readout.width,
        lambda offset, kind: c.store(c.load(c.add(row.d_features, offset), kind), c.add(dy, offset)),
    )


def _read_mean(c: DriverFunction, row: _Row) -> None:
    c.fill_zeros(row.features, row.readout.width)
    with c.loop(0, row.length) as t:
        y = row.y(t)

        def add(offset: Any, kind: Any) -> None:
            place = c.add(row.features, offset)
            c.store(c.b.fadd(c.load(place, kind), c.load(c.add(y, offset), kind)), place)

        c.each_column(row.readout.width, add)

    def divide(offset: Any, kind: Any) -> None:
        place = c.add(row.features, offset)
        c.store(c.b.fdiv(c.load(place, kind), row.number(row.length, kind)), place)

    c.each_column(row.readout.width, divide)


def _mean_backward(c: DriverFunction, row: _Row) -> None:
    with c.loop(0, row.length) as t:
        dy = row.dy(t)

        def one(offset: Any, kind: Any) -> None:
            share = c.b.fdiv(c.load(c.add(row.d_features, offset), kind), row.number(row.length, kind))
            c.store(share, c.add(dy, offset))

        c.each_column(row.readout.width, one)


def _read_max(c: DriverFunction, row: _Row) -> None:
    _read_last(c, row)
    with c.loop(0, row.length) as t:
        y = row.y(t)

        def one(offset: Any, kind: Any) -> None:
            place, value = c.add(row.features, offset), c.load(c.add(y, offset), kind)
            so_far = c.load(place, kind)
            # a NaN wins, as in torch
            wins = c.b.or_(c.b.fcmp_ordered(">", value, so_far), c.b.fcmp_unordered("uno", value, value))
            c.store(c.b.select(wins, value, so_far), place)

        c.each_column(row.readout.width, one)


def _max_backward(c: DriverFunction, row: _Row) -> None:
    """Steps that share the maximum share its gradient, as in torch: to its `amax`, a sequence that ends
    before the longest one repeats its last output."""

    def one(offset: Any, kind: Any) -> None:
        b, zero, one_ = c.b, ir.Constant(kind, None), row.number(I64(1), kind)
        largest = c.load(c.add(row.features, offset), kind)

        def if_largest(t: Any, value: Any) -> Any:
            return b.select(b.fcmp_ordered("==", c.load(c.add(row.y(t), offset), kind), largest), value, zero)

        repeats = if_largest(row.last, row.number(row.padding, kind))
        (count,) = c.variables(kind, repeats)
        with c.loop(0, row.length) as t:
            c.add_to(count, if_largest(t, one_))
        share = b.fdiv(c.load(c.add(row.d_features, offset), kind), b.load(count))
        with c.loop(0, row.length) as t:
            c.store(if_largest(t, share), c.add(row.dy(t), offset))
        last = c.add(row.dy(row.last), offset)
        c.store(b.fadd(c.load(last, kind), b.fmul(repeats, share)), last)

    c.each_column(row.readout.width, one)
