"""How far a sweep has come, by the files of its jobs, which run in other processes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rnnclf.durations import parse_time
from rnnclf.errors import RnnclfError
from rnnclf.workflows.runs import RunFolder, fits, read_csv, stamp
from rnnclf.workflows.sweep import repeated_apart
from rnnclf.workflows.sweep_folder import jobs_of, jobs_record

RECENT = 5  # epochs whose time says how long those to come will take


@dataclass(frozen=True)
class RunningJob:
    """A job that is being trained."""

    number: int
    words: tuple[str, ...]
    """Its overrides, without those that all jobs share."""
    epoch: int
    """The number of completed epochs."""
    epochs: int
    """The number of epochs that it may take; 0 if unknown."""
    best: float | None
    """The best validation accuracy so far."""
    seconds: float
    """How long it has been trained."""
    seconds_left: float | None


@dataclass(frozen=True)
class Best:
    """The configuration with the highest mean validation accuracy over its finished runs."""

    words: tuple[str, ...]
    """Its overrides, without those that all jobs share; none if it is the only configuration."""
    accuracy: float
    runs: int


@dataclass(frozen=True)
class SweepProgress:
    """The number of jobs that are done, that failed, and of all.

    seconds_left: estimated from the jobs that are done and those that run; None when no job is left, or
        before anything is known.
    """

    done: int
    failed: int
    total: int
    seconds_left: float | None
    best: Best | None
    running: tuple[RunningJob, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A job that is done or has failed: its own overrides, and its record and results."""

    run: RunFolder
    words: tuple[str, ...]
    status: dict[str, Any]
    results: dict[str, Any]


class JobsFollowed:
    """The jobs of a sweep, looked at again and again. A file that has not changed is not read again.

    from_now: jobs that failed before the first look count as waiting, because the sweep is being resumed.
    """

    def __init__(self, sweep: Path, from_now: bool) -> None:
        self._sweep = sweep
        self._read: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._find_jobs()
        self._earlier = {run.path: stamp(run.status) for run in self.runs} if from_now else {}
        self._told = {run.path for run in self.runs if self._status(run).get("state") == "done"}

    def _find_jobs(self) -> None:
        self.runs = jobs_of(self._sweep)
        words = [self._words(run) for run in self.runs]
        shared = set(words[0]).intersection(*words[1:]) if len(words) > 1 else set()
        self._own = {
            run.path: tuple(word for word in own if word not in shared)
            for run, own in zip(self.runs, words, strict=True)
        }

    def progress(self) -> SweepProgress:
        """What is done, and what is left. What cannot be read counts as left."""
        if not jobs_record(self._sweep).exists():  # a sweeper may choose its jobs as it goes
            self._find_jobs()
        states = {run.path: self._state(run) for run in self.runs}
        by_state = {
            state: [run for run in self.runs if states[run.path] == state]
            for state in ("done", "failed", "running")
        }
        done, failed = by_state["done"], by_state["failed"]
        running = tuple(self._running(run) for run in by_state["running"])
        waiting = len(self.runs) - len(done) - len(failed) - len(running)
        seconds = [float(self._status(run).get("seconds", 0.0)) for run in done]
        left = _seconds_left(seconds, running, waiting)
        return SweepProgress(len(done), len(failed), len(self.runs), left, self._best(done), running)

    def ended(self) -> Iterator[Ended]:
        """The jobs that have ended since the last call."""
        for run in self.runs:
            if run.path not in self._told and self._state(run) in ("done", "failed"):
                self._told.add(run.path)
                yield Ended(run, self._own[run.path], self._status(run), self._results(run))

    def _state(self, run: RunFolder) -> str:
        state = str(self._status(run).get("state", "waiting"))
        is_old = state == "failed" and stamp(run.status) == self._earlier.get(run.path)
        return "waiting" if is_old else state

    def _running(self, run: RunFolder) -> RunningJob:
        status, rows = self._status(run), self._once(run.epochs, lambda: read_csv(run.epochs))
        found = status.get("configuration")
        configuration: dict[str, Any] = found if isinstance(found, dict) else {}
        epochs = configuration.get("epochs")
        accuracies = [value for row in rows if (value := _number(row, "validation_accuracy")) is not None]
        job = RunningJob(
            number=run.number or 0,
            words=self._own[run.path],
            epoch=len(rows),
            epochs=epochs if type(epochs) is int else 0,
            best=max(accuracies, default=None),
            seconds=_spent(status),
            seconds_left=None,
        )
        return replace(job, seconds_left=_left(job, rows, configuration.get("max_time")))

    def _best(self, done: list[RunFolder]) -> Best | None:
        found: dict[tuple[str, ...], list[float]] = {}
        for run in done:
            score = self._results(run).get("validation", {}).get("accuracy")
            if fits(score, float):
                found.setdefault(repeated_apart(self._own[run.path]), []).append(score)
        if not found:
            return None
        words, scores = max(found.items(), key=lambda item: fmean(item[1]))
        return Best(words, fmean(scores), len(scores))

    def _words(self, run: RunFolder) -> tuple[str, ...]:
        return tuple(self._status(run).get("overrides", []))

    def _status(self, run: RunFolder) -> dict[str, Any]:
        status: dict[str, Any] = self._once(run.status, run.read_status)
        return status

    def _results(self, run: RunFolder) -> dict[str, Any]:
        results: dict[str, Any] = self._once(run.results, run.read_results)
        return results

    def _once(self, path: Path, read: Any) -> Any:
        now = stamp(path)
        if path not in self._read or self._read[path][0] != now:
            self._read[path] = now, read()
        return self._read[path][1]


def progress_of(sweep: Path) -> SweepProgress:
    """How far the sweep in this folder has come."""
    return JobsFollowed(sweep, from_now=False).progress()


def _spent(status: dict[str, Any]) -> float:
    now = time.time()
    return float(status.get("seconds", 0.0)) + max(now - float(status.get("started", now)), 0.0)


def _left(job: RunningJob, rows: list[dict[str, str]], max_time: Any) -> float | None:
    """How long a job will still train, if that is known: at most until its max_time."""
    seconds = [value for row in rows[-RECENT:] if (value := _number(row, "seconds")) is not None]
    left = fmean(seconds) * max(job.epochs - job.epoch, 0) if seconds and job.epochs else math.inf
    if isinstance(max_time, str):
        with suppress(RnnclfError):
            left = min(left, max(parse_time(max_time) - job.seconds, 0.0))
    return left if math.isfinite(left) else None


def _seconds_left(done: list[float], running: tuple[RunningJob, ...], waiting: int) -> float | None:
    """An estimate for all jobs that are left, from the time that those took which are done, or else from what
    those that run will take. Of a job that runs, half is over on average, unless it is known how much."""
    at_once = len(running) + (waiting > 0 and bool(done))  # one has just ended, and another takes its place
    whole = [job.seconds + job.seconds_left for job in running if job.seconds_left is not None]
    if not at_once or not (done or whole):
        return None
    usual = fmean(done or whole)
    rest = [usual / 2 if job.seconds_left is None else job.seconds_left for job in running]
    return max([(sum(rest) + waiting * usual) / at_once, *rest])


def _number(row: dict[str, str], key: str) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(row.get(key, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
