"""Which runs stand for a search, and whether it has come to its end. Imports neither torch nor Hydra.

Most of its trials are not what its user wants, and the best was chosen by its validation accuracy. So a
command that scores models takes the best point with other seeds, or, without these, the best trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.errors import CheckpointError
from rnnclf.tuning.space import size_of
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.search.record import read_search
from rnnclf.workflows.search.trials import Trials, best_of
from rnnclf.workflows.sweep_folder import is_search, is_sweep, jobs_of

if TYPE_CHECKING:
    from rnnclf.workflows.search.outcome import Outcome


STATES = ("done", "pruned", "failed", "running", "stopped")
"""The states of trials, as `Outcome.state_of` tells them."""


def runs_of_search(folder: Path) -> list[RunFolder]:
    """The runs of the best point with other seeds if one of them is done, else the best trial.

    Raises CheckpointError if no trial is done, or if the record is damaged.
    """
    search = read_search(folder)
    best = best_of(Trials(folder, search).seen(), search)
    if best is None or best.trial.state != "done":
        raise CheckpointError(f"{folder} is a search of which no trial is done: rnnclf resume {folder}.")
    winner = best_folder(folder, best.run)
    repeated = jobs_of(winner) if is_sweep(winner) else []
    return repeated if any(run.is_finished() for run in repeated) else [best.run]


def what_stands(paths: Iterable[Path]) -> Iterator[str]:
    """For each path that is a search, a sentence that says which of its runs are taken."""
    for folder in filter(is_search, paths):
        try:
            first, *others = runs_of_search(folder)
        except CheckpointError:  # which the command tells
            continue
        if first.path.parent == folder:
            yield f"Of the search {folder}, its best trial is taken: {first.path}."
        else:
            runs = f"{len(others) + 1} runs" if others else "one run"
            place = f"{runs} in {first.path.parent}"
            yield f"Of the search {folder}, the best settings with other seeds are taken: {place}."


def best_folder(folder: Path, best: RunFolder) -> Path:
    """The folder of the sweep that trains the point of a trial with other seeds."""
    return folder / f"best-{best.number}"


def state_of_search(outcome: Outcome) -> str:
    """running, done, failed (not one trial is done) or interrupted."""
    winner = outcome.winner
    repeated = jobs_of(winner) if winner is not None and is_sweep(winner) else []
    if outcome.count("running") or any(run.busy() for run in (RunFolder(outcome.folder), *repeated)):
        return "running"
    if not _has_ended(outcome):
        return "interrupted"
    if not outcome.count("done"):
        return "failed"
    missing = outcome.search.seeds and not repeated
    waiting = any(run.state() not in ("done", "failed") for run in repeated)
    return "interrupted" if missing or waiting else "done"


def _has_ended(outcome: Outcome) -> bool:
    """Whether no trial is left to be trained."""
    search, tried = outcome.search, len(outcome.seen)
    if search.seconds is not None and outcome.seconds >= search.seconds:
        return True
    size = size_of(search.space)
    most = min((limit for limit in (search.trials, size) if limit is not None), default=None)
    return most is not None and tried >= most and not outcome.count("stopped")
