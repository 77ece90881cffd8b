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

from rnnclf.data.seen import Seen
from rnnclf.errors import OutputError, RnnclfError
from rnnclf.escaping import spreadsheet_cell
from rnnclf.files import (
    clear_leftovers,
    read_record,
    refuse_odd,
    refuse_pipe,
    write_atomically,
    write_json,
)
from rnnclf.system.claims import LOCK, claimed, is_claimed, refuse_lost
from rnnclf.system.signals import asked_to_end, ended_by

OUTPUTS = "outputs"  # where runs are written, and evaluations that belong to no single run or sweep
EVALUATIONS = "eval"  # the folder of its evaluations, inside that of a run or a sweep
PLOTS = ("curves", "confusion", "classes", "calibration")  # the pictures in the folder of a run
MOST_ROWS = 200_000  # of a table that is read into memory; a run has one row per epoch

if TYPE_CHECKING:
    from rnnclf.config import Config


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path
    number: int | None = None
    """Its number in a sweep; None for a run of its own."""

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
    def plots(self) -> Path:
        """The folder of its pictures."""
        return self.path / "plots"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def seen(self) -> Path:
        return self.path / "trained_on.npz"

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
    def tracker(self) -> Path:
        """Which trackers follow the run; the same file in a sweep's folder is for all of its jobs."""
        return self.path / "tracker.json"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        return self.path / LOCK

    @property
    def files(self) -> list[Path]:
        """All files that a run writes into its folder."""
        return [
            *(self.status, self.epochs, self.diagnosis, self.results, self.predictions, self.provenance),
            *(self.seen, self.best, self.last, self.previous, self.damaged, self.log, self.tracker),
            *pictures(self.path),
            *(self.plots / f"{name}{suffix}" for name in PLOTS for suffix in (".svg", ".png")),
        ]

    def read_status(self) -> dict[str, Any]:
        """The content of status.json, without values of the wrong type."""
        found = read_json(self.status)
        return {key: value for key, value in found.items() if fits(value, STATUS.get(key, object))}

    def read_results(self) -> dict[str, Any]:
        """The content of results.json; empty if it is missing, damaged or malformed."""
        found = read_json(self.results)
        return found if fits(found, BASELINE_RESULTS if "baseline" in found else RESULTS) else {}

    @property
    def baseline(self) -> str | None:
        """The name of the baseline that was computed here; None for a run of `rnnclf train`."""
        name = read_json(self.status).get("baseline")
        return name if isinstance(name, str) else None

    def state(self, status: Mapping[str, Any] | None = None) -> str:
        """waiting, running, done, failed or interrupted, as recorded; lost: its process ended without
        reporting, or its record is gone; missing: there is no folder.

        status: what `read_status` returned just now.
        """
        if not self.path.is_dir():
            return "missing"
        state = (self.read_status() if status is None else status).get("state", "lost")
        return "lost" if state == "running" and not self.busy() else str(state)

    def has_begun(self) -> bool:
        return bool(self.read_status().get("state", "waiting") != "waiting")

    def is_finished(self) -> bool:
        return self.read_status().get("state") == "done" and bool(self.read_results())

    def refuse_used(self) -> None:
        """Raises OutputError if a run that starts here would write over something. What is there already of a
        run that only begins is allowed: the log, and the status of a job that waits."""
        if self.status.exists() and self.read_status().get("state") != "waiting":
            raise earlier_run(self.path)
        refuse_existing(path for path in self.files if path not in (self.status, self.log))

    def discard_start(self) -> None:
        """Removes the records of a run that failed before it began to train."""
        if not any(map(os.path.lexists, (self.provenance, self.epochs, self.best, self.last, self.previous))):
            for path in (self.status, self.lock):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def drop_previous(self) -> None:
        """Removes the second-to-last checkpoint: a finished run needs only the best one, for evaluation, and
        the last one, to train longer."""
        with suppress(OSError):
            self.previous.unlink(missing_ok=True)

    @contextmanager
    def locked(self, *files: Path) -> Iterator[None]:
        """Claims the folder for this process, until the block or the process ends. Raises InUseError if
        another process has claimed it, and OutputError if it cannot be written to.

        files: those that are written under this claim besides the files of a run.
        """
        refuse_pipe(self.log)
        with claimed(self.path):
            clear_leftovers(*self.files, *files)
            yield

    def busy(self) -> bool:
        """Whether a process has claimed the folder."""
        return is_claimed(self.path)

    def refuse_lost(self) -> None:
        """Raises InUseError if another process has taken the folder from this one: see `system.claims`."""
        refuse_lost(self.path)

    @contextmanager
    def tracked(self, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Maintains status.json: running inside the block, then done, failed or interrupted.

        facts: further content. The block receives the whole content as a dictionary, and may add to it.
            `seconds` from earlier processes are added up.
        """
        began = time.monotonic()  # the clock may be set while it runs
        status = {"state": "running", "started": time.time(), "seconds": 0.0, **facts}
        write_json(self.status, status)
        try:
            yield status
        except BaseException as error:
            end = asked_to_end(error) or error
            status |= {
                "state": "failed" if isinstance(end, Exception) else "interrupted",
                "error": reason_of(end),
            }
            if end is error:
                raise
            raise end from None
        else:
            status["state"] = "done"
        finally:
            status["seconds"] = round(status["seconds"] + time.monotonic() - began, 3)
            self._close(status)

    def _close(self, status: dict[str, Any]) -> None:
        try:
            self.refuse_lost()
            write_json(self.status, status)
        except RnnclfError:
            if status["state"] == "done":  # otherwise the first error is the one to report
                raise


def reason_of(error: BaseException) -> str:
    """How an error or a signal that ended a run is recorded."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return f"stopped by {ended_by(error.code) or f'exit code {error.code}'}"
    return str(error) if isinstance(error, RnnclfError) else f"{type(error).__name__}: {error}"


def refuse_existing(files: Iterable[Path]) -> None:
    """Raises OutputError if any of these files, which are to be written, exists already."""
    for path in files:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists already: choose another folder.")


def earlier_run(folder: Path) -> OutputError:
    return OutputError(f"{folder} holds the results of an earlier run: choose another folder.")


def picture(folder: Path) -> Path:
    """The path of the accuracy table of a run, a sweep or an evaluation, without .txt or .svg."""
    return folder / "accuracy"


def evaluation_record(folder: Path) -> Path:
    """The scores of an evaluation. A folder is that of an evaluation if this file exists."""
    return folder / "evaluation.json"


def pictures(folder: Path) -> list[Path]:
    return [picture(folder).with_suffix(suffix) for suffix in (".txt", ".svg")]


def config_record(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    """The part of status.json that describes the configuration. It is written at the start, so that the run
    can be restarted if it ends before its first checkpoint."""
    return {"overrides": list(overrides), "config": config.digest(), "configuration": config.to_plain()}


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run that has this file as its best checkpoint; None if there is none."""
    run = RunFolder(checkpoint.parent)
    return run if checkpoint == run.best else None


def seen_by(checkpoint: Path) -> Seen | None:
    """What the model of this file was trained on, by the record of its run; None if there is none."""
    run = run_of(checkpoint)
    return None if run is None else Seen.read(run.seen)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or damaged."""
    value = _read_json(path)
    return value if isinstance(value, dict) else {}


def read_json_list(path: Path) -> list[Any]:
    """The JSON list in a file; empty if the file is missing or damaged."""
    value = _read_json(path)
    return value if isinstance(value, list) else []


def _read_json(path: Path) -> Any:
    try:
        value = json.loads(read_record(path))
        refuse_odd(value)
    except (OSError, ValueError, RecursionError):
        return None
    return value


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
BASELINE_RESULTS = {key: form for key, form in RESULTS.items() if key != "train"} | {"baseline": str}
ENGINE: dict[str, Any] = {"name": str, "whole_steps": bool, "reason": str}
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


def stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` by a CSV table that is safe to open in a spreadsheet; the keys of the first row are its
    header."""
    write_atomically(path, csv_text(rows).encode())


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The content of such a table."""
    rows = [{key: spreadsheet_cell(value) for key, value in row.items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
