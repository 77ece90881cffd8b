"""The way into machine code: made once for all modules of one kind, or the reason why there is none.

Before first use in a process, machine code is compared with the loop on a small batch: whatever in a step
depends on more than its arguments (a Python variable, the size of the batch) would otherwise go wrong
unnoticed.  Shapes: T time, B batch, I inputs.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.module import CellModule
from rnnclf.engine.machine.code import CellCode
from rnnclf.engine.machine.engine import over_time
from rnnclf.engine.machine.graph import UncoveredError
from rnnclf.engine.machine.guard import mismatch
from rnnclf.engine.plan import Plan
from rnnclf.errors import ConfigError


def machine(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Runs a cell in machine code. Returns what `unroll` does.

    Raises ConfigError unless on a CPU, UncoveredError if there is no machine code for the cell.
    """
    if x_TBI.device.type != "cpu":
        raise ConfigError("engine=machine runs on a CPU only: use engine=auto.")
    return over_time(code_of(module), module.cell, module.prepared(), x_TBI, state, plan)


_codes: dict[Any, CellCode | str] = {}
"""The code for a kind of module, or why there is none."""
_codes_lock = Lock()


def obstacle(module: CellModule) -> str:
    """Why the cell cannot run in machine code, as part of a sentence; '' if it can. Compiles the code."""
    try:
        code_of(module)
    except UncoveredError as error:
        return str(error)
    return ""


def code_of(module: CellModule) -> CellCode:
    """The machine code for a module, made at the first call. Raises UncoveredError if there can be none."""
    key = _kind_of(module)
    with _codes_lock:
        if key not in _codes:
            _codes[key] = _made(module)
        code = _codes[key]
    if isinstance(code, str):
        raise UncoveredError(code)
    return code


def _kind_of(module: CellModule) -> Any:
    """What machine code depends on."""
    cell = module.cell
    options = tuple(sorted((name, repr(value)) for name, value in vars(cell).items()))
    weights = tuple(
        (name, tuple(weight.shape), weight.dtype, weight.requires_grad)
        for name, weight in (*module.named_parameters(), *module.named_buffers())
    )
    return type(cell), options, module.input_size, weights


def _made(module: CellModule) -> CellCode | str:
    try:
        with torch.inference_mode(False), torch.enable_grad():
            p = module.cell.prepare(module.weights())
            code = CellCode(module.cell, vars(p), module.input_size)
            return mismatch(module, code) or code
    except UncoveredError as error:
        return str(error)
    except Exception as error:  # our fault, since the tracer has words for what a step may do
        message = str(error).strip().partition("\n")[0].rstrip(".")
        return f"no machine code could be made for it ({type(error).__name__}: {message})"
