"""Shows a run during training, and its results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from rnnclf.console.baseline import baseline_line
from rnnclf.console.diagnosis import show_diagnosis
from rnnclf.console.drawing import drawn
from rnnclf.console.metrics import (
    accuracy_style,
    calibrated,
    explained,
    metrics_table,
    recordings_in_words,
)
from rnnclf.console.narrowing import redrawn_when_narrowed
from rnnclf.console.screen import (
    interval,
    print_plain,
    save_picture,
    screen,
    seconds_in_words,
    short,
)
from rnnclf.data import SPLITS
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.training.eligibility import EngineUsed
from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.baseline_runs import baselines_beside
from rnnclf.workflows.expected import judged
from rnnclf.workflows.report_words import training_doubts
from rnnclf.workflows.runs import picture, read_csv
from rnnclf.workflows.train import Report, RunInfo, Watcher

SLOW = 5.0  # seconds between progress lines while data are read
WIDEST = 80  # columns of the line with the bar
NUMBERS = 72  # of them, for the numbers beside the bar
SHORTEST = 6  # columns of the bar
COURSE = 40  # columns of the line of bars in the closing panel
NEXT = {
    "evaluate it": "rnnclf eval {}",
    "its mistakes": "rnnclf eval {} --errors",
    "a page to show": "rnnclf report {}",
}
"""What one may type after a run."""


@contextmanager
def training_display(job: int | None, parallel: bool) -> Iterator[Watcher]:
    """Shows a run during training: on a terminal a live bar below a growing table, else a line per epoch.

    `job` is its number in a sweep; `parallel` says whether others share the terminal.
    """
    console = screen()
    if not console.is_terminal or parallel:
        yield PlainDisplay("" if job is None else f"#{job} ")
        return
    with LiveDisplay() as display, redrawn_when_narrowed(display.progress.live):
        yield display


def _info_in_words(info: RunInfo) -> str:
    config, sizes = info.config, info.sizes
    model = f"{config.cell.name} {config.cell.hidden_size}"
    if config.layers > 1:
        model += f" × {config.layers} layers"
    if config.bidirectional:
        model += ", bidirectional"
    model += {"both": ", along both axes", "alternating": ", along alternating axes"}.get(config.axes, "")
    data = f"{sizes['train']:,}/{sizes['validation']:,}/{sizes['test']:,}"
    parameters, device = f"{info.parameters:,} parameters", f"{info.device}; engine {info.engine.words}"
    return f"{model}; {parameters}; {config.dataset.title()} {data}; {device}"


def _slower(info: RunInfo) -> str:
    return f"no faster engine than {info.engine.words}: {info.engine.reason}"


class PlainDisplay(Watcher):
    """Prints one unwrapped line per epoch, for pipes, logs and grep."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.epochs = 0
        self.printed = time.perf_counter()

    def reading(self, what: str, share: float) -> None:
        if time.perf_counter() - self.printed > SLOW:
            self.printed = time.perf_counter()
            print_plain(f"{self.prefix}{what}: {share:.0%}")

    def started(self, info: RunInfo) -> None:
        self.epochs = info.config.epochs
        for sentence in info.notes:
            print_plain(f"{self.prefix}{sentence}")
        for sentence in info.warnings:
            print_plain(f"{self.prefix}warning: {sentence}")
        print_plain(f"{self.prefix}{_info_in_words(info)} (train / validation / test)")
        if info.engine.reason:
            print_plain(f"{self.prefix}{_slower(info)}")
        if info.config.protocol == "tutorial":
            print_plain(
                f"{self.prefix}tutorial protocol: train is the last batch, test is scored every epoch"
            )

    def epoch(self, result: EpochResult, best: bool) -> None:
        print_plain(f"{self.prefix}{result.in_words(self.epochs)}")

    def note(self, sentence: str) -> None:
        print_plain(f"{self.prefix}{sentence}")


