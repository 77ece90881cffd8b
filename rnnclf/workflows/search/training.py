"""Trains a trial, until it is done, not worth another epoch, or out of time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rnnclf.durations import seconds_in_words
from rnnclf.files import write_json
from rnnclf.hydra_app import Job
from rnnclf.system.signals import ask_to_end
from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.tuning.pruning import first_look, why_prune
from rnnclf.workflows.jobs import JobsWatcher
from rnnclf.workflows.mirrored import mirrored
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.search.asking import spent
from rnnclf.workflows.search.trials import Trials
from rnnclf.workflows.train import RunInfo, Watcher

PERIOD = 1.0  # seconds between two looks at the time that other trials took


@dataclass
class TrialWatcher(Watcher):
    """Ends a run after an epoch that shows that it is not worth another, and when the budget is used up.

    The run saves as after any signal, so it can be taken up again.
    """

    trials: Trials
    number: int
    why: str | None = None
    """Why it has ended the run."""
    is_pruned: bool = False
    _epochs: int = 0
    _next_look: float = field(default_factory=time.monotonic)

    def started(self, info: RunInfo) -> None:
        self._epochs = info.config.epochs
        if info.epoch and not info.seen:  # the process may have died between the epoch and the look
            self._prune(info.epoch)

    def batch(self, progress: BatchProgress) -> None:
        seconds, now = self.trials.search.seconds, time.monotonic()
        if seconds is None or self.why is not None or now < self._next_look:
            return
        self._next_look = now + PERIOD
        if spent(self.trials.seen()) >= seconds:
            self._end(f"the budget of {seconds_in_words(seconds)} is used up")

    def epoch(self, result: EpochResult, best: bool) -> None:
        self._prune(result.epoch)

    def _prune(self, epoch: int) -> None:
        search = self.trials.search
        if search.prune == "none" or epoch >= self._epochs or self.why is not None:
            return
        curves = {one.trial.number: one.trial.curve for one in self.trials.seen()}
        mine = curves.pop(self.number)[:epoch]
        first = first_look(self._epochs)
        if why := why_prune(search.prune, mine, [*curves.values()], search.select, first):
            self.is_pruned = True
            self._end(f"pruned: {why}")

    def _end(self, why: str) -> None:
        self.why = why
        ask_to_end()


def train_trial(job: Job, trials: Trials, watch: JobsWatcher) -> float | None:
    """Trains a trial from where it stands. Returns its validation accuracy, or None if it was ended early."""
    assert job.number is not None
    run = RunFolder(job.folder, job.number)
    watcher = TrialWatcher(trials, job.number)
    try:
        with mirrored(run, watcher) as shown:
            report = resume_run(run, None, shown, watch.save)
    except SystemExit:
        if watcher.why is None:
            raise
        record = {**run.read_status(), "error": watcher.why}
        write_json(run.status, record | ({"pruned": watcher.why} if watcher.is_pruned else {}))
        return None
    return None if report is None else report.scores["validation"].accuracy
