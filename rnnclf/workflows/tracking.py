"""Mirrors run folders in experiment trackers, after each epoch or with `rnnclf track`. Prints nothing.

What is tracked is written in tracker.json of the run folder, or of the sweep, whose jobs it then applies to.
So a run that is resumed is tracked on, in the same place. Torch-free, unless a tracker needs it.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shlex
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rnnclf.config import GROUPS
from rnnclf.errors import CheckpointError, ConfigError, OutputError
from rnnclf.files import write_json
from rnnclf.hydra_app.grammar import meant
from rnnclf.trackers import TRACKERS, Epoch, TrackedRun, Tracker, installed
from rnnclf.workflows.runs import RunFolder, fits, read_csv, read_json
from rnnclf.workflows.sweep_folder import is_sweep, jobs_of

WORD = "tracker="
OFF = ("none", "null")
COUNTS = ("correct", "total", "commonest_rate")  # which are no scores
ANCESTORS = 8  # folders above a job to look for its sweep in
LONGEST_REASON = 160  # characters


def taken(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The other words, and the tracker that `tracker=NAME` chooses; None without one.

    Raises ConfigError for an unknown name, several of them, and a tracker that is not installed.
    """
    own = [word for word in words if word.startswith(WORD)]
    others = [word for word in words if word not in own]
    if len(own) > 1:
        raise ConfigError("tracker is given twice: leave one out.")
    name = meant(own[0].removeprefix(WORD).strip()) if own else "none"
    if not name:
        raise ConfigError(f"'{WORD}' has no value: write tracker={', '.join(TRACKERS)}.")
    if name in OFF:
        return others, None
    if re.search(r"[,\[(]", name):
        raise ConfigError(
            f"tracker takes one name, got '{name}': add others with rnnclf track, when the run has ended."
        )
    installed(name, TRACKERS[name])
    return others, name


def sweep_of(run: Path) -> Path | None:
    """The sweep of which a run is a job; None for a run of its own."""
    path = run.absolute()
    for parent in path.parents[:ANCESTORS]:
        if is_sweep(parent) and any(job.path.absolute() == path for job in jobs_of(parent)):
            return parent
    return None


def trackers_of(run: Path) -> list[str]:
    """The trackers that follow a run, or all runs of the sweep it belongs to."""
    sweep = sweep_of(run)
    folders = [run] if sweep is None else [run, sweep]
    return [name for name in TRACKERS if any(name in _record(folder)["trackers"] for folder in folders)]


def track_jobs(sweep: Path, name: str) -> None:
    """Makes a tracker follow all jobs of a sweep that run from now on. Raises OutputError."""
    known = _record(sweep)["trackers"].get(name, {})
    _note(sweep, {name: TRACKERS[name].where(known)})


def preload(run: Path) -> None:
    """Imports the trackers of a run, before its process is forked. What fails is told by the run itself."""
    for name in trackers_of(run):
        with suppress(Exception):
            Mirror(RunFolder(run), name).load()


def viewers_of(folder: Path) -> list[str]:
    """The commands that show a run or a sweep in its trackers, but for those that it could not be sent to."""
    record = _record(folder)
    known = record["trackers"]
    return [
        kind.viewer(typed(folder), kind.where(known[name]), is_sweep(folder))
        for name, kind in TRACKERS.items()
        if name in known and name not in record["behind"]
    ]


