"""Writing LLVM functions: whole-number arithmetic, loops and memory, on top of llvmlite's builder.

Addresses and byte counts are 64-bit whole numbers; a pointer exists only for the instruction that uses it.
Python integers may stand for constants:

    f = FunctionBuilder(module, "double", ("numbers", "count"), False)
    with f.loop(0, f.a["count"]) as n:
        address = f.add(f.a["numbers"], f.mul(n, 8))
        f.store(f.b.fmul(f.load(address, f.number), f.number(2.0)), address)
    f.b.ret_void()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
CONTRACT = ("contract",)
"""Lets LLVM join a multiplication and an addition into one instruction, with one rounding."""


def vector_bytes() -> int:
    """The size of this processor's vector registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16  # 16: SSE2 and NEON, which every x86-64 and aarch64 has


@dataclass(frozen=True)
class Target:
    """The processor that code is written for, and the block sizes that suit it.

    Attributes:
        triple: LLVM's name for processor, vendor and system.
        vector: the size of a vector register in bytes.
    """

    triple: str
    vector: int

    @property
    def tile_rows(self) -> int:
        """Rows of a tile of a product: two vectors a row are kept in registers, of which AVX-512 has 32."""
        return 12 if self.vector == 64 else 6

    @property
    def group(self) -> int:
        """Rows of an outer product that are computed together."""
        return 4 * self.tile_rows

    @property
    def block(self) -> int:
        """Sequences of a batch that go through a time step together, so that scratch stays in the cache."""
        return 72 if self.vector == 64 else 78  # whole tiles


HOST = Target(llvm.get_process_triple(), vector_bytes())


class CodeModule:
    """An LLVM module for one precision.

    Attributes:
        ir: llvmlite's module; `str(module.ir)` is its text.
        number, vector: the types of a number and of a vector of `lanes` numbers.
        size: the size of a number in bytes.
    """

    def __init__(self, double: bool, target: Target | None = None) -> None:
        self.double, self.target = double, target or HOST
        self.size = 8 if double else 4
        self.number: Any = ir.DoubleType() if double else ir.FloatType()
        self.lanes = self.target.vector // self.size
        self.vector: Any = ir.VectorType(self.number, self.lanes)
        self.ir = ir.Module()
        self.ir.triple = self.target.triple

    def declare(self, name: str, result: Any, *kinds: Any) -> Any:
        """An external function, such as one of the C library, or one of LLVM's intrinsics."""
        if name in self.ir.globals:
            return self.ir.globals[name]
        return ir.Function(self.ir, ir.FunctionType(result, kinds), name)


class FunctionBuilder:
    """A function under construction.

    Args:
        arguments: names of the arguments, all of them 64-bit whole numbers.
        in_array: whether the function has a single argument, the address of an array of them.

    Attributes:
        a: the arguments by name.
        b: llvmlite's builder, positioned where the next instruction goes.
        function: the function.
    """

    def __init__(self, module: CodeModule, name: str, arguments: tuple[str, ...], in_array: bool) -> None:
        self.module, self.size, self.lanes = module, module.size, module.lanes
        self.number, self.vector, self.vector_size = module.number, module.vector, module.target.vector
        kinds = [I64.as_pointer()] if in_array else [I64] * len(arguments)
        self.function = ir.Function(module.ir, ir.FunctionType(ir.VoidType(), kinds), name)
        self.entry = self.function.append_basic_block("entry")
        self.b: Any = ir.IRBuilder(self.entry)
        self.a: dict[str, Any] = {}
        for n, argument in enumerate(arguments):
            if in_array:
                self.a[argument] = self.b.load(self.b.gep(self.function.args[0], [I64(n)]))
            else:
                self.a[argument] = self.function.args[n]

    # whole numbers

    def add(self, *terms: Any) -> Any:
        """A sum; its constant terms are added up here."""
        total = None
        constant = sum(term for term in terms if isinstance(term, int))
        for term in terms:
            if not isinstance(term, int):
                total = term if total is None else self.b.add(total, term)
        if total is None:
            return I64(constant)
        return self.b.add(total, I64(constant)) if constant else total

    def mul(self, a: Any, by: Any) -> Any:
        return self.b.mul(a, I64(by) if isinstance(by, int) else by)

    def least(self, a: Any, b: Any) -> Any:
        """The smaller of two signed numbers."""
        a, b = (I64(v) if isinstance(v, int) else v for v in (a, b))
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def is_set(self, value: Any) -> Any:
        return self.b.icmp_signed("!=", value, I64(0))

    # loops

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """`for index in range(start, stop, step)`: the body is what the `with` block writes."""
        start, stop = (I64(v) if isinstance(v, int) else v for v in (start, stop))
        before = self.b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("head", "body", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(start, before)
        self.b.cbranch(self.b.icmp_signed("<", index, stop), body, after)
        self.b.position_at_end(body)
        yield index
        index.add_incoming(self.b.add(index, I64(step)), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)

    @contextmanager
    def countdown(self, stop: Any) -> Iterator[Any]:
        """`for index in reversed(range(stop))`."""
        with self.loop(0, stop) as n:
            yield self.b.sub(self.b.sub(stop, I64(1)), n)

    def sums(
        self, stop: Any, step: int, starts: Sequence[Any], products: Callable[[Any], list[Any]]
    ) -> list[Any]:
        """`starts` plus `products(index)` for each index in range(0, stop, step), summed in registers."""
        b = self.b
        before, loop, after = b.block, b.append_basic_block("each"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed(">", stop, I64(0)), loop, after)

        b.position_at_end(loop)
        index, sums = b.phi(I64), [b.phi(start.type) for start in starts]
        totals = [b.fadd(*pair, flags=CONTRACT) for pair in zip(products(index), sums, strict=True)]
        following = b.add(index, I64(step))
        b.cbranch(b.icmp_signed("<", following, stop), loop, after)
        for phi, start, later in zip((index, *sums), (I64(0), *starts), (following, *totals), strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(later, loop)

        b.position_at_end(after)
        results = [b.phi(start.type) for start in starts]
        for result, start, later in zip(results, starts, totals, strict=True):
            result.add_incoming(start, before)
            result.add_incoming(later, loop)
        return results

    # memory

    def pointer(self, address: Any, kind: Any) -> Any:
        return self.b.inttoptr(address, kind.as_pointer())

    def load(self, address: Any, kind: Any) -> Any:
        """A number or vector, aligned as a number of the module is."""
        return self.b.load(self.pointer(address, kind), align=self.size)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.pointer(address, value.type), align=self.size)

    def variable(self, kind: Any) -> Any:
        """A pointer to a local variable."""
        with self.b.goto_block(self.entry):
            return self.b.alloca(kind)

    # vectors

    def splat(self, value: Any) -> Any:
        """A vector that holds a number in every lane."""
        return splat(self.b, value, self.vector)

    def vector_of(self, value: float) -> Any:
        """A constant vector that holds a number in every lane."""
        return ir.Constant(self.vector, [value] * self.lanes)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of this type that holds a number in every lane."""
    none = ir.Constant(vector, ir.Undefined)
    first = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(none, value, I32(0)), none, first)
