"""The table of baselines, and the line about them at the end of a training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rnnclf.baselines import BASELINES
from rnnclf.console.metrics import GUESSING, accuracy_style, metrics_table
from rnnclf.console.screen import interval, print_note, save_picture, screen, seconds_in_words, short
from rnnclf.console.tables import PlainTable
from rnnclf.data import DATASETS
from rnnclf.data.own import OwnData
from rnnclf.data.recognition import source_for
from rnnclf.errors import DataError
from rnnclf.escaping import one_line
from rnnclf.hydra_app.grammar import meant
from rnnclf.metrics import percent
from rnnclf.workflows.baseline import Compared, Finished
from rnnclf.workflows.runs import picture


def save_baseline(run: Finished) -> None:
    """Writes accuracy.txt and accuracy.svg into the folder of a baseline."""
    r = run.results
    table = Group(
        Text(f"{BASELINES[r['baseline']].title} on {one_line(r['data'])}", style="bold"),
        metrics_table({name: r[name] for name in run.evaluations}),
        Text(GUESSING, style="dim"),
    )
    save_picture(table, picture(run.folder.path), "rnnclf baseline")


def show_baselines(found: Compared) -> None:
    console = screen()
    for note in found.notes:
        console.print(Text(one_line(note), style="dim"))
    console.print(_table(found))
    for sentence in found.left_out:
        print_note(sentence)
    for run in found.runs:
        console.print(f"saved in {short(run.folder.path)}", soft_wrap=True, markup=False)


def _table(found: Compared) -> RenderableType:
    """A row for each baseline, the best first, above the share of the most frequent class."""
    table = PlainTable("on the test split")
    for title in ("accuracy", "95 % interval", "balanced\naccuracy", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for run in sorted(found.runs, key=lambda run: -run.results["test"]["accuracy"]):
        test = run.results["test"]
        table.add_row(
            BASELINES[run.results["baseline"]].title,
            Text(percent(test["accuracy"]), style=accuracy_style(test)),
            interval(test["interval95"]),
            percent(test["balanced_accuracy"]),
            seconds_in_words(run.results["train_seconds"]),
        )
    guess = found.commonest
    balanced = percent(1 / found.occurring)
    table.add_row("commonest class", percent(guess.accuracy), interval(guess.interval95), balanced, "")
    headline = Text(one_line(found.data), style="bold")
    headline.append(
        f": {found.known:,} sequences to learn from, {guess.total:,} to be tested on", style="not bold"
    )
    return Group(headline, table)


def baseline_line(dataset: str, words: Sequence[str], found: Sequence[Mapping[str, Any]]) -> Text | None:
    """The test accuracies of baselines beside a run or, if there are none, the command that computes them.

    None for a run on data that are not the user's own, unless there are baselines.

    Args:
        dataset: the name of the source.
        words: the overrides of the run.
        found: the results of the baselines.
    """
    if found:
        parts = [f"{BASELINES[r['baseline']].title} {percent(r['test']['accuracy'])}" for r in found]
        return Text("baselines    ", style="dim").append(", ".join(parts), style="default")
    kind = dict(DATASETS.items()).get(dataset)
    if kind is None or not issubclass(kind, OwnData):
        return None
    own = [word for word in words if word.split("=")[0].split(".")[0] in ("dataset", "final_fit", "recipe")]
    command = shlex.join(("rnnclf", "baseline", *_shortened(own)))
    return Text("baselines    ", style="dim").append(one_line(command), style="cyan")


def _shortened(words: Sequence[str]) -> list[str]:
    """The words with the path alone in place of dataset=table dataset.path=my.csv, where that is the same."""
    given = dict(word.split("=", 1) for word in words)
    path = meant(given.get("dataset.path", ""))
    with suppress(DataError):
        if source_for(path) == given.get("dataset"):
            others = [word for word in words if word.split("=")[0] not in ("dataset", "dataset.path")]
            return [path, *(word for word in others if word != "recipe=auto")]
    return list(words)
