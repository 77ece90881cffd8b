"""The commands `rnnclf train` and `rnnclf resume`: single runs and the jobs of sweeps. Prints nothing.

Torch is imported when the first job runs: launching and ranking a sweep do not need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.recognition import exists
from rnnclf.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InUseError,
    JobFailed,
    OutputError,
    RnnclfError,
)
from rnnclf.hydra_app.bridge import Job, run_again, run_hydra
from rnnclf.hydra_app.bridge import Outcome as Launched
from rnnclf.hydra_app.checks import Planned, Start, side_by_side
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.grammar import is_about_hydra, literal, meant, parts
from rnnclf.system.fork import ChildDied
from rnnclf.system.startup import import_torch
from rnnclf.workflows.places import run_named
from rnnclf.workflows.pretrained import continued_jobs
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_folder import is_sweep, refuse_used_folder
from rnnclf.workflows.tracking import preload, taken, track_jobs, viewers_of

if TYPE_CHECKING:
    from rnnclf.config import Config
    from rnnclf.workflows.search.outcome import Outcome
    from rnnclf.workflows.search.record import Search
    from rnnclf.workflows.sweep import Ranking
    from rnnclf.workflows.train import Report, Watcher

SAVE_TIMEOUT = 10  # seconds to wait for the jobs of an interrupted launcher to save


class JobsWatcher:
    """Receives the events of jobs. This class ignores them; the console's subclass prints them. It is pickled
    and sent to the processes of jobs."""

    def preload(self) -> None:
        """Imports the modules that a job needs, before its process is forked."""

    def run(self, job: Job) -> AbstractContextManager[Watcher]:
        """A context whose value watches the run of a job."""
        from rnnclf.workflows.train import Watcher

        return nullcontext(Watcher())

    def jobs_run(self, sweep: Path) -> AbstractContextManager[None]:
        """A context in which the jobs of a sweep run in other processes, several at once."""
        return nullcontext()

    def save(self, report: Report) -> None:
        """Writes additional files into the folder of a run, before its status becomes done."""

    def run_ended(self, job: Job, report: Report) -> None:
        """A run has finished."""

    def tracked(self, viewer: str) -> None:
        """A tracker followed a run or a sweep that has ended; the command `viewer` shows it."""

    def run_was_done(self, folder: Path, results: dict[str, Any]) -> None:
        """A run that was to be resumed had already finished."""

    def job_failed(self, job: Job, error: Exception) -> None:
        """A job of a sweep failed; the others continue."""

    def note(self, sentence: str) -> None:
        """Something unusual happened."""

    def sweep_resumed(self, folder: Path, pending: list[RunFolder], added: list[RunFolder]) -> None:
        """The pending jobs of a sweep are about to run; `added` are those added to it just now."""

    def sweep_waits(self, folder: Path, jobs: int) -> None:
        """A sweep has been written whose jobs are left to workers."""

    def left_to_others(self, folder: Path, jobs: int) -> None:
        """A worker has nothing left to do; so many jobs have not ended."""

    def searching(self, folder: Path, search: Search) -> AbstractContextManager[None]:
        """A context in which the trials of a search run in other processes."""
        return nullcontext()

    def search_ended(self, outcome: Outcome) -> None:
        """A search has ended, or this worker has nothing left to do in it."""

    def sweep_ended(self, folder: Path, ranking: Ranking) -> None:
        """The jobs of a sweep have ended or were interrupted."""


@dataclass(frozen=True)
class Finished:
    """The outcome of a command: the results of a single run, and whether a job failed."""

    results: dict[str, Any] | None
    failed: bool


def train(words: list[str], watch: JobsWatcher) -> Finished:
    """Trains the run or the sweep that the words of a command line describe.

    Raises an RnnclfError for errors that the user can correct; for a sweep, before its first job starts.
    """
    words, tracker = taken(words)
    words = with_init(words, watch.note)
    results: list[dict[str, Any]] = []
    runs: list[RunFolder] = []
    sweeps: list[Path] = []
    with ExitStack() as held, ExitStack() as shown:

        def begin_sweep(folder: Path, jobs: list[Planned]) -> None:
            from rnnclf.workflows import ledger

            refuse_missing_data(jobs)
            held.enter_context(ledger.create_sweep(folder, continued_jobs(jobs)))
            sweeps.append(folder)
            if tracker is not None:
                track_jobs(folder, tracker)
            if start.parallel:
                shown.enter_context(watch.jobs_run(folder))

        def begin_run(folder: Path) -> None:
            refuse_used_folder(folder)
            runs.append(RunFolder(folder))

        start = Start(begin_run, begin_sweep, watch.note)
        try:
            body = partial(_train_job, watch=watch, results=results, tracker=tracker)
            outcome = run_hydra(body, words, "rnnclf train", partial(_in_subprocess, watch), start)
            if outcome.broke and outcome.sweep_folder is not None:
                _launch(outcome.sweep_folder, _remaining_jobs(outcome, watch), [], watch)
        except (RnnclfError, KeyboardInterrupt, SystemExit):
            if not sweeps and not any(run.status.exists() for run in runs):
                start.discard()
            raise
        finally:  # an interrupted sweep gets its table, too
            shown.close()
            failed = bool(sweeps) and not start.later and _end_sweep(sweeps[0], watch)
    if start.later:
        watch.sweep_waits(sweeps[0], start.jobs)
        return Finished(None, failed=False)
    for folder in sweeps or [Path(found["folder"]) for found in results]:
        _say_where(folder, watch)
    failed = failed or (outcome.error is not None and not outcome.broke)
    return Finished(results[0] if results and not sweeps else None, failed)


def with_init(words: list[str], note: Callable[[str], None]) -> list[str]:
    """The words with the path of a run in place of `latest` or a name in `init`: while the words are in use,
    there will be another latest run. Raises CheckpointError."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        if key.strip() == "init" and value != "null" and not os.path.lexists(value):
            paths = [_init_named(part, note) for part in parts(value)]
            word = f"{key}={','.join(paths)}"
        found.append(word)
    return found


