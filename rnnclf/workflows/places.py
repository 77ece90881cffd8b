"""What lies below a folder of runs, and the words that stand for a run: its name, and `latest`.

Prints nothing, imports neither torch nor Hydra.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rnnclf.errors import CheckpointError
from rnnclf.files import LATEST, is_run_name
from rnnclf.registry import did_you_mean
from rnnclf.workflows.runs import OUTPUTS, RunFolder, evaluation_record, fits, read_json
from rnnclf.workflows.sweep_folder import is_search, is_sweep, jobs_of, search_record

MOST_LEVELS = 12  # of folders below the one that is searched
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Place:
    """The folder of a run, a sweep, a search or an evaluation."""

    path: Path
    kind: str
    """run, baseline, sweep, search or evaluation."""
    status: dict[str, Any]
    """The content of status.json; of a sweep, that of its first job that has begun, or of the first; of a
    search the same, even if no trial has a configuration yet."""

    @property
    def name(self) -> str | None:
        """What its user called it."""
        configuration = self.status.get("configuration")
        name = configuration.get("name") if isinstance(configuration, dict) else None
        return name if isinstance(name, str) and is_run_name(name) else None

    @cached_property
    def started(self) -> float:
        """When it began, in seconds since 1970; when it was written, if that is not recorded."""
        started = float(self.status.get("started", 0.0))
        return started if 0 < started < time.time() + DAY else _written(self.path)


def _status_of_sweep(path: Path) -> dict[str, Any]:
    jobs: list[RunFolder] = []
    with suppress(OSError):
        jobs = jobs_of(path)
    statuses = (run.read_status() for run in jobs)
    first = next(statuses, {})
    return first if "started" in first else next((each for each in statuses if "started" in each), first)


def _status_of_search(path: Path) -> dict[str, Any]:
    status, words = _status_of_sweep(path), read_json(search_record(path)).get("words")
    if not (isinstance(words, list) and fits(words, [str])):
        return status
    names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
    return {**status, "configuration": {"name": names[-1]}} if names else status


def _written(path: Path) -> float:
    for record in (RunFolder(path).status, evaluation_record(path), search_record(path), path):
        with suppress(OSError):
            return record.stat().st_mtime
    return 0.0


def places_below(path: Path, levels: int = MOST_LEVELS) -> Iterator[Place]:
    """The runs, sweeps, searches and evaluations at a path and below it, but none inside another one. Links
    are not followed, except for the path itself."""
    run = RunFolder(path)
    if is_search(path):
        yield Place(path, "search", _status_of_search(path))
    elif is_sweep(path):
        yield Place(path, "sweep", _status_of_sweep(path))
    elif evaluation_record(path).is_file():
        yield Place(path, "evaluation", {})
    elif run.status.is_file():
        status = run.read_status()
        yield Place(path, "baseline" if isinstance(status.get("baseline"), str) else "run", status)
    elif run.checkpoints:
        yield Place(path, "run", {})
    elif levels:
        for name in _folders(path):
            yield from places_below(path / name, levels - 1)


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and os.access(entry.path, os.R_OK | os.X_OK)
            )
    except OSError:
        return []


def by_start(places: Iterable[Place]) -> list[Place]:
    """The newest last."""
    return sorted(places, key=lambda place: (place.started, str(place.path)))


def run_named(path: Path, note: Callable[[str], None], below: Path = Path(OUTPUTS)) -> Path:
    """The folder for which a word stands, and a note on which one it is; the path itself if it exists, or if
    it is neither `latest` nor the name of a run.

    Args:
        path: what the user typed. What follows after a slash is inside that folder, as in latest/0.
        note: receives the note as a sentence.
        below: where runs are looked for.

    Raises CheckpointError if `latest` stands for nothing, or if the word is nearly the name of a run.
    """
    word, *inside = path.parts or ("",)
    if os.path.lexists(path) or not is_run_name(word):
        return path
    runs = _runs_below(below)
    if word == LATEST:
        meant = runs
        if not runs:
            raise CheckpointError(f"There is no run below {below} yet: {LATEST} stands for the newest one.")
    else:
        names = {place.path: place.name for place in runs}
        meant = [place for place in runs if names[place.path] == word]
        hint = did_you_mean(word, [LATEST, *filter(None, names.values())]) if runs else ""
        if not meant and (inside or not hint):
            return path
        if not meant:
            raise CheckpointError(f"{word} is neither a path nor the name of a run.{hint}")
    chosen = by_start(meant)[-1]
    of_several = f", the newest of {len(meant)} with this name" if word != LATEST and len(meant) > 1 else ""
    note(f"{word} is the {chosen.kind} {chosen.path}{of_several}")
    return chosen.path.joinpath(*inside)


def names_below(below: Path = Path(OUTPUTS)) -> list[str]:
    """The words that stand for runs: `latest`, if there is one at all, and the names, the newest first."""
    runs = by_start(_runs_below(below))
    names = [place.name for place in reversed(runs)]
    return [*([LATEST] if runs else []), *dict.fromkeys(name for name in names if name)]


def _runs_below(path: Path) -> list[Place]:
    """Those that a word can stand for."""
    return [place for place in places_below(path) if place.kind in ("run", "sweep", "search")]
