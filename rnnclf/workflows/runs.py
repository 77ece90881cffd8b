"""The run folder: the one module that knows what lies where inside outputs/<run>/."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf.errors import CheckpointError, RnnclfError
from rnnclf.files import write_atomically, write_json


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
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @contextmanager
    def tracked(self, overrides: Sequence[str], config_digest: str) -> Iterator[None]:
        """Keeps status.json: running inside the block, then done, failed or interrupted."""
        started = time.time()
        facts = {"overrides": list(overrides), "config": config_digest, "started": started}
        write_json(self.status, {"state": "running", **facts})
        try:
            yield
        except BaseException as error:
            state = "failed" if isinstance(error, Exception) else "interrupted"
            facts |= {"state": state, "error": _reason(error)}
            raise
        else:
            facts["state"] = "done"
        finally:
            self._close(facts, time.time() - started)

    def _close(self, facts: dict[str, Any], seconds: float) -> None:
        try:
            write_json(self.status, {**facts, "seconds": round(seconds, 3)})
        except RnnclfError:
            if facts["state"] == "done":  # otherwise the first error is the one to report
                raise


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return "stopped by SIGTERM"
    return str(error) if isinstance(error, RnnclfError) else f"{type(error).__name__}: {error}"


def is_sweep(folder: Path) -> bool:
    return (folder / "multirun.yaml").is_file()


def jobs_of(sweep: Path) -> list[RunFolder]:
    """The run folders of a sweep, by job number."""
    numbered = [path for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal()]
    return [RunFolder(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def checkpoints_in(path: Path) -> list[Path]:
    """The checkpoint that `path` is, or the best one of a run folder, or those of all jobs of a sweep.

    Raises CheckpointError where there is none.
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
    """A JSON object, or an empty one where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` by a table; the first row's keys are its header."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
