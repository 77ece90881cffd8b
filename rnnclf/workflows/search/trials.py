"""The trials of a search as their folders tell of them.

The score of an epoch is its validation accuracy. On few sequences many epochs have the same, and among them
the one with the lower loss is better, as it is for the choice of the best epoch of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf.errors import CheckpointError
from rnnclf.tuning.space import point_from_plain
from rnnclf.tuning.trials import State, Trial
from rnnclf.workflows.runs import RunFolder, fits, read_csv, stamp
from rnnclf.workflows.search.record import Search
from rnnclf.workflows.sweep_folder import jobs_of

TIE = 1e-4  # of accuracy: what an infinite loss costs
STATES: dict[str, State] = {"done": "done", "failed": "failed"}


@dataclass(frozen=True)
class Seen:
    """A trial, its folder, and how it stands."""

    run: RunFolder
    trial: Trial
    accuracy: float | None
    """On the validation split, of the epoch that is its result so far."""
    seconds: float
    """How long it was trained."""
    status: dict[str, Any]

    @property
    def reason(self) -> str:
        """Why it did not end as planned; '' if it did, or has not ended."""
        return str(self.status.get("error", ""))


class Trials:
    """The trials of a search, looked at again and again. A file that has not changed is not read again."""

    def __init__(self, folder: Path, search: Search) -> None:
        self.folder, self.search = folder, search
        self._read: dict[Path, tuple[tuple[int, ...], Any]] = {}

    def seen(self) -> list[Seen]:
        """The trials by number. Raises CheckpointError if one is not of this search."""
        return [self._seen(run) for run in jobs_of(self.folder) if run.status.exists()]

    def _seen(self, run: RunFolder) -> Seen:
        assert run.number is not None
        status = self._cached(run.status, run.read_status)
        rows = self._cached(run.epochs, lambda: _rows(run.epochs))
        if "point" not in status:
            raise CheckpointError(f"{run.path} is not a trial of this search: move it away.")
        point = point_from_plain(status["point"], self.search.space)
        state: State = "pruned" if "pruned" in status else STATES.get(status.get("state", ""), "running")
        seconds = max(float(status.get("seconds", 0.0)), sum(row["seconds"] for row in rows))
        trial = Trial(run.number, point, state, tuple(_score(row) for row in rows))
        value = trial.value(self.search.select)
        accuracy = None if value is None else rows[trial.curve.index(value)]["validation_accuracy"]
        return Seen(run, trial, accuracy, seconds, status)

    def _cached(self, path: Path, read: Any) -> Any:
        now = stamp(path)
        if path not in self._read or self._read[path][0] != now:
            self._read[path] = now, read()
        return self._read[path][1]


def best_of(seen: list[Seen], search: Search) -> Seen | None:
    """The best trial that has ended; before the first has, the best so far."""
    scored = [one for one in seen if one.trial.curve and one.trial.state != "failed"]
    ended = [one for one in scored if one.trial.state == "done"] or scored
    return max(ended, key=lambda one: one.trial.value(search.select) or 0.0, default=None)


def _rows(path: Path) -> list[dict[str, float]]:
    keys = ("validation_accuracy", "validation_loss", "seconds")
    found = []
    for row in read_csv(path):
        try:
            found.append({key: float(row[key]) for key in keys})
        except (KeyError, ValueError):
            return []
    return found


def _score(row: dict[str, float]) -> float:
    loss = row["validation_loss"]
    share = loss / (1 + loss) if fits(loss, float) and loss >= 0 else 1.0
    return row["validation_accuracy"] - TIE * share