class LiveDisplay(Watcher):
    """A growing table of epochs above a bar with accuracy, speed and time left."""

    def __init__(self) -> None:
        console = screen()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=max(min(console.width, WIDEST) - NUMBERS, SHORTEST)),
            TextColumn("{task.percentage:>3.0f} % of all"),
            TextColumn("{task.fields[accuracy]}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("[dim]left[/]"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            refresh_per_second=5,
        )
        self.task: TaskID | None = None
        self.epochs = 0
        self.tutorial = False
        self.epoch_started = time.perf_counter()
        self.seen_before = 0  # sequences of the current epoch that an earlier process has seen

    def __enter__(self) -> LiveDisplay:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def reading(self, what: str, share: float) -> None:
        if self.task is None:
            self.task = self.progress.add_task(what, total=1, accuracy="", speed="")
        self.progress.update(self.task, description=what, completed=share)

    def started(self, info: RunInfo) -> None:
        if self.task is not None:  # the task that shows the reading of data
            self.progress.remove_task(self.task)
        self.epochs = info.config.epochs
        self.tutorial = info.config.protocol == "tutorial"
        console = self.progress.console
        for sentence in info.notes:
            console.print(Text(one_line(sentence), style="dim"))
        for sentence in info.warnings:
            console.print(Text(one_line(sentence), style="yellow"))
        console.print(Text(_info_in_words(info), style="dim"))
        if info.engine.reason:
            console.print(Text(_slower(info), style="dim"))
        train = "batch" if self.tutorial else "train"
        last = "test acc." if self.tutorial else "rate"
        header = (
            f"{'epoch':>9}{f'{train} loss':>11}{f'{train} acc.':>11}{'val. loss':>11}{'val. acc.':>10}"
            f"{last:>10}{'time':>11}"
        )
        console.print(Text(header, style="bold"))
        self.task = self.progress.add_task(
            f"epoch {info.epoch + 1}", total=self.epochs, completed=info.epoch, accuracy="", speed=""
        )
        self.epoch_started, self.seen_before = time.perf_counter(), info.seen

    def batch(self, progress: BatchProgress) -> None:
        assert self.task is not None
        speed = (progress.seen - self.seen_before) / (time.perf_counter() - self.epoch_started)
        self.progress.update(
            self.task,
            completed=progress.epoch - 1 + progress.seen / progress.of,
            description=f"epoch {progress.epoch}/{self.epochs}",
            accuracy=f"train acc. {percent(progress.correct / progress.seen)}" if progress.seen else "",
            speed=f"{speed:,.0f} seq/s",
        )

    def epoch(self, result: EpochResult, best: bool) -> None:
        train, validation = result.train, result.validation
        line = Text(f"{result.epoch:>5}/{self.epochs:<3}{train.loss:>11.4f}{percent(train.accuracy):>11}")
        tried = f"{validation.loss:>11.4f}{percent(validation.accuracy):>10}"
        line.append(tried, style="green" if best else "")
        last = f"{result.learning_rate:.1e}" if result.test is None else percent(result.test.accuracy)
        line.append(f"{last:>10}{seconds_in_words(result.seconds):>11}")
        line.append(" best" if best else "", style="green")
        self.progress.console.print(line)
        self.epoch_started, self.seen_before = time.perf_counter(), 0

    def note(self, sentence: str) -> None:
        self.progress.console.print(Text(one_line(sentence), style="yellow"))


def _title(report: Report) -> str:
    r = report.results
    return f"{r['cell']} hidden={r['hidden']} on {r['dataset']}, seed {r['seed']}"


def _warning(report: Report) -> str:
    """The first reason to doubt the scores, in a line that also says how many more there are; '' if none."""
    warnings = report.results["warnings"]
    more = f" ({len(warnings) - 1} more in results.json)" if len(warnings) > 1 else ""
    return one_line(f"warning: {warnings[0]}{more}") if warnings else ""


def _summary(report: Report) -> RenderableType:
    r = report.results
    last = r["select"] == "last"
    epoch = (
        f"last epoch, {r['epochs']}"
        if last
        else f"best epoch {r['best_epoch']} of {r['epochs']} by validation"
    )
    scores: dict[str, Any] = {name: r[name] for name in SPLITS}
    lines = [
        explained(scores),
        calibrated(r["calibration"], r["final_fit"]),
        f"{epoch}; {r['parameters']:,} parameters; trained in {seconds_in_words(r['train_seconds'])}",
    ]
    if r["stopped"]:
        lines.append(r["stopped"])
    if r["final_fit"]:
        lines.append(
            "train and test: the model that was trained once more, on training and validation sequences"
        )
    used = EngineUsed(**r["engine"])
    lines.append(f"engine {used.words}" + (f"; not a faster one: {used.reason}" if used.reason else ""))
    if r["protocol"] == "tutorial":
        lines.append("tutorial protocol: the test split was scored after every epoch, too")
    doubts = [*([_warning(report)] if r["warnings"] else []), *map(one_line, training_doubts(r))]
    parts: list[RenderableType] = [Text(doubt, style="yellow") for doubt in doubts]
    return Group(*parts, metrics_table(scores), Text("\n".join(lines), style="dim"))


