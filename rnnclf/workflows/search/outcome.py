"""What a search has found: the trials, what matters, and the best point trained with other seeds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import write_json
from rnnclf.tuning.importance import Importance, importance
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.ensemble_file import EnsembleFile
from rnnclf.workflows.ensemble_file import read as read_ensemble
from rnnclf.workflows.runs import write_csv
from rnnclf.workflows.search.asking import spent
from rnnclf.workflows.search.record import Search
from rnnclf.workflows.search.standing import best_folder
from rnnclf.workflows.search.trials import Seen, Trials, best_of
from rnnclf.workflows.sweep import Candidate, ranking_of
from rnnclf.workflows.sweep_folder import ensemble_record, is_sweep, search_results, trials_table

STOPPED = "stopped"
"""The state of a trial for which no time was left."""


@dataclass(frozen=True)
class Outcome:
    """A search and its trials so far."""

    folder: Path
    search: Search
    seen: list[Seen]

    @classmethod
    def of(cls, folder: Path, search: Search) -> Outcome:
        return cls(folder, search, Trials(folder, search).seen())

    @cached_property
    def best(self) -> Seen | None:
        return best_of(self.seen, self.search)

    @cached_property
    def ranked(self) -> list[Seen]:
        """The trials that have a score, best first; behind them those that were ended early."""

        def place(one: Seen) -> tuple[bool, float, int]:
            return one.trial.state != "done", -(one.trial.value(self.search.select) or 0.0), one.trial.number

        return sorted((one for one in self.seen if one.trial.curve), key=place)

    def state_of(self, one: Seen) -> str:
        """done, pruned, failed, running or stopped."""
        return STOPPED if one.trial.state == "running" and not one.run.busy() else one.trial.state

    def count(self, state: str) -> int:
        return sum(self.state_of(one) == state for one in self.seen)

    @property
    def seconds(self) -> float:
        """How long all trials were trained, added up."""
        return spent(self.seen)

    @cached_property
    def importance(self) -> Importance:
        trials = [one.trial for one in self.seen]
        try:
            return importance(self.search.space, trials, self.search.seed, self.search.select)
        except ConfigError as error:  # Optuna is not installed here
            return Importance(None, str(error).rstrip("."))

    @property
    def winner(self) -> Path | None:
        """The folder of the sweep that trains the best point with other seeds."""
        return None if self.best is None else best_folder(self.folder, self.best.run)

    @cached_property
    def repeated(self) -> Candidate | None:
        """The runs of the best point with other seeds."""
        if self.winner is None or not is_sweep(self.winner):
            return None
        return next(iter(ranking_of(self.winner).candidates), None)

    @cached_property
    def ensemble(self) -> EnsembleFile | None:
        """The ensemble of trials that was chosen at the end."""
        try:
            return read_ensemble(ensemble_record(self.folder))
        except CheckpointError:  # there is none
            return None

    @property
    def command(self) -> str | None:
        """The line that trains the best point."""
        if self.best is None:
            return None
        words = [*self.search.words, *words_of(self.best.trial.point)]
        return " ".join(["rnnclf train", *map(shlex.quote, words)])

    def to_dict(self) -> dict[str, Any]:
        best, repeated = self.best, self.repeated
        return {
            "trials": len(self.seen),
            **{state: self.count(state) for state in ("done", "pruned", "failed", "running", STOPPED)},
            "seconds": round(self.seconds, 3),
            "best": None if best is None else _plain(best, self.state_of(best)),
            "command": self.command,
            "seeds": None if repeated is None else repeated.to_dict(),
            "ensemble": None if self.ensemble is None else self.ensemble.scores,
            "importance": self.importance.shares,
        }

    def write(self) -> None:
        """Writes trials.csv and found.json into the folder of the search."""
        write_csv(trials_table(self.folder), [_plain(one, self.state_of(one)) for one in self.seen])
        write_json(search_results(self.folder), self.to_dict())


def _plain(one: Seen, state: str) -> dict[str, Any]:
    return {
        "trial": one.trial.number,
        "state": state,
        "validation_accuracy": one.accuracy,
        "epochs": len(one.trial.curve),
        "seconds": round(one.seconds, 3),
        **one.trial.point,
        "reason": one.reason,
    }
