"""Folders of searches, written without training anything."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rnnclf.files import write_json
from rnnclf.tuning.space import Choice, Point, Real, Space, Whole
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.runs import RunFolder, write_csv
from rnnclf.workflows.search.record import Search
from rnnclf.workflows.sweep_folder import ListedJob, list_jobs
from tests.workflows.finished_runs import finished_run, rewrite, share

SPACE: Space = {
    "optimizer.lr": Real(1e-4, 0.1, log=True),
    "hidden": Whole(8, 32, 4),
    "cell.nonlinearity": Choice(("tanh", "relu")),
}


class Tried(NamedTuple):
    """A trial, and how it stands."""

    curve: Sequence[float]
    """Its validation accuracy after each epoch."""
    state: str = "done"
    """Or pruned, failed, interrupted."""
    error: str = ""


TRIED = (Tried((0.5, 0.8)), Tried((0.6, 0.9)), Tried((0.4,), "pruned"), Tried((), "failed", "It diverged."))
"""Of which the second is the best."""


def point_of(number: int, space: Space = SPACE) -> Point:
    return {
        key: round(1e-3 * (number + 1), 4) if isinstance(d, Real) else d.value(number % d.size)
        for key, d in space.items()
    }


def search_of(
    folder: Path,
    *tried: Tried,
    seeds: Sequence[int] = (),
    asked: int | None = None,
    space: Space = SPACE,
    **changes: Any,
) -> Path:
    """A search of these trials, whose second one is trained with these other seeds.

    asked: the number of seeds that the search is to train; all that are there if left out.
    """
    folder.mkdir(parents=True)
    options = {
        "trials": max(len(tried), 1),
        "seeds": len(seeds) if asked is None else asked,
        "prune": "halving",
        **changes,
    }
    Search(("dataset=digits", "name=hunt"), space, **options).write(folder)
    for number, each in enumerate(tried):
        _trial(folder / str(number), number, each, point_of(number, space))
    if seeds:
        winner = folder / "best-1"
        jobs = []
        for number, seed in enumerate(seeds):
            run = finished_run(winner / str(number), share(0.85), seed=seed, validation=0.88, hidden=12)
            record = {"overrides": [*words_of(point_of(1)), f"seed={seed}"], "config": "x"}
            record["configuration"] = RunFolder(run).read_status()["configuration"]
            rewrite(run / "status.json", **record)
            jobs.append(ListedJob(number, str(number), record))
        list_jobs(winner, jobs)
    return folder


def _trial(path: Path, number: int, tried: Tried, point: Point) -> None:
    hidden, validation = point.get("hidden", 8), max(tried.curve, default=0.0)
    finished_run(path, share(0.8), validation=validation, hidden=hidden, started=1e9 + number)
    status = {"state": tried.state, "point": point, "overrides": ["dataset=digits", *words_of(point)]}
    if tried.state != "done":
        (path / "results.json").unlink()
        status["error"] = tried.error
    if tried.state == "pruned":
        status |= {"state": "interrupted", "pruned": "pruned: others were better"}
    plain = RunFolder(path).read_status()["configuration"] | {"name": "hunt"}
    rewrite(path / "status.json", **status, configuration=plain)
    rows = [
        {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": 0.5, "seconds": 1.0}
        for epoch, accuracy in enumerate(tried.curve, start=1)
    ]
    write_csv(RunFolder(path).epochs, rows)


def begun(folder: Path) -> Path:
    """A search right after its beginning."""
    return search_of(folder, trials=3)


def with_model(folder: Path, model: Path) -> None:
    """Puts the checkpoint of a run into each finished one of a search."""
    for results in folder.rglob("results.json"):
        shutil.copy(RunFolder(model).best, RunFolder(results.parent).best)


def damaged(folder: Path) -> Path:
    search_of(folder, *TRIED)
    write_json(folder / "search.json", {"space": 3})
    return folder
