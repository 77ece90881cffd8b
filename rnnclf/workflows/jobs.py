"""What `rnnclf train` and `rnnclf resume` do, job by job; sweeps. Prints nothing.

Torch is imported when the first job runs: launching and ranking a sweep do without it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.errors import CheckpointError, ConfigError, JobFailed, RnnclfError
from rnnclf.hydra_app.bridge import Job, Outcome, run_again, run_hydra
from rnnclf.hydra_app.checks import Planned, Start
from rnnclf.hydra_app.compose import parsed
from rnnclf.system.startup import import_torch
from rnnclf.workflows import ledger
from rnnclf.workflows.runs import RunFolder, is_sweep, refuse_used_run
from rnnclf.workflows.sweep import SweepRow, rank_sweep

if TYPE_CHECKING:
    from rnnclf.config import Config
    from rnnclf.workflows.train import Report, Watcher

SETTLE = 10  # seconds that the jobs of an interrupted launcher get to save


class JobsWatcher:
    """Is told how jobs go. This one ignores it; the console's prints. It travels to the processes of jobs."""

    def preload(self) -> None:
        """Imports what a job will need, before its process is forked."""

    def run(self, job: Job) -> AbstractContextManager[Watcher]:
        """The watcher of a job while it runs."""
        from rnnclf.workflows.train import Watcher

        return nullcontext(Watcher())

    def save(self, report: Report) -> None:
        """Writes further files into the folder of a run, before it counts as done."""

    def run_ended(self, job: Job, report: Report) -> None:
        """A run is done."""

    def run_was_done(self, folder: Path, results: dict[str, Any]) -> None:
        """There was nothing left to do for this run."""

    def job_failed(self, job: Job, error: Exception) -> None:
        """A job of a sweep failed; the others go on."""

    def note(self, sentence: str) -> None:
        """Something unusual happened."""

    def sweep_resumed(self, folder: Path, pending: list[RunFolder], added: list[RunFolder]) -> None:
        """These jobs of a sweep are about to run, some of them newly added."""

    def sweep_ended(self, folder: Path, rows: list[SweepRow]) -> None:
        """The jobs of a sweep have ended, or were interrupted; ranked."""


@dataclass(frozen=True)
class Finished:
    """The end of a command: the results of a run, or a sweep folder; whether a job did not finish."""

    folder: Path | None
    results: dict[str, Any] | None
    failed: bool


def train(words: list[str], watch: JobsWatcher) -> Finished:
    """Trains what the words of a command line describe: a run or a sweep.

    Raises an RnnclfError for what the user can put right, of a sweep before its first job starts.
    """
    results: list[dict[str, Any]] = []
    sweeps: list[Path] = []
    with ExitStack() as held:

        def begin_sweep(folder: Path, jobs: list[Planned]) -> None:
            held.enter_context(ledger.begun(folder, jobs))
            sweeps.append(folder)

        try:
            body = partial(_train_job, watch=watch, results=results)
            start = Start(refuse_used_run, begin_sweep)
            outcome = run_hydra(body, words, "rnnclf train", _isolated(watch), start)
            if outcome.broke and outcome.sweep_folder is not None:
                _launch(outcome.sweep_folder, _left_behind(outcome, watch), [], watch)
        finally:  # a sweep that was interrupted gets its table, too
            failed = bool(sweeps) and _end_sweep(sweeps[0], watch)
    failed = failed or (outcome.error is not None and not outcome.broke)
    only = results[0] if results and not sweeps else None
    return Finished(sweeps[0] if sweeps else Path(only["folder"]) if only else None, only, failed)


