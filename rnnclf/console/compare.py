"""The tables of `rnnclf compare`: the contenders, each pair of them, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from rich.console import Group, JustifyMethod, RenderableType
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.console.sheets import Sheet
from rnnclf.console.sweep import ROOMY, columns_of, section_tables
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.compare import AcrossData, Compared, Comparison, Pair
from rnnclf.workflows.compare_words import (
    alone_right,
    has_chances,
    numbers_of,
    pair_cells,
    pair_columns,
    pair_legend,
    per_run,
)
from rnnclf.workflows.disagreement import Disagreement, Example
from rnnclf.workflows.sweep import Section
from rnnclf.workflows.sweep_words import DIFFERENT, legend

MOST_CLASSES = 8  # whose disagreements are shown
NAME = 40  # characters of a class or an id


def show_comparison(found: Compared) -> None:
    console = screen()
    console.print(comparison_tables(found, console.width))


def comparison_tables(found: Compared, width: int) -> Group:
    parts: list[RenderableType] = []
    for section in found.sections:
        parts += _section(section, found.equal, width, titled=len(found.sections) > 1)
    if found.across is not None:
        parts += _across(found.across)
    notes = [*found.notes, *(note for section in found.sections for note in section.notes)]
    return Group(*parts, *(Text(one_line(note), style="yellow") for note in notes))


def section_of(comparison: Comparison) -> Section:
    """The contenders as a section of a sweep's table."""
    judged = comparison.contest.judged
    candidates = tuple(contender.candidate for contender in comparison.contenders)
    return Section(judged.data, judged.protocol, (), candidates)


def _section(
    comparison: Comparison, equal: float | None, width: int, titled: bool
) -> Iterator[RenderableType]:
    section = section_of(comparison)
    if titled:
        yield Text(one_line(comparison.title), style="bold")
    yield from section_tables(section, [], width, jobs=False, versus=False)
    numbers = numbers_of(comparison)
    yield from _pair_tables(comparison, width)
    below = [*legend([section], versus=False), *pair_legend(comparison, numbers, equal)]
    yield Text("\n".join(below), style="dim")
    found = comparison.pairs[0].disagreement
    if not titled and found is not None and found.by_class:
        yield Text("")
        yield from _disagreement(
            found, numbers[comparison.pairs[0].first], numbers[comparison.pairs[0].second]
        )


def _pair_tables(comparison: Comparison, width: int) -> Iterator[PlainTable]:
    """One table or, if it has more columns than a narrow terminal has room for, two."""
    titles, numbers = pair_columns(comparison), numbers_of(comparison)
    rows = [pair_cells(pair, numbers, has_chances(comparison)) for pair in comparison.pairs]
    columns = list(range(len(titles)))
    parts = [columns] if not has_chances(comparison) or width >= ROOMY else [columns[:-2], [0, *columns[-2:]]]
    for part in parts:
        table = PlainTable()
        for column in part:
            justify: JustifyMethod = "left" if titles[column] == "verdict" else "right"
            table.add_column(titles[column], no_wrap=True, justify=justify)
        for row in rows:
            table.add_row(*(row[column] for column in part))
        yield table


def _disagreement(found: Disagreement, first: str, second: str) -> Iterator[RenderableType]:
    """By class, and the first few sequences."""
    each = "" if found.pairs == 1 else f" (mean of {found.pairs} runs)"
    yield Text(f"where {first} and {second} differ{each}", style="bold")
    table = PlainTable("class")
    for title in (f"{first} alone right", f"{second} alone right", "sequences"):
        table.add_column(title, justify="right")
    for row in found.by_class[:MOST_CLASSES]:
        counts = per_run(row.only_first, found), per_run(row.only_second, found)
        table.add_row(_short(row.label), *counts, f"{row.total / found.pairs:.0f}")
    total = found.both + found.only_first + found.only_second + found.neither
    table.add_section()
    table.add_row("all", *alone_right(found), f"{total / found.pairs:.0f}")
    yield table
    if len(found.by_class) > MOST_CLASSES:
        yield Text(f"all {len(found.by_class)} classes on which they differ: --json", style="dim")
    for number, examples in ((first, found.first_right), (second, found.second_right)):
        if examples:
            yield Text(f"{number} alone right: {_examples(examples, found.pairs)}")


def _examples(examples: Iterable[Example], pairs: int) -> str:
    return "; ".join(
        f"id {_short(example.id)} ({_short(example.label)} taken for {_short(example.predicted)}"
        + (f", {round(example.share * pairs)} of {pairs} runs)" if pairs > 1 else ")")
        for example in examples
    )


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= NAME else f"{name[: NAME - 2]} …"


