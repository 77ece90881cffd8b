"""Chooses what a worker of a search does next: an interrupted trial, or one at a new point."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnnclf.errors import InUseError, OutputError, RnnclfError
from rnnclf.files import made_folder, write_json
from rnnclf.hydra_app.checks import Planned, plan
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.system import fork
from rnnclf.system.claims import LOCK, RECORD, Claim, claim
from rnnclf.tuning.proposing import propose
from rnnclf.tuning.space import Point
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.pretrained import continued_jobs
from rnnclf.workflows.runs import RunFolder, config_record
from rnnclf.workflows.search.record import Search
from rnnclf.workflows.search.trials import Seen, Trials
from rnnclf.workflows.workers import Taken

PATIENCE = 120.0  # seconds that another worker may take to choose
STEP = 0.05  # seconds between two looks whether it has
HOPELESS = 3  # trials; if the first so many all fail, so will the others, for instance for the data


class Asking:
    """The next trial of a search, for one of its workers."""

    def __init__(self, folder: Path, search: Search) -> None:
        self.folder, self.search = folder, search
        self.trials = Trials(folder, search)

    def take(self) -> Taken | None:
        """Claims the next trial; None if the search has no more."""
        with only_worker(self.folder):
            seen = self.trials.seen()
            if self._is_out_of_time(seen):
                return None
            for one in seen:
                if one.trial.state == "running" and (made := _claimed(one.run)):
                    return Taken(one.run, made)
            while not _is_hopeless(seen) and (self.search.trials is None or len(seen) < self.search.trials):
                point = self._proposed(seen)
                if point is None:
                    return None
                if taken := self._begun(point, _next_number(seen)):
                    return taken
                seen = self.trials.seen()
        return None

    def _is_out_of_time(self, seen: list[Seen]) -> bool:
        return self.search.seconds is not None and spent(seen) >= self.search.seconds

    def _proposed(self, seen: list[Seen]) -> Point | None:
        search = self.search
        trials = [one.trial for one in seen]
        if not trials and search.start is not None:
            return search.start

        def ask() -> Any:
            return propose(search.space, trials, search.sampler, search.seed, search.select)

        if search.sampler == "gp" and fork.can_fork():  # its threads would not survive the fork of a trial
            return fork.Child(ask, RunFolder(self.folder).log).answer()  # type: ignore[return-value]
        return ask()  # type: ignore[no-any-return]

    def _begun(self, point: Point, number: int) -> Taken | None:
        """A new trial, claimed; None if its words do not go together, which makes it a failed one."""
        run = RunFolder(made_folder(self.folder / str(number)), number)
        made = claim(run.path)
        if found := [path for path in run.path.iterdir() if path.name not in (LOCK, RECORD)]:
            made.release()
            raise OutputError(f"{found[0]} is in the place of a trial: move {run.path} away.")
        try:
            job = planned(self.search, point)
        except RnnclfError as error:
            record = {"overrides": words_of(point), "error": str(error)}
            write_json(run.status, {"state": "failed", "point": point, **record})
            made.release()
            return None
        record = config_record(job.config, job.words)
        write_json(run.status, {"state": "waiting", "point": point, **record})
        return Taken(run, made)


def planned(search: Search, point: Point) -> Planned:
    """The configuration of a trial. Raises an RnnclfError if its words do not go together.

    The final fit of the recipe is left to the best point: it takes as long as a trial, and its scores on the
    validation split could not be compared.
    """
    typed = any(word.startswith("final_fit=") for word in search.words)
    words = [*search.words, *words_of(point), *([] if typed else ["final_fit=false"])]
    (job,) = continued_jobs(plan(with_recipe(words)))
    return job


def spent(seen: list[Seen]) -> float:
    """The seconds that trials were trained, added up."""
    return sum(one.seconds for one in seen)


def _is_hopeless(seen: list[Seen]) -> bool:
    return len(seen) >= HOPELESS and all(one.trial.state == "failed" for one in seen)


def _next_number(seen: list[Seen]) -> int:
    return max((one.trial.number for one in seen), default=-1) + 1


def _claimed(run: RunFolder) -> Claim | None:
    try:
        return claim(run.path)
    except InUseError:
        return None


@contextmanager
def only_worker(folder: Path) -> Iterator[None]:
    """A context in which no other worker of the search chooses. Raises InUseError after a long wait."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            made = claim(folder)
            break
        except InUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(STEP)
    try:
        yield
    finally:
        made.release()