def resume(path: Path, words: list[str], watch: JobsWatcher) -> Finished:
    """Goes on with an interrupted run, or with the unfinished jobs of a sweep.

    words: of a run `epochs=N`, to train longer; of a sweep points to add, and a launcher.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: give a run folder or a sweep folder.")
    return _resume_sweep(path, words, watch) if is_sweep(path) else _resume_run(path, words, watch)


def _train_job(config: Config, job: Job, watch: JobsWatcher, results: list[dict[str, Any]]) -> float:
    """One run, from its config to a full run folder; returns the validation accuracy, for sweepers."""
    import_torch()
    from rnnclf.workflows.train import train as train_run

    with watch.run(job) as run_watch:
        report = train_run(config, RunFolder(job.folder), run_watch, job.overrides, watch.save)
    watch.run_ended(job, report)
    results.append({"folder": str(job.folder), **report.results})
    return report.scores["validation"].accuracy


def _resume_job(job: Job, watch: JobsWatcher) -> float | None:
    """One job of a sweep, from where it stands to its end."""
    import_torch()
    from rnnclf.workflows.resume import resume_run

    with watch.run(job) as run_watch:
        report = resume_run(RunFolder(job.folder), None, run_watch, watch.save)
    if report is None:
        return None
    watch.run_ended(job, report)
    return report.scores["validation"].accuracy


def _resume_run(path: Path, words: list[str], watch: JobsWatcher) -> Finished:
    import_torch()
    from rnnclf.workflows.resume import resume_run

    values = parsed(words)
    if other := values.keys() - {"epochs"}:
        raise ConfigError(f"{sorted(other)[0]} cannot be changed when a run goes on: only epochs can.")
    epochs = values.get("epochs")
    if epochs is not None and type(epochs) is not int:
        raise ConfigError(f"epochs must be a whole number, got '{epochs}'.")
    job, folder = Job(path, [], None, parallel=False), RunFolder(path)
    with watch.run(job) as run_watch:
        report = resume_run(folder, epochs, run_watch, watch.save)
    results = folder.read_results() if report is None else report.results
    if report is None:
        watch.run_was_done(path, results)
    else:
        watch.run_ended(job, report)
    return Finished(path, {"folder": str(path.absolute()), **results}, failed=False)


def _resume_sweep(folder: Path, words: list[str], watch: JobsWatcher) -> Finished:
    launching = [word for word in words if word.startswith(("hydra/", "hydra."))]
    points = [word for word in words if word not in launching]
    with ledger.reopened(folder):
        added = ledger.add_points(folder, points) if points else []
        pending = ledger.unfinished(folder)
        watch.sweep_resumed(folder, pending, added)
        try:
            _launch(folder, pending, launching, watch)
        finally:
            failed = _end_sweep(folder, watch)
    return Finished(folder, None, failed)


def _launch(folder: Path, pending: list[RunFolder], words: list[str], watch: JobsWatcher) -> None:
    """Runs these jobs of a sweep with the launcher that `words` name, or the one it had."""
    words = ledger.launching(folder, words)
    while pending:
        names = [run.path.name for run in pending]
        outcome = run_again(partial(_resume_job, watch=watch), folder, names, words, _isolated(watch))
        if not outcome.broke:
            break
        left = _left_behind(outcome, watch)
        pending = left if len(left) < len(pending) else []  # or it would break for ever


def _left_behind(outcome: Outcome, watch: JobsWatcher) -> list[RunFolder]:
    """The unfinished jobs of a launcher that ended before them, as joblib does when one of its processes is
    killed."""
    folder, error = outcome.sweep_folder, outcome.error
    assert folder is not None
    reason = (str(error).splitlines() or [""])[0]
    watch.note(f"the launcher ended before its jobs did: {type(error).__name__}: {reason}")
    ledger.settle(folder)
    left = ledger.without_end(folder)
    if left:
        watch.note(f"going on with {len(left)} of them")
    return left


def _isolated(watch: JobsWatcher) -> Callable[[Job, Callable[[], float | None]], float | None]:
    """Runs a job of a sweep in a process of its own."""
    return partial(_in_subprocess, watch)


def _in_subprocess(watch: JobsWatcher, job: Job, work: Callable[[], float | None]) -> float | None:
    """Reports an error at once, since the other jobs go on."""
    import_torch()  # here once, instead of in the process of each job
    watch.preload()
    try:
        return ledger.in_subprocess(job, work)
    except (RnnclfError, JobFailed) as error:
        watch.job_failed(job, error)
        raise


def _end_sweep(folder: Path, watch: JobsWatcher) -> bool:
    """Ranks the jobs of a sweep; returns whether one did not finish."""
    if not folder.is_dir():
        return False
    ledger.settle(folder, SETTLE)
    rows = rank_sweep(folder)
    watch.sweep_ended(folder, rows)
    return not all(row.done for row in rows)
