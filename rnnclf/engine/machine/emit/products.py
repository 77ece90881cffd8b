"""Matrix products, written so that a tile of the result stays in registers.

A tile is some rows, two vectors wide. For each column k of A, it adds the k-th row of B, scaled by a number
for each row of A:

    for k in range(K):
        for row in range(6):
            tile[row, 0:16] += A[row, k] * B[k, 0:16]

That is twelve multiply-adds for two loads of B and six broadcasts of A. B is packed beforehand so that the
rows of one tile's width follow each other in memory: all rows of the first 16 columns, then of the next 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rnnclf.engine.machine.emit.instructions import CONTRACT, I64, CodeModule, FunctionBuilder

PAIR = 2
"""The width of a tile, in vectors."""

PRODUCT = ("add", "a", "a_row", "m", "b", "b_rows", "k", "c", "c_row", "columns")
OUTER = ("a", "a_row", "m", "b", "b_row", "columns", "rows", "c", "c_row")
PACK = ("src", "k_step", "n_step", "k_count", "n_count", "dst", "rows", "columns", "row", "column")
STRIP = ("add", "a", "a_row", "a_column", "m", "b", "b_row", "k", "c", "c_row")


class Products(NamedTuple):
    """The functions of a module that multiply.

    product: C (m, columns) = A (m, k) · B (k, columns), packed; += where `add` is not 0.
    outer: C (m, columns) += Aᵀ · B, of `rows` rows of A and B.
    pack: copies a block of a weight into a packed matrix.

    Strides and column counts of `product` and `outer` are in bytes, rows and `k` are counted.
    """

    product: Any
    outer: Any
    pack: Any


def write_products(module: CodeModule) -> Products:
    strips = {vectors: _strip(module, vectors) for vectors in (1, PAIR)}
    return Products(_product(module, strips), _outer(module, strips), _pack(module))


def _product(module: CodeModule, strips: dict[int, Any]) -> Any:
    f = FunctionBuilder(module, "product", PRODUCT, False)
    a, size, vector = f.a, f.size, f.vector_size
    with f.loop(0, a["columns"], PAIR * vector) as column:
        b = f.add(a["b"], f.b.mul(column, a["b_rows"]))
        whole = f.b.icmp_signed(">=", f.b.sub(a["columns"], column), I64(PAIR * vector))
        for vectors, strip in strips.items():
            with f.b.if_then(whole if vectors == PAIR else f.b.not_(whole)):
                operands = [a["a"], a["a_row"], I64(size), a["m"], b, I64(vectors * vector), a["k"]]
                f.b.call(strip, [a["add"], *operands, f.add(a["c"], column), a["c_row"]])
    f.b.ret_void()
    return f.function


def _outer(module: CodeModule, strips: dict[int, Any]) -> Any:
    """Strips with A read down its columns, some rows of C at a time, so that those of A stay in the cache."""
    f = FunctionBuilder(module, "outer", OUTER, False)
    a, size, pair, group = f.a, f.size, PAIR * f.vector_size, module.target.group
    with f.loop(0, a["m"], group) as g, f.loop(0, a["columns"], pair) as column:
        m = f.least(f.b.sub(a["m"], g), group)
        whole = f.b.icmp_signed(">=", f.b.sub(a["columns"], column), I64(pair))
        for vectors, strip in strips.items():
            with f.b.if_then(whole if vectors == PAIR else f.b.not_(whole)):
                operands = [f.add(a["a"], f.mul(g, size)), I64(size), a["a_row"], m]
                operands += [f.add(a["b"], column), a["b_row"], a["rows"]]
                c = f.add(a["c"], f.b.mul(g, a["c_row"]), column)
                f.b.call(strip, [I64(1), *operands, c, a["c_row"]])
    f.b.ret_void()
    return f.function


def _strip(module: CodeModule, vectors: int) -> Any:
    """All rows of a product that is so many vectors wide."""
    f = FunctionBuilder(module, f"column{vectors}", STRIP, False)
    f.function.attributes.add("noinline")
    a, tile_rows = f.a, module.target.tile_rows

    def tile(rows: int, row: Any, m: Any) -> None:
        place = f.add(a["a"], f.b.mul(row, a["a_row"]))
        c = f.add(a["c"], f.b.mul(row, a["c_row"]))
        operands = (place, a["a_row"], a["a_column"], m, a["b"], a["b_row"], a["k"])
        _write_tile(f, rows, vectors, Tile(a["add"], *operands, c, a["c_row"]))

    whole = f.b.mul(f.b.sdiv(a["m"], I64(tile_rows)), I64(tile_rows))
    with f.loop(0, whole, tile_rows) as row:
        tile(tile_rows, row, I64(tile_rows))
    over = f.b.sub(a["m"], whole)
    with f.b.if_then(f.b.icmp_signed(">", over, I64(tile_rows // 2))):
        tile(tile_rows, whole, over)
    some = f.b.and_(f.b.icmp_signed(">", over, I64(0)), f.b.icmp_signed("<=", over, I64(tile_rows // 2)))
    with f.b.if_then(some):
        tile(tile_rows // 2, whole, over)
    f.b.ret_void()
    return f.function


class Tile(NamedTuple):
    """Where a tile reads and writes: addresses, strides in bytes, `m` rows and `k` columns of A."""

    add: Any
    a: Any
    a_row: Any
    a_column: Any
    m: Any
    b: Any
    b_row: Any
    k: Any
    c: Any
    c_row: Any


def _write_tile(f: FunctionBuilder, rows: int, vectors: int, t: Tile) -> None:
    """The tile of the module's docstring.

    Rows beyond `m` compute the last one again, so that none of them needs a branch.
    """
    b = f.b
    last = b.sub(t.m, I64(1))
    numbers = [b.select(b.icmp_signed("<", I64(i), t.m), I64(i), last) for i in range(rows)]
    a_rows = [b.add(t.a, b.mul(row, t.a_row)) for row in numbers]
    places = [p for row in numbers for p in _vectors_at(f, b.add(t.c, b.mul(row, t.c_row)), vectors)]
    zeros = f.splat(f.number(0.0))
    added = b.icmp_signed("!=", t.add, I64(0))
    starts = [b.select(added, b.load(place, align=f.size), zeros) for place in places]

    def products(column: Any) -> list[Any]:
        b_row = _vectors_at(f, b.add(t.b, b.mul(column, t.b_row)), vectors)
        b_row = [b.load(place, align=f.size) for place in b_row]
        offset = b.mul(column, t.a_column)
        factors = [f.splat(f.load(b.add(row, offset), f.number)) for row in a_rows]
        return [b.fmul(factor, v, flags=CONTRACT) for factor in factors for v in b_row]

    results = f.sums(t.k, 1, starts, products)
    for result, place in zip(results, places, strict=True):
        b.store(result, place, align=f.size)


def _vectors_at(f: FunctionBuilder, address: Any, count: int) -> list[Any]:
    return [f.pointer(f.b.add(address, I64(v * f.vector_size)), f.vector) for v in range(count)]


def _pack(module: CodeModule) -> Any:
    """Copies a block of a weight to (row, column) of a packed matrix of shape (rows, columns)."""
    f = FunctionBuilder(module, "pack", PACK, False)
    a, b, pair = f.a, f.b, PAIR * f.lanes
    end = b.add(a["column"], a["n_count"])
    begin = b.mul(b.sdiv(a["column"], I64(pair)), I64(pair))
    with f.loop(begin, end, pair) as first:  # the first column of each strip
        width = f.least(pair, b.sub(a["columns"], first))
        low = b.select(b.icmp_signed(">", first, a["column"]), first, a["column"])
        high = f.least(b.add(first, width), end)
        with f.loop(0, a["k_count"]) as k:
            row = b.mul(first, a["rows"])
            at = f.add(row, b.mul(b.add(a["row"], k), width), b.sub(low, first))
            target = b.add(a["dst"], f.mul(at, f.size))
            source = f.add(a["src"], b.mul(b.sub(low, a["column"]), a["n_step"]), b.mul(k, a["k_step"]))
            with f.loop(0, b.sub(high, low)) as n:
                value = f.load(b.add(source, b.mul(n, a["n_step"])), f.number)
                f.store(value, b.add(target, f.mul(n, f.size)))
    b.ret_void()
    return f.function
