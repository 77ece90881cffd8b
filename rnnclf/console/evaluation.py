"""Accuracy tables of saved checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rnnclf.console.metrics import GUESSING, accuracy_style, explained, metrics_table
from rnnclf.console.screen import PICTURE_WIDTH, interval, save_picture, screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import METRICS, Evaluation, four_digits, percent
from rnnclf.training.by_recording import with_recordings
from rnnclf.workflows.evaluate import Evaluated
from rnnclf.workflows.runs import picture, run_of

MOST_CONFUSIONS = 5
ROOMY = 110  # columns
WIDEST_MATRIX = 15  # classes; with more, only the most frequent confusions are shown


def save_evaluation(results: Sequence[Evaluated], folder: Path) -> None:
    """Writes accuracy.txt and accuracy.svg with the details of every checkpoint into `folder`."""
    save_picture(_all(results, True, PICTURE_WIDTH), picture(folder), "rnnclf eval")


def show_evaluation(results: Sequence[Evaluated], folder: Path) -> None:
    """Prints one checkpoint with all its details, or several as a table."""
    console = screen()
    details = len(results) == 1
    console.print(_all(results, details, console.width))
    where = "saved in" if details else "classes and confusions of each are in"
    console.print(f"{where} {short(folder)}", soft_wrap=True, markup=False)


def _all(results: Sequence[Evaluated], details: bool, width: int) -> RenderableType:
    parts: list[RenderableType] = [_overview(results, width)]
    parts += [Text(one_line(note), style="yellow") for result in results for note in _notes(result)]
    if details:
        for result in results:
            parts += _details(result)
    return Group(*parts)


def _overview(results: Sequence[Evaluated], width: int) -> RenderableType:
    """All metrics of one checkpoint, or a row for each of several below what they have in common."""
    paths = [_folder(result) for result in results]
    above = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0]
    data = {f"{result.data} {result.split}" for result in results}
    where = short(above) if len(data) > 1 else f"{short(above)} on {data.pop()}"
    headline = Text(where, style="bold")
    if len(results) == 1:
        (result,) = results
        headline.append(f"\n{_model(result)}, epoch {result.epoch}, {result.parameters:,} parameters", "dim")
        scores = {result.split: with_recordings(result.evaluation)}
        return Group(headline, metrics_table(scores), Text(explained(scores), "dim"))
    names = [str(path.relative_to(above)) for path in paths]
    halves = [ALL_COLUMNS] if width >= ROOMY else [ALL_COLUMNS[:HALF], ALL_COLUMNS[HALF:]]
    tables = [_rows(results, names, columns) for columns in halves]
    return Group(headline, *tables, Text(GUESSING, "dim"))


Column = tuple[str, Callable[[dict[str, Any]], str]]

ALL_COLUMNS: list[Column] = [
    ("accuracy", lambda score: percent(score["accuracy"])),
    ("95 % interval", lambda score: interval(score["interval95"])),
    *((metric.title.replace(" ", "\n"), metric.of) for metric in METRICS),
    ("log\nloss", lambda score: four_digits(score["loss"])),
]
HALF = 3  # number of columns in the first of two tables, if one would be too wide


def _rows(results: Sequence[Evaluated], names: Sequence[str], columns: Sequence[Column]) -> Table:
    """A row for each checkpoint, with a column for the data if they differ."""
    table = PlainTable()
    table.add_column("checkpoint", overflow="fold")
    table.add_column("model")
    titles = [f"{result.data} {result.split}" for result in results]
    several = len(set(titles)) > 1
    if several:
        table.add_column("data")
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    highest = max(result.evaluation.score.accuracy for result in results)
    for name, title, result in zip(names, titles, results, strict=True):
        best = result.evaluation.score.accuracy == highest and not several
        cells = [Text(text(result.evaluation.to_dict())) for _, text in columns]
        if columns[0] is ALL_COLUMNS[0] and best:
            cells[0].stylize(accuracy_style(result.evaluation.to_dict()))
        table.add_row(name, _model(result), *([title] if several else []), *cells)
    return table


def _model(result: Evaluated) -> str:
    return f"{result.config.cell.name} {result.config.cell.hidden_size}"


def _folder(result: Evaluated) -> Path:
    """The run folder if the checkpoint is its best one, else the file."""
    run = run_of(result.path)
    return (result.path if run is None else run.path).absolute()


def _notes(result: Evaluated) -> list[str]:
    notes = []
    name, correct = short(_folder(result)), result.evaluation.score.correct
    if result.recorded_correct is not None and result.recorded_correct != correct:
        notes.append(f"{name}: {correct} correct, but its results.json says {result.recorded_correct}.")
    notes += [f"{name}: {sentence}" for sentence in _relation(result)]
    notes += result.notes
    return notes


def _relation(result: Evaluated) -> list[str]:
    """What the scored sequences are to those of the training run."""
    known, total = result.trained_on, result.evaluation.score.total
    if known is None:
        return [
            "these are not all the data of its training run, and there is no record of which sequences it was"
            " trained on: some of these may be among them."
        ]
    if result.other_data and result.evaluation.recordings_N is not None:
        return [
            f"it was trained on {known or 'none'} of these {total:,} windows, not counting windows that"
            " overlap with those."
        ]
    if known and (result.other_data or result.split != "train"):
        return [f"it was trained on {known:,} of these {total:,} sequences: the accuracy is too optimistic."]
    return ["these are not the data it was trained on."] if result.other_data else []


def _details(result: Evaluated) -> list[RenderableType]:
    if not result.has_matrix:
        many = f"Each of the {len(result.evaluation.classes):,} classes is in classes.csv."
        return [Text(many, style="dim"), _confusions(result.evaluation)]
    parts: list[RenderableType] = [_class_table(result.evaluation)]
    if len(result.evaluation.classes) <= WIDEST_MATRIX:
        parts.append(_matrix(result.evaluation))
    return [*parts, _confusions(result.evaluation)]


def _class_table(evaluation: Evaluation) -> Table:
    table = PlainTable(show_footer=True)
    table.add_column("class", footer="mean of classes")
    for name, mean in zip(("precision", "recall", "F1"), evaluation.macro(), strict=True):
        table.add_column(name, justify="right", footer=percent(mean))
    table.add_column("support", justify="right", footer=f"{evaluation.score.total:,}")
    for row in evaluation.by_class():
        table.add_row(
            Text(one_line(row.name)),
            percent(row.precision),
            percent(row.recall),
            percent(row.f1),
            f"{row.support:,}",
        )
    return table


def _matrix(evaluation: Evaluation) -> RenderableType:
    table = PlainTable()
    table.add_column("")
    for name in evaluation.classes:
        table.add_column(Text(one_line(name)), justify="right", no_wrap=True)
    for i, (name, row) in enumerate(zip(evaluation.classes, evaluation.counts, strict=True)):
        styles = ["green" if i == j else "bold red" if count else "dim" for j, count in enumerate(row)]
        cells = [Text(str(count) if count else "·", style=s) for count, s in zip(row, styles, strict=True)]
        table.add_row(Text(one_line(name), style="bold"), *cells)
    return Group(Text("rows: true, columns: predicted", style="dim"), table)


def _confusions(evaluation: Evaluation) -> Text:
    pairs = evaluation.confusions(MOST_CONFUSIONS)
    if not pairs:
        return Text("No sequence was misclassified.")
    support = {row.name: row.support for row in evaluation.by_class()}
    lines = []
    for pair in pairs:
        members = support[pair.true]
        share = percent(pair.count / members)
        line = (
            f"{pair.count:,} of the {members:,} '{pair.true}' were classified as '{pair.predicted}' ({share})"
        )
        lines.append(one_line(line))
    return Text("most frequent confusions\n", style="bold").append("\n".join(lines), style="not bold")
