"""Accuracy tables of saved checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import interval, percent, save_picture, screen, short
from rnnclf.metrics import Evaluation
from rnnclf.workflows.evaluate import Evaluated
from rnnclf.workflows.runs import picture, run_of

MOST_CONFUSIONS = 5
WIDEST_MATRIX = 15  # classes; beyond, only the strongest confusions are shown


def save_evaluation(results: Sequence[Evaluated], folder: Path) -> None:
    """accuracy.txt and accuracy.svg in the evaluation's folder, with the details of every checkpoint."""
    save_picture(_all(results, details=True), picture(folder), "rnnclf eval")


def show_evaluation(results: Sequence[Evaluated], folder: Path) -> None:
    """One checkpoint with all its details, or many as a table."""
    console = screen()
    details = len(results) == 1
    console.print(_all(results, details))
    where = "saved in" if details else "classes and confusions of each are in"
    console.print(f"{where} {short(folder)}", soft_wrap=True, markup=False)


def _all(results: Sequence[Evaluated], details: bool) -> RenderableType:
    parts: list[RenderableType] = [_overview(results)]
    parts += [Text(note, style="yellow") for result in results for note in _notes(result)]
    if details:
        for result in results:
            parts += _details(result)
    return Group(*parts)


def _overview(results: Sequence[Evaluated]) -> RenderableType:
    """A row a checkpoint; what they all share stands once, above."""
    paths = [_folder(result) for result in results]
    above = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0]
    data = {f"{result.config.dataset.title()} {result.split}" for result in results}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    if len(results) > 1:
        table.add_column("checkpoint", overflow="fold")
    for column in ["model", "data"][: len(data)]:
        table.add_column(column)
    for column in ("accuracy", "95 % interval", "correct", "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    highest = max(result.evaluation.score.accuracy for result in results)
    for path, result in zip(paths, results, strict=True):
        score = result.evaluation.score
        names = [str(path.relative_to(above))] if len(results) > 1 else []
        names.append(f"{result.config.cell.name} {result.config.cell.hidden_size}")
        names += [f"{result.config.dataset.title()} {result.split}"] if len(data) > 1 else []
        table.add_row(
            *names,
            Text(percent(score.accuracy), style="bold green" if score.accuracy == highest else ""),
            interval(score.interval95),
            f"{score.correct:,}/{score.total:,}",
            f"{score.loss:.4f}",
        )
    where = short(above) if len(data) > 1 else f"{short(above)} on {data.pop()}"
    return Group(Text(where, style="bold"), table)


def _folder(result: Evaluated) -> Path:
    """The run folder for its best checkpoint, else the file."""
    run = run_of(result.path)
    return (result.path if run is None else run.path).absolute()


def _notes(result: Evaluated) -> list[str]:
    notes = []
    name, correct = short(_folder(result)), result.evaluation.score.correct
    if result.recorded_correct is not None and result.recorded_correct != correct:
        notes.append(f"{name}: {correct} correct, but its results.json says {result.recorded_correct}.")
    if result.other_data:
        notes.append(f"{name}: these are not the data that it was trained on.")
    return notes


def _details(result: Evaluated) -> list[RenderableType]:
    title = f"{short(_folder(result))}, epoch {result.epoch}, {result.parameters:,} parameters"
    parts: list[RenderableType] = [Text(title, style="dim"), _class_table(result.evaluation)]
    if len(result.evaluation.classes) <= WIDEST_MATRIX:
        parts.append(_matrix(result.evaluation))
    return [*parts, _confusions(result.evaluation)]


def _class_table(evaluation: Evaluation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_footer=True)
    table.add_column("class", footer="mean of classes")
    for name, mean in zip(("precision", "recall", "F1"), evaluation.macro(), strict=True):
        table.add_column(name, justify="right", footer=percent(mean))
    table.add_column("support", justify="right", footer=f"{evaluation.score.total:,}")
    for row in evaluation.by_class():
        table.add_row(
            row.name,
            percent(row.precision),
            percent(row.recall),
            percent(row.f1),
            f"{row.support:,}",
        )
    return table


def _matrix(evaluation: Evaluation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title="rows: true, columns: predicted")
    table.title_style, table.title_justify = "dim", "left"
    table.add_column("")
    for name in evaluation.classes:
        table.add_column(name, justify="right", no_wrap=True)
    for i, (name, row) in enumerate(zip(evaluation.classes, evaluation.counts, strict=True)):
        styles = ["green" if i == j else "bold red" if count else "dim" for j, count in enumerate(row)]
        cells = [Text(str(count) if count else "·", style=s) for count, s in zip(row, styles, strict=True)]
        table.add_row(Text(name, style="bold"), *cells)
    return table


def _confusions(evaluation: Evaluation) -> Text:
    pairs = evaluation.confusions(MOST_CONFUSIONS)
    if not pairs:
        return Text("No sequence was taken for another class.")
    support = {row.name: row.support for row in evaluation.by_class()}
    lines = []
    for pair in pairs:
        members = support[pair.true]
        share = percent(pair.count / members)
        lines.append(
            f"{pair.count:,} of the {members:,} '{pair.true}' were taken for '{pair.predicted}' ({share})"
        )
    return Text("strongest confusions\n", style="bold").append("\n".join(lines), style="not bold")
