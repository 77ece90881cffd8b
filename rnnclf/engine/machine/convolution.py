"""Convolutions summed step by step in machine code.  Shapes: T time, B batch, S convolved signals."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.code import NUMBERS, aligned_empty
from rnnclf.engine.machine.emit.convolution import ARGUMENTS, PACKED, write_convolution
from rnnclf.engine.machine.emit.instructions import HOST, CodeModule
from rnnclf.engine.parts import Worth, rows_of_parts, run_parts

WORTH = Worth(1, 10_000_000)


def is_possible(signals_TBS: Tensor) -> bool:
    """Whether there is machine code for such signals, which must fill a vector, at least."""
    size = signals_TBS.element_size()
    on_cpu = signals_TBS.device.type == "cpu" and signals_TBS.dtype in NUMBERS
    return on_cpu and signals_TBS.shape[-1] * size >= HOST.vector and _compiled(size == 8) is not None


def causal(a_TBS: Tensor, b_TBS: Tensor, backward: bool = False) -> Tensor:
    """v_t = Σ_k a_k b_{t-k}: (T, B, S). backward: b and v are reversed in time. The signals of a step must
    lie side by side."""
    v_TBS = torch.empty_like(b_TBS)
    rows = _rows(b_TBS)

    def part(n: int) -> None:
        _run(a_TBS[:, rows[n]], b_TBS[:, rows[n]], v_TBS[:, rows[n]], backward)

    run_parts(part, len(rows))
    return v_TBS


def causal_total(a_TBS: Tensor, b_TBS: Tensor, backward: bool = False) -> Tensor:
    """The sum of `causal` over the batch: (T, S)."""
    rows = _rows(b_TBS)
    v_PTS = b_TBS.new_empty(len(rows), len(b_TBS), b_TBS.shape[2])

    def part(n: int) -> None:
        _run(a_TBS[:, rows[n]], b_TBS[:, rows[n]], v_PTS[n].unsqueeze(1), backward, total=True)

    run_parts(part, len(rows))
    return v_PTS.sum(0)


def _rows(signals_TBS: Tensor) -> list[slice]:
    steps, batch, _ = signals_TBS.shape
    return rows_of_parts(batch, steps * signals_TBS.numel(), WORTH, torch.get_num_threads())


def _run(a_TBS: Tensor, b_TBS: Tensor, v_TBS: Tensor, backward: bool, total: bool = False) -> None:
    size = b_TBS.element_size()
    places = [_place(a_TBS, False), _place(b_TBS, backward), _place(v_TBS, backward)]
    steps, batch, signals = b_TBS.shape
    scratch = aligned_empty((PACKED * steps, HOST.vector // size), NUMBERS[b_TBS.dtype])
    table = np.array([*sum(places, ()), steps, signals, batch, total, scratch.ctypes.data], np.int64)
    assert len(table) == len(ARGUMENTS)
    function = _compiled(size == 8)
    assert function is not None
    function(table.ctypes.data)


def _place(x_TBS: Tensor, backward: bool) -> tuple[int, ...]:
    """The address of the first step, and the distances in bytes to the next step and the next sequence."""
    size = x_TBS.element_size()
    step, sequence = x_TBS.stride(0) * size, x_TBS.stride(1) * size
    begin = x_TBS.data_ptr()
    return (begin + (len(x_TBS) - 1) * step, -step, sequence) if backward else (begin, step, sequence)


@cache
def _compiled(double: bool) -> Callable[[int], None] | None:
    """None where machine code cannot be made; of cells that need it, `machine.entry` says why."""
    module = CodeModule(double)
    write_convolution(module)
    try:
        address = compiled(str(module.ir), ("convolution",))["convolution"]
    except Exception:
        return None
    function: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    return function
