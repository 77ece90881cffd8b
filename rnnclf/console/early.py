"""The accuracy by step of `rnnclf eval early=true`.  Shapes: P places."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rnnclf.console.drawing import drawn
from rnnclf.console.tables import PlainTable
from rnnclf.metrics import percent
from rnnclf.workflows.early import Early

SHOWN = (0.9, 0.95, 0.99)  # probabilities
BESIDE = 30  # columns left and right of the curve


def early_curve(found: Early, width: int) -> RenderableType:
    """The accuracy by step as a line of bars, and what answers are worth once a class is so probable."""
    import numpy as np

    accuracy_P = np.array(found.accuracy_P)
    bars = drawn(accuracy_P, min(len(accuracy_P), max(width - BESIDE, 10)), (0.0, 1.0))
    first, last = found.steps_P[0], found.steps_P[-1]
    line = Text("accuracy by step ", style="bold")
    line.append(f"{bars}", "cyan").append(
        f" {percent(accuracy_P[0])} after step {first}, {percent(accuracy_P[-1])} after step {last:,}",
        "not bold",
    )
    table = PlainTable()
    table.add_column("answer when a class\nhas a probability of", no_wrap=True)
    for title in ("sequences\nwith an answer", "of them\nright", "steps until\nthen"):
        table.add_column(title, justify="right", no_wrap=True)
    for level in found.levels_L:
        if level.probability in SHOWN:
            right = percent(level.correct / level.decided) if level.decided else "–"
            share = percent(level.share) if level.decided else "–"
            table.add_row(percent(level.probability), percent(level.decided / found.sequences), right, share)
    return Group(line, table)
