"""Shows runs and sweeps on the screen. Does not import torch before a job runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.console.screen import print_error, print_json, print_note, print_plain, screen, use_stderr
from rnnclf.errors import InUseError
from rnnclf.hydra_app.bridge import Job
from rnnclf.system import streams
from rnnclf.workflows.jobs import JobsWatcher
from rnnclf.workflows.runs import RunFolder

if TYPE_CHECKING:
    from rnnclf.workflows.search.outcome import Outcome
    from rnnclf.workflows.search.record import Search
    from rnnclf.workflows.sweep import Ranking
    from rnnclf.workflows.train import Report, Watcher


@dataclass
class JobsDisplay(JobsWatcher):
    """Prints the events of jobs. json: results go to stdout as JSON, and text for people to stderr.

    has_board: the process of the sweep shows all jobs on the terminal, so that theirs print nothing there.
    is_search: the trials of a search are shown, those that fail among them.
    """

    json: bool
    has_board: bool = False
    is_search: bool = False

    def _attach(self) -> None:
        """Sets up printing again: a launcher may run the job in a new process."""
        streams.protect()
        use_stderr(self.json)

    def preload(self) -> None:
        from rnnclf.console import training  # noqa: F401

    def _is_silent(self) -> bool:
        return self.has_board and screen().is_terminal  # that of some launchers is a file

    @contextmanager
    def jobs_run(self, sweep: Path) -> Iterator[None]:
        from rnnclf.console.sweep_display import has_display, sweep_display

        if not has_display():
            yield
            return
        self.has_board = True
        try:
            with sweep_display(sweep):
                yield
        finally:
            self.has_board = False

    def run(self, job: Job) -> AbstractContextManager[Watcher]:
        self._attach()
        from rnnclf.console.training import training_display

        if self._is_silent():
            return super().run(job)
        return training_display(job.number, job.parallel)

    def save(self, report: Report) -> None:
        from rnnclf.console.training import save_report

        save_report(report)

    def run_ended(self, job: Job, report: Report) -> None:
        from rnnclf.console.sweep_display import progress_in_words
        from rnnclf.console.training import show_report
        from rnnclf.workflows.plots import save_plots
        from rnnclf.workflows.sweep_progress import progress_of

        is_silent = self._is_silent()
        if not is_silent:
            show_report(report, job.number, job.parallel)
            if job.sweep is not None and (progress := progress_of(job.sweep)).total > 1:
                print_plain(progress_in_words(progress))
        note = save_plots(report.folder, report.plots, report.results)
        if note and not job.number and not is_silent:  # in a sweep, once
            print_note(note)

    def tracked(self, viewer: str) -> None:
        from rnnclf.console.tracking import show_viewer

        show_viewer(viewer)

    def run_was_done(self, folder: Path, results: dict[str, Any]) -> None:
        from rnnclf.console.training import show_finished

        show_finished(folder, results)

    def job_failed(self, job: Job, error: Exception) -> None:
        self._attach()
        is_shown = self.is_search and not isinstance(error, InUseError)  # which is not the end of a trial
        if not is_shown and not self._is_silent():
            print_error(f"#{job.number} {error}")

    def note(self, sentence: str) -> None:
        print_note(sentence)

    def sweep_resumed(self, folder: Path, pending: list[RunFolder], added: list[RunFolder]) -> None:
        from rnnclf.console.sweep import show_resumption

        show_resumption(folder, pending, added)

    def sweep_waits(self, folder: Path, jobs: int) -> None:
        from rnnclf.console.sweep import show_waiting

        show_waiting(folder, jobs)
        if self.json:
            print_json({"folder": str(folder), "jobs": jobs})

    def left_to_others(self, folder: Path, jobs: int) -> None:
        from rnnclf.console.sweep import show_left

        show_left(folder, jobs)
        if self.json:
            print_json({"folder": str(folder), "jobs": jobs})

    @contextmanager
    def searching(self, folder: Path, search: Search) -> Iterator[None]:
        from rnnclf.console.search import search_display

        self.is_search = True
        try:
            with search_display(folder, search):
                yield
        finally:
            self.is_search = False

    def search_ended(self, outcome: Outcome) -> None:
        from rnnclf.console.search import show_outcome

        show_outcome(outcome)

    def sweep_ended(self, folder: Path, ranking: Ranking) -> None:
        from rnnclf.console.sweep import save_sweep, show_sweep

        if ranking.rows:
            save_sweep(ranking, folder)
            show_sweep(ranking, folder)
        if self.json:
            jobs = [vars(row) for row in ranking.rows]
            print_json({"folder": str(folder), **ranking.to_dict(), "jobs": jobs})
