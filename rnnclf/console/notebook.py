"""Training that was started in a notebook: one bar below the cell, which is updated in place."""

from __future__ import annotations

import html
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from typing import Any

from rnnclf.config import Config
from rnnclf.durations import roughly, seconds_in_words
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.workflows import train as training
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Conclusion, Report, RunInfo, Watcher

PERIOD = 0.2  # seconds between two updates
COLUMNS = 30  # of the bar where a notebook is shown as text


def train(
    config: Config,
    folder: RunFolder | str | PathLike[str],
    watch: Watcher | None = None,
    overrides: Sequence[str] = (),
    conclude: Conclusion = lambda report: None,
) -> Report:
    """Trains one classifier and writes all files of its run folder, as `rnnclf train` does.

    Args:
        config: from `load_config`.
        folder: created if it does not exist. It may hold other files, but no other run.
        watch: receives the events of the run; None: in a notebook a bar shows them, elsewhere nothing does.
        overrides: the words of the command line that made the config, for the records.
        conclude: called with the report before the run's status becomes done, to write further files.

    Raises an RnnclfError as `rnnclf.workflows.train.train` does.
    """
    if watch is not None:
        return training.train(config, folder, watch, overrides, conclude)
    with notebook_bar() as bar:
        return training.train(config, folder, bar, overrides, conclude)


@contextmanager
def notebook_bar() -> Iterator[Watcher]:
    """A watcher that shows a run in a notebook; outside notebooks one that shows nothing."""
    shell = _notebook()
    if shell is None:
        yield Watcher()
        return
    bar = NotebookBar(_output_of(int(getattr(shell, "execution_count", 0))))
    try:
        yield bar
    except BaseException:
        bar.end("stopped in ")
        raise
    bar.end("")


def _notebook() -> Any:
    """The interactive shell of a notebook; None outside notebooks, and in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


@dataclass
class Output:
    """What a cell has shown so far. All models that one cell trains share one bar."""

    cell: int
    models: int = 0
    """The number of models that the cell has begun to train."""
    name: str | None = None
    """By which the notebook knows the bar; None before it is shown."""

    def show(self, share: float, text: str) -> None:
        """Replaces the bar, or shows it."""
        notebook = import_module("IPython.display")  # the notebook has it
        text = one_line(f"model {self.models}: {text}" if self.models > 1 else text)
        filled = round(COLUMNS * share)
        content = {
            "text/plain": f"{'━' * filled}{'·' * (COLUMNS - filled)} {text}",
            "text/html": f'<progress value="{share:.4f}" max="1"></progress> {html.escape(text)}',
        }
        if self.name is None:
            self.name = uuid.uuid4().hex
            notebook.display(content, raw=True, display_id=self.name)
        else:
            notebook.update_display(content, raw=True, display_id=self.name)


_last = Output(cell=-1)


def _output_of(cell: int) -> Output:
    global _last
    if _last.cell != cell:
        _last = Output(cell)
    _last.models += 1
    return _last


class NotebookBar(Watcher):
    """Shows how far one model is: epochs, validation accuracy, time left."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.epochs = self.before = self.epoch_now = 0
        self.share = 0.0
        self.scores = ""
        self.best: tuple[int, float] | None = None
        self.began = self.shown = time.monotonic()

    def reading(self, what: str, share: float) -> None:
        self._show(share, what)

    def started(self, info: RunInfo) -> None:
        self.epochs, self.before, self.began = info.config.epochs, info.epoch, time.monotonic()

    def batch(self, progress: BatchProgress) -> None:
        self.epoch_now = progress.epoch
        done = progress.epoch - 1 + progress.seen / max(progress.of, 1)
        self.share = min(done / self.epochs, 1.0)
        new = done - self.before
        left = (self.epochs - done) * (time.monotonic() - self.began) / new if new > 0 else None
        self._show(self.share, self._words() + (f", {roughly(left)} left" if left is not None else ""))

    def epoch(self, result: EpochResult, best: bool) -> None:
        accuracy = result.validation.accuracy
        self.best = (result.epoch, accuracy) if best or self.best is None else self.best
        self.scores = f", validation accuracy {percent(accuracy)}"
        if self.best[0] != result.epoch:
            self.scores += f" (epoch {self.best[0]}: {percent(self.best[1])})"

    def end(self, how: str) -> None:
        """Shows the last state. how: what precedes it."""
        if self.epochs:
            took = seconds_in_words(time.monotonic() - self.began)
            self._show(self.share, f"{how}{self._words()}, {took}", at_once=True)

    def _words(self) -> str:
        return f"epoch {self.epoch_now}/{self.epochs}{self.scores}"

    def _show(self, share: float, text: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self.shown >= PERIOD:
            self.shown = now
            self.output.show(share, text)