def save_report(report: Report) -> None:
    """Writes accuracy.txt and accuracy.svg into the run folder."""
    table = Group(Text(_title(report), style="bold"), _summary(report))
    save_picture(table, picture(report.folder.path), "rnnclf")


def show_report(report: Report, job: int | None, parallel: bool) -> None:
    """Prints the summary of a run: a panel on a terminal, else a few lines; in a sweep, one line."""
    test, folder = report.scores["test"], short(report.folder.path)
    correct = f"{test.correct:,} of {test.total:,}"
    guessing = f"guessing {percent(report.results['test']['commonest_rate'])}"
    bounds = f"95 % interval {interval(test.interval95)}"
    words = f"test accuracy {percent(test.accuracy)} ({correct}; {bounds}; {guessing})"
    console, baselines = screen(), None if job is not None or parallel else _baselines(report)
    if report.diagnosis is not None and job is None and not parallel:
        show_diagnosis(report.diagnosis)
    if job is not None:
        accuracy = f"{percent(test.accuracy)} ({interval(test.interval95)})"
        print_plain(f"#{job} test accuracy {accuracy}, {folder}")
    elif parallel or not console.is_terminal:
        recordings = recordings_in_words(report.results["test"])
        for line in (
            words,
            _expected(report).plain,
            recordings,
            _warning(report),
            *map(one_line, training_doubts(report.results)),
            f"run folder: {folder}",
            f"evaluate it: rnnclf eval {folder}",
        ):
            if line:
                print_plain(line)
        if baselines is not None:
            print_plain(": ".join(baselines.plain.split(maxsplit=1)))
    else:
        style = accuracy_style(report.results["test"])
        headline = Text("test accuracy ").append(percent(test.accuracy), style=style)
        headline.append(f"   {bounds}   {guessing}")
        border = style.removeprefix("bold ")
        expected = _expected(report)
        whole = Group(headline, *([expected] if expected else []), *_course(report), _summary(report))
        console.print(Panel.fit(whole, title=_title(report), border_style=border))
        # outside the panel, so that the commands can be copied whole
        console.print(Text("run folder     ", style="dim").append(folder, style="default"), soft_wrap=True)
        for what, command in NEXT.items():
            next_line = Text(f"{what:<15}", style="dim").append(command.format(folder), style="cyan")
            console.print(next_line, soft_wrap=True)
        if baselines is not None:
            console.print(baselines, soft_wrap=True)


def _expected(report: Report) -> Text:
    """What the file of the experiment says of such a run, and whether it came true; empty if it says
    nothing."""
    found = judged(report.folder, report.results)
    if found is None:
        return Text()
    of = f"{found.expectation.runs}; {interval(found.bounds)}"
    side = "within" if found.within else "below" if found.accuracy < found.bounds[0] else "above"
    style = "" if found.within else "yellow"
    return Text(f"expected {found.expectation.share} ({of}): {side} that range", style=style)


def _course(report: Report) -> list[Text]:
    """The validation accuracy of each epoch as a line of bars."""
    import numpy as np

    found = [float(row["validation_accuracy"]) for row in read_csv(report.folder.epochs)]
    if len(found) < 2:
        return []
    bars = drawn(np.array(found), COURSE, (min(found), max(found)))
    line = Text("validation    ").append(bars, style="cyan")
    return [line.append(f"   {percent(found[0])} → {percent(found[-1])}", style="dim")]


def _baselines(report: Report) -> Text | None:
    words = report.folder.read_status().get("overrides", [])
    return baseline_line(report.results["dataset"], words, baselines_beside(report.folder))


def show_finished(folder: Path, results: dict[str, Any]) -> None:
    """Says that the run to be resumed has already finished."""
    accuracy = f"test accuracy {percent(results['test']['accuracy'])}"
    print_plain(f"{short(folder)} is finished: {results['epochs']} epochs, {accuracy}")
    if stopped := results.get("stopped"):
        print_plain(one_line(str(stopped)))
    else:
        print_plain(f"train longer: rnnclf resume {short(folder)} epochs={2 * results['epochs']}")
