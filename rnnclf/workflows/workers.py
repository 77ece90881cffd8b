"""Runs jobs in processes of their own, several at once, with somebody else choosing the next one.

A job is claimed before its process is forked, which inherits the claim: nobody can take it in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.hydra_app import Job
from rnnclf.hydra_app.setup import register
from rnnclf.system import fork
from rnnclf.system.claims import Claim
from rnnclf.system.fork import Child, ChildDied
from rnnclf.system.startup import import_torch
from rnnclf.workflows import ledger
from rnnclf.workflows.jobs import JobsWatcher
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.tracking import preload

TRY_AGAIN = 1.0  # seconds until the next look for a job, if there was none for a free place


@dataclass(frozen=True)
class Taken:
    """A job that this process has claimed. It releases the claim when the job has ended."""

    run: RunFolder
    claim: Claim


Take = Callable[[], Taken | None]
Train = Callable[[Job], float | None]


def run_jobs(take: Take, train: Train, watch: JobsWatcher, places: int) -> None:
    """Runs the jobs that `take` gives until it gives none and all have ended.

    take: claims the next job; None if there is none now. It is called again when a job has ended.
    train: called in a process of its own; in this one where forking is not safe.
    places: the number of jobs that run at once.

    The errors of jobs go to `watch`. If this process is asked to end, the jobs save, and it ends.
    """
    import_torch()  # once here, instead of in the process of each job; so are the schemas of configurations
    register([])
    watch.preload()
    running: dict[Child, Taken] = {}
    try:
        while True:
            while len(running) < places and (taken := take()) is not None:
                preload(taken.run.path)
                work = partial(_train, train, taken, parallel=places > 1)
                if fork.can_fork():
                    _start(work, taken, running, watch)
                else:
                    _settle(work, taken, watch)
            if not running:
                return
            wait = TRY_AGAIN if len(running) < places else None
            for child in fork.ended(running, wait):
                _settle(child.answer, running.pop(child), watch)
    except (KeyboardInterrupt, SystemExit) as end:
        for child in running:
            child.ask_to_end()
        for child, taken in running.items():
            _let_save(child, taken, end, watch)
        raise


def _let_save(child: Child, taken: Taken, end: BaseException, watch: JobsWatcher) -> None:
    """Waits until a job that was asked to end has saved, and lets others take it."""
    try:
        child.wait()
        ledger.record_interruption(taken.run, end)
    except ChildDied as death:
        watch.note(ledger.killed(taken.run, death))
        if not taken.claim.is_lost():
            ledger.record_kill(taken.run, death)
    taken.claim.release()


def share_cores(places: int) -> None:
    """Divides the cores among jobs that run at once, unless the user has: a job of threads=auto then takes
    its part of them. To be called before torch is imported."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // places, 1)))


def job_of(taken: Taken, parallel: bool) -> Job:
    return Job(taken.run.path, [], taken.run.number, parallel)


def _train(train: Train, taken: Taken, parallel: bool) -> float | None:
    with taken.claim.inherited():
        return train(job_of(taken, parallel))


def _start(
    work: Callable[[], float | None], taken: Taken, running: dict[Child, Taken], watch: JobsWatcher
) -> None:
    try:
        with ledger.recorded_end(taken.run):
            running[Child(work, taken.run.log)] = taken
    except JobFailed as error:
        taken.claim.release()
        watch.job_failed(job_of(taken, parallel=True), error)


def _settle(answer: Callable[[], float | None], taken: Taken, watch: JobsWatcher) -> None:
    """Waits for the answer of a job, and tells `watch` of its error."""
    try:
        with ledger.recorded_end(taken.run):
            answer()
    except (RnnclfError, JobFailed) as error:
        watch.job_failed(job_of(taken, parallel=True), error)
    finally:
        taken.claim.release()
