"""From a plan to the text of LLVM functions: `str(Module(plan, double).ir)` is what cache.py compiles.

forward, backward  all time steps of a layer (time_loop.py), made of products and passes (passes.py)
product, outer     matrix products (products.py)
pack               copies weights into the layout that products read
"""

from __future__ import annotations

from rnnclf.engine.machine.emit.instructions import (
    HOST,
    I64,
    CodeModule,
    FunctionBuilder,
    Target,
    splat,
    vector_bytes,
)
from rnnclf.engine.machine.emit.products import PACK, write_products
from rnnclf.engine.machine.emit.time_loop import BACKWARD, FORWARD, BackwardLoop, ForwardLoop
from rnnclf.engine.machine.graph import UncoveredError
from rnnclf.engine.machine.schedule.plan import Plan

__all__ = [
    "BACKWARD",
    "BLOCK",
    "FORWARD",
    "GROUP",
    "I64",
    "PACK",
    "ROWS",
    "VECTOR",
    "FunctionBuilder",
    "Module",
    "Target",
    "splat",
    "vector_bytes",
]

VECTOR, ROWS, GROUP, BLOCK = HOST.vector, HOST.tile_rows, HOST.group, HOST.block


class Module(CodeModule):
    """The functions for one plan; without a plan, the products alone.

    Raises:
        UncoveredError: the step is a chain of too many operations.
    """

    def __init__(self, plan: Plan | None, double: bool, target: Target | None = None) -> None:
        super().__init__(double, target)
        self.plan = plan
        self.product, self.outer, self.packer = products = write_products(self)
        if plan is not None:
            assert self.lanes == plan.lanes
            try:
                ForwardLoop(self, products, plan).write()
                BackwardLoop(self, products, plan).write()
            except RecursionError:
                raise UncoveredError("its step is a chain of too many operations") from None
