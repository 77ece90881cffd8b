"""The run folder: the only module that knows the layout of outputs/<run>/."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.errors import CheckpointError, OutputError, RnnclfError
from rnnclf.escaping import spreadsheet_cell
from rnnclf.files import clear_leftovers, read_record, refuse_odd, write_atomically, write_json
from rnnclf.system.signals import asked_to_end

MOST_ROWS = 200_000  # of a table that is read into memory; a run has one row per epoch

if TYPE_CHECKING:
    from rnnclf.config import Config


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.csv"

    @property
    def diagnosis(self) -> Path:
        return self.path / "diagnosis.csv"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def previous(self) -> Path:
        return self.path / "previous.safetensors"

    @property
    def checkpoints(self) -> list[Path]:
        """The existing checkpoints, the best first."""
        return [path for path in (self.best, self.last, self.previous) if path.exists()]

    @property
    def damaged(self) -> Path:
        """The new name of a `last` that was found to be damaged."""
        return self.path / "damaged.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def read_status(self) -> dict[str, Any]:
        """The content of status.json, without values of the wrong type."""
        found = read_json(self.status)
        return {key: value for key, value in found.items() if fits(value, STATUS.get(key, object))}

    def read_results(self) -> dict[str, Any]:
        """The content of results.json; empty if it is missing, damaged or malformed."""
        found = read_json(self.results)
        return found if fits(found, RESULTS) else {}

    def is_finished(self) -> bool:
        return self.read_status().get("state") == "done" and bool(self.read_results())

    def drop_previous(self) -> None:
        """Removes the second-to-last checkpoint: a finished run needs only the best one, for evaluation, and
        the last one, to train longer."""
        with suppress(OSError):
            self.previous.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process; the system releases the lock when the process ends for whatever
        reason. Raises OutputError if another process holds it."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"Cannot write {self.lock}: {error.strerror}.") from error
        try:
            if not any(_flock(descriptor, wait) for wait in (0, 0.02, 0.1)):  # `busy` holds it for a moment
                raise OutputError(f"{self.path} is being trained by another process.")
            clear_leftovers(self.path)
            yield
        finally:
            os.close(descriptor)

    def busy(self) -> bool:
        """Whether a process holds the lock right now."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY)
        except OSError:
            return False
        try:
            return not _flock(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def tracked(self, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Maintains status.json: running inside the block, then done, failed or interrupted.

        facts: further content. The block receives the whole content as a dictionary, and may add to it.
            `seconds` from earlier processes are added up.
        """
        began = time.time()
        status = {"state": "running", "started": began, "seconds": 0.0, **facts}
        write_json(self.status, status)
        try:
            yield status
        except BaseException as error:
            end = asked_to_end(error) or error
            status |= {
                "state": "failed" if isinstance(end, Exception) else "interrupted",
                "error": _reason(end),
            }
            if end is error:
                raise
            raise end from None
        else:
            status["state"] = "done"
        finally:
            status["seconds"] = round(status["seconds"] + time.time() - began, 3)
            self._close(status)

    def _close(self, status: dict[str, Any]) -> None:
        try:
            write_json(self.status, status)
        except RnnclfError:
            if status["state"] == "done":  # otherwise the first error is the one to report
                raise


def _flock(descriptor: int, wait: float = 0) -> bool:
    """Waits for `wait` seconds, and returns whether the lock was acquired. Always true on systems without
    such locks, namely Windows and some network file systems: there, the user must make sure that no two
    processes train in one folder."""
    try:
        import fcntl
    except ImportError:
        return True
    time.sleep(wait)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return "stopped by SIGTERM"
    return str(error) if isinstance(error, RnnclfError) else f"{type(error).__name__}: {error}"


def refuse_used_run(folder: Path) -> None:
    """Raises OutputError if `folder` already holds a run."""
    if RunFolder(folder).status.exists():
        raise OutputError(f"{folder} holds the results of an earlier run: choose another folder.")


def refuse_used_sweep(folder: Path) -> None:
    """Raises OutputError if `folder` already holds a sweep."""
    if is_sweep(folder):
        raise OutputError(f"{folder} holds the results of an earlier run: choose another folder.")


def sweep_record(folder: Path) -> Path:
    """Hydra's record of a sweep. A folder is a sweep folder if this file exists."""
    return folder / "multirun.yaml"


def sweep_table(folder: Path) -> Path:
    return folder / "sweep.csv"


def picture(folder: Path) -> Path:
    """The path of the accuracy table of a run, a sweep or an evaluation, without .txt or .svg."""
    return folder / "accuracy"


def is_sweep(folder: Path) -> bool:
    return sweep_record(folder).is_file()


def jobs_of(sweep: Path) -> list[RunFolder]:
    """The run folders of a sweep, by job number."""
    numbered = [path for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal()]
    return [RunFolder(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def config_record(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    """The part of status.json that describes the configuration. It is written at the start, so that the run
    can be restarted if it ends before its first checkpoint."""
    return {"overrides": list(overrides), "config": config.digest(), "configuration": config.to_plain()}


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run that has this file as its best checkpoint; None if there is none."""
    run = RunFolder(checkpoint.parent)
    return run if checkpoint == run.best else None


def checkpoints_in(path: Path) -> list[Path]:
    """The checkpoint that `path` is, or the best one of a run folder, or those of all jobs of a sweep.

    Raises CheckpointError if there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(
            f"{path} does not exist: give a checkpoint file, a run folder or a sweep folder."
        )
    if is_sweep(path):
        found = [run.best for run in jobs_of(path) if run.best.is_file()]
        if not found:
            raise CheckpointError(f"{path} is a sweep without a single checkpoint.")
        return found
    best = RunFolder(path).best
    if not best.is_file():
        raise CheckpointError(f"{path} holds no checkpoint: {best.name} is missing.")
    return [best]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or damaged."""
    try:
        value = json.loads(read_record(path))
        refuse_odd(value)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table as dictionaries; none if the file is missing, damaged or too long."""
    try:
        table = csv.DictReader(io.StringIO(read_record(path), newline=""), strict=True)
        rows = [
            {key: value for key, value in row.items() if key is not None and isinstance(value, str)}
            for row in itertools.islice(table, MOST_ROWS + 1)
        ]
    except (OSError, ValueError, csv.Error):
        return []
    return rows if len(rows) <= MOST_ROWS else []


SCORE = {"accuracy": float, "correct": int, "total": int, "interval95": (float, float)}
RESULTS: dict[str, Any] = {
    **{"cell": str, "dataset": str, "hidden": int, "parameters": int, "seed": int},
    **{"epochs": int, "best_epoch": int, "total_seconds": float},
    **{"train": SCORE, "validation": {**SCORE, "loss": float}, "test": SCORE},
}
STATUS: dict[str, Any] = {
    **{"state": str, "overrides": [str], "config": str, "error": str},
    **{"started": float, "seconds": float},
}


def fits(value: Any, form: Any) -> bool:
    """Whether a JSON value has a form: a type (float: any finite number), [form of each element], (form of
    the first element, of the second …), or {key: form of its value}, where additional keys are allowed."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], form[key]) for key in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(part, form[0]) for part in value)
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and all(map(fits, value, form))
    if isinstance(value, bool):
        return form in (bool, object)
    if form is float:
        return isinstance(value, int | float) and -1e300 < value < 1e300
    return isinstance(value, form)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` by a CSV table that is safe to open in a spreadsheet; the keys of the first row are its
    header."""
    rows = [{key: spreadsheet_cell(value) for key, value in row.items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
