"""Accuracy tables of saved checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rnnclf.calibration import reliability
from rnnclf.console.early import early_curve
from rnnclf.console.metrics import GUESSING, calibrated, explained, metrics_table
from rnnclf.console.screen import PICTURE_WIDTH, interval, mean_and_sd, save_picture, screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import METRICS, Evaluation, four_digits, percent, wilson_interval
from rnnclf.statistics import Spread, spread
from rnnclf.training.by_recording import with_recordings
from rnnclf.workflows.ensemble_file import EnsembleFile
from rnnclf.workflows.evaluate import Evaluated
from rnnclf.workflows.runs import picture, run_of
from rnnclf.workflows.sweep import repeated_apart

MOST_CONFUSIONS = 5
ROOMY = 110  # columns
WIDEST_MATRIX = 15  # classes; with more, only the most frequent confusions are shown


def save_evaluation(results: Sequence[Evaluated], folder: Path) -> None:
    """Writes accuracy.txt and accuracy.svg with the details of every checkpoint into `folder`."""
    save_picture(_all(results, True, True, PICTURE_WIDTH), picture(folder), "rnnclf eval")


def show_evaluation(results: Sequence[Evaluated], folder: Path, runs: bool = False) -> None:
    """Prints one checkpoint with all its details, or several as a table: a line for each, or a line for each
    configuration if some differ in the seed or the fold alone; then, with `runs`, each of its runs."""
    console = screen()
    details = len(results) == 1
    console.print(_all(results, details, runs, console.width))
    where = "saved in" if details else "classes and confusions of each are in"
    console.print(f"{where} {short(folder)}", soft_wrap=True, markup=False)


def _all(results: Sequence[Evaluated], details: bool, runs: bool, width: int) -> RenderableType:
    parts: list[RenderableType] = [_overview(results, runs, width)]
    parts += [Text(_sets(result, len(results) > 1)) for result in results if result.sets is not None]
    parts += [early_curve(result.early, width) for result in results if result.early is not None]
    parts += [Text(one_line(note), style="yellow") for result in results for note in _notes(result)]
    if details:
        for result in results:
            parts += _details(result)
    return Group(*parts)


def _overview(results: Sequence[Evaluated], runs: bool, width: int) -> RenderableType:
    """All metrics of one checkpoint, or the tables of several below what they have in common."""
    paths = [_folder(result) for result in results]
    above = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0]
    data = {f"{result.data} {result.split}" for result in results}
    where = short(above) if len(data) > 1 else f"{short(above)} on {data.pop()}"
    headline = Text(where, style="bold")
    if len(results) == 1:
        (result,) = results
        size = "exported" if result.parameters is None else f"{result.parameters:,} parameters"
        epoch = "" if result.epoch is None else f", epoch {result.epoch}"
        headline.append(f"\n{one_line(_model(result))}{epoch}, {size}", "dim")
        scores = {result.split: with_recordings(result.evaluation)}
        below = explained(scores)
        if result.ensemble is not None:
            below += f"\n{_members(result.ensemble)}"
        if result.calibration is not None:
            below += f"\n{calibrated(result.calibration.summary(), result.config.final_fit)}"
        return Group(headline, metrics_table(scores), Text(below, "dim"))
    names = [str(path.relative_to(above)) for path in paths]
    halves = [ALL_COLUMNS] if width >= ROOMY else [ALL_COLUMNS[:HALF], ALL_COLUMNS[HALF:]]
    groups = _groups(results)
    repeated = any(len(group) > 1 for group in groups)
    tables = [_configurations(groups, columns) for columns in halves] if repeated else []
    if runs or not repeated:
        tables += [_rows(results, names, columns) for columns in halves]
    legend = f"±: standard deviation over the runs; --runs lists them\n{GUESSING}" if repeated else GUESSING
    return Group(headline, *tables, Text(legend, "dim"))


Column = tuple[str, Callable[[dict[str, Any]], str]]

TITLES = ("accuracy", "95 % interval")
ALL_COLUMNS: list[Column] = [
    (TITLES[0], lambda score: percent(score["accuracy"])),
    (TITLES[1], lambda score: interval(score["interval95"])),
    *((metric.title.replace(" ", "\n"), metric.of) for metric in METRICS),
    ("log\nloss", lambda score: four_digits(score["loss"])),
]
HALF = 3  # number of columns in the first of two tables, if one would be too wide


def _groups(results: Sequence[Evaluated]) -> list[list[Evaluated]]:
    """The results by configuration: those in a group differ in the seed or the fold alone."""
    found: dict[Any, list[Evaluated]] = {}
    for number, result in enumerate(results):
        words = repeated_apart(result.overrides)
        key = (result.data, result.split, words) if result.overrides else number
        group = found.setdefault(key, [])
        if all(result.path.resolve() != other.path.resolve() for other in group):  # given twice
            group.append(result)
    return list(found.values())


def _configurations(groups: Sequence[Sequence[Evaluated]], columns: Sequence[Column]) -> Table:
    """A row for each configuration: the mean over its runs, and how the accuracy varies."""
    table = PlainTable()
    firsts = [group[0] for group in groups]
    _add_columns(table, firsts, ["runs", *(title for title, _ in columns)], "configuration")
    differing = _differing([repeated_apart(first.overrides) for first in firsts])
    for first, group, words in zip(firsts, groups, differing, strict=True):
        mean, accuracy = _mean_of([result.evaluation.to_dict() for result in group]), _accuracy(group)
        bounds = "too few" if accuracy.interval95 is None else interval(accuracy.interval95)
        own = dict(zip(TITLES, (mean_and_sd(accuracy), bounds), strict=True))
        cells = [own[title] if title in own else text(mean) for title, text in columns]
        name = words or _model(first)
        table.add_row(one_line(name), *_data_of(first, firsts), str(len(group)), *cells)
    return table


def _accuracy(group: Sequence[Evaluated]) -> Spread:
    """The accuracy over some runs of one configuration; of folds that have no sequence in common, over all
    sequences, with Wilson's interval."""
    folds = group[0].config.dataset.folds
    scores = [result.evaluation.score for result in group]
    found = spread([score.accuracy for score in scores], folds)
    total = sum(score.total for score in scores)
    apart = folds is not None and total == len({id for r in group for id in r.evaluation.ids_N.tolist()})
    if not apart and len(group) > 1:
        return found
    correct = sum(score.correct for score in scores)
    return replace(found, mean=correct / total, interval95=wilson_interval(correct, total))


