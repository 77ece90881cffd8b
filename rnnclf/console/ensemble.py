"""The table of `rnnclf ensemble`: its members, and what averaging them is worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import interval, screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.compare_words import points
from rnnclf.workflows.ensemble import Ensemble, Scores


def show_ensemble(found: Ensemble, file: Path) -> None:
    console = screen()
    console.print(ensemble_table(found, file))
    name = short(file)
    for line in (
        f"saved in {name}",
        f"evaluate it: rnnclf eval {name}",
        f"use it: rnnclf predict {name} new.csv",
    ):
        console.print(line, soft_wrap=True, markup=False)


def ensemble_table(found: Ensemble, file: Path) -> Group:
    """file: that of the ensemble, above its members."""
    table = PlainTable("run", "with")
    for title in ("weight", "validation", "log loss", "test", "95 % interval"):
        table.add_column(title, justify="right", no_wrap=True)
    for member in found.members:
        run = short(member.run).removeprefix(f"{short(file.parent)}/")
        table.add_row(run, one_line(member.words), str(member.weight), *_scores(member.scores))
    table.add_section()
    means = [found.mean_of_members(*key) for key in (("validation", "accuracy"), ("validation", "loss"))]
    table.add_row("ensemble", "", str(sum(m.weight for m in found.members)), *_scores(found.scores))
    table.add_row("best single run", one_line(found.single.words), "", *_scores(found.single.scores))
    cells = percent(means[0]), f"{means[1]:.4f}", percent(found.mean_of_members("test", "accuracy")), ""
    table.add_row("mean of members", "", "", *cells)
    notes = (Text(one_line(note), style="yellow") for note in found.notes)
    return Group(table, Text("\n".join(_legend(found)), style="dim"), *notes)


def _scores(scores: Scores) -> tuple[str, str, str, str]:
    validation, test = scores["validation"], scores["test"]
    return (
        percent(validation["accuracy"]),
        f"{validation['loss']:.4f}",
        percent(test["accuracy"]),
        interval(test["interval95"]),
    )


def _legend(found: Ensemble) -> Iterator[str]:
    yield (
        f"{found.data}: chosen from {found.candidates} runs by log loss on {found.sequences:,} validation"
        " sequences, so its validation scores are too optimistic"
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
