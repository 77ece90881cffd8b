"""The chapter of a report on a sweep: its configurations compared, and the first of them in detail."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rnnclf.durations import seconds_in_words
from rnnclf.errors import CheckpointError
from rnnclf.metrics import percent
from rnnclf.report import charts
from rnnclf.report.charts import Band, Bar
from rnnclf.report.document import (
    Block,
    Cell,
    Chapter,
    Commands,
    Figure,
    Figures,
    Folded,
    Headline,
    Table,
    Words,
    sections,
)
from rnnclf.report.drawing import PageDrawer
from rnnclf.statistics import mean_and_sd
from rnnclf.workflows.compare import compared_within
from rnnclf.workflows.plots import epochs_of
from rnnclf.workflows.report_compared import confusion_blocks, differences_table
from rnnclf.workflows.report_run import (
    Reported,
    details,
    doubts_block,
    facts_table,
    interval_cell,
    provenance_facts,
    results_blocks,
    train_command,
)
from rnnclf.workflows.report_words import doubts_of, how_it_was_judged, what_was_trained
from rnnclf.workflows.runs import RunFolder, fits
from rnnclf.workflows.sweep import REPEATED, Candidate, Ranking, Section, SweepRow, ranking_of
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.sweep_words import (
    beside_first,
    common_words,
    doubts,
    interval_of,
    legend,
    number_of,
    own_words,
    repeats,
    title_of,
)

MOST_BARS = 40  # configurations in a chart, the first in rank


@dataclass(frozen=True)
class SweepReported:
    """A sweep of which at least one job has finished."""

    folder: Path
    typed: str
    """Its folder as the user named it."""
    ranking: Ranking
    runs: dict[int | None, RunFolder]

    @property
    def common(self) -> list[str]:
        """The words that all jobs share."""
        return common_words(self.ranking.rows)

    def name(self, candidate: Candidate) -> str:
        return own_words(candidate, self.common) or "all runs"

    def first_run(self, candidate: Candidate) -> Reported:
        run = self.runs[candidate.done[0].job]
        return Reported(run, f"{self.typed.rstrip('/')}/{run.path.relative_to(self.folder)}")


def sweep_reported(folder: Path, typed: str) -> SweepReported:
    """Raises CheckpointError if no job has finished."""
    ranking = ranking_of(folder)
    if not ranking.sections:
        raise CheckpointError(f"{typed} is a sweep of which no job has finished: rnnclf resume {typed}.")
    return SweepReported(folder, typed, ranking, {run.number: run for run in jobs_of(folder)})


def sweep_chapter(found: SweepReported, words: Sequence[str], draw: PageDrawer, key: str) -> Chapter:
    """words: overrides for the data of the runs, which may be elsewhere by now, and plugins."""
    ranking = found.ranking
    first = ranking.sections[0].candidates[0]
    one = found.first_run(first)
    parts: list[tuple[str, list[Block | None]]] = [
        ("Doubts", [doubts_block([*_doubts(found), *_own_doubts(ranking, one)])])
    ]
    comparisons = compared_within(found.folder)
    for section in ranking.sections:
        where = f" on {title_of(section, ranking.sections)}" if len(ranking.sections) > 1 else ""
        named = [(found.name(candidate), candidate) for candidate in section.candidates]
        differences = differences_table(comparisons, named, found.runs, found.typed)
        parts += [
            (f"The configurations{where}", _compared(found, section, draw)),
            (f"Differences between the configurations{where}", [differences]),
            (f"Classes over all runs{where}", confusion_blocks(named, found.runs, draw)),
        ]
    lost = _lost_table(found)
    parts += [
        ("All runs", [Folded(f"{len(ranking.rows):,} runs", _runs_table(found))]),
        ("Lost runs", [lost]),
        ("One run in detail", [Words((_which(found, first, one),)), *results_blocks(one)]),
        *details(one, words, draw),
        ("To repeat it", _repeat_blocks(found, one)),
    ]
    return Chapter(_title(found), tuple(_lead(found, one)), _headline(found, first), sections(parts), key)


def _title(found: SweepReported) -> str:
    candidates = found.ranking.candidates
    data = " and ".join(dict.fromkeys(section.data for section in found.ranking.sections))
    if len(candidates) == 1:
        return f"{found.first_run(candidates[0]).title}: {len(candidates[0].runs)} runs"
    return f"{len(candidates)} configurations on {data}"


def _lead(found: SweepReported, one: Reported) -> Iterator[str]:
    ranking = found.ranking
    rows = ranking.rows
    configurations = len(ranking.candidates)
    if configurations == 1:
        yield from what_was_trained(one.results, one.configuration)
        yield from how_it_was_judged(one.results)
        yield f"There are {len(rows)} such runs, {_finished(rows)}. They are {_differing(rows)}."
        return
    keys = [key for key in ranking.keys if key not in REPEATED]
    differ = f" The configurations differ in {_and(keys)}." if keys else ""
    runs = f" The runs of a configuration are {_differing(rows)}." if len(rows) > configurations else ""
    yield (
        f"{configurations} configurations were trained in {len(rows)} runs, {_finished(rows)}.{differ}{runs}"
    )
    within = "Within each data set, they" if len(ranking.sections) > 1 else "They"
    yield (
        f"{within} are ranked by their mean accuracy on the validation sequences. The test accuracy,"
        " measured on other sequences, says how good each is. It is not used for ranking, because the winner"
        " would then have been chosen on the very sequences that judge it."
    )


def _and(words: Sequence[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def _finished(rows: Sequence[SweepRow]) -> str:
    done = sum(row.done for row in rows)
    return "all of which finished" if done == len(rows) else f"of which {done} finished"


def _differing(rows: Sequence[SweepRow]) -> str:
    """In what the runs of a configuration differ."""
    seeds, folds = {row.seed for row in rows}, {row.fold for row in rows}
    if len(folds) > 1:
        times = f", with {len(seeds)} random seeds" if len(seeds) > 1 else ""
        return f"the {len(folds)} folds of a cross-validation{times}"
    return f"alike except for the random seed ({len(seeds)} seeds)"


def _headline(found: SweepReported, first: Candidate) -> Headline:
    accuracy = percent(first.accuracy)
    bounds = first.interval95
    beside = [f"95 % interval {interval_of(first)}" if bounds else "too few runs for an interval"]
    if len(found.ranking.candidates) > 1:
        beside.insert(0, f"first by validation: {found.name(first)}")
    if fits(rate := first.mean_of("test", "commonest_rate"), float):
        beside.append(f"always naming the most frequent class: {percent(rate or 0.0)}")
    if first.pooled_split == "test":
        what = "of all sequences classified correctly, each by a network that was not trained on it"
    elif len(first.done) > 1:
        what = f"mean test accuracy of {len(first.done)} runs"
    else:
        what = "test accuracy"
    return Headline(accuracy, what, tuple(beside))


def _doubts(found: SweepReported) -> Iterator[str]:
    yield from (doubt.removeprefix("! ") for doubt in doubts(found.ranking, most=None))
    if lost := [row for row in found.ranking.rows if not row.done]:
        yield (
            f"{len(lost)} of {len(found.ranking.rows)} runs did not finish, so that the comparison may be"
            " unfair. They are listed below."
        )


def _own_doubts(ranking: Ranking, one: Reported) -> Iterator[str]:
    candidates = ranking.candidates
    fewest = min(len(candidate.done) for candidate in candidates)
    if len(candidates) > 1 and fewest < 3:
        yield (
            "Some configurations have fewer than three runs, so a difference between them may be luck."
            " More seeds, such as seeds=5, would tell."
        )
    warnings = one.results.get("warnings", [])
    folds = any(candidate.folds for candidate in candidates)  # which test on more than one run shows
    found = [] if folds else doubts_of(one.results, one.judged)
    yield from (doubt for doubt in found if doubt not in warnings)


def _compared(found: SweepReported, section: Section, draw: PageDrawer) -> list[Block | None]:
    candidates = section.candidates
    notes = [*legend(found.ranking.sections)]
    if common := found.common:
        notes.append(f"all with {' '.join(common)}")
    figures = []
    if len(candidates) > 1 or len(candidates[0].done) > 1:
        rate = candidates[0].mean_of("test", "commonest_rate")
        bars = [_bar(found, candidate) for candidate in candidates[:MOST_BARS]]
        caption = (
            "The lines are 95 % intervals, the small marks single runs. In the order of validation accuracy."
        )
        figures.append(Figure(draw(charts.comparison(bars, rate), "test accuracies"), caption))
    rows = list(_bands(found, candidates[: charts.MOST_LINES]))
    if rows:
        more = len(candidates) - charts.MOST_LINES
        caption = "Means; the bands go from the lowest to the highest run."
        caption += f" The first {charts.MOST_LINES} of {len(candidates)} configurations." if more > 0 else ""
        figures.append(Figure(draw(charts.bands(rows), "validation accuracy of each epoch"), caption))
    judged_by = "out of fold" if any(c.pooled_split == "test" for c in candidates) else "test"
    titles = (*_TITLES[:4], judged_by, *_TITLES[4:])
    table = Table(titles, tuple(_row(found, candidate) for candidate in candidates), tuple(notes))
    return [table, Figures(tuple(figures)) if figures else None]


_TITLES = (
    *("configuration", "rank", "runs", "validation", "95 % interval", "vs first"),
    *("parameters", "time per run"),
)


def _row(found: SweepReported, candidate: Candidate) -> tuple[Cell, ...]:
    first = candidate.rank == 1
    parameters, seconds = candidate.mean_of("parameters"), candidate.mean_of("total_seconds") or 0.0
    test = mean_and_sd(candidate.test) if candidate.pooled_split != "test" else percent(candidate.accuracy)
    return (
        Cell(found.name(candidate), is_strong=first),
        Cell(str(candidate.rank or "–"), candidate.rank or 1e9),
        Cell(repeats(candidate), len(candidate.done)),
        Cell(mean_and_sd(candidate.validation), candidate.validation.mean),
        Cell(test, candidate.accuracy, is_strong=first),
        interval_cell(candidate.interval95) if candidate.interval95 else Cell("too few runs", -1),
        Cell(beside_first(candidate)),
        Cell(number_of(parameters), parameters),
        Cell(seconds_in_words(seconds), seconds),
    )


def _bar(found: SweepReported, candidate: Candidate) -> Bar:
    singles = tuple(run.accuracy("test") for run in candidate.done) if len(candidate.done) > 1 else ()
    return Bar(found.name(candidate), candidate.accuracy, candidate.interval95, singles)


def _bands(found: SweepReported, candidates: Sequence[Candidate]) -> Iterator[Band]:
    for candidate in candidates:
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for run in candidate.done:
            for epoch in epochs_of(found.runs[run.job]):
                if "validation" in epoch.accuracy:
                    by_epoch[epoch.number].append(epoch.accuracy["validation"])
        if len(by_epoch) > 1:
            for number, shares in sorted(by_epoch.items()):
                yield Band(
                    found.name(candidate), number, fmean(shares), min(shares), max(shares), len(shares)
                )


def _runs_table(found: SweepReported) -> Table:
    rows = [
        (
            Cell(f"#{row.job}", row.job),
            Cell(" ".join(word for word in row.overrides if word not in found.common)),
            Cell(row.state),
            _share_cell(row, "validation"),
            _share_cell(row, "test"),
        )
        for row in found.ranking.rows
    ]
    return Table(("job", "words", "state", "validation", "test"), tuple(rows))


def _share_cell(row: SweepRow, split: str) -> Cell:
    return Cell(percent(row.accuracy(split)), row.accuracy(split)) if row.done else Cell("–", -1.0)


def _lost_table(found: SweepReported) -> Table | None:
    rows = [
        (
            Cell(f"#{row.job}", row.job),
            Cell(" ".join(word for word in row.overrides if word not in found.common)),
            Cell(row.state),
            Cell(row.error),
        )
        for row in found.ranking.rows
        if not row.done
    ]
    return Table(("job", "words", "state", "reason"), tuple(rows)) if rows else None


def _which(found: SweepReported, first: Candidate, one: Reported) -> str:
    several = " the first finished run of" if len(first.done) > 1 else ""
    name = found.name(first) if len(found.ranking.candidates) > 1 else "this configuration"
    place = ", first by validation" if len(found.ranking.candidates) > 1 else ""
    return f"From here on:{several} {name}{place} (job #{first.done[0].job}, {one.typed})."


def _repeat_blocks(found: SweepReported, one: Reported) -> list[Block | None]:
    folder = shlex.quote(found.typed)
    lines = [
        (f"rnnclf eval {folder}", "score all runs again"),
        (f"rnnclf resume {folder} seeds=10", "add runs"),
    ]
    typed = one.provenance.get("command")
    if isinstance(typed, str) and " train " in f"{typed} ":
        lines.insert(0, (f"rnnclf {typed.partition(' ')[2]}", "what was typed"))
    lines.append((train_command(one.overrides), f"train job #{one.run.number} again"))
    facts: dict[str, Any] = {
        "time in all": seconds_in_words(sum(_seconds(found.ranking.rows))),
        **provenance_facts(one),
    }
    return [Commands(tuple(lines)), facts_table(facts)]


def _seconds(rows: Sequence[SweepRow]) -> Iterator[float]:
    for row in rows:
        if row.done:
            yield float(row.results["total_seconds"])