def refuse_missing_data(jobs: Iterable[Planned]) -> None:
    """Raises DataError for a job whose data do not exist, before the first job starts."""
    for job in jobs:
        for key in ("path", "test_path"):
            path = getattr(job.config.dataset, key, None)
            if isinstance(path, str) and not exists(path):
                raise DataError(
                    f"{path} does not exist (in the job {' '.join(job.words)}; no job was started)."
                )


def _init_named(value: str, note: Callable[[str], None]) -> str:
    path = Path(meant(value))
    named = run_named(path, note)
    return value if named == path else literal(str(named.absolute()))


def resume(path: Path, words: list[str], watch: JobsWatcher) -> Finished:
    """Resumes an interrupted run, or the unfinished jobs of a sweep.

    words: for a run, `epochs=N` to train longer; for a sweep, points to add, and a launcher; for both,
        tracker=NAME. A tracker that was chosen before needs no word.
    """
    words, tracker = taken(words)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: give a run folder or a sweep folder.")
    return (_resume_sweep if is_sweep(path) else _resume_run)(path, words, watch, tracker)


def _train_job(
    config: Config, job: Job, watch: JobsWatcher, results: list[dict[str, Any]], tracker: str | None
) -> float | None:
    """Trains one run into its folder. Returns the validation accuracy, for sweepers."""
    if job.number is not None and RunFolder(job.folder).has_begun():  # a launcher may start a job twice
        return resume_job(job, watch)
    import_torch()
    from rnnclf.workflows.mirrored import mirrored
    from rnnclf.workflows.train import train as train_run

    run = RunFolder(job.folder)
    with watch.run(job) as shown, mirrored(run, shown, tracker) as run_watch:
        report = train_run(config, run, run_watch, job.overrides, watch.save)
    watch.run_ended(job, report)
    results.append({"folder": str(job.folder), **report.results})
    return report.scores["validation"].accuracy


def resume_job(job: Job, watch: JobsWatcher) -> float | None:
    """Resumes one job of a sweep. Returns its validation accuracy, or None if it had already finished."""
    import_torch()
    from rnnclf.workflows.mirrored import mirrored
    from rnnclf.workflows.resume import resume_run

    run = RunFolder(job.folder)
    with watch.run(job) as shown, mirrored(run, shown) as run_watch:
        report = resume_run(run, None, run_watch, watch.save)
    if report is None:
        return None
    watch.run_ended(job, report)
    return report.scores["validation"].accuracy


def _resume_run(path: Path, words: list[str], watch: JobsWatcher, tracker: str | None) -> Finished:
    import_torch()
    from rnnclf.workflows.mirrored import mirrored
    from rnnclf.workflows.resume import resume_run

    folder = RunFolder(path)
    if folder.baseline is not None:
        raise CheckpointError(
            f"{path} holds a baseline, which cannot be resumed: rnnclf baseline computes it anew."
        )
    values = parsed(words)
    if other := values.keys() - {"epochs"}:
        raise ConfigError(f"{sorted(other)[0]} cannot be changed when a run is resumed: only epochs can.")
    epochs = values.get("epochs")
    if epochs is not None and type(epochs) is not int:
        raise ConfigError(f"epochs must be a whole number, got '{epochs}'.")
    job = Job(path, [], None, parallel=False)
    with watch.run(job) as shown, mirrored(folder, shown, tracker) as run_watch:
        report = resume_run(folder, epochs, run_watch, watch.save)
    results = folder.read_results() if report is None else report.results
    if report is None:
        watch.run_was_done(path, results)
    else:
        watch.run_ended(job, report)
        _say_where(path, watch)
    return Finished({"folder": str(path.absolute()), **results}, failed=False)


