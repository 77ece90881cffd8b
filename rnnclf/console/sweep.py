"""The table of a sweep: a line for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import (
    PICTURE_WIDTH,
    mean_and_sd,
    print_plain,
    save_picture,
    screen,
    seconds_in_words,
    short,
)
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.workflows.runs import RunFolder, picture
from rnnclf.workflows.sweep import Candidate, Ranking, Section
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.sweep_words import (
    beside_first,
    common_words,
    doubts,
    guessing,
    interval_of,
    legend,
    number_of,
    own_words,
    repeats,
    title_of,
)

ROOMY = 100  # columns; narrower terminals get two tables instead of one
ROOMY_REPEATED = 120  # the same for tables with deviations

Column = Callable[[Candidate], str]


def sweep_table(ranking: Ranking, width: int) -> Group:
    """The configurations by validation accuracy, then failed jobs with their reason and log."""
    common = common_words(ranking.rows)
    parts: list[PlainTable | Text] = []
    for section in ranking.sections:
        if len(ranking.sections) > 1:
            parts.append(Text(title_of(section, ranking.sections), style="bold"))
        parts += section_tables(section, common, width)
    parts += [Text(line, style="yellow") for line in doubts(ranking)]
    parts += [Text(line, style="red") for line in _lost(ranking, common)]
    done = sum(row.done for row in ranking.rows)
    ranked = any(len(section.candidates) > 1 for section in ranking.sections)
    how = ", ranked by validation accuracy" if ranked else ""
    caption = [f"{done} of {len(ranking.rows)} jobs done{how}", *guessing(ranking)]
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
    named = [own_words(candidate, common) for candidate in section.candidates]
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
        first["folds" if candidates[0].folds else "seeds"] = repeats
    first["validation"] = lambda c: mean_and_sd(c.validation)
    if any(candidate.pooled_split == "test" for candidate in candidates):
        first["out of fold"] = lambda c: mean_and_sd(replace(c.test, mean=c.accuracy)) if c.pooled else ""
    else:
        first["test"] = lambda c: mean_and_sd(c.test)
    first["95 % interval"] = interval_of
    second: dict[str, Column] = {}
    if versus and repeated and len(candidates) > 1:
        second["vs first"] = beside_first
    second["parameters"] = lambda c: number_of(c.mean_of("parameters"))
    second["time per run" if repeated else "time"] = lambda c: seconds_in_words(
        c.mean_of("total_seconds") or 0.0
    )
    return first, second


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


def show_waiting(folder: Path, jobs: int) -> None:
    """Prints what to do with a sweep whose jobs wait for workers."""
    number, wait = ("1 job", "waits") if jobs == 1 else (f"{jobs:,} jobs", "wait")
    print_plain(f"{number} {wait} for workers; sweep folder: {short(folder)}")
    print_plain(f"start as many as you like, on any machine that sees it: rnnclf work {short(folder)}")


def show_left(folder: Path, jobs: int) -> None:
    """Prints that a worker has ended before the sweep."""
    rest = "1 job is" if jobs == 1 else f"{jobs:,} jobs are"
    print_plain(f"no job is left for this worker; {rest} with others: rnnclf inspect {short(folder)}")


def _numbers(runs: list[RunFolder]) -> str:
    return " ".join(f"#{run.number}" for run in runs)
