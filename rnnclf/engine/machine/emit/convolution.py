"""Causal convolutions in machine code: v_t = Σ_k a_k b_{t-k}, a vector of columns at a time.

A tile is some steps of the result, in registers. Each step s of b is loaded once for all of them:

    for s in range(steps of b up to the tile's first):
        for row in range(6):
            tile[row] += a[first + row - s] * b[s]

that is, one multiply-add and one load of `a` for each row. The steps of b within the tile come last: they
reach only the rows after them. Columns of a and b are packed first, since in memory their steps lie a whole
batch apart.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.emit.instructions import CONTRACT, I64, CodeModule, FunctionBuilder

ARGUMENTS = (
    "a", "a_t", "a_n", "b", "b_t", "b_n", "v", "v_t", "v_n", "steps", "columns", "count", "total", "scratch",
)  # fmt: skip
"""Addresses of a, b and v, and the distances in bytes from one step (_t) and one sequence (_n) to the next;
the numbers of steps, columns and sequences; whether v is the sum over the sequences; memory for packed
columns."""
PACKED = 3
"""Vectors that are packed for each step: of a, b and v."""


def write_convolution(module: CodeModule) -> None:
    """convolution: v = a * b for each sequence, or the sum of these. There must be at least as many columns
    as a vector has lanes; a last vector that is not whole overlaps the one before it."""
    tile = _write_tiles(module)
    f = FunctionBuilder(module, "convolution", ARGUMENTS, True)
    a, b, vector = f.a, f.b, f.vector_size
    length = f.mul(a["steps"], vector)
    packed = [f.add(a["scratch"], f.mul(length, n)) for n in range(3)]
    last = f.b.sub(f.mul(a["columns"], f.size), I64(vector))
    with f.loop(0, f.mul(a["columns"], f.size), vector) as at:
        column = f.least(at, last)
        with f.loop(0, a["count"]) as n:
            for name, place in zip("ab", packed, strict=False):
                _copy(f, f.add(a[name], f.b.mul(n, a[f"{name}_n"]), column), a[f"{name}_t"], place, vector)
            first = b.icmp_signed("==", n, I64(0))
            with b.if_then(b.or_(first, b.not_(f.is_set(a["total"])))), f.loop(0, length, vector) as place:
                f.store(ir.Constant(f.vector, None), f.add(packed[2], place))
            b.call(tile, [*packed, a["steps"]])
            done = b.icmp_signed("==", f.add(n, 1), a["count"])
            with b.if_then(b.or_(done, b.not_(f.is_set(a["total"])))):
                target = f.add(a["v"], b.mul(b.select(f.is_set(a["total"]), I64(0), n), a["v_n"]), column)
                _copy(f, packed[2], vector, target, a["v_t"])
    b.ret_void()


def _copy(f: FunctionBuilder, source: Any, source_t: Any, target: Any, target_t: Any) -> None:
    """Copies a vector for each step."""
    with f.loop(0, f.a["steps"]) as t:
        f.store(f.load(f.add(source, f.mul(t, source_t)), f.vector), f.add(target, f.mul(t, target_t)))


def _write_tiles(module: CodeModule) -> Any:
    """tiles(a, b, v, steps): v += a * b, all three packed."""
    f = FunctionBuilder(module, "tiles", ("a", "b", "v", "steps"), False)
    f.function.attributes.add("noinline")
    rows, vector = module.target.tile_rows * 2, f.vector_size
    with f.loop(0, f.a["steps"], rows) as first:
        inside = f.least(f.b.sub(f.a["steps"], first), rows)
        _write_tile(f, rows, f.mul(first, vector), f.mul(inside, vector))
    f.b.ret_void()
    return f.function


def _write_tile(f: FunctionBuilder, rows: int, first: Any, inside: Any) -> None:
    """The tile that begins `first` bytes after the beginning. Rows beyond `inside` compute its last one
    again, so that none of them needs a branch."""
    b, vector = f.b, f.vector_size
    offsets = [f.least(row * vector, b.sub(inside, I64(vector))) for row in range(rows)]
    places = [f.add(f.a["v"], first, offset) for offset in offsets]
    starts = [f.load(place, f.vector) for place in places]

    def products(s: Any) -> list[Any]:
        factor = f.load(f.add(f.a["b"], s), f.vector)
        from_s = f.add(f.a["a"], b.sub(first, s))
        rows_of_a = (f.load(f.add(from_s, offset), f.vector) for offset in offsets)
        return [b.fmul(row, factor, flags=CONTRACT) for row in rows_of_a]

    _finish(f, f.sums(first, vector, starts, products), places, first, inside)


def _finish(f: FunctionBuilder, results: list[Any], places: list[Any], first: Any, inside: Any) -> None:
    """Adds the products of a_0 … and the steps of b within the tile, and stores its rows."""
    b, vector, rows = f.b, f.vector_size, len(results)
    kernel = [
        f.load(f.add(f.a["a"], f.least(k * vector, b.sub(inside, I64(vector)))), f.vector)
        for k in range(rows)
    ]
    for row in range(rows):
        with b.if_then(b.icmp_signed("<", I64(row * vector), inside)):
            total = results[row]
            for s in range(row + 1):
                factor = f.load(f.add(f.a["b"], first, s * vector), f.vector)
                total = b.fadd(total, b.fmul(kernel[row - s], factor, flags=CONTRACT), flags=CONTRACT)
            f.store(total, places[row])
