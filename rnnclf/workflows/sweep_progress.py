"""How far a sweep has come, by the records of its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rnnclf.workflows.sweep_folder import jobs_of


@dataclass(frozen=True)
class SweepProgress:
    """The number of jobs that are done, that failed, and of all.

    seconds_left: estimated from the jobs that are done; None when no job is left.
    best: the number and the accuracy of the job with the highest validation accuracy.
    """

    done: int
    failed: int
    total: int
    seconds_left: float | None
    best: tuple[int, float] | None


def progress_of(sweep: Path) -> SweepProgress:
    """What is done in this folder, and what is left. What cannot be read counts as left."""
    jobs = jobs_of(sweep)
    statuses = [run.read_status() for run in jobs]
    states = [status.get("state", "waiting") for status in statuses]
    done = states.count("done")
    running, failed = states.count("running"), states.count("failed")
    waiting = len(jobs) - done - running - failed
    seconds = [
        float(s.get("seconds", 0)) for s, state in zip(statuses, states, strict=True) if state == "done"
    ]
    at_once = running + (waiting > 0)  # one has just ended, and another takes its place
    # of those that run, half is over on average
    left = fmean(seconds) * (waiting + running / 2) / at_once if seconds and at_once else None
    scores = [
        (float(found["accuracy"]), run.number)
        for run, state in zip(jobs, states, strict=True)
        if state == "done" and run.number is not None and (found := run.read_results().get("validation"))
    ]
    best = max(scores, key=lambda score: (score[0], -score[1]), default=None)
    return SweepProgress(done, failed, len(jobs), left, None if best is None else (best[1], best[0]))
