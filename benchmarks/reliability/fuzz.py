"""Hostile files and words, by the ten thousand: each must give a right answer or one clear RnnclfError.

    python benchmarks/reliability/fuzz.py                         # 10,000 inputs for each target
    python benchmarks/reliability/fuzz.py checkpoint --count 500 --first 3000 --seed 7

Every input is drawn from (target, seed, number) alone, so that any of them can be repeated, and a long run
can be cut into pieces. What counts as a failure: an exception that is no RnnclfError; more than SECONDS; more
than MEMORY; a control character on the screen; anything run that the input named. Many inputs hold payloads
that would make a file or reach a resolver of OmegaConf, and Python's own audit hook tells of unpickling,
shells, programs and connections.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, which does not know the folder of the benchmarks
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reliability.hostile.changes import CANARY, Payload
from benchmarks.reliability.hostile.checkpoints import try_checkpoint
from benchmarks.reliability.hostile.data import try_data
from benchmarks.reliability.hostile.ground import SECRET, Executed, Ground, prepare
from benchmarks.reliability.hostile.overrides import try_overrides
from benchmarks.reliability.hostile.records import (
    grow,
    hostile_record,
    hostile_table,
    hostile_yaml,
    look_at,
    record_target,
    take_up,
)
from rnnclf.system.helper import command, kept

__all__ = ["CANARY", "TARGETS", "Executed", "Hang", "Payload", "once", "prepare", "watch"]

SECONDS = 10.0  # of computing for one input; of waiting, six times as many
MEMORY = 1.5 * 2**30  # bytes beyond what the process has before the first input


class Hang(BaseException):
    """An input took too long."""


TARGETS: dict[str, Callable[[random.Random, Ground], str]] = {
    "checkpoint": try_checkpoint,
    "status.json": record_target("status.json", hostile_record, take_up),
    "results.json": record_target("results.json", hostile_record, look_at),
    "epochs.csv": record_target("epochs.csv", hostile_table, look_at),
    "multirun.yaml": record_target("multirun.yaml", hostile_yaml, grow),
    "overrides": try_overrides,
    "data": try_data,
}


# One input after the other, watched

WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "os.fork",
)
_executed: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in WATCHED and not (event == "subprocess.Popen" and arguments[1] == command()):
        _executed.append(f"{event} {arguments!r}"[:200])


def watch() -> None:
    """From now on Python tells of what is run; resolvers that a file must not reach are there to be."""
    from omegaconf import OmegaConf

    from rnnclf.hydra_app.setup import register

    register([])
    sys.addaudithook(_audit)
    if not OmegaConf.has_resolver("canary"):
        OmegaConf.register_new_resolver("canary", lambda *_: _executed.append("a resolver"))
    os.environ["FUZZ_SECRET"] = SECRET


def _do_once() -> None:
    """Has what many inputs share, the parts that are not hostile, worked out but once: that is most of it.

    Changes modules for good, so it is for a process that does nothing else.
    """
    from hydra.core.config_store import ConfigStore

    from rnnclf.config_reading import from_plain
    from rnnclf.hydra_app import checks, compose, setup
    from rnnclf.workflows import evaluate, ledger, resume

    def register(plugins: list[str]) -> None:
        if plugins:  # the others are known already
            setup.register(plugins)

    checks.register = compose.register = resume.register = register  # type: ignore[attr-defined]
    ledger.plan = _remembered(checks.plan)  # type: ignore[attr-defined]
    remembered = _remembered(from_plain)
    evaluate.from_plain = ledger.from_plain = resume.from_plain = remembered  # type: ignore[attr-defined]
    # Hydra copies its store of schemas for each composition, and what it reads there once more
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()  # torch's hundred thousand objects need not be looked through again and again


def _remembered(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of plain data, which returns a copy of what it returned for the same data before. What it
    raises is not remembered."""
    known: dict[str, Any] = {}

    def call(plain: Any) -> Any:
        try:
            key = json.dumps(plain)
        except (TypeError, ValueError, RecursionError):
            return function(plain)
        if key not in known:
            if len(known) > 500 or len(key) > 20_000:
                return function(plain)
            known[key] = function(plain)
        return copy.deepcopy(known[key])

    return call


def once(target: str, number: int, seed: int, ground: Ground) -> str:
    """What came of one input; raises for anything that must not happen."""
    global _watching
    rng = random.Random(f"{target} {seed} {number}")
    _executed.clear()
    _watching = target != "overrides"  # a user's own words may name a program or a resolver
    before = signal.signal(signal.SIGALRM, Limit().look)
    signal.setitimer(signal.ITIMER_REAL, SECONDS / 10)
    try:
        outcome = TARGETS[target](rng, ground)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _watching = False
    if Path(CANARY).exists() or (_executed and target != "overrides"):
        raise Executed(", ".join(_executed) or "the canary was made")
    return outcome


@dataclass
class Limit:
    """Ends an input that takes too long. Other processes of a busy machine are not its fault."""

    waited: float = field(default_factory=time.monotonic)
    computed: float = field(default_factory=time.process_time)

    def look(self, *_: Any) -> None:
        computed, waited = time.process_time() - self.computed, time.monotonic() - self.waited
        if computed > SECONDS or waited > 6 * SECONDS:
            raise Hang(f"{computed:.1f} s of computing, {waited:.1f} s in all")
        signal.setitimer(signal.ITIMER_REAL, SECONDS / 10)


def limit_memory(extra: float) -> None:
    """From here on the process may take that many bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = int(pages * os.sysconf("SC_PAGE_SIZE") + extra)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all if left out")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.chdir(folder)
        ground = prepare(Path(folder))
        watch()
        _do_once()
        limit_memory(MEMORY)
        stack.enter_context(kept())
        for target in given.targets or TARGETS:
            outcomes: Counter[str] = Counter()
            started, slowest = time.perf_counter(), 0.0
            for number in range(given.first, given.first + given.count):
                begun = time.perf_counter()
                try:
                    outcomes[once(target, number, given.seed, ground)] += 1
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:
                    outcomes["FAILED"] += 1
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    failures[place := f"{where.filename}:{where.lineno} {type(error).__name__}"] += 1
                    if failures[place] == 1:  # others of its kind have the same cause
                        print(f"{target} --seed {given.seed} --first {number} --count 1", file=sys.stderr)
                        traceback.print_exception(error, limit=-8, file=sys.stderr)
                    Path(CANARY).unlink(missing_ok=True)
                slowest = max(slowest, time.perf_counter() - begun)
                if (number + 1 - given.first) % 1000 == 0:
                    print(f"{target}: {number + 1:,}", file=sys.stderr, flush=True)
            listed = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
            seconds = time.perf_counter() - started
            print(
                f"{target}: {given.count:,} inputs in {seconds:.0f} s, slowest {slowest:.2f} s: {listed}",
                flush=True,
            )
    for place, count in failures.most_common():
        print(f"{count:,} times {place}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
