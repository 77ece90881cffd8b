"""The chapter of a report on a search: what was searched, what was found, and one run of it in detail."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf.durations import seconds_in_words
from rnnclf.errors import CheckpointError
from rnnclf.metrics import interval, percent
from rnnclf.report import search_charts as charts
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
from rnnclf.report.search_charts import Setting, TrialPoint
from rnnclf.statistics import mean_and_sd
from rnnclf.tuning.proposing import SAMPLERS
from rnnclf.tuning.pruning import Rule
from rnnclf.tuning.space import Choice, as_typed
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.report_run import (
    Reported,
    details,
    doubts_block,
    facts_table,
    provenance_facts,
    results_blocks,
)
from rnnclf.workflows.report_words import doubts_of, what_was_trained
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.search.outcome import Outcome
from rnnclf.workflows.search.record import Search, read_search
from rnnclf.workflows.search.standing import STATES, runs_of_search, state_of_search
from rnnclf.workflows.search.trials import Seen

SHOWN = 10  # trials of the first table
OVER = (
    "The validation accuracy of each trial over the values of a setting. Circles were trained to their end,"
    " crosses were ended early."
)
MOST_SETTINGS = 12  # that are drawn, those that matter most first


PRUNING: dict[Rule, str] = {
    "none": "nothing",
    "halving": "successive halving: at a few epochs, only the best third goes on",
    "median": "the median: a trial ends when it is worse than half of the others were at the same epoch",
}
"""What each rule of pruning does, for a reader who has not heard of it."""


@dataclass(frozen=True)
class SearchReported:
    """A search of which at least one trial is done."""

    outcome: Outcome
    typed: str
    """Its folder as the user named it."""
    run: RunFolder
    """That is shown in detail: the first finished one with another seed, or the best trial."""

    @property
    def one(self) -> Reported:
        return Reported(
            self.run, f"{self.typed.rstrip('/')}/{self.run.path.relative_to(self.outcome.folder)}"
        )

    @property
    def best(self) -> Seen:
        assert self.outcome.best is not None
        return self.outcome.best


def search_reported(folder: Path, typed: str) -> SearchReported:
    """Raises CheckpointError if no trial is done, or if the record is damaged."""
    outcome = Outcome.of(folder, read_search(folder))
    run = next((run for run in runs_of_search(folder) if run.is_finished()), None)
    if run is None:
        raise CheckpointError(f"{typed} has lost the results of its best trial.")
    return SearchReported(outcome, typed, run)


def search_chapter(found: SearchReported, words: Sequence[str], draw: PageDrawer, key: str) -> Chapter:
    """words: overrides for the data of the runs, which may be elsewhere by now, and plugins."""
    outcome, one = found.outcome, found.one
    parts: list[tuple[str, list[Block | None]]] = [
        ("Doubts", [doubts_block(list(_doubts(found)))]),
        ("What was searched", [_ranges(outcome.search), facts_table(_how(outcome))]),
        ("How it went", [_drawn_progress(outcome, draw), Words((_counted(outcome),))]),
        ("The best trials", _trial_tables(outcome)),
        ("Which settings matter", _settings_blocks(outcome, draw)),
        ("What was found", [Words(tuple(_found(found)))]),
        ("Trials that failed", [_failed_table(outcome)]),
        ("One run in detail", [Words((_which(found),)), *results_blocks(one)]),
        *details(one, words, draw),
        ("To repeat it", [_commands(found), facts_table(provenance_facts(one))]),
    ]
    title = f"A search of {_trials(len(outcome.seen))} on {one.results.get('data', one.results['dataset'])}"
    return Chapter(title, tuple(_lead(found)), _headline(found), sections(parts), key)


def _trials(number: int) -> str:
    return f"{number:,} trial{'' if number == 1 else 's'}"


def _lead(found: SearchReported) -> Iterator[str]:
    outcome = found.outcome
    keys = ", ".join(outcome.search.space)
    yield (
        f"The best values were searched for {keys}. Each trial trained one network with other values, and was"
        " judged by its accuracy on the validation sequences."
    )
    yield from what_was_trained(found.one.results, found.one.configuration)
    yield (
        "The validation accuracy of the best of many trials flatters it, because it was chosen by that very"
        " figure. The test sequences had no part in the search."
    )


def _headline(found: SearchReported) -> Headline:
    outcome, test = found.outcome, found.one.results["test"]
    settings = " ".join(words_of(found.best.trial.point))
    repeated = outcome.repeated
    beside = [f"the best settings: {settings}"]
    if found.best.accuracy is not None:
        beside.append(f"validation accuracy of the best trial: {percent(found.best.accuracy)}")
    if repeated is not None and repeated.done:
        n = len(repeated.done)
        what = f"mean test accuracy of the best settings with {n} other seed{'' if n == 1 else 's'}"
        return Headline(percent(repeated.accuracy), what, tuple(beside))
    beside.insert(1, f"95 % interval {interval(test['interval95'])}")
    return Headline(percent(test["accuracy"]), "test accuracy of the best trial", tuple(beside))


def _doubts(found: SearchReported) -> Iterator[str]:
    outcome, one = found.outcome, found.one
    state = state_of_search(outcome)
    if state in ("running", "interrupted"):
        yield f"The search is {state}: what was found so far may change."
    if outcome.repeated is None:
        yield (
            "The best settings were trained with a single seed, so their accuracy may be luck:"
            f" rnnclf resume {shlex.quote(found.typed)} seeds=5."
        )
    if failed := outcome.count("failed"):
        yield f"{failed:,} of {_trials(len(outcome.seen))} failed. They are listed below."
    yield from doubts_of(one.results, one.judged)


def _ranges(search: Search) -> Table:
    rows = [(Cell(key), Cell(str(dimension))) for key, dimension in search.space.items()]
    return Table(("setting", "values"), tuple(rows), is_sortable=False)


def _how(outcome: Outcome) -> dict[str, Any]:
    search = outcome.search
    limits = [] if search.trials is None else [f"{_trials(search.trials)} at most"]
    limits += [] if search.budget is None else [f"{search.budget} of training"]
    return {
        "the same in all trials": " ".join(search.words) or "the defaults",
        "limit": ", ".join(limits) or "none",
        "points proposed by": f"{search.sampler}: {SAMPLERS[search.sampler]}",
        "trials ended early by": PRUNING[search.prune],
        "seed": search.seed,
    }


def _counted(outcome: Outcome) -> str:
    counts = ", ".join(f"{n:,} {state}" for state in STATES if (n := outcome.count(state)))
    return (
        f"{_trials(len(outcome.seen))}: {counts}; {seconds_in_words(outcome.seconds)} of training in all. A"
        " pruned trial was ended early, because others were better after as many epochs."
    )


def _points(outcome: Outcome) -> list[TrialPoint]:
    return [
        TrialPoint(
            one.trial.number,
            one.accuracy,
            one.trial.state == "done",
            " ".join(words_of(one.trial.point)),
            one.trial.point,
        )
        for one in outcome.seen
        if one.accuracy is not None and one.trial.state != "failed"
    ]


def _drawn_progress(outcome: Outcome, draw: PageDrawer) -> Block | None:
    points = _points(outcome)
    if len(points) < 2:
        return None
    svg = draw(charts.best_so_far(points), "validation accuracy of each trial, and the best so far")
    return Figures((Figure(svg, "The line is the best of the trials that were trained to their end."),))


def _trial_tables(outcome: Outcome) -> list[Block | None]:
    rows = tuple(_trial_row(outcome, one) for one in outcome.ranked)
    titles = ("trial", "validation", "epochs", "state", "time", *outcome.search.space)
    every = Folded(f"All {len(rows):,} trials that have a score", Table(titles, rows))
    return [Table(titles, rows[:SHOWN]), every if len(rows) > SHOWN else None]


def _trial_row(outcome: Outcome, one: Seen) -> tuple[Cell, ...]:
    is_best = outcome.best is not None and one.trial.number == outcome.best.trial.number
    values = one.trial.point.values()
    return (
        Cell(f"#{one.trial.number}", one.trial.number, is_strong=is_best),
        Cell("–", -1.0) if one.accuracy is None else Cell(percent(one.accuracy), one.accuracy, is_best),
        Cell(str(len(one.trial.curve)), len(one.trial.curve)),
        Cell(outcome.state_of(one)),
        Cell(seconds_in_words(one.seconds), one.seconds),
        *(Cell(as_typed(value), None if isinstance(value, str) else value) for value in values),
    )


def _settings_blocks(outcome: Outcome, draw: PageDrawer) -> list[Block | None]:
    points, (shares, reason) = _points(outcome), outcome.importance
    blocks: list[Block | None] = []
    if shares is None:
        blocks.append(Words((f"How much each setting matters is not known: {reason}.",)))
    else:
        caption = "By functional ANOVA over the whole range of each setting, not only its good part."
        svg = draw(charts.importance(shares), "importance of each setting")
        blocks.append(Figures((Figure(svg, caption),)))
    if len(points) > 1:
        keys = list(outcome.search.space if shares is None else shares)
        settings = [_setting(outcome.search, key) for key in keys[:MOST_SETTINGS]]
        svgs = [draw(charts.over_setting(points, each), f"accuracy over {each.key}") for each in settings]
        blocks += [Words((OVER,)), Figures(tuple(map(Figure, svgs)))]
    return blocks


def _setting(search: Search, key: str) -> Setting:
    dimension = search.space[key]
    if isinstance(dimension, Choice):
        return Setting(key, choices=dimension.values)
    return Setting(key, is_log=dimension.log)


def _found(found: SearchReported) -> Iterator[str]:
    outcome = found.outcome
    best, repeated, ensemble = found.best, outcome.repeated, outcome.ensemble
    score = "" if best.accuracy is None else f", with a validation accuracy of {percent(best.accuracy)}"
    yield f"The best trial is #{best.trial.number}{score}: {' '.join(words_of(best.trial.point))}."
    if repeated is not None and repeated.done:
        n = len(repeated.done)
        yield (
            f"Its settings, trained with {n} other seed{'' if n == 1 else 's'}, reach"
            f" {mean_and_sd(repeated.validation)} on the validation sequences and"
            f" {mean_and_sd(repeated.test)} on the test sequences. This is what to expect of them."
        )
    if ensemble is not None:
        test, members = ensemble.scores["test"], len(ensemble.members)
        which = "the best trial alone" if members == 1 else f"{members} of the trials"
        yield (
            f"An ensemble of {which}, chosen on the validation sequences, reaches"
            f" {percent(test['accuracy'])} on the test sequences"
            f" (95 % interval {interval(test['interval95'])})."
        )


def _failed_table(outcome: Outcome) -> Table | None:
    rows = [
        (
            Cell(f"#{one.trial.number}", one.trial.number),
            Cell(" ".join(words_of(one.trial.point))),
            Cell(one.reason),
        )
        for one in outcome.seen
        if one.trial.state == "failed"
    ]
    return Table(("trial", "settings", "reason"), tuple(rows)) if rows else None


def _which(found: SearchReported) -> str:
    repeated = found.run.path.parent != found.outcome.folder
    what = "the first finished run of the best settings with other seeds" if repeated else "the best trial"
    return f"From here on: {what} ({found.one.typed})."


def _commands(found: SearchReported) -> Block:
    outcome, folder = found.outcome, shlex.quote(found.typed)
    lines = [] if outcome.command is None else [(outcome.command, "train the best settings")]
    lines.append((f"rnnclf eval {folder}", "score what the search has found again"))
    if outcome.ensemble is not None:
        lines.append((f"rnnclf eval {folder}/{outcome.ensemble.path.name}", "score the ensemble again"))
    limit = "trials" if outcome.search.trials is not None else "budget"
    value = str(2 * outcome.search.trials) if outcome.search.trials is not None else "TIME"
    lines.append((f"rnnclf resume {folder} {limit}={value}", "search longer"))
    return Commands(tuple(lines))