def _resume_sweep(folder: Path, words: list[str], watch: JobsWatcher, tracker: str | None) -> Finished:
    from rnnclf.workflows import ledger

    launching = [word for word in words if is_about_hydra(word)]
    points = with_init([word for word in words if word not in launching], watch.note)
    with ledger.open_sweep(folder):
        if numbers := ledger.queued(folder):
            raise OutputError(
                f"Slurm still has jobs of {folder}: wait for them (squeue), or end them: scancel"
                f" {' '.join(numbers)}."
            )
        if tracker is not None:
            track_jobs(folder, tracker)
        added = ledger.add_points(folder, points) if points else []
        pending = ledger.unfinished(folder)
        watch.sweep_resumed(folder, pending, added)
        parallel = bool(pending) and _is_parallel(ledger.launching(folder, launching))
        try:
            with watch.jobs_run(folder) if parallel else nullcontext():
                _launch(folder, pending, launching, watch)
        finally:
            failed = _end_sweep(folder, watch)
    _say_where(folder, watch)
    return Finished(None, failed)


def _is_parallel(words: list[str]) -> bool:
    """Whether the launcher that these words set runs several jobs at once."""
    chosen = {key: value for key, _, value in (word.partition("=") for word in words)}
    return side_by_side(chosen.get("hydra/launcher", "basic"), chosen.get("hydra.launcher.n_jobs"))


def _say_where(folder: Path, watch: JobsWatcher) -> None:
    for viewer in viewers_of(folder):
        watch.tracked(viewer)


def _launch(folder: Path, pending: list[RunFolder], words: list[str], watch: JobsWatcher) -> None:
    """Runs the pending jobs of a sweep with the launcher in `words`, or with its original launcher."""
    from rnnclf.workflows import ledger

    words = ledger.launching(folder, words)
    while pending:
        jobs = {run.number: run.path for run in pending if run.number is not None}
        outcome = run_again(
            partial(resume_job, watch=watch), folder, jobs, words, partial(_in_subprocess, watch)
        )
        if not outcome.broke:
            break
        pending = _remaining_jobs(outcome, watch, most=len(pending) - 1)


def _remaining_jobs(outcome: Launched, watch: JobsWatcher, most: int | None = None) -> list[RunFolder]:
    """The unfinished jobs of a launcher that ended early, as joblib's does when one of its processes is
    killed. Raises ConfigError if it could not connect: another attempt would end in the same way.

    most: with more jobs than these none is restarted, since the launcher might break for ever.
    """
    from rnnclf.workflows import ledger

    folder, error = outcome.sweep_folder, outcome.error
    assert folder is not None
    ledger.wait_for_queue(folder)
    ledger.wait_for_jobs(folder)
    left = ledger.pending_jobs(folder)
    if left and outcome.unconnected:
        raise ConfigError(f"The launcher ended with {_jobs(left)} to do: {_in_a_line(error)}")
    if most is not None and len(left) > most:
        left = []
    watch.note(f"{_end_of_launcher(error)}{f'; restarting {_jobs(left)}' if left else ''}")
    return left


def _end_of_launcher(error: Exception | None) -> str:
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's; its own text has several lines of guesses
        return "a process that ran jobs was killed, perhaps because memory ran out"
    reason = _in_a_line(error)
    if submitits := re.fullmatch(r"UncompletedJobError: Job (\S+).*", reason):  # an identifier and a path
        return f"job {submitits[1]} ended without a result, perhaps because it was killed"
    return f"the launcher ended before its jobs did: {reason}"


def _in_a_line(error: Exception | None) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _jobs(runs: list[RunFolder]) -> str:
    return "1 job" if len(runs) == 1 else f"{len(runs)} jobs"


def _in_subprocess(watch: JobsWatcher, job: Job, work: Callable[[], float | None]) -> float | None:
    """Reports an error at once: the other jobs may run for a long time."""
    from rnnclf.workflows import ledger

    import_torch()  # once here, instead of in the process of each job
    watch.preload()
    preload(job.folder)
    try:
        return ledger.in_subprocess(job, work)
    except InUseError as error:
        watch.note(f"#{job.number} is left to another process: {error}")
        return None
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end.__cause__, ChildDied):
            watch.note(ledger.killed(RunFolder(job.folder, job.number), end.__cause__))
        raise
    except (RnnclfError, JobFailed) as error:
        watch.job_failed(job, error)
        raise


def _end_sweep(folder: Path, watch: JobsWatcher) -> bool:
    """Ranks the jobs of a sweep. Returns whether any of them did not finish."""
    from rnnclf.workflows import ledger
    from rnnclf.workflows.sweep import rank_sweep

    if not folder.is_dir():
        return False
    ledger.wait_for_jobs(folder, SAVE_TIMEOUT)
    ranking = rank_sweep(folder)
    watch.sweep_ended(folder, ranking)
    if any(row.state not in ("done", "failed") for row in ranking.rows) and (jobs := ledger.queued(folder)):
        watch.note(f"Slurm goes on with the jobs of this sweep; scancel {' '.join(jobs)} ends them")
    return not all(row.done for row in ranking.rows)
