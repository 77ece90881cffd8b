"""Synchronisation of the threads that work on the parts of a batch, in machine code.

They see each other's progress in counters that only grow. Waiting is busy at first, since it is a matter of
microseconds, then in longer and longer naps, so that something else can have the core.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rnnclf.engine.compiled.kernels import address_of, inner, jit

POSTED, ARRIVED = 0, 16  # places on the counters, in different lines of the caches: jobs; how many came by
COUNTERS = 32
LAST_JOB, ALL_ARRIVALS = (
    2**40,
    2**60,
)  # more jobs than there are, and more arrivals than even that many would bring
_PATIENCE, _REST = 20_000, 100  # looks with a mere pause; microseconds between the first of those after them


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(context: Any, address: Any) -> Any:
    """The number at an address, and all that was written before it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_and_release(context: Any, address: Any, by: Any) -> Any:
    """Adds to the number at an address, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _pause(context: Any) -> Any:
    """Some 50 ns, in which another thread has the core to itself if they share one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), generate


_sleep = types.ExternalFunction("Sleep" if os.name == "nt" else "usleep", types.int32(types.uint32))
_NAP = 1 if os.name == "nt" else _REST


@inner
def wait_for(counters: Any, place: int, least: int) -> Any:
    """Until a number on the counters is at least so large."""
    there, looks = address_of(counters) + 8 * place, 0
    while True:
        number = load_acquire(there)
        if number >= least:
            return number
        looks += 1
        _pause()
        if looks > _PATIENCE:  # longer and longer
            _sleep(np.uint32(_NAP * min(1 + (looks - _PATIENCE) // 10, 20)))


@inner
def advance(counters: Any, place: int, by: int) -> None:
    """Raises a number on the counters."""
    add_and_release(address_of(counters) + 8 * place, by)


@jit
def stop_workers(counters: Any) -> None:
    """Has those who serve go home, and nobody wait any more."""
    advance(counters, POSTED, LAST_JOB)
    advance(counters, ARRIVED, ALL_ARRIVALS)
