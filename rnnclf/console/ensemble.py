"""The table of `rnnclf ensemble`: its members, and what averaging them is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import interval, screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import four_digits, percent
from rnnclf.workflows.compare_words import points
from rnnclf.workflows.ensemble import Ensemble, Scores


def show_ensemble(found: Ensemble, file: Path) -> None:
    console = screen()
    console.print(ensemble_tables(found, file))
    name = short(file)
    for line in (
        f"saved in {name}",
        f"evaluate it: rnnclf eval {name}",
        f"use it: rnnclf predict {name} new.csv",
    ):
        console.print(line, soft_wrap=True, markup=False)


def ensemble_tables(found: Ensemble, file: Path) -> Group:
    """file: that of the ensemble, above its members."""
    notes = (Text(one_line(note), style="yellow") for note in found.notes)
    return Group(_members(found, file), _worth(found), Text("\n".join(_legend(found)), style="dim"), *notes)


def _members(found: Ensemble, file: Path) -> PlainTable:
    table = _table("member", "with", figures=("weight", "validation", "log loss", "test"))
    for member in found.members:
        run = short(member.run).removeprefix(f"{short(file.parent)}/")
        *cells, _ = _cells(member.scores)
        table.add_row(run, one_line(member.words), str(member.weight), *cells)
    return table


def _worth(found: Ensemble) -> PlainTable:
    """The ensemble beside what one would have without it."""
    table = _table("", figures=("validation", "log loss", "test", "95 % interval of test"))
    table.add_row("ensemble", *_cells(found.scores))
    table.add_row(f"best single run, {one_line(found.single.words)}", *_cells(found.single.scores))
    accuracy, test = (percent(found.mean_of_members(split, "accuracy")) for split in ("validation", "test"))
    table.add_row("mean of members", accuracy, four_digits(found.mean_of_members("validation", "loss")), test)
    return table


def _table(*texts: str, figures: Sequence[str]) -> PlainTable:
    table = PlainTable(*texts)
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _cells(scores: Scores) -> tuple[str, str, str, str]:
    """Validation accuracy and log loss, test accuracy and its interval."""
    validation, test = scores["validation"], scores["test"]
    return (
        percent(validation["accuracy"]),
        four_digits(validation["loss"]),
        percent(test["accuracy"]),
        interval(test["interval95"]),
    )


def _legend(found: Ensemble) -> Iterator[str]:
    yield (
        f"the ensemble was chosen from {found.candidates} runs by log loss on {found.sequences:,} validation"
        f" sequences of {one_line(found.data)}, so its validation scores are too optimistic"
    )
    yield "best single run: by validation accuracy; mean of members: each counted once"
    against = found.against
    if against is None:
        yield "no average of these runs has a lower validation log loss than the best single run"
        return
    words = f"ensemble minus best single run on test: {points(against.difference)} points"
    if against.interval95 is not None:
        words += f" (95 % interval {' to '.join(map(points, against.interval95))}), p {against.p:.2g} by"
        words += " McNemar's exact test" if against.how == "checkpoints" else " a t test over recordings"
    unit = "sequences" if against.how == "checkpoints" else "windows"
    alone = f"{against.only_ensemble:,} {unit}, the single run alone on {against.only_single:,}"
    yield f"{words}; the ensemble alone is right on {alone}"
    yield "this is about these models, not about ensembles in general"
