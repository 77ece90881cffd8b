"""The table of a sweep: a line for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import (
    PICTURE_WIDTH,
    interval,
    mean_and_sd,
    print_plain,
    save_picture,
    screen,
    seconds_in_words,
    short,
)
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.statistics import LEAST_RUNS
from rnnclf.workflows.runs import RunFolder, fits, picture
from rnnclf.workflows.sweep import Candidate, Ranking, Section, SweepRow
from rnnclf.workflows.sweep_folder import jobs_of

ROOMY = 100  # columns; narrower terminals get two tables instead of one
ROOMY_REPEATED = 120  # the same for tables with deviations
DIFFERENT = 0.05  # largest p at which two configurations are told apart
MOST_DOUBTS = 3  # sentences below a table; all are in the results of the runs

Column = Callable[[Candidate], str]


def sweep_table(ranking: Ranking, width: int) -> Group:
    """The configurations by validation accuracy, then failed jobs with their reason and log."""
    common = _common_words(ranking.rows)
    parts: list[PlainTable | Text] = []
    for section in ranking.sections:
        if len(ranking.sections) > 1:
            parts.append(Text(_title(section, ranking.sections), style="bold"))
        parts += section_tables(section, common, width)
    parts += [Text(line, style="yellow") for line in _doubts(ranking)]
    parts += [Text(line, style="red") for line in _lost(ranking, common)]
    done = sum(row.done for row in ranking.rows)
    ranked = any(len(section.candidates) > 1 for section in ranking.sections)
    how = ", ranked by validation accuracy" if ranked else ""
    caption = [f"{done} of {len(ranking.rows)} jobs done{how}", *_guessing(ranking)]
    caption += [f"all with {one_line(' '.join(common))}"] if common else []
    lines = ["; ".join(caption), *legend(ranking.sections)]
    return Group(*parts, Text("\n".join(lines), style="dim"))


def _lost(ranking: Ranking, common: Sequence[str]) -> Iterator[str]:
    """A line for each job that failed, and one for those that never began."""
    lost = [row for row in ranking.rows if not row.done]
    for row in (row for row in lost if row.state != "waiting"):
        log = f" (log: {short(Path(row.log))})" if row.log else ""
        own = " ".join(word for word in row.overrides if word not in common)
        yield f"#{row.job} {one_line(own)}: {row.state}: {one_line(row.error)}{log}"
    if waiting := " ".join(f"#{row.job}" for row in lost if row.state == "waiting"):
        yield f"not started: {waiting}"


def section_tables(
    section: Section, common: Sequence[str], width: int, jobs: bool = True, versus: bool = True
) -> Iterator[PlainTable]:
    """The configurations of a section with all figures: one table, or in a narrow terminal two.

    jobs: with the number of each job, if no configuration has several; versus: with the comparison with the
    first.
    """
    first, second = columns_of(section, versus)
    named = [_own_words(candidate, common) for candidate in section.candidates]
    single = all(len(candidate.runs) == 1 for candidate in section.candidates)
    roomy = ROOMY if single else ROOMY_REPEATED
    for columns in [first | second] if width >= roomy else [first, second]:
        table = PlainTable()
        table.add_column("", justify="right")
        if single and jobs:
            table.add_column("job", justify="right")
        if any(named):
            table.add_column("with")
        for title in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for candidate, words in zip(section.candidates, named, strict=True):
            place = "" if candidate.rank is None or len(named) == 1 else str(candidate.rank)
            cells = [f"{place} !" if any(run.doubts for run in candidate.done) else place]
            cells += [f"#{candidate.runs[0].job}"] if single and jobs else []
            cells += [words] if any(named) else []
            cells += [column(candidate) for column in columns.values()]
            table.add_row(*cells)
        yield table


def columns_of(section: Section, versus: bool = True) -> tuple[dict[str, Column], dict[str, Column]]:
    """The titles of the columns and what they show, for each of two narrow tables.

    versus: with the comparison with the first.
    """
    candidates = section.candidates
    repeated = any(len(candidate.runs) > 1 for candidate in candidates)
    first: dict[str, Column] = {}
    if repeated:
        first["folds" if candidates[0].folds else "seeds"] = _repeats
    first["validation"] = lambda c: mean_and_sd(c.validation)
    if any(candidate.pooled_split == "test" for candidate in candidates):
        first["out of fold"] = lambda c: mean_and_sd(replace(c.test, mean=c.accuracy)) if c.pooled else ""
    else:
        first["test"] = lambda c: mean_and_sd(c.test)
    first["95 % interval"] = _interval
    second: dict[str, Column] = {}
    if versus and repeated and len(candidates) > 1:
        second["vs first"] = _beside
    second["parameters"] = lambda c: _number(c.mean_of("parameters"))
    second["time a run" if repeated else "time"] = lambda c: seconds_in_words(
        c.mean_of("total_seconds") or 0.0
    )
    return first, second


def _repeats(candidate: Candidate) -> str:
    """The number of finished runs: 5, or 2 × 5 of a cross-validation with two seeds, or 3 of 5."""
    done, runs = len(candidate.done), len(candidate.runs)
    if done < runs:
        return f"{done} of {runs}"
    seeds = len({run.seed for run in candidate.runs})
    return f"{seeds} × {done // seeds}" if candidate.folds and seeds > 1 else str(done)


def _interval(candidate: Candidate) -> str:
    return "too few" if candidate.interval95 is None else interval(candidate.interval95)


def _beside(candidate: Candidate) -> str:
    """The result of the comparison with the first."""
    if candidate.rank in (None, 1):
        return ""
    if candidate.p is None:
        return "too few"
    return "*" if candidate.p > DIFFERENT else f"p {candidate.p:.2g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def legend(sections: Sequence[Section], versus: bool = True) -> Iterator[str]:
    """What the marks of the tables mean, for those that are there. `versus` as in `columns_of`."""
    repeated = [c for section in sections for c in section.candidates if len(c.runs) > 1]
    if not repeated:
        return
    over = " and ".join(
        name
        for name, there in (
            ("seeds", any(len({run.seed for run in c.runs}) > 1 for c in repeated)),
            ("folds", any(c.folds for c in repeated)),
        )
        if there
    )
    yield f"±: standard deviation over {over}"
    if any(candidate.pooled_split == "test" for candidate in repeated):
        yield "out of fold: each sequence classified by the model that was not trained on it"
    if any(candidate.pooled_split == "validation" for candidate in repeated):
        yield "the folds are the validation split, because the data come with a test split"
    seen = [section for section in sections if any(c in repeated for c in section.candidates)]
    marks = {_beside(c) for section in seen for c in section.candidates} if versus else set()
    if "*" in marks:
        yield (
            f"*: not distinguished from the first (paired t test of the test accuracy over common {over},"
            " Holm's correction)"
        )
    if "too few" in marks | {_interval(candidate) for candidate in repeated}:
        yield f"too few: it takes {LEAST_RUNS} runs to tell"


def _title(section: Section, sections: Iterable[Section]) -> str:
    """The data of a section, with what tells it apart from others on the same data."""
    same = [other for other in sections if other.data == section.data]
    words = [word for word in section.words if any(word not in other.words for other in same)]
    tutorial = ["tutorial protocol"] if section.protocol == "tutorial" else []
    return one_line(", ".join([section.data, *([" ".join(words)] if words else []), *tutorial]))


def _doubts(ranking: Ranking) -> Iterator[str]:
    """The reasons to doubt results, each with the jobs that it concerns."""
    yield from map(one_line, ranking.notes)
    jobs: dict[str, list[SweepRow]] = {}
    for row in ranking.rows:
        for doubt in row.doubts if row.done else []:
            jobs.setdefault(doubt, []).append(row)
    for number, (doubt, rows) in enumerate(jobs.items()):
        if number == MOST_DOUBTS:
            yield f"{len(jobs) - number} more warnings are in sweep.json"
            return
        which = "all jobs" if len(rows) == len(ranking.rows) else " ".join(f"#{row.job}" for row in rows)
        yield one_line(f"! {which}: {doubt}")


def _guessing(ranking: Ranking) -> list[str]:
    """The test accuracy of always predicting the most frequent class, over all datasets of the sweep."""
    found = [row.results["test"].get("commonest_rate") for row in ranking.rows if row.done]
    rates = [rate for rate in found if fits(rate, float)]  # runs of older versions have none
    if not rates:
        return []
    return [f"guessing on test: {' to '.join(percent(rate) for rate in sorted({min(rates), max(rates)}))}"]


def _common_words(rows: Sequence[SweepRow]) -> list[str]:
    """The overrides that all jobs share."""
    first = rows[0].overrides if rows else []
    return [word for word in first if all(word in row.overrides for row in rows)] if len(rows) > 1 else []


def _own_words(candidate: Candidate, common: Sequence[str]) -> str:
    return one_line(" ".join(word for word in candidate.words if word not in common))


def save_sweep(ranking: Ranking, folder: Path) -> None:
    """Writes accuracy.txt and accuracy.svg into the sweep's folder."""
    save_picture(sweep_table(ranking, PICTURE_WIDTH), picture(folder), "rnnclf sweep")


def show_sweep(ranking: Ranking, folder: Path) -> None:
    console = screen()
    console.print(sweep_table(ranking, console.width))
    console.print(f"sweep folder: {short(folder)}", soft_wrap=True, markup=False)
    if any(row.done for row in ranking.rows):
        console.print(f"evaluate it: rnnclf eval {short(folder)}", soft_wrap=True, markup=False)
    if not all(row.done for row in ranking.rows):
        console.print(f"resume it: rnnclf resume {short(folder)}", soft_wrap=True, markup=False)


def show_resumption(folder: Path, pending: list[RunFolder], added: list[RunFolder]) -> None:
    """Prints which jobs of a resumed sweep are about to run."""
    if added:
        print_plain(f"{len(added)} added: {_numbers(added)}")
    if pending:
        print_plain(f"resuming {len(pending)} of {len(jobs_of(folder))} jobs: {_numbers(pending)}")
    else:
        print_plain("nothing left to do")


def _numbers(runs: list[RunFolder]) -> str:
    return " ".join(f"#{run.number}" for run in runs)