def _across(found: AcrossData) -> Iterator[RenderableType]:
    """The mean ranks over several data sets; the accuracies on each stand in the tables above."""
    yield Text(f"over {len(found.data)} data sets", style="bold")
    table = PlainTable("with")
    for title in ("mean rank", "mean test", "best on"):
        table.add_column(title, justify="right", no_wrap=True)
    for m in sorted(range(len(found.methods)), key=lambda m: found.ranks.mean[m]):
        accuracies = [row[m] for row in found.accuracies]
        best = sum(row[m] == max(row) for row in found.accuracies)
        cells = f"{found.ranks.mean[m]:.2f}", percent(fmean(accuracies)), f"{best} of {len(accuracies)}"
        table.add_row(one_line(found.methods[m]), *cells)
    yield table
    yield Text("\n".join(map(one_line, _across_notes(found))), style="dim")


def _across_sheet(found: AcrossData) -> Sheet:
    """A line for each data set, and one for the mean ranks."""
    rows = [
        (data, *map(percent, accuracies))
        for data, accuracies in zip(found.data, found.accuracies, strict=True)
    ]
    ranks = ("mean rank", *(f"{rank:.2f}" for rank in found.ranks.mean))
    title = f"test accuracy on {len(found.data)} data sets"
    return Sheet(title, ("", *found.methods), (*rows, ranks), tuple(_across_notes(found)))


def _across_notes(found: AcrossData) -> Iterator[str]:
    ranks, n = found.ranks, len(found.data)
    if ranks.p is not None:
        yield f"all alike: p = {ranks.p:.2g} (Friedman's test, as improved by Iman and Davenport)"
    if n < ranks.needed:
        yield (
            f"{n} data sets are too few to tell any pair apart: Wilcoxon's test with Holm's correction takes"
            f" {ranks.needed}; with {n}, its p is at least {ranks.least:.2g}"
        )
    else:
        apart = [(i, j, p) for (i, j), p in ranks.pairs.items() if p <= DIFFERENT]
        for i, j, p in apart:
            better, worse = (i, j) if ranks.mean[i] < ranks.mean[j] else (j, i)
            yield f"{found.methods[better]} is better than {found.methods[worse]}: p = {p:.2g}"
        if not apart:
            yield "no pair is told apart (Wilcoxon's signed-rank test, Holm's correction)"
        else:
            yield "p: Wilcoxon's signed-rank test, Holm's correction"
    yield f"Nemenyi's test does not tell mean ranks apart that differ by less than {ranks.critical:.2f}"
    if found.left_out:
        yield f"{found.left_out} configurations are left out: they were not trained on all of these data sets"


def sheets_of(found: Compared) -> list[Sheet]:
    """The tables for papers."""
    sheets = []
    for comparison in found.sections:
        section, numbers = section_of(comparison), numbers_of(comparison)
        first, second = columns_of(section, versus=False)
        columns = first | second
        rows = [
            (
                str(numbers[contender.name]),
                contender.name,
                *(show(contender.candidate) for show in columns.values()),
            )
            for contender in comparison.contenders
        ]
        title, pairs = comparison.title, pair_columns(comparison)
        sheets.append(
            Sheet(
                title,
                ("", "with", *columns),
                tuple(rows),
                tuple(legend([section], versus=False)),
                words=(0, 1),
            )
        )
        sheets.append(
            Sheet(
                f"{title}: each pair",
                tuple(pairs),
                tuple(tuple(pair_cells(pair, numbers, has_chances(comparison))) for pair in comparison.pairs),
                (*pair_legend(comparison, numbers, found.equal), *comparison.notes),
                words=(0, pairs.index("verdict")),
            )
        )
    return [*sheets, _across_sheet(found.across)] if found.across else sheets


def lines_of(found: Compared) -> list[dict[str, Any]]:
    """A line for each pair, for CSV."""
    return [
        {
            "data": comparison.contest.judged.data,
            "protocol": comparison.contest.judged.protocol,
            "first": pair.first,
            "second": pair.second,
            **{f"{side}_accuracy": accuracy for side, accuracy in _accuracies(comparison, pair)},
            "difference": pair.difference,
            **dict(zip(("low", "high"), pair.interval95 or (None, None), strict=True)),
            **{"p": pair.p, "adjusted_p": pair.adjusted_p, "how": pair.how},
            **{"first_runs": pair.runs[0], "second_runs": pair.runs[1], "improvement": pair.improvement},
            **dict(
                zip(
                    ("first_better", "equal", "second_better"),
                    pair.chances or (None, None, None),
                    strict=True,
                )
            ),
            "only_first_right": None if pair.disagreement is None else pair.disagreement.only_first,
            "only_second_right": None if pair.disagreement is None else pair.disagreement.only_second,
        }
        for comparison in found.sections
        for pair in comparison.pairs
    ]


def _accuracies(comparison: Comparison, pair: Pair) -> Iterator[tuple[str, float]]:
    accuracy = {contender.name: contender.candidate.accuracy for contender in comparison.contenders}
    yield from (("first", accuracy[pair.first]), ("second", accuracy[pair.second]))
