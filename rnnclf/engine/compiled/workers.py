"""Synchronisation of the threads that compute the parts of a batch, in machine code.

Threads signal their progress through counters that only increase. A waiting thread first spins, since waits
usually take microseconds, then sleeps for longer and longer intervals to free the core.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rnnclf.engine.compiled.kernels import address_of, inner, jit

POSTED, ARRIVED = 0, 16  # indices, in different cache lines, of two counters: jobs posted; arrivals
COUNTERS = 32
# Added to the counters to stop: more jobs than any run has, more arrivals than that many jobs could cause.
LAST_JOB, ALL_ARRIVALS = 2**40, 2**60
_SPINS, _SLEEP_US = 20_000, 100  # checks before the first sleep; its microseconds


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(context: Any, address: Any) -> Any:
    """Loads the number at an address, with acquire semantics: writes before its release are visible."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(source, "acquire", 8)

    return types.int64(types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_and_release(context: Any, address: Any, by: Any) -> Any:
    """Atomically adds to the number at an address, with acquire and release semantics."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", target, arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _pause(context: Any) -> Any:
    """Pauses for some 50 ns, which leaves the core to its other hardware thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), generate


_sleep = types.ExternalFunction("Sleep" if os.name == "nt" else "usleep", types.int32(types.uint32))
_SLEEP_UNIT = 1 if os.name == "nt" else _SLEEP_US  # Windows counts in milliseconds


@inner
def wait_for(counters: Any, counter: int, least: int) -> Any:
    """Waits until a counter has reached at least this value; returns its value."""
    address, checks = address_of(counters) + 8 * counter, 0
    while True:
        number = load_acquire(address)
        if number >= least:
            return number
        checks += 1
        _pause()
        if checks > _SPINS:  # longer and longer
            _sleep(np.uint32(_SLEEP_UNIT * min(1 + (checks - _SPINS) // 10, 20)))


@inner
def advance(counters: Any, counter: int, by: int) -> None:
    """Increases a counter."""
    add_and_release(address_of(counters) + 8 * counter, by)


@jit
def stop_workers(counters: Any) -> None:
    """Stops the workers, and releases any thread that waits for another."""
    advance(counters, POSTED, LAST_JOB)
    advance(counters, ARRIVED, ALL_ARRIVALS)