def typed(folder: Path) -> str:
    """A folder as one would type it here."""
    path, here = folder.absolute(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _record(folder: Path) -> dict[str, Any]:
    """The content of tracker.json: the id of a run or sweep in trackers, where each of them keeps it, and
    which of them have not got all of it."""
    found = read_json(RunFolder(folder).tracker)
    known = found.get("trackers")
    places = known if isinstance(known, dict) else {}
    return {
        "id": found["id"] if fits(found.get("id"), str) and _is_id(found["id"]) else None,
        "trackers": {k: v for k, v in places.items() if k in TRACKERS and _is_place(v)},
        "behind": found["behind"] if fits(found.get("behind"), [str]) else [],
    }


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[\w.-]{1,120}", text, re.ASCII) is not None


def _is_place(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())


def _note(folder: Path, places: Mapping[str, Mapping[str, str]], ident: str | None = None) -> None:
    """Adds to tracker.json where trackers keep a run or a sweep; `ident` is its id unless it has one."""
    before = _record(folder)
    known = {name: {**before["trackers"].get(name, {}), **place} for name, place in places.items()}
    after = {
        **before,
        "id": before["id"] or ident or _new_id(folder),
        "trackers": {**before["trackers"], **known},
    }
    if after != before:
        write_json(RunFolder(folder).tracker, after)


def _new_id(folder: Path) -> str:
    """The name of the folder, with the date if that is a folder above, and something no other run has."""
    path = folder.absolute()
    name = path.name
    if re.fullmatch(r"\d\d-\d\d-\d\d(-\d+)?", name):
        name = f"{path.parent.name}-{name}"
    return f"{_plain(name) or 'run'}-{secrets.token_hex(3)}"


def _plain(name: str) -> str:
    """A name in the characters that all trackers allow in ids."""
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.")[:40]


class Mirror:
    """One run in one tracker, which gets the epochs that it does not have yet.

    Everything is read from the run folder, so it does not matter whether the run is training or has ended.
    The methods raise whatever the tracker raises; after that, `connect` begins anew.
    """

    def __init__(self, run: RunFolder, name: str) -> None:
        self.run, self.name = run, name
        self.tracker: Tracker | None = None
        self.sent: set[int] = set()

    def load(self) -> None:
        """Imports the tracker's library, which may take seconds."""
        kind = TRACKERS[self.name]
        for setting, value in kind.settings.items():
            os.environ.setdefault(setting, value)
        with _quiet():
            import_module(kind.module)

    def connect(self) -> None:
        """Introduces the run to the tracker, or finds it there."""
        self.load()
        sweep = sweep_of(self.run.path)
        with _quiet(), _one_at_a_time(sweep):
            self.tracker = TRACKERS[self.name](self._described(sweep))
            self.sent = self.tracker.has()

    def catch_up(self) -> None:
        """Sends the epochs that the tracker does not have yet."""
        if self.tracker is None:
            self.connect()
        assert self.tracker is not None
        if new := [epoch for epoch in epochs_of(self.run) if epoch.number not in self.sent]:
            with _quiet():
                self.tracker.send(new)
            self.sent |= {epoch.number for epoch in new}

    def end(self) -> None:
        """Sends what is missing and the results, and ends the run in the tracker."""
        self.catch_up()
        assert self.tracker is not None
        state = self.run.state()
        with _quiet():
            self.tracker.end(state, results_of(self.run) if state == "done" else None)
        self.tracker = None
        self.note_behind(False)

    def note_behind(self, behind: bool) -> None:
        """Notes whether the tracker has not got all of a run that has ended."""
        before = _record(self.run.path)
        others = [name for name in before["behind"] if name != self.name]
        after = {**before, "behind": [*others, self.name] if behind else others}
        if after != before:
            write_json(self.run.tracker, after)

    def forget(self) -> None:
        """After an error: what has been sent is unknown."""
        self.tracker, self.sent = None, set()

    def _described(self, sweep: Path | None) -> TrackedRun:
        """The run as the tracker gets to know it. What identifies it is written down before it is used."""
        group, known, ident = None, _record(self.run.path)["trackers"].get(self.name, {}), None
        if sweep is not None:
            _note(sweep, {})
            shared = _record(sweep)
            group, known = shared["id"], {**shared["trackers"].get(self.name, {}), **known}
            job = self.run.path.absolute().relative_to(sweep).as_posix()
            ident = f"{group}-{_plain(job)}"
        place = TRACKERS[self.name].where(known)
        _note(self.run.path, {self.name: place}, ident)
        return TrackedRun(
            folder=self.run.path,
            ident=_record(self.run.path)["id"],
            group=group,
            config=flat(self.run.read_status().get("configuration")),
            place=place,
        )


def flat(configuration: Any) -> dict[str, Any]:
    """A configuration by the keys of the command line: {'cell': 'lstm', 'cell.forget_bias': 1.0, …}."""
    if not isinstance(configuration, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in configuration.items():
        if not isinstance(value, dict):
            found[key] = value
            continue
        if key in GROUPS:
            found[key] = value.get("name")
        parts = {k: v for k, v in value.items() if not (key in GROUPS and k in ("name", "hidden_size"))}
        found |= {f"{key}.{k}": v for k, v in parts.items()}
    return {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in found.items()}


def epochs_of(run: RunFolder) -> list[Epoch]:
    """The lines of epochs.csv; those that are damaged are left out."""
    time = float(run.read_status().get("started", 0.0))
    found = []
    for row in read_csv(run.epochs):
        with suppress(ValueError, KeyError):
            number = int(row["epoch"])
            values = {key: float(value) for key, value in row.items() if key != "epoch" and value}
            time += values.get("seconds", 0.0)
            found.append(Epoch(number, time, values))
    return found


def results_of(run: RunFolder) -> Epoch | None:
    """The final scores, under names such as result/test_accuracy."""
    results = run.read_results()
    if not results:
        return None
    numbers = {
        f"{split}_{key}": value
        for split in ("train", "validation", "test")
        if isinstance(results.get(split), dict)
        for key, value in results[split].items()
        if key not in COUNTS
    }
    numbers |= {key: results.get(key) for key in ("best_epoch", "parameters", "total_seconds")}
    values = {f"result/{key}": float(value) for key, value in numbers.items() if fits(value, float)}
    time = float(run.read_status().get("started", 0.0)) + float(results["total_seconds"])
    return Epoch(int(results["epochs"]), time, values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what trackers print off the screen: stdout may hold JSON for a program."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _one_at_a_time(sweep: Path | None) -> Iterator[None]:
    """Lets the jobs of a sweep introduce themselves one after another: the first makes the database and the
    group, the others find them. Without locks, as on Windows, the jobs must not start at the same moment."""
    try:
        import fcntl
    except ImportError:
        sweep = None
    if sweep is None:
        yield
        return
    descriptor = os.open(sweep, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def reason_of(error: BaseException) -> str:
    """The first line of a tracker's error, without a full stop and without passwords in addresses; if a
    connection failed below all that the libraries say, just that."""
    if failure := next(filter(None, map(_failed_connection, _causes(error))), ""):
        return f"no connection to its server ({failure})"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = re.sub(r"//[^/\s@]*@", "//", line)
    line = (line or type(error).__name__).rstrip(".")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} …"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failed_connection(error: BaseException) -> str:
    """What the system calls a connection that failed, as in `connection refused`; '' for other errors."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectionError | socket.gaierror):
        return (error.strerror or "").lower()
    return ""


@dataclass(frozen=True)
class Tracked:
    """What `rnnclf track` has done."""

    tracker: str
    runs: tuple[tuple[Path, int], ...]
    """Each run, and how many epochs of it the tracker now has."""
    place: Mapping[str, str]
    viewer: str
    """The command that shows them."""
    notes: tuple[str, ...]
    """Why runs were left out."""

    def to_dict(self) -> dict[str, Any]:
        runs = [{"folder": str(path), "epochs": epochs} for path, epochs in self.runs]
        return {"tracker": self.tracker, "place": dict(self.place), "runs": runs, "notes": list(self.notes)}


def track(paths: Sequence[Path], words: Sequence[str]) -> Tracked:
    """Sends runs that were trained before to a tracker: epochs it does not have, and results.

    Args:
        paths: run folders and sweep folders.
        words: tracker=NAME.

    Raises ConfigError for other words, CheckpointError for a path without runs, and OutputError if the
    tracker fails or a run is being trained.
    """
    others, name = taken(words)
    if others:
        raise ConfigError(f"'{others[0]}' is no word of rnnclf track: it takes only tracker=NAME.")
    if name is None:
        raise ConfigError(f"Say which tracker: tracker={', '.join(TRACKERS)}.")
    notes: list[str] = []
    found = [run for path in paths for run in _runs(path, name, notes)]
    done, place = [], {}
    for run in found:
        mirror = Mirror(run, name)
        with run.locked():
            try:
                mirror.end()
            except Exception as error:
                raise OutputError(f"tracker={name} failed for {run.path}: {reason_of(error)}.") from error
        done.append((run.path, len(mirror.sent)))
        place = _record(run.path)["trackers"].get(name, {})
    folder = Path(os.path.commonpath([path.absolute() for path in paths]))
    viewer = TRACKERS[name].viewer(typed(folder), place, len(done) > 1)
    return Tracked(name, tuple(done), place, viewer, tuple(notes))


def _runs(path: Path, name: str, notes: list[str]) -> list[RunFolder]:
    """The runs in a folder that have something to send."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: give a run folder or a sweep folder.")
    if not is_sweep(path):
        run = RunFolder(path)
        if not run.status.exists():
            raise CheckpointError(f"{path} is not a run folder: it has no {run.status.name}.")
        if not _has_something(run):
            raise CheckpointError(f"{path} has nothing to send yet: its first epoch was not completed.")
        return [run]
    jobs = jobs_of(path)
    fit = [run for run in jobs if _has_something(run) and not run.busy()]
    if not fit:
        raise CheckpointError(f"{path} has nothing to send yet: no job of it has completed an epoch.")
    track_jobs(path, name)
    notes += [f"{run.path} was left out: it is being trained." for run in jobs if run.busy()]
    return fit


def _has_something(run: RunFolder) -> bool:
    return bool(epochs_of(run) or run.read_results())
