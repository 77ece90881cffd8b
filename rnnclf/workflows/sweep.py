"""The results of a sweep: a line for each configuration, whose runs differ in the seed or the fold alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from rnnclf.files import write_json
from rnnclf.hydra_app.grammar import meant
from rnnclf.metrics import METRICS, wilson_interval
from rnnclf.statistics import Spread, holm, paired_p, spread
from rnnclf.workflows.folds import FoldRun, Pooled, is_complete, pool_folds, write_out_of_fold
from rnnclf.workflows.runs import RunFolder, fits, write_csv
from rnnclf.workflows.sweep_folder import (
    jobs_of,
    listed_jobs,
    out_of_fold,
    runs_table,
    sweep_results,
    sweep_table,
)

REASONS = {
    "waiting": "not started",
    "running": "another process is running it",
    "lost": "its process ended without reporting",
    "missing": "its folder is gone",
}
REPEATED = ("seed", "dataset.fold")
"""The keys in which the runs of one configuration differ."""
SAME_SEQUENCES = (
    *("dataset.fold", "dataset.missing", "dataset.missing_values", "dataset.normalise"),
    *("dataset.patch", "dataset.root"),
)
"""The keys of a data set that leave it to the same sequences to judge a model."""


@dataclass(frozen=True)
class SweepRow:
    """One job: its overrides and its outcome."""

    job: int
    overrides: list[str]
    state: str
    results: dict[str, Any]
    """The content of results.json, empty if the job did not finish."""
    error: str
    log: str
    """The path of its log; empty if there is none."""
    seed: int | None = None
    folds: int | None = None
    """The number of folds of a cross-validation; None without one."""
    fold: int | None = None
    """Which of the folds it holds out."""

    @property
    def done(self) -> bool:
        return self.state == "done" and bool(self.results)

    @property
    def doubts(self) -> list[str]:
        """Reasons to doubt its scores."""
        found: list[str] = self.results.get("warnings", [])
        return found if fits(found, [str]) else []

    def accuracy(self, split: str) -> float:
        return float(self.results[split]["accuracy"])


@dataclass(frozen=True)
class Candidate:
    """A configuration of the sweep, and its runs."""

    words: tuple[str, ...]
    """The overrides of its runs, but for those of REPEATED."""
    runs: tuple[SweepRow, ...]
    pooled: tuple[Pooled, ...] = ()
    """For each seed whose folds are all done, their predictions taken together."""
    rank: int | None = None
    """Its place by validation accuracy; None if folds are missing."""
    p: float | None = None
    """Of a paired test against the first in rank; None for the first itself, and for too few common runs."""

    @cached_property
    def done(self) -> list[SweepRow]:
        return [run for run in self.runs if run.done]

    @property
    def folds(self) -> int | None:
        return self.runs[0].folds

    @cached_property
    def is_whole(self) -> bool:
        """Whether it can be ranked: one run is enough, but of a cross-validation all folds are needed."""
        if self.folds is None:
            return bool(self.done)
        by_seed: dict[int | None, list[int]] = {}
        for run in self.done:
            by_seed.setdefault(run.seed, []).append(-1 if run.fold is None else run.fold)
        return any(is_complete(self.folds, done) for done in by_seed.values())

    @property
    def is_single_baseline(self) -> bool:
        """Whether it is a baseline, which knows no seed: its one run is compared with each run of others."""
        return self.folds is None and len(self.done) == 1 and "baseline" in self.done[0].results

    @cached_property
    def validation(self) -> Spread:
        """Over the finished runs."""
        return spread([run.accuracy("validation") for run in self.done], self.folds)

    @cached_property
    def test(self) -> Spread:
        """Over the finished runs."""
        return spread([run.accuracy("test") for run in self.done], self.folds)

    @property
    def pooled_split(self) -> str | None:
        """The split that the folds rotate: validation if the data come with a test split."""
        return self.pooled[0].split if self.pooled else None

    @property
    def accuracy(self) -> float:
        """On the test split: the mean over the runs; over all sequences if the folds are the test split."""
        if self.pooled_split == "test":
            return fmean(pooled.accuracy for pooled in self.pooled)
        return self.test.mean

    @cached_property
    def interval95(self) -> tuple[float, float] | None:
        """Of `accuracy`: Wilson's of one run or cross-validation, Student's of several; None for two."""
        if self.pooled_split == "test":
            if len(self.pooled) == 1:
                return wilson_interval(self.pooled[0].correct, self.pooled[0].total)
            return spread([pooled.accuracy for pooled in self.pooled]).interval95
        if len(self.done) == 1:
            low, high = self.done[0].results["test"]["interval95"]
            return low, high
        return self.test.interval95

    def mean_of(self, *path: str) -> float | None:
        """The mean over the finished runs of a number in results.json; None if one of them has none. A whole
        number that is the same in all of them stays one."""
        values: list[Any] = [run.results for run in self.done]
        for part in path:
            values = [value.get(part) if isinstance(value, dict) else None for value in values]
        if not values or not all(fits(value, float) for value in values):
            return None
        return values[0] if len({*values}) == 1 else fmean(values)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as stored in sweep.json."""
        low, high = self.interval95 or (None, None)
        return {
            "rank": self.rank,
            "words": list(self.words),
            "jobs": [run.job for run in self.runs],
            "done": len(self.done),
            "folds": self.folds,
            "validation": {"accuracy": self.validation.mean, "sd": self.validation.sd},
            "test": {
                **{"accuracy": self.accuracy, "interval95": [low, high]},
                **{"mean_of_runs": self.test.mean, "sd": self.test.sd},
                **{metric.key: self.mean_of("test", metric.key) for metric in METRICS},
                "loss": self.mean_of("test", "loss"),
            },
            "out_of_fold": [pooled.to_dict() for pooled in self.pooled],
            "p": self.p,
            "parameters": self.mean_of("parameters"),
            "seconds": self.mean_of("total_seconds"),
            "warnings": list(dict.fromkeys(doubt for run in self.done for doubt in run.doubts)),
        }


