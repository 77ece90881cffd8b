"""The operations of nodes as LLVM instructions, on single numbers or on vectors.

In float64 the elementary functions are the C library's, called lane by lane. In float32 the common ones are
polynomials, computed in vectors. Their largest errors over all of float32, as measured
(tests/engine/machine/test_functions.py asserts them; 1 ulp is the distance to the next float32):

    tanh     5.2 ulp            x P(x²) / Q(x²) between -9 and 9, fitted to that range
    sigmoid  1.5e-7, absolute   0.5 + 0.5 tanh(x / 2)
    erf      5.9 ulp            x P(x²) / Q(x²) between -3.93 and 3.93, fitted to that range
    exp      1.0 ulp            2ⁿ · polynomial on ±log(2)/2, from Cephes
    expm1    1.4 ulp            the same parts, put together without cancellation
    log      0.8 ulp            exponent · log(2) + polynomial, from Cephes
    log1p    2.3 ulp            log(1 + x), corrected for the rounding of 1 + x (Kahan)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.emit.instructions import CONTRACT, I1, I32, FunctionBuilder

__all__ = ["I32", "Elementwise"]

COMPARISONS = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}

# tanh(x) = x P(x²) / Q(x²), coefficients from the constant term up
TANH_P = (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)
TANH_Q = (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)
# erf(x) = x P(x²) / Q(x²), likewise
ERF_P = (1.12837915e00, 1.90780341e-01, 5.27898249e-02, 3.77945818e-03, 2.84804963e-04, 2.04199534e-06)
ERF_Q = (1.0, 5.02407396e-01, 1.14256079e-01, 1.49971373e-02, 1.16517551e-03, 3.80041370e-05)
# exp(r) = 1 + r + r² P(r) for |r| ≤ log(2) / 2 (Cephes)
EXP = (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
# log(1 + m) = m - m² / 2 + m³ P(m) for √½ ≤ 1 + m < √2 (Cephes)
LOG = (
    3.3333331174e-1,
    -2.4999993993e-1,
    2.0000714765e-1,
    -1.6668057665e-1,
    1.4249322787e-1,
    -1.2420140846e-1,
    1.1676998740e-1,
    -1.1514610310e-1,
    7.0376836292e-2,
)
# log(2) in two parts: the first has so few digits that its product with an exponent is exact
LOG2_HIGH, LOG2_LOW = 0.693359375, -2.12194440e-4
SMALLEST_NORMAL = 1.17549435e-38


class Elementwise:
    """Writes operations on numbers, or on vectors, where a builder stands.

    Comparisons give truth values (i1), which become 1 or 0 where a number is needed.
    """

    def __init__(self, f: FunctionBuilder, vectors: bool) -> None:
        self.f, self.b, self.vectors = f, f.b, vectors
        self.kind = f.vector if vectors else f.number
        self.double, self.lanes = f.module.double, f.lanes

    def apply(self, op: str, operands: list[Any]) -> Any:
        """The result of a node's operation.

        op: one of `graph.UNARY` and `graph.BINARY`, or where, and, or, not, copy, fill.
        """
        if op == "where":
            chosen, a, b = operands
            return self.b.select(self.truth(chosen), self.number(a), self.number(b))
        if op == "not":
            return self.b.not_(self.truth(operands[0]))
        if op in ("and", "or"):
            truths = [self.truth(v) for v in operands]
            return self.b.and_(*truths) if op == "and" else self.b.or_(*truths)
        numbers = [self.number(v) for v in operands]
        if op in COMPARISONS:
            compare = self.b.fcmp_unordered if op == "ne" else self.b.fcmp_ordered
            return compare(COMPARISONS[op], *numbers)
        own: Callable[..., Any] | None = getattr(self, f"op_{op}", None)
        return own(*numbers) if own else self.library(op, *numbers)

    # constants, numbers and truth values

    def constant(self, value: float) -> Any:
        return self.f.vector_of(value) if self.vectors else ir.Constant(self.f.number, value)

    def integer(self, value: int) -> Any:
        """A 32-bit whole number, in every lane."""
        return ir.Constant(self.whole, [value] * self.lanes if self.vectors else value)

    @property
    def whole(self) -> Any:
        return ir.VectorType(I32, self.lanes) if self.vectors else I32

    def number(self, a: Any) -> Any:
        """A truth value as 1 or 0; numbers as they are."""
        return self.b.select(a, self.constant(1.0), self.constant(0.0)) if _is_truth(a) else a

    def truth(self, a: Any) -> Any:
        """Whether a number is not 0 (NaN is not); truth values as they are."""
        return a if _is_truth(a) else self.b.fcmp_unordered("!=", a, self.constant(0.0))

    # arithmetic that may become fused multiply-adds

    def mul(self, a: Any, b: Any) -> Any:
        return self.b.fmul(a, b, flags=CONTRACT)

    def add(self, a: Any, b: Any) -> Any:
        return self.b.fadd(a, b, flags=CONTRACT)

    def sub(self, a: Any, b: Any) -> Any:
        return self.b.fsub(a, b, flags=CONTRACT)

    op_add, op_sub, op_mul = add, sub, mul

    def polynomial(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        """c₀ + c₁ x + c₂ x² + …"""
        *rest, total = [self.constant(c) for c in coefficients]
        for c in reversed(rest):
            total = self.add(c, self.mul(x, total))
        return total

    def clamped(self, x: Any, low: float, high: float) -> Any:
        """x within limits; NaN stays."""
        least, most = self.constant(low), self.constant(high)
        above, below = self.b.fcmp_ordered(">", x, most), self.b.fcmp_ordered("<", x, least)
        return self.b.select(above, most, self.b.select(below, least, x))

    def intrinsic(self, name: str, *operands: Any) -> Any:
        """One of LLVM's functions, which exist for vectors, too."""
        kind = "f64" if self.double else "f32"
        full = f"llvm.{name}.v{self.lanes}{kind}" if self.vectors else f"llvm.{name}.{kind}"
        return self.b.call(self.f.module.declare(full, self.kind, *[self.kind] * len(operands)), operands)

    def library(self, name: str, *operands: Any) -> Any:
        """One of the C library's functions, lane by lane."""
        number = self.f.number
        function = self.f.module.declare(
            name if self.double else f"{name}f", number, *[number] * len(operands)
        )
        if not self.vectors:
            return self.b.call(function, operands)
        result = ir.Constant(self.kind, ir.Undefined)
        for lane in range(self.lanes):
            parts = [self.b.extract_element(v, I32(lane)) for v in operands]
            result = self.b.insert_element(result, self.b.call(function, parts), I32(lane))
        return result

    # simple operations

    def op_copy(self, a: Any) -> Any:
        return a

    op_fill = op_copy

    def op_div(self, a: Any, b: Any) -> Any:
        return self.b.fdiv(a, b)

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
        """NaN stays."""
        return self.b.select(self.b.fcmp_ordered("<=", a, self.constant(0.0)), self.constant(0.0), a)

    def op_maximum(self, a: Any, b: Any) -> Any:
        """NaN where either is."""
        take_a = self.b.fcmp_unordered(">", a, b)  # also where either is NaN: then b, if it is NaN
        return self.b.select(take_a, self.b.select(self.b.fcmp_unordered("uno", b, b), b, a), b)

    def op_minimum(self, a: Any, b: Any) -> Any:
        """NaN where either is."""
        take_a = self.b.fcmp_unordered("<", a, b)
        return self.b.select(take_a, self.b.select(self.b.fcmp_unordered("uno", b, b), b, a), b)

    def op_sign(self, a: Any) -> Any:
        """0 for NaN, as in torch."""
        zero, one, less = self.constant(0.0), self.constant(1.0), self.constant(-1.0)
        negative = self.b.select(self.b.fcmp_ordered("<", a, zero), less, zero)
        return self.b.select(self.b.fcmp_ordered(">", a, zero), one, negative)

    # elementary functions

    def op_tanh(self, x: Any) -> Any:
        if self.double:
            return self.library("tanh", x)
        return self._odd(self.clamped(x, -9.0, 9.0), TANH_P, TANH_Q)

    def op_erf(self, x: Any) -> Any:
        if self.double:
            return self.library("erf", x)
        return self._odd(self.clamped(x, -3.93, 3.93), ERF_P, ERF_Q)

    def _odd(self, x: Any, p: tuple[float, ...], q: tuple[float, ...]) -> Any:
        """x P(x²) / Q(x²), at most 1."""
        square = self.mul(x, x)
        numerator = self.mul(x, self.polynomial(square, p))
        return self.clamped(self.b.fdiv(numerator, self.polynomial(square, q)), -1.0, 1.0)

    def op_sigmoid(self, x: Any) -> Any:
        """In float64 also numbers close to 0 have all their digits; in float32 the error is that of 1."""
        if self.double:
            one = self.constant(1.0)
            return self.b.fdiv(one, self.b.fadd(one, self.op_exp(self.b.fneg(x))))
        half = self.constant(0.5)
        return self.add(self.mul(half, self.op_tanh(self.mul(half, x))), half)

    def op_exp(self, x: Any) -> Any:
        """2ⁿ eʳ with |r| ≤ log(2) / 2; NaN stays."""
        if self.double:
            return self.library("exp", x)
        b = self.b
        rest, exponent = self._parts_of_exp(self.clamped(x, -104.0, 89.0))
        y, half = self.add(rest, self.constant(1.0)), b.ashr(exponent, self.integer(1))
        for part in (half, b.sub(exponent, half)):  # 2ⁿ in two factors, of which neither overflows
            y = b.fmul(y, self._power_of_two(part))
        return y

    def op_expm1(self, x: Any) -> Any:
        """2ⁿ (eʳ - 1) + (2ⁿ - 1); from 80 on there is no difference to eˣ."""
        if self.double:
            return self.library("expm1", x)
        b = self.b
        rest, exponent = self._parts_of_exp(self.clamped(x, -20.0, 80.0))
        power = self._power_of_two(exponent)
        y = self.add(self.mul(power, rest), b.fsub(power, self.constant(1.0)))
        return b.select(b.fcmp_ordered(">", x, self.constant(80.0)), self.op_exp(x), y)

    def _parts_of_exp(self, x: Any) -> tuple[Any, Any]:
        """eʳ - 1 and the whole number n with eˣ = 2ⁿ eʳ and |r| ≤ log(2) / 2."""
        b = self.b
        magic = self.constant(12582912.0)  # 1.5 · 2²³: adding it rounds to a whole number, in the lowest bits
        shifted = b.fadd(b.fmul(x, self.constant(1.4426950408889634)), magic)
        n = b.fsub(shifted, magic)
        r = self.sub(x, self.mul(n, self.constant(LOG2_HIGH)))
        r = self.sub(r, self.mul(n, self.constant(LOG2_LOW)))
        rest = self.add(self.mul(self.polynomial(r, EXP), self.mul(r, r)), r)
        return rest, b.sub(b.bitcast(shifted, self.whole), self.integer(0x4B400000))

    def _power_of_two(self, n: Any) -> Any:
        """2ⁿ for a whole number n from -126 to 127."""
        return self.b.bitcast(self.b.shl(self.b.add(n, self.integer(127)), self.integer(23)), self.kind)

    def op_log(self, x: Any) -> Any:
        """-∞ for 0, NaN for less."""
        if self.double:
            return self.library("log", x)
        m, n = self._mantissa_and_exponent(x)
        square = self.mul(m, m)
        y = self.mul(self.mul(m, square), self.polynomial(m, LOG))
        y = self.add(y, self.mul(n, self.constant(LOG2_LOW)))
        y = self.sub(y, self.mul(self.constant(0.5), square))
        y = self.add(self.add(m, y), self.mul(n, self.constant(LOG2_HIGH)))
        b, zero = self.b, self.constant(0.0)
        y = b.select(b.fcmp_ordered("==", x, self.constant(float("inf"))), x, y)
        y = b.select(b.fcmp_ordered("==", x, zero), self.constant(float("-inf")), y)
        return b.select(b.fcmp_unordered("<", x, zero), self.constant(float("nan")), y)

    def _mantissa_and_exponent(self, x: Any) -> tuple[Any, Any]:
        """m and n with x = (1 + m) 2ⁿ and √½ ≤ 1 + m < √2."""
        b = self.b
        tiny = b.fcmp_ordered("<", x, self.constant(SMALLEST_NORMAL))
        scaled = b.select(tiny, b.fmul(x, self.constant(2.0**25)), x)
        bits = b.bitcast(scaled, self.whole)
        exponent = b.sub(b.lshr(bits, self.integer(23)), self.integer(126))
        half_to_one = b.or_(b.and_(bits, self.integer(0x007FFFFF)), self.integer(0x3F000000))
        m = b.bitcast(half_to_one, self.kind)
        small = b.fcmp_ordered("<", m, self.constant(0.70710678118654752))
        exponent = b.sub(exponent, b.select(small, self.integer(1), self.integer(0)))
        m = b.fsub(b.select(small, b.fadd(m, m), m), self.constant(1.0))
        n = b.sitofp(exponent, self.kind)
        return m, b.fsub(n, b.select(tiny, self.constant(25.0), self.constant(0.0)))

    def op_log1p(self, x: Any) -> Any:
        """log(u) · x / (u - 1), where u is the rounded 1 + x (Kahan)."""
        if self.double:
            return self.library("log1p", x)
        b, one = self.b, self.constant(1.0)
        u = b.fadd(one, x)
        correction = b.fdiv(x, b.fsub(u, one))
        correction = b.select(b.fcmp_ordered("==", u, x), one, correction)  # large, or infinite
        return b.select(b.fcmp_ordered("==", u, one), x, b.fmul(self.op_log(u), correction))


def _is_truth(a: Any) -> bool:
    kind = a.type.element if isinstance(a.type, ir.VectorType) else a.type
    return bool(kind == I1)