def _mean_of(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number of some scores; None where one of them has none."""
    return {
        key: None if any(score[key] is None for score in scores) else fmean(score[key] for score in scores)
        for key, value in scores[0].items()
        if value is None or isinstance(value, int | float)
    }


def _rows(results: Sequence[Evaluated], names: Sequence[str], columns: Sequence[Column]) -> Table:
    """A row for each checkpoint, with what differs between them."""
    table = PlainTable()
    differing = _differing([result.overrides for result in results])
    model = "with" if any(differing) else "model"
    _add_columns(table, results, [title for title, _ in columns], "checkpoint", model)
    for name, result, words in zip(names, results, differing, strict=True):
        cells = [text(result.evaluation.to_dict()) for _, text in columns]
        table.add_row(name, one_line(words or _model(result)), *_data_of(result, results), *cells)
    return table


def _add_columns(table: Table, results: Sequence[Evaluated], figures: Sequence[str], *texts: str) -> None:
    for title in [*texts, *(["data"] if _data_of(results[0], results) else [])]:
        table.add_column(title)
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)


def _data_of(result: Evaluated, results: Sequence[Evaluated]) -> list[str]:
    """The data of a result, if they are not those of all."""
    titles = [f"{other.data} {other.split}" for other in results]
    return [f"{result.data} {result.split}"] if len({*titles}) > 1 else []


def _differing(all_words: Sequence[Sequence[str]]) -> list[str]:
    """What tells each of several lists of words from the others."""
    return [
        " ".join(word for word in words if any(word not in others for others in all_words))
        for words in all_words
    ]


def _model(result: Evaluated) -> str:
    return result.cell if result.hidden is None else f"{result.cell} {result.hidden}"


def _members(found: EnsembleFile) -> str:
    """What an ensemble is, and its members with their weights."""
    total = sum(found.weights)
    listed = ", ".join(f"{member.weight}/{total} {member.words}" for member in found.members)
    return one_line(f"the weighted mean of the probabilities of {listed}")


def _folder(result: Evaluated) -> Path:
    """The run folder if the checkpoint is its best one, else the file."""
    run = run_of(result.path)
    return (result.path if run is None else run.path).absolute()


def _notes(result: Evaluated) -> list[str]:
    notes = []
    name, correct = short(_folder(result)), result.evaluation.score.correct
    if result.recorded_correct is not None and result.recorded_correct != correct:
        record = "its results.json says" if result.parameters is not None else "before the export it had"
        if result.ensemble is not None:
            record = "when it was chosen it had"
        notes.append(f"{name}: {correct} correct, but {record} {result.recorded_correct}.")
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


def _sets(result: Evaluated, named: bool) -> str:
    """A sentence about the sets of classes of a checkpoint, with its name if there are others."""
    found = result.sets
    assert found is not None  # as the caller makes sure
    words = f"sets of {100 * found.level:g} %: {found.covered:,} of {found.total:,} contain the true class"
    words += f" ({percent(found.covered / found.total)}),"
    words += (
        f" with {found.classes / found.total:.2f} classes on average; {found.single:,} have one class alone"
    )
    if found.single:
        words += f", the true one in {percent(found.single_correct / found.single)} of these"
    if result.split == "validation" and not result.other_data:
        words += "; these are the sequences that decided how large the sets are"
    if result.config.final_fit:
        words += "; the share is approximate: it was measured with the model before the final fit"
    return one_line(f"{short(_folder(result))}: {words}" if named else words)


def _details(result: Evaluated) -> list[RenderableType]:
    if not result.has_matrix:
        many = f"Each of the {len(result.evaluation.classes):,} classes is in classes.csv."
        return [_reliability(result.evaluation), Text(many, style="dim"), _confusions(result.evaluation)]
    parts: list[RenderableType] = [_reliability(result.evaluation), _class_table(result.evaluation)]
    if len(result.evaluation.classes) <= WIDEST_MATRIX:
        parts.append(_matrix(result.evaluation))
    return [*parts, _confusions(result.evaluation)]


def _reliability(evaluation: Evaluation) -> Table:
    """How often the predicted class is right where the model gives it a probability in some range."""
    table = PlainTable()
    table.add_column("probability of\nthe predicted class", no_wrap=True)
    for title in ("sequences", "mean\nprobability", "right"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in reliability(evaluation):
        table.add_row(
            f"{100 * row.low:g} – {100 * row.high:g} %",
            f"{row.sequences:,}",
            percent(row.probability),
            percent(row.correct / row.sequences),
        )
    return table


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