@dataclass(frozen=True)
class Section:
    """The configurations that were judged on the same sequences by the same protocol, best first."""

    data: str
    protocol: str
    words: tuple[str, ...]
    """The overrides that say what the data are and how they are divided."""
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        configurations = [candidate.to_dict() for candidate in self.candidates]
        return {"data": self.data, "protocol": self.protocol, "configurations": configurations}


@dataclass(frozen=True)
class Ranking:
    """All jobs of a sweep by number, and the configurations of which at least one run has finished."""

    rows: tuple[SweepRow, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    """What could not be computed, as sentences for the user."""

    @property
    def candidates(self) -> list[Candidate]:
        return [candidate for section in self.sections for candidate in section.candidates]

    @property
    def keys(self) -> list[str]:
        """The keys in which the configurations differ, as they were typed."""
        rows = [
            dict(word.split("=", 1) for word in repeated_apart(row.overrides) if "=" in word)
            for row in self.rows
        ]
        keys = dict.fromkeys(key for row in rows for key in row)
        return [key for key in keys if len({row.get(key) for row in rows}) > 1]

    def to_dict(self) -> dict[str, Any]:
        return {"sections": [section.to_dict() for section in self.sections], "notes": list(self.notes)}


def repeated_apart(words: Iterable[str]) -> tuple[str, ...]:
    """The overrides of a run that it shares with the other runs of its configuration."""
    return tuple(word for word in words if word.partition("=")[0] not in REPEATED)


def rank_sweep(folder: Path) -> Ranking:
    """The jobs of a sweep, and its configurations by mean validation accuracy.

    Configurations are never ranked by test accuracy: the winner would then be chosen by the data that it is
    judged on. Seeds and folds are not ranked at all.
    Also writes sweep.csv, runs.csv, sweep.json and, with folds, out_of_fold.parquet into the folder.
    """
    ranking = ranking_of(folder)
    if ranking.rows:
        _write(ranking, folder)
    return ranking


def ranking_of(folder: Path) -> Ranking:
    """The same without writing anything."""
    records = {job.number: job.record for job in listed_jobs(folder)}
    runs = jobs_of(folder)
    rows = tuple(row_of(run, records.get(run.number, {})) for run in runs)  # type: ignore[arg-type]
    return ranked(rows, {run.number: run.predictions for run in runs})


def ranked(rows: Sequence[SweepRow], predictions: Mapping[int | None, Path] | None = None) -> Ranking:
    """The configurations of these jobs, by what they were judged on.

    predictions: the files with the predictions of each job, from which those of folds are pooled.
    """
    groups: dict[tuple[str, ...], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault(repeated_apart(row.overrides), []).append(row)
    candidates, notes = [], []
    for words, members in groups.items():
        pooled, missing = pooled_of(members, predictions or {})
        candidates.append(Candidate(words, tuple(members), pooled))
        notes += missing
    return Ranking(tuple(rows), tuple(_sections([c for c in candidates if c.done])), tuple(notes))


def row_of(run: RunFolder, record: dict[str, Any]) -> SweepRow:
    """record: what jobs.json says about the job, in case its own status is lost."""
    assert run.number is not None
    status, state = run.read_status(), run.state()
    status = {**record, **status}
    results = run.read_results() if state == "done" else {}
    configuration = status.get("configuration")
    plain = configuration if isinstance(configuration, dict) else {}
    dataset: Any = plain.get("dataset")
    dataset = dataset if fits(dataset, {"folds": int, "fold": int}) and dataset["folds"] > 1 else {}
    seed = plain.get("seed", results.get("seed"))
    return SweepRow(
        job=run.number,
        overrides=[str(word) for word in status.get("overrides", [])],
        state=state,
        results=results,
        error=status.get("error", REASONS.get(state, "")) if state != "done" else "",
        log=str(run.log) if run.log.is_file() else "",
        seed=seed if fits(seed, int) else None,
        folds=dataset.get("folds"),
        fold=dataset.get("fold"),
    )


def pooled_of(
    members: Sequence[SweepRow], predictions: Mapping[int | None, Path]
) -> tuple[tuple[Pooled, ...], list[str]]:
    """The pooled predictions of a configuration's folds, and why some are missing."""
    folds = members[0].folds
    runs = [
        FoldRun(row.seed or 0, row.fold, predictions[row.job])
        for row in members
        if row.done and row.fold is not None and row.job in predictions
    ]
    return pool_folds(folds, runs) if folds is not None else ((), [])


def _sections(candidates: list[Candidate]) -> list[Section]:
    """The configurations by what they were judged on, ranked and compared with the best."""
    found: dict[tuple[str, str, tuple[str, ...]], list[Candidate]] = {}
    for candidate in candidates:
        results = candidate.done[0].results
        data = str(results.get("data", results["dataset"]))
        found.setdefault((data, str(results.get("protocol", "standard")), _data_words(candidate)), []).append(
            candidate
        )
    return [Section(*key, tuple(by_validation(members))) for key, members in found.items()]


def _data_words(candidate: Candidate) -> tuple[str, ...]:
    """The words that decide which sequences judge a model."""
    keys = ((word, word.partition("=")[0]) for word in candidate.words)
    return tuple(word for word, key in keys if key.split(".")[0] == "dataset" and key not in SAME_SEQUENCES)


def by_validation(candidates: list[Candidate]) -> list[Candidate]:
    """Best validation accuracy first, then those that cannot be ranked."""

    def place(candidate: Candidate) -> tuple[bool, float, float, int]:
        loss = candidate.mean_of("validation", "loss")
        order = -candidate.validation.mean, 0.0 if loss is None else loss
        return not candidate.is_whole, *order, candidate.runs[0].job

    ordered = sorted(candidates, key=place)
    ps = [None, *holm([_p(ordered[0], other) for other in ordered[1:]])]
    return [
        replace(candidate, rank=rank if candidate.is_whole else None, p=p)
        for rank, (candidate, p) in enumerate(zip(ordered, ps, strict=True), start=1)
    ]


def _p(best: Candidate, other: Candidate) -> float | None:
    """Of the paired test of their test accuracies over the seeds and folds that both have."""
    mine, theirs = (
        {(run.seed, run.fold): run.accuracy("test") for run in candidate.done} for candidate in (best, other)
    )
    if not (best.is_whole and other.is_whole):
        return None
    if best.is_single_baseline:
        mine = dict.fromkeys(theirs, *mine.values())
    elif other.is_single_baseline:
        theirs = dict.fromkeys(mine, *theirs.values())
    return paired_p([mine[key] - theirs[key] for key in mine if key in theirs], best.folds)


def _write(ranking: Ranking, folder: Path) -> None:
    keys = ranking.keys
    own = {
        candidate.words: [word for word in candidate.words if word.partition("=")[0] in keys]
        for candidate in ranking.candidates
    }
    lines = [
        _line(candidate, section, _values(candidate.words, keys))
        for section in ranking.sections
        for candidate in section.candidates
    ]
    write_csv(sweep_table(folder), lines)
    write_csv(runs_table(folder), [_flat(row, _values(row.overrides, keys)) for row in ranking.rows])
    write_json(sweep_results(folder), ranking.to_dict())
    if parts := [(" ".join(own[c.words]), pooled) for c in ranking.candidates for pooled in c.pooled]:
        write_out_of_fold(out_of_fold(folder), parts)


def _values(words: Iterable[str], keys: Sequence[str]) -> dict[str, str | None]:
    """The values that words give to these keys."""
    given = {key: meant(value) for key, _, value in (word.partition("=") for word in words)}
    return {key: given.get(key) for key in keys}


def _line(candidate: Candidate, section: Section, values: dict[str, str | None]) -> dict[str, Any]:
    """A line of sweep.csv."""
    low, high = candidate.interval95 or (None, None)
    return {
        "rank": candidate.rank,
        "data": section.data,
        **values,
        "jobs": " ".join(str(run.job) for run in candidate.runs),
        "runs": len(candidate.runs),
        "done": len(candidate.done),
        "folds": candidate.folds,
        "validation_accuracy": candidate.validation.mean,
        "validation_sd": candidate.validation.sd,
        "test_accuracy": candidate.accuracy,
        "test_sd": candidate.test.sd,
        "test_low": low,
        "test_high": high,
        "p": candidate.p,
        **{f"test_{metric.key}": candidate.mean_of("test", metric.key) for metric in METRICS},
        "test_loss": candidate.mean_of("test", "loss"),
        "parameters": candidate.mean_of("parameters"),
        "seconds": candidate.mean_of("total_seconds"),
        "doubtful": any(run.doubts for run in candidate.done),
    }


def _flat(row: SweepRow, values: dict[str, str | None]) -> dict[str, Any]:
    """A line of runs.csv."""
    done = row.results if row.done else {}
    test = done.get("test", {})
    low, high = test.get("interval95", (None, None))
    return {
        "job": row.job,
        **values,
        "seed": row.seed,
        "fold": row.fold,
        "state": row.state,
        "validation_accuracy": done.get("validation", {}).get("accuracy"),
        "test_accuracy": test.get("accuracy"),
        "test_low": low,
        "test_high": high,
        **{f"test_{metric.key}": test.get(metric.key) for metric in METRICS},
        "test_loss": test.get("loss"),
        "parameters": done.get("parameters"),
        "best_epoch": done.get("best_epoch"),
        "seconds": done.get("total_seconds"),
        "error": row.error,
    }
