"""The command `rnnclf work`: runs the jobs of a sweep that nobody has run, beside any other workers.

The folders of the jobs are the queue, so the workers need nothing but a file system that they share. A worker
takes a job that is not done, has not failed, and is not claimed; one that was interrupted goes on from its
last checkpoint. Prints nothing.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from rnnclf.errors import InUseError, OutputError
from rnnclf.system.claims import claim
from rnnclf.workflows import ledger
from rnnclf.workflows.jobs import Finished, JobsWatcher, resume_job
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep import rank_sweep
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.workers import Taken, run_jobs, share_cores

ENDED = ("done", "failed")


class Queue:
    """The jobs of a sweep that wait for a worker."""

    def __init__(self, folder: Path) -> None:
        self._rest = {run.path: run for run in jobs_of(folder)}
        """The jobs that had not ended when they were last looked at, without those that were taken here."""
        self._next = deque(self._rest.values())

    def take(self) -> Taken | None:
        """Claims the next job; None if none can be claimed now."""
        for _ in range(2):  # others may have died since a job was last looked at
            while self._next:
                if taken := self._claimed(self._next.popleft()):
                    return taken
            self._next = deque(self._rest.values())
        return None

    def _claimed(self, run: RunFolder) -> Taken | None:
        if _has_ended(run):
            del self._rest[run.path]
            return None
        try:
            made = claim(run.path)
        except OutputError:  # another worker's, or its folder is gone
            return None
        del self._rest[run.path]
        if _has_ended(run):  # a moment ago, by another worker
            made.release()
            return None
        return Taken(run, made)


def _has_ended(run: RunFolder) -> bool:
    return run.read_status().get("state") in ENDED


def work(folder: Path, watch: JobsWatcher, places: int = 1) -> Finished:
    """Runs jobs of a sweep until none is left that could be claimed.

    places: the number of jobs that run at once.

    Returns whether a job of the sweep has failed. Raises CheckpointError if `folder` is not a sweep.
    """
    with suppress(InUseError), ledger.open_sweep(folder):
        pass  # which restores what is missing, unless the sweep's own process is there
    if places > 1:
        share_cores(places)
    with watch.jobs_run(folder) if places > 1 else nullcontext():
        run_jobs(Queue(folder).take, partial(resume_job, watch=watch), watch, places)
    states = [run.state() for run in jobs_of(folder)]
    if others := sum(state not in ENDED for state in states):
        watch.left_to_others(folder, others)
    else:
        watch.sweep_ended(folder, rank_sweep(folder))
    return Finished(None, failed="failed" in states)
