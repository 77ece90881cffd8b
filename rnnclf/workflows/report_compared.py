"""The part of a sweep's report that tells its configurations apart: paired differences and confusions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rnnclf.report import charts
from rnnclf.report.document import Block, Cell, Figure, Figures, Table
from rnnclf.report.drawing import PageDrawer
from rnnclf.workflows.compare import Comparison, Pair
from rnnclf.workflows.compare_words import pair_cells, pair_columns, pair_legend
from rnnclf.workflows.judged import Judged, judged, together
from rnnclf.workflows.report_run import class_table
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep import Candidate

MOST_COMPARED = 5  # configurations, the first in rank, of which all pairs are shown
MOST_PAIRS = MOST_COMPARED * (MOST_COMPARED - 1) // 2
MOST_CONFUSED = 3  # configurations, the first in rank, whose confusions are drawn

Named = Sequence[tuple[str, Candidate]]
"""The configurations with their names on the page, the first in rank first."""
Runs = Mapping[int | None, RunFolder]
"""The jobs of the sweep by number."""


def differences_table(
    comparisons: Sequence[Comparison], configurations: Named, runs: Runs, typed: str
) -> Table | None:
    """The differences between the first configurations; None if there is one alone.

    typed: the folder of the sweep as the user named it.
    """
    own = {runs[run.job].path.resolve(): name for name, c in configurations for run in c.done}
    for comparison in comparisons:
        if names := _names(comparison, own):
            return _table(comparison, names, typed)
    return None


def _names(comparison: Comparison, own: Mapping[Path, str]) -> dict[str, str]:
    """The contenders with their names on the page; none if no run of theirs is in `own`."""
    found = {
        contender.name: {own.get(run.folder.path.resolve(), "") for run in contender.runs.values()}
        for contender in comparison.contenders
    }
    if not any(any(names) for names in found.values()):
        return {}
    return {  # jobs with other words may have the same configuration, such as threads=1 and threads=2
        contender: next(iter(names)) if len(names) == 1 and any(names) else contender
        for contender, names in found.items()
    }


def _table(comparison: Comparison, names: Mapping[str, str], typed: str) -> Table:
    first = [contender.name for contender in comparison.contenders[:MOST_COMPARED]]
    pairs = [pair for pair in comparison.pairs if pair.first in first and pair.second in first]
    if len(comparison.pairs) < len(comparison.contenders):  # each with the first alone
        pairs = list(comparison.pairs)[:MOST_PAIRS]
    notes = [*pair_legend(comparison, names), *comparison.notes]
    if left := len(comparison.pairs) - len(pairs):
        more = "1 more pair" if left == 1 else f"{left} more pairs"
        notes.insert(0, f"{more}: rnnclf compare {shlex.quote(typed)}")
    pair, difference, *others = pair_columns(comparison)
    titles = (pair, difference, "runs", *others)
    return Table(titles, tuple(_row(pair, names) for pair in pairs), tuple(notes))


def _row(pair: Pair, names: Mapping[str, str]) -> tuple[Cell, ...]:
    name, difference, bounds, p, verdict, alone = pair_cells(pair, names, chances=False)
    one, other = pair.runs
    runs = str(one) if one == other else f"{one} and {other}"
    return (
        Cell(name),
        Cell(difference, pair.difference),
        Cell(runs, min(pair.runs)),
        Cell(bounds or "–", -1.0 if pair.interval95 is None else pair.interval95[0]),
        Cell(p or "–", 2.0 if pair.adjusted_p is None else pair.adjusted_p),
        Cell(verdict),
        Cell(alone or "–"),
    )


def confusion_blocks(configurations: Named, runs: Runs, draw: PageDrawer) -> list[Block | None]:
    """The confusions of the first configurations over all of their runs; nothing where each has one run."""
    found = []
    for name, candidate in configurations[:MOST_CONFUSED]:
        parts = [judged(runs[run.job].predictions, "test", 0) for run in candidate.done]
        readable = [part for part in parts if isinstance(part, Judged)]
        if len(readable) > 1 and (whole := together(readable)) is not None:
            found.append((name, whole, len(readable)))
    if not found:
        return []
    figures = [
        Figure(
            draw(charts.confusion(known.classes, known.counts), f"confusions of {name}"), _caption(name, n)
        )
        for name, known, n in found
        if known.counts is not None
    ]
    table = _classes(*found[0], alone=len(configurations) == 1)
    return [Figures(tuple(figures)) if figures else None, table]


def _caption(name: str, runs: int) -> str:
    shades = "The deeper the colour, the larger its share of the row: blue is right."
    return f"{name}: {runs} runs, added up. {shades}"


def _classes(name: str, known: Judged, runs: int, alone: bool) -> Table:
    """The classes of one configuration over its runs. They mostly share their test sequences, so that
    intervals from these counts would be too narrow."""
    table = class_table(known, known.by_class())
    place = table.titles.index("95 % interval")
    rows = tuple((*row[:place], *row[place + 1 :]) for row in table.rows)
    titles = ("class" if alone else f"class, {name}", *table.titles[1:place], *table.titles[place + 1 :])
    return Table(titles, rows, (f"sequences: those of {runs} runs, added up", *table.notes))
