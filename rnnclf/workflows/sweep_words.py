"""The results of a sweep as text: the cells of its table, what its marks mean, the reasons to doubt it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rnnclf.escaping import one_line
from rnnclf.metrics import interval, percent
from rnnclf.statistics import LEAST_RUNS
from rnnclf.workflows.runs import fits
from rnnclf.workflows.sweep import Candidate, Ranking, Section, SweepRow

DIFFERENT = 0.05  # largest p at which two configurations are told apart
MOST_DOUBTS = 3  # sentences below a table; all are in the results of the runs


def repeats(candidate: Candidate) -> str:
    """The number of finished runs: 5, or 2 × 5 of a cross-validation with two seeds, or 3 of 5."""
    done, runs = len(candidate.done), len(candidate.runs)
    if done < runs:
        return f"{done} of {runs}"
    seeds = len({run.seed for run in candidate.runs})
    return f"{seeds} × {done // seeds}" if candidate.folds and seeds > 1 else str(done)


def interval_of(candidate: Candidate) -> str:
    return "too few" if candidate.interval95 is None else interval(candidate.interval95)


def beside_first(candidate: Candidate) -> str:
    """The result of the comparison with the first."""
    if candidate.rank in (None, 1):
        return ""
    if candidate.p is None:
        return "too few"
    return "*" if candidate.p > DIFFERENT else f"p {candidate.p:.2g}"


def number_of(value: float | None) -> str:
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
    marks = {beside_first(c) for section in seen for c in section.candidates} if versus else set()
    if "*" in marks:
        yield (
            f"*: not distinguished from the first (paired t test of the test accuracy over common {over},"
            " Holm's correction)"
        )
    if "too few" in marks | {interval_of(candidate) for candidate in repeated}:
        yield f"too few: it takes {LEAST_RUNS} runs to tell"


def title_of(section: Section, sections: Iterable[Section]) -> str:
    """The data of a section, with what tells it apart from others on the same data."""
    same = [other for other in sections if other.data == section.data]
    words = [word for word in section.words if any(word not in other.words for other in same)]
    tutorial = ["tutorial protocol"] if section.protocol == "tutorial" else []
    return one_line(", ".join([section.data, *([" ".join(words)] if words else []), *tutorial]))


def doubts(ranking: Ranking, most: int | None = MOST_DOUBTS) -> Iterator[str]:
    """The reasons to doubt results, each with the jobs that it concerns; at most so many, None: all."""
    yield from map(one_line, ranking.notes)
    jobs: dict[str, list[SweepRow]] = {}
    for row in ranking.rows:
        for doubt in row.doubts if row.done else []:
            jobs.setdefault(doubt, []).append(row)
    for number, (doubt, rows) in enumerate(jobs.items()):
        if number == most:
            yield f"{len(jobs) - number} more warnings are in sweep.json"
            return
        which = "all jobs" if len(rows) == len(ranking.rows) else " ".join(f"#{row.job}" for row in rows)
        yield one_line(f"! {which}: {doubt}")


def guessing(ranking: Ranking) -> list[str]:
    """The test accuracy of always predicting the most frequent class, over all datasets of the sweep."""
    found = [row.results["test"].get("commonest_rate") for row in ranking.rows if row.done]
    rates = [rate for rate in found if fits(rate, float)]  # runs of older versions have none
    if not rates:
        return []
    return [f"guessing on test: {' to '.join(percent(rate) for rate in sorted({min(rates), max(rates)}))}"]


def common_words(rows: Sequence[SweepRow]) -> list[str]:
    """The overrides that all jobs share."""
    first = rows[0].overrides if rows else []
    return [word for word in first if all(word in row.overrides for row in rows)] if len(rows) > 1 else []


def own_words(candidate: Candidate, common: Sequence[str]) -> str:
    return one_line(" ".join(word for word in candidate.words if word not in common))
