"""Operations on numbers, or on vectors of them, as LLVM instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from rnnclf.engine.machine.emit import TimeLoop

I32, I1 = ir.IntType(32), ir.IntType(1)
CONTRACT = ("contract",)

P = (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)
Q = (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)
COMPARE = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}


class Numbers:
    """Operations on numbers or vectors of them. Functions of float32 are polynomials; of float64, the C library's,
    lane by lane."""

    def __init__(self, walk: TimeLoop, many: bool) -> None:
        self.w, self.b, self.many = walk, walk.b, many
        self.kind = walk.vector if many else walk.number
        self.double, self.lanes = walk.m.double, walk.lanes

    def constant(self, value: float, kind: Any = None) -> Any:
        if self.many:
            base = kind or self.w.number
            return ir.Constant(ir.VectorType(base, self.lanes), [value] * self.lanes)
        return ir.Constant(kind or self.w.number, value)

    def mul(self, a: Any, b: Any) -> Any:
        return self.b.fmul(a, b, flags=CONTRACT)

    def add(self, a: Any, b: Any) -> Any:
        return self.b.fadd(a, b, flags=CONTRACT)

    def sub(self, a: Any, b: Any) -> Any:
        return self.b.fsub(a, b, flags=CONTRACT)

    def number(self, a: Any) -> Any:
        """A truth value as 1 or 0."""
        truth = a.type.element if isinstance(a.type, ir.VectorType) else a.type
        return self.b.select(a, self.constant(1.0), self.constant(0.0)) if truth == I1 else a

    def truth(self, a: Any) -> Any:
        kind = a.type.element if isinstance(a.type, ir.VectorType) else a.type
        return a if kind == I1 else self.b.fcmp_unordered("!=", a, self.constant(0.0))

    def apply(self, op: str, a: list[Any], attr: Any) -> Any:
        b = self.b
        if op == "where":
            return b.select(self.truth(a[0]), self.number(a[1]), self.number(a[2]))
        if op in ("and", "or", "not"):
            a = [self.truth(v) for v in a]
            return b.not_(a[0]) if op == "not" else b.and_(*a) if op == "and" else b.or_(*a)
        a = [self.number(v) for v in a]
        if op in COMPARE:
            compare = b.fcmp_unordered if op == "ne" else b.fcmp_ordered
            return compare(COMPARE[op], *a)
        return getattr(self, f"op_{op}", None)(*a) if hasattr(self, f"op_{op}") else self.library(op, *a)

    def op_add(self, a: Any, b: Any) -> Any:
        return self.add(a, b)

    def op_sub(self, a: Any, b: Any) -> Any:
        return self.sub(a, b)

    def op_mul(self, a: Any, b: Any) -> Any:
        return self.mul(a, b)

    def op_div(self, a: Any, b: Any) -> Any:
        return self.b.fdiv(a, b)

    def op_copy(self, a: Any) -> Any:
        return a

    op_fill = op_copy

    def op_neg(self, a: Any) -> Any:
        return self.b.fneg(a)

    def op_abs(self, a: Any) -> Any:
        return self.intrinsic("fabs", a)

    def op_sqrt(self, a: Any) -> Any:
        return self.intrinsic("sqrt", a)

    def op_rsqrt(self, a: Any) -> Any:
        return self.b.fdiv(self.constant(1.0), self.intrinsic("sqrt", a))

    def op_reciprocal(self, a: Any) -> Any:
        return self.b.fdiv(self.constant(1.0), a)

    def op_relu(self, a: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered("<=", a, self.constant(0.0)), self.constant(0.0), a)

    def op_maximum(self, a: Any, b: Any) -> Any:  # NaN of either stays
        return self.b.select(
            self.b.fcmp_unordered(">", a, b), self.b.select(self.b.fcmp_unordered("uno", b, b), b, a), b
        )

    def op_minimum(self, a: Any, b: Any) -> Any:
        return self.b.select(
            self.b.fcmp_unordered("<", a, b), self.b.select(self.b.fcmp_unordered("uno", b, b), b, a), b
        )

    def op_sign(self, a: Any) -> Any:
        zero, one, less = self.constant(0.0), self.constant(1.0), self.constant(-1.0)
        negative = self.b.select(self.b.fcmp_ordered("<", a, zero), less, zero)
        return self.b.select(self.b.fcmp_ordered(">", a, zero), one, negative)

    def intrinsic(self, name: str, *a: Any) -> Any:
        kind = ("f64" if self.double else "f32") if not self.many else f"v{self.lanes}{'f64' if self.double else 'f32'}"
        function = self.w.m.declare(f"llvm.{name}.{kind}", self.kind, *[self.kind] * len(a))
        return self.b.call(function, a)

    def library(self, name: str, *a: Any) -> Any:
        number = self.w.number
        function = self.w.m.declare(name if self.double else f"{name}f", number, *[number] * len(a))
        if not self.many:
            return self.b.call(function, a)
        result = ir.Constant(self.kind, ir.Undefined)
        for lane in range(self.lanes):
            parts = [self.b.extract_element(v, I32(lane)) for v in a]
            result = self.b.insert_element(result, self.b.call(function, parts), I32(lane))
        return result

    def polynomial(self, x: Any, coefficients: Any) -> Any:
        """From the constant term up."""
        *rest, total = [self.constant(c) for c in coefficients]
        for c in reversed(rest):
            total = self.add(c, self.mul(x, total))
        return total

    def op_tanh(self, x: Any) -> Any:
        if self.double:
            return self.library("tanh", x)
        end = self.constant(9.0)
        low = self.b.fneg(end)
        x = self.b.select(
            self.b.fcmp_ordered(">", x, end), end, self.b.select(self.b.fcmp_ordered("<", x, low), low, x)
        )
        u = self.mul(x, x)
        y = self.b.fdiv(self.mul(x, self.polynomial(u, P)), self.polynomial(u, Q))
        one = self.constant(1.0)
        less = self.b.fneg(one)
        return self.b.select(
            self.b.fcmp_ordered(">", y, one), one, self.b.select(self.b.fcmp_ordered("<", y, less), less, y)
        )

    def op_sigmoid(self, x: Any) -> Any:
        half = self.constant(0.5)
        return self.add(self.mul(half, self.op_tanh(self.mul(half, x))), half)

    def op_exp(self, x: Any) -> Any:
        """2ⁿ eʳ with |r| ≤ log(2) / 2 (Cephes); NaN stays."""
        if self.double:
            return self.library("exp", x)
        b, high, low = self.b, self.constant(89.0), self.constant(-104.0)
        x = b.select(b.fcmp_ordered(">", x, high), high, b.select(b.fcmp_ordered("<", x, low), low, x))
        magic = self.constant(12582912.0)  # adding it rounds to whole numbers, in the lowest bits
        shifted = b.fadd(b.fmul(x, self.constant(1.4426950408889634)), magic)
        n = b.fsub(shifted, magic)
        r = self.sub(x, self.mul(n, self.constant(0.693359375)))
        r = self.sub(r, self.mul(n, self.constant(-2.12194440e-4)))
        c = (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
        y = self.add(self.add(self.mul(self.polynomial(r, c), self.mul(r, r)), r), self.constant(1.0))
        whole = ir.VectorType(I32, self.lanes) if self.many else I32

        def i32(value: int) -> Any:
            return ir.Constant(whole, [value] * self.lanes if self.many else value)

        bits = b.sub(b.bitcast(shifted, whole), i32(0x4B400000))
        half = b.ashr(bits, i32(1))
        for part in (half, b.sub(bits, half)):  # in two: neither overflows, also where the result does
            y = b.fmul(y, b.bitcast(b.shl(b.add(part, i32(127)), i32(23)), self.kind))
        return y

    def op_log(self, x: Any) -> Any:
        """Cephes; of 0 -∞, of less NaN."""
        if self.double:
            return self.library("log", x)
        b, whole = self.b, ir.VectorType(I32, self.lanes) if self.many else I32

        def i32(value: int) -> Any:
            return ir.Constant(whole, [value] * self.lanes if self.many else value)

        tiny = b.fcmp_ordered("<", x, self.constant(1.17549435e-38))
        scaled = b.select(tiny, b.fmul(x, self.constant(33554432.0)), x)
        bits = b.bitcast(scaled, whole)
        e = b.sub(b.lshr(bits, i32(23)), i32(126))
        m = b.bitcast(b.or_(b.and_(bits, i32(0x007FFFFF)), i32(0x3F000000)), self.kind)
        small = b.fcmp_ordered("<", m, self.constant(0.70710678118654752))
        e = b.sub(e, b.select(small, i32(1), i32(0)))
        m = b.fsub(b.select(small, b.fadd(m, m), m), self.constant(1.0))
        n = b.fsub(b.sitofp(e, self.kind), b.select(tiny, self.constant(25.0), self.constant(0.0)))
        z = self.mul(m, m)
        c = (3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1, -1.2420140846e-1,
             1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2)  # fmt: skip
        y = self.mul(self.mul(m, z), self.polynomial(m, c))
        y = self.add(y, self.mul(n, self.constant(-2.12194440e-4)))
        y = self.sub(y, self.mul(self.constant(0.5), z))
        y = self.add(self.add(m, y), self.mul(n, self.constant(0.693359375)))
        y = b.select(b.fcmp_ordered("==", x, self.constant(float("inf"))), x, y)
        y = b.select(b.fcmp_ordered("==", x, self.constant(0.0)), self.constant(float("-inf")), y)
        return b.select(b.fcmp_unordered("<", x, self.constant(0.0)), self.constant(float("nan")), y)

    def op_log1p(self, x: Any) -> Any:
        """log(u) · x / (u - 1), u the rounded 1 + x (Kahan)."""
        if self.double:
            return self.library("log1p", x)
        one = self.constant(1.0)
        u = self.b.fadd(one, x)
        y = self.b.fdiv(self.b.fmul(self.op_log(u), x), self.b.fsub(u, one))
        return self.b.select(self.b.fcmp_ordered("==", u, one), x, y)
