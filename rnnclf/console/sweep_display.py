"""Shows a sweep whose jobs run in other processes: a line for each of those that run, kept up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rnnclf.console.narrowing import redrawn_when_narrowed
from rnnclf.console.screen import interval, print_error, print_plain, printed_above, screen, short
from rnnclf.durations import roughly
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_progress import Best, Ended, JobsFollowed, RunningJob, SweepProgress

PERIOD = 0.5  # seconds between two looks at the files of the jobs
SHARE = 0.05  # of a core, at most, for looking at thousands of jobs
BAR = 12  # columns
WIDE = 100  # columns of a terminal that has room for bars
OTHER_LINES = 7  # of the terminal: the header, the last two lines, and some of what was printed above
OTHER_COLUMNS = 48  # of the terminal: all but the words of a job and its bar
SHORTEST = 16  # columns for the words of a job


def has_display() -> bool:
    """Whether the screen is a terminal whose lines can be replaced."""
    console = screen()
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def sweep_display(sweep: Path) -> Iterator[None]:
    """Shows the jobs of a sweep while they run, and prints a line for each that ends."""
    console, followed = screen(), JobsFollowed(sweep, from_now=True)

    def look() -> Group:
        progress = followed.progress()
        for job in followed.ended():
            _show_ended(job)
        state = line(_state_in_words(progress), "bold")
        best = [] if progress.best is None else [line(_best_in_words(progress.best))]
        return board(progress.running, [state, *best], console)

    with looking(look):
        jobs = _jobs(len(followed.runs)) if followed.runs else "jobs"
        print_plain(f"{jobs}, in parallel; sweep folder {short(sweep)}")
        yield


@contextmanager
def looking(look: Callable[[], Group]) -> Iterator[None]:
    """Calls `look` again and again, also at the end of the block, and keeps what it returns at the bottom of
    the terminal, below what it prints. On other screens, what it returns is not shown."""
    console, has_board, end = screen(), has_display(), threading.Event()
    live = Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    )

    def show() -> None:
        found = look()
        if has_board:
            live.update(found, refresh=True)

    def keep_looking() -> None:
        seconds = 0.0
        while not end.wait(max(PERIOD, seconds / SHARE)):
            began = time.thread_time()
            show()
            seconds = time.thread_time() - began

    thread = threading.Thread(target=keep_looking, daemon=True)
    with ExitStack() as shown:
        if has_board:
            shown.enter_context(live)
            shown.enter_context(redrawn_when_narrowed(live))
            shown.enter_context(printed_above(console))
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            show()


def progress_in_words(progress: SweepProgress) -> str:
    """How far a sweep has come, in a line."""
    best = "" if progress.best is None else f", {_best_in_words(progress.best)}"
    return _state_in_words(progress) + best


def _state_in_words(progress: SweepProgress) -> str:
    parts = [f"{progress.done} of {_jobs(progress.total)} done"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.seconds_left is not None:
        parts.append(f"about {roughly(progress.seconds_left)} left")
    return ", ".join(parts)


def _best_in_words(best: Best) -> str:
    mean = "mean " if best.runs > 1 else ""
    accuracy = f"{mean}validation accuracy so far {percent(best.accuracy)}"
    if best.words:
        return f"best {accuracy} ({' '.join(best.words)})"
    return accuracy


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def board(running: Sequence[RunningJob], lines: Sequence[Text], console: Console) -> Group:
    """A line for each running job, as many as fit, and some for all."""
    room = max(console.height - OTHER_LINES, 1)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    bar = BAR if console.width >= WIDE else 0
    for title in ("job", "", "epoch", *([""] if bar else []), "best validation", "time left"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    table.columns[1].max_width = max(console.width - OTHER_COLUMNS - bar, SHORTEST)
    for job in running[:room]:
        table.add_row(*_row(job, bar))
    more = len(running) - room
    parts = [table] if running else []
    rest = [Text(f"and {more} more", style="dim")] if more > 0 else []
    return Group(*parts, *rest, *lines)


def line(words: str, style: str = "") -> Text:
    """A line of the board, cut to the width of the terminal."""
    return Text(one_line(words), no_wrap=True, overflow="ellipsis", style=style)


def _row(job: RunningJob, columns: int) -> list[Text]:
    """columns: of the bar."""
    words = Text(one_line(" ".join(job.words)))
    number = Text(f"#{job.number}", style="cyan")
    if job.epoch == 0:
        return [number, words, Text("starting", style="dim")]
    epochs = max(job.epochs, job.epoch)
    filled = columns * job.epoch // epochs
    bar = Text("━" * filled, style="green").append("·" * (columns - filled), style="dim")
    left = "" if job.seconds_left is None else roughly(job.seconds_left)
    best = "" if job.best is None else percent(job.best)
    return [number, words, Text(f"{job.epoch}/{epochs}"), *([bar] if columns else []), Text(best), Text(left)]


def _show_ended(job: Ended) -> None:
    name = " ".join([f"#{job.run.number}", *job.words])
    if test := job.results.get("test"):
        accuracy = f"{percent(test['accuracy'])} ({interval(tuple(test['interval95']))})"
        print_plain(f"{name}: test accuracy {accuracy}, {short(job.run.path)}")
        return
    show_failed(name, job.run, job.status)


def show_failed(name: str, run: RunFolder, status: dict[str, Any]) -> None:
    """Prints why a run has failed."""
    reason = str(status.get("error", "")).rstrip(".") or "failed"
    where = "" if str(run.path) in reason else f" (log in {short(run.log)})"
    print_error(f"{name}: {reason}{where}")
