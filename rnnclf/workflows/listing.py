"""The runs, sweeps, searches and evaluations below a folder: when they began, how they were made, how they
ended.

Reads only their records, of which any may be damaged. Prints nothing, imports neither torch nor Hydra.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.tuning.space import range_word
from rnnclf.workflows.places import Place, by_start, places_below
from rnnclf.workflows.runs import (
    RunFolder,
    evaluation_record,
    fits,
    read_csv,
    read_json,
    read_json_list,
)
from rnnclf.workflows.sweep_folder import jobs_of, sweep_results

SEVERAL = 3  # values from 0 on, above which they are written as a range


@dataclass(frozen=True)
class Listed:
    """A line of the list."""

    path: Path
    kind: str
    """run, baseline, sweep, search or evaluation."""
    state: str
    """As in `RunFolder.state`; of a sweep or a search, done, running, failed or interrupted; of an
    evaluation, done."""
    name: str | None
    started: float
    """Seconds since 1970."""
    words: tuple[str, ...]
    """The words that made it; of the jobs of a sweep, all values of each key; of a search, its ranges."""
    split: str | None = None
    """What the accuracy was measured on; None without one."""
    accuracy: float | None = None
    """Of a run that is not done and of a search, the best validation accuracy so far; of a sweep, the test
    accuracy of the configuration with the best validation accuracy; of an evaluation, that of its only
    checkpoint."""
    jobs: tuple[tuple[str, int], ...] = ()
    """Of a sweep, the number of jobs in each state; of a search, that of trials."""

    @property
    def job_count(self) -> int:
        return sum(count for _, count in self.jobs)

    @property
    def when(self) -> str:
        """When it began, as in 2026-11-29 17:04:00; '' for what no calendar has."""
        try:
            return datetime.fromtimestamp(self.started).isoformat(" ", "seconds")
        except (ValueError, OverflowError, OSError):
            return ""

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"path": str(self.path), "kind": self.kind, "state": self.state, "name": self.name},
            **{"started": self.when or None, "words": list(self.words)},
            **{"split": self.split, "accuracy": self.accuracy, "jobs": dict(self.jobs)},
        }


def list_runs(folder: Path) -> list[Listed]:
    """What lies below a folder, the newest last. Raises ConfigError if it does not exist."""
    refuse_no_folder(folder)
    return [_listed(place) for place in by_start(places_below(folder))]


def refuse_no_folder(folder: Path) -> None:
    """Raises ConfigError for what is no folder in which runs could be."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder} {what}: give a folder of runs.")


def _listed(place: Place) -> Listed:
    describe = {"sweep": _sweep, "search": _search, "evaluation": _evaluation}.get(place.kind, _run)
    with suppress(OSError):  # it may be removed meanwhile
        return describe(place)
    return Listed(place.path, place.kind, "missing", None, place.started, ())


def _run(place: Place) -> Listed:
    run, status = RunFolder(place.path), place.status
    state = run.state(status)
    results = run.read_results() if state == "done" else {}
    split, accuracy = ("test", results["test"]["accuracy"]) if results else _best_so_far(run)
    words = _without_name(status.get("overrides", ()))
    if place.kind == "baseline":
        words = ("baseline", *words)
    return Listed(place.path, place.kind, state, place.name, place.started, words, split, accuracy)


def _best_so_far(run: RunFolder) -> tuple[str | None, float | None]:
    found = []
    for row in read_csv(run.epochs):
        with suppress(ValueError):
            found.append(float(row.get("validation_accuracy", "")))
    shares = [accuracy for accuracy in found if 0 <= accuracy <= 1]  # which NaN is not
    return ("validation", max(shares)) if shares else (None, None)


def _sweep(place: Place) -> Listed:
    jobs = jobs_of(place.path)
    statuses = [run.read_status() for run in jobs]
    states = Counter(run.state(status) for run, status in zip(jobs, statuses, strict=True))
    words = _of_all([_without_name(status.get("overrides", ())) for status in statuses])
    accuracy = _of_the_best(place.path)
    split = None if accuracy is None else "test"
    state = _state_of(states, RunFolder(place.path).busy())
    return Listed(
        *(place.path, place.kind, state, place.name, place.started),
        *(("-m", *words), split, accuracy, tuple(states.most_common())),
    )


def _state_of(states: Mapping[str, int], busy: bool) -> str:
    if busy or "running" in states:
        return "running"
    if set(states) == {"done"}:
        return "done"
    return "failed" if set(states) <= {"done", "failed"} else "interrupted"


def _of_the_best(sweep: Path) -> float | None:
    """The test accuracy of the configuration that is ranked first; None if there are several data sets."""
    sections = read_json(sweep_results(sweep)).get("sections")
    form = [{"configurations": [{"rank": object, "test": {"accuracy": float}}]}]
    if not fits(sections, form) or not isinstance(sections, list) or len(sections) != 1:
        return None
    ranked = [found for found in sections[0]["configurations"] if found["rank"] == 1]
    return float(ranked[0]["test"]["accuracy"]) if ranked else None


def _of_all(jobs: Sequence[Iterable[str]]) -> list[str]:
    """The words of all jobs, with all values of a key in one: cell=lstm,gru seed=range(8)."""
    values: dict[str, dict[str, None]] = {}
    for words in jobs:
        for word in words:
            key, _, value = word.partition("=")
            values.setdefault(key, {})[value] = None
    return [f"{key}={_in_one(list(found))}" if found != {"": None} else key for key, found in values.items()]


def _in_one(values: Sequence[str]) -> str:
    counted = list(map(str, range(len(values))))
    return f"range({len(values)})" if len(values) > SEVERAL and values == counted else ",".join(values)


def _search(place: Place) -> Listed:
    from rnnclf.workflows.search.outcome import Outcome
    from rnnclf.workflows.search.record import read_search
    from rnnclf.workflows.search.standing import STATES, state_of_search

    try:
        outcome = Outcome.of(place.path, read_search(place.path))
    except CheckpointError:  # its records are damaged
        return Listed(place.path, place.kind, "lost", place.name, place.started, ("tune",))
    search, best = outcome.search, outcome.best
    ranges = [range_word(key, dimension) for key, dimension in search.space.items()]
    accuracy = None if best is None else best.accuracy
    states = tuple((state, n) for state in STATES if (n := outcome.count(state)))
    return Listed(
        *(place.path, place.kind, state_of_search(outcome), place.name, place.started),
        *(("tune", *_without_name(search.words), *ranges), None if accuracy is None else "validation"),
        *(accuracy, states),
    )


def _evaluation(place: Place) -> Listed:
    found = read_json_list(evaluation_record(place.path))
    scores = [score for score in found if fits(score, {"checkpoint": str, "split": str, "accuracy": float})]
    paths = dict.fromkeys(score["checkpoint"] for score in scores)
    splits = dict.fromkeys(f"split={score['split']}" for score in scores)
    single = scores[0] if len(scores) == 1 else {}
    return Listed(
        *(place.path, place.kind, "done", None, place.started, ("eval", *paths, *splits)),
        *(single.get("split"), single.get("accuracy")),
    )


def _without_name(words: Iterable[str]) -> tuple[str, ...]:
    """The words but for the name, which has a place of its own."""
    return tuple(word for word in words if not word.startswith("name="))
