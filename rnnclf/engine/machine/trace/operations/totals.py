"""Which operations on sums over sequences torch may run once, after the last time step.

The machine code adds up the sums of all steps. An operation on the result must give the same as if it had
been applied to the sums of each step before they were added up: it must be linear, f(a + b) = f(a) + f(b).
"""

from __future__ import annotations

from torch import Tensor

from rnnclf.engine.machine.graph import names
from rnnclf.engine.machine.trace.lowering import Lowering
from rnnclf.engine.machine.trace.operations.moves import MOVES
from rnnclf.engine.machine.trace.recording import Call, tensors_in
from rnnclf.engine.machine.trace.values import Total, Uniform, Value

OF_ONE_TENSOR = MOVES | names("neg sum slice_backward select_backward")


def is_linear(lowering: Lowering, call: Call) -> bool:
    """Whether a call is linear in those of its operands that are sums over sequences."""
    operands = [lowering.value(tensor) for tensor in tensors_in(call.args)]
    if call.name in OF_ONE_TENSOR:
        return True
    if call.name in ("add", "sub", "cat"):
        numbers = [a for a in call.args if isinstance(a, int | float)] if call.name != "cat" else []
        return not any(numbers) and all(map(_is_total_or_zero, operands))
    if call.name == "where":
        return not isinstance(operands[0], Total) and all(map(_is_total_or_zero, operands[1:]))
    if call.name in ("mul", "mm", "bmm"):
        return sum(isinstance(value, Total) for value in operands) == 1
    if call.name == "div":
        divisor = call.args[1]
        return not (isinstance(divisor, Tensor) and isinstance(lowering.value(divisor), Total))
    return False


def _is_total_or_zero(value: Value) -> bool:
    return isinstance(value, Total) or value == Uniform(0.0)
