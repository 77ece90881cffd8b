"""How the threads that compute the parts of a batch wait for each other.

Threads signal their progress through two counters that only increase: batches posted, and arrivals of threads
at the two meeting points of a batch (all weights are packed; all gradients are there). A waiting thread first
checks its counter busily, since most waits take microseconds, then sleeps for longer and longer to free its
core.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from rnnclf.engine.machine.driver.function import DriverFunction
from rnnclf.engine.machine.driver.tables import Part, Shared
from rnnclf.engine.machine.emit.instructions import I32, I64, CodeModule

POSTED, ARRIVED = 0, 128
"""Positions of the two counters in bytes, in different cache lines."""
COUNTERS = 32
"""Length of the array of counters."""
LAST_JOB, ALL_ARRIVALS = 2**40, 2**60
"""Added to the counters to stop: more batches than any run has, more arrivals than these could cause."""
CHECKS, NAP_US, LONGEST_NAP = 20_000, 100, 20
"""Checks before the first sleep; its microseconds; how many times longer sleeps become."""


def counter(c: DriverFunction, counters: Any, position: int) -> Any:
    """A counter's value. What another thread wrote before it advanced the counter can then be read."""
    return c.b.load_atomic(c.pointer(c.add(counters, position), I64), "acquire", 8)


def advance(c: DriverFunction, counters: Any, position: int) -> None:
    """Increases a counter by one, after which other threads see what this one has written."""
    c.b.atomic_rmw("add", c.pointer(c.add(counters, position), I64), I64(1), "acq_rel")


def write_wait(module: CodeModule) -> Any:
    """wait(counter, least): returns when the counter at this address has reached at least this value."""
    c = DriverFunction(module, "wait", "counter", "least")
    b = c.b
    check, again, sleep, done = (
        c.function.append_basic_block(name) for name in ("check", "again", "sleep", "done")
    )
    before = b.block
    b.branch(check)
    b.position_at_end(check)
    checks = b.phi(I64)
    checks.add_incoming(I64(0), before)
    b.cbranch(b.icmp_signed(">=", counter(c, c.a["counter"], 0), c.a["least"]), done, again)
    b.position_at_end(again)
    _pause(c)
    more = b.add(checks, I64(1))
    checks.add_incoming(more, again)
    b.cbranch(b.icmp_signed(">", more, I64(CHECKS)), sleep, check)
    b.position_at_end(sleep)
    naps = c.least(c.add(b.sdiv(b.sub(more, I64(CHECKS)), I64(10)), 1), LONGEST_NAP)
    _sleep(c, naps)
    checks.add_incoming(more, sleep)
    b.branch(check)
    b.position_at_end(done)
    return c.end()


def _pause(c: DriverFunction) -> None:
    """Leaves the core to its other hardware thread for some 50 ns, on processors that have an instruction for
    it."""
    if c.module.ir.triple.startswith("x86_64"):
        c.b.call(c.module.declare("llvm.x86.sse2.pause", ir.VoidType()), [])


def _sleep(c: DriverFunction, naps: Any) -> None:
    if "windows" in c.module.ir.triple:  # whose shortest sleep is a millisecond
        sleep, naps = c.module.declare("Sleep", ir.VoidType(), I32), naps
    else:
        sleep, naps = c.module.declare("usleep", I32, I32), c.mul(naps, NAP_US)
    c.b.call(sleep, [c.b.trunc(naps, I32)])


def write_serve(module: CodeModule, compute: Any, wait: Any) -> Any:
    """serve(part): what a worker does. It computes its part of each batch that is posted, until it is
    stopped."""
    c = DriverFunction(module, "serve", "part")
    b, part = c.b, c.a["part"]
    counters = c.record(Shared, c.record(Part, part).shared).counters
    (job,) = c.variables(I64, I64(1))
    work, go_on, done = (c.function.append_basic_block(name) for name in ("work", "go_on", "done"))
    b.branch(work)
    b.position_at_end(work)
    b.call(wait, [c.add(counters, POSTED), b.load(job)])
    b.cbranch(b.icmp_signed(">=", counter(c, counters, POSTED), I64(LAST_JOB)), done, go_on)
    b.position_at_end(go_on)
    c.store(b.load(job), c.field(Part, "job", part))
    b.call(compute, [part])
    b.store(c.add(b.load(job), 1), job)
    b.branch(work)
    b.position_at_end(done)
    return c.end()


def write_lead(module: CodeModule, compute: Any, wait: Any, reduce: Any) -> Any:
    """lead(part, reduction): what the calling thread does for one batch. It posts the batch, computes its own
    part, waits for the others, and adds up the results."""
    c = DriverFunction(module, "lead", "part", "reduction")
    b, part = c.b, c.a["part"]
    shared = c.record(Shared, c.record(Part, part).shared)
    advance(c, shared.counters, POSTED)
    job = counter(c, shared.counters, POSTED)
    c.store(job, c.field(Part, "job", part))
    b.call(compute, [part])
    b.call(wait, [c.add(shared.counters, ARRIVED), b.mul(c.mul(job, 2), shared.parts)])
    b.call(reduce, [c.a["reduction"]])
    return c.end()
