"""The rules: how each operation of torch that has a row for each sequence is lowered.

A rule is called with the lowering and a recorded call, at least one of whose operands is `Batched`. It
states what the call's result means and which cuts are needed, and returns a function that makes the nodes
once all cuts are known, or None if there are none to make.
"""

from __future__ import annotations

from collections.abc import Callable

from rnnclf.engine.machine.trace.lowering import Lowering, MakeNodes
from rnnclf.engine.machine.trace.operations.elementwise import ELEMENTWISE
from rnnclf.engine.machine.trace.operations.moves import MOVES, cat, move, part_backward
from rnnclf.engine.machine.trace.operations.products import matrix_product
from rnnclf.engine.machine.trace.operations.reductions import largest, summed
from rnnclf.engine.machine.trace.recording import Call

Rule = Callable[[Lowering, Call], MakeNodes | None]

RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES, move),
    **ELEMENTWISE,
    "cat": cat,
    "slice_backward": part_backward,
    "select_backward": part_backward,
    "sum": summed,
    "amax": largest,
    "mm": matrix_product,
    "bmm": matrix_product,
}
"""By the name of the operation in `torch.ops.aten`, without the underscore of an operation in place."""
