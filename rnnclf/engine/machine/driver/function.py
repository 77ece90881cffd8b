"""What the functions of the driver have in common: reading tables, and loops over columns by vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from llvmlite import ir

from rnnclf.engine.machine.emit.instructions import I64, CodeModule, FunctionBuilder, splat

F64 = ir.DoubleType()

Record = TypeVar("Record", bound=NamedTuple)


class DriverFunction(FunctionBuilder):
    """A function of the driver. Its arguments are 64-bit integers, mostly addresses of tables."""

    def __init__(self, module: CodeModule, name: str, *arguments: str) -> None:
        super().__init__(module, name, arguments, False)
        # each function runs once a batch: inlining and unrolling would double the time to compile for nothing
        self.function.attributes.add("noinline")
        self.function.attributes.add("optsize")
        self.double = module.double

    # tables

    def record(self, kind: type[Record], address: Any) -> Record:
        """The table of this kind at an address. LLVM drops the loads of fields that are not used."""
        fields = (self.load(self.add(address, 8 * place), I64) for place in range(len(kind._fields)))
        return kind(*fields)

    @contextmanager
    def each_record(self, kind: type[Record], begin: Any, count: Any) -> Iterator[Record]:
        """A loop over tables that lie one after the other."""
        with self.loop(0, count) as n:
            yield self.record(kind, self.add(begin, self.mul(n, 8 * len(kind._fields))))

    def field(self, kind: type[Any], name: str, address: Any) -> Any:
        """The address of a field of the table at an address."""
        return self.add(address, 8 * kind._fields.index(name))

    # memory

    def at(self, base: Any, *distances: tuple[Any, Any]) -> Any:
        """An address: base + index * stride + ..."""
        return self.add(base, *(self.mul(index, stride) for index, stride in distances))

    def load_integer(self, base: Any, index: Any) -> Any:
        """An element of an array of 64-bit integers."""
        return self.load(self.at(base, (index, 8)), I64)

    def variables(self, kind: Any, *values: Any) -> list[Any]:
        """Local variables with these initial values."""
        places = [self.variable(kind) for _ in values]
        for place, value in zip(places, values, strict=True):
            self.b.store(value, place)
        return places

    def add_to(self, place: Any, value: Any) -> None:
        """Adds a floating-point value to a local variable."""
        self.b.store(self.b.fadd(self.b.load(place), value), place)

    # columns

    def each_column(self, width: Any, body: Callable[[Any, Any], None]) -> None:
        """Calls body(offset in bytes, type) for all columns of a row: for whole vectors first, then for what
        is left, number by number."""
        whole = self.b.and_(width, I64(-self.vector_size))
        with self.loop(0, whole, self.vector_size) as offset:
            body(offset, self.vector)
        with self.loop(whole, width, self.size) as offset:
            body(offset, self.number)

    def fill_zeros(self, begin: Any, length: Any) -> None:
        def fill(offset: Any, kind: Any) -> None:
            self.store(ir.Constant(kind, None), self.add(begin, offset))

        self.each_column(length, fill)

    # precisions

    def widened(self, value: Any) -> Any:
        """A number as float64."""
        return value if value.type == F64 else self.b.fpext(value, F64)

    def narrowed(self, value: Any) -> Any:
        """A float64 as a number of the model's type."""
        return value if self.double else self.b.fptrunc(value, self.number)

    def spread(self, value: Any, kind: Any) -> Any:
        """A number in all lanes if `kind` is a vector."""
        return splat(self.b, value, kind) if isinstance(kind, ir.VectorType) else value

    def end(self) -> Any:
        """Ends the function and returns it."""
        self.b.ret_void()
        return self.function
