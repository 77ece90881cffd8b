"""Describes a checkpoint, an exported file or an ensemble, or the folder of a run, a sweep, a search or an
evaluation, from its files alone.

Builds no model, does not import torch, prints nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf import checkpoint
from rnnclf.errors import CheckpointError
from rnnclf.export.reading import ExportedFile, is_exported
from rnnclf.export.reading import read as read_exported
from rnnclf.workflows.ensemble_file import EnsembleFile, verified
from rnnclf.workflows.ensemble_file import read as read_ensemble
from rnnclf.workflows.runs import (
    SCORE,
    RunFolder,
    evaluation_record,
    fits,
    read_csv,
    read_json,
    read_json_list,
)
from rnnclf.workflows.sweep_folder import is_ensemble, is_search, is_sweep, jobs_of

if TYPE_CHECKING:
    from rnnclf.workflows.search.outcome import Outcome


@dataclass(frozen=True)
class CheckpointFacts:
    """A checkpoint file. If it cannot be read, `error` says why, and the other fields are empty."""

    path: Path
    header: dict[str, Any]
    parameters: int = 0
    """The number of elements in the weights and buffers of the model."""
    tensors: dict[str, int] | None = None
    """The number of tensors of the model, the optimizer …"""
    size: int = 0
    sha256: str = ""
    error: str | None = None

    @property
    def resumable(self) -> bool:
        """Whether it holds training state besides the weights, so that the run can be resumed."""
        return bool(self.tensors and self.tensors.keys() - {"model"})

    def to_dict(self) -> dict[str, Any]:
        facts = {"kind": "checkpoint", **asdict(self), "path": str(self.path), "resumable": self.resumable}
        return {**facts.pop("header"), **facts}


@dataclass(frozen=True)
class RunFacts:
    """A run folder: the content of its records, and its checkpoints."""

    path: Path
    status: dict[str, Any]
    results: dict[str, Any]
    provenance: dict[str, Any]
    epochs: int
    """Rows of epochs.csv."""
    checkpoints: tuple[CheckpointFacts, ...]
    state: str
    """waiting, running, done, failed or interrupted; lost: its process ended without reporting; missing: it
    has no folder."""
    number: int | None = None
    """Its number in a sweep."""

    @property
    def error(self) -> str | None:
        """An error in the files, as opposed to an error in training."""
        if self.state == "missing":
            return f"{self.path} is missing."
        if self.state == "done" and "baseline" not in self.results and not RunFolder(self.path).best.exists():
            return f"{self.path} is a finished run without its {RunFolder(self.path).best.name}."
        return next((found.error for found in self.checkpoints if found.error), None)

    @property
    def resumable(self) -> bool:
        return self.state not in ("done", "running") and any(
            found.resumable and not found.error for found in self.checkpoints
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"kind": "run", "path": str(self.path), "state": self.state, "resumable": self.resumable},
            **{"epochs": self.epochs, "status": self.status, "results": self.results},
            **{"provenance": self.provenance, "error": self.error},
            "checkpoints": [found.to_dict() for found in self.checkpoints],
        }


@dataclass(frozen=True)
class SweepFacts:
    """A sweep folder and its jobs."""

    path: Path
    jobs: tuple[RunFacts, ...]
    error: str | None = None

    @property
    def errors(self) -> list[str]:
        """An error for each job whose files are damaged or missing."""
        return [job.error for job in self.jobs if job.error is not None]

    @property
    def states(self) -> dict[str, int]:
        """The number of jobs that are done, failed …"""
        return dict(Counter(job.state for job in self.jobs).most_common())

    @property
    def resumable(self) -> bool:
        return any(job.state not in ("done", "running") for job in self.jobs)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"kind": "sweep", "path": str(self.path), "states": self.states, "resumable": self.resumable},
            "jobs": [job.to_dict() for job in self.jobs],
        }


@dataclass(frozen=True)
class SearchFacts:
    """The folder of a search: its record and its trials."""

    path: Path
    outcome: Outcome
    state: str
    """running, done, failed or interrupted."""
    error: str | None = None

    @property
    def resumable(self) -> bool:
        return self.state == "interrupted"

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"kind": "search", "path": str(self.path), "state": self.state, "resumable": self.resumable},
            **self.outcome.search.to_plain(),
            "found": self.outcome.to_dict(),
        }


@dataclass(frozen=True)
class EvaluationFacts:
    """The folder of an evaluation: the entries of its evaluation.json."""

    path: Path
    scores: tuple[dict[str, Any], ...]
    error: str | None = None
    resumable: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "evaluation", "path": str(self.path), "scores": list(self.scores)}


@dataclass(frozen=True)
class ExportedFacts:
    """A file that `rnnclf export` wrote."""

    path: Path
    file: ExportedFile
    error: str | None = None
    resumable: bool = False

    def to_dict(self) -> dict[str, Any]:
        file = self.file
        return {
            **{"kind": "export", "path": str(self.path), "size": file.size, "sha256": file.sha256},
            **{"opset": file.opset, "ir": file.ir, "numbers": file.numbers, "operators": file.operators},
            "inputs": [asdict(port) for port in file.inputs],
            "outputs": [asdict(port) for port in file.outputs],
            "metadata": file.facts,
        }


@dataclass(frozen=True)
class EnsembleFacts:
    """The file of an ensemble. If a member is not the one that it names, `error` says why."""

    path: Path
    file: EnsembleFile
    error: str | None = None
    resumable: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"kind": "ensemble", "path": str(self.path), "fingerprint": self.file.fingerprint},
            **{"members": self.file.members_as_plain(), "scores": self.file.scores, "error": self.error},
        }


Facts = (
    ExportedFacts | CheckpointFacts | RunFacts | SweepFacts | SearchFacts | EvaluationFacts | EnsembleFacts
)

SCORED = {"checkpoint": str, "cell": str, "dataset": str, "split": str, **SCORE}
"""The keys of an entry of evaluation.json that are shown."""


def inspect(path: Path) -> Facts:
    """Describes `path`. Raises CheckpointError if it is neither the file of a model nor the folder of a run,
    a sweep, a search or an evaluation. Of a search, its record must be intact."""
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: give a checkpoint file, a run folder or a sweep folder."
        )
    if not path.is_dir() and is_ensemble(path):
        return _ensemble(read_ensemble(path))
    if not path.is_dir():
        return ExportedFacts(path, read_exported(path)) if is_exported(path) else _described(path)
    if is_search(path):
        return _search(path)
    if is_sweep(path):
        return SweepFacts(path, tuple(map(_run, jobs_of(path))))
    if (record := evaluation_record(path)).is_file():
        scores = read_json_list(record)
        return EvaluationFacts(
            path,
            tuple(score for score in scores if fits(score, SCORED)),
            None if scores else f"{path} holds an evaluation, but its {record.name} is damaged.",
        )
    run = RunFolder(path)
    if not run.checkpoints and not run.status.exists():
        raise CheckpointError(
            f"{path} is not a run folder: it holds neither {run.status.name} nor a checkpoint."
        )
    return _run(run)


def _search(path: Path) -> SearchFacts:
    from rnnclf.workflows.search.outcome import Outcome
    from rnnclf.workflows.search.record import read_search
    from rnnclf.workflows.search.standing import state_of_search

    outcome = Outcome.of(path, read_search(path))
    return SearchFacts(path, outcome, state_of_search(outcome))


def _ensemble(found: EnsembleFile) -> EnsembleFacts:
    try:
        for member in found.members:
            verified(found, member)
    except CheckpointError as error:
        return EnsembleFacts(found.path, found, str(error))
    return EnsembleFacts(found.path, found)


def _run(run: RunFolder) -> RunFacts:
    return RunFacts(
        path=run.path,
        state=run.state(),
        status=run.read_status(),
        results=run.read_results(),
        provenance=read_json(run.provenance),
        epochs=len(read_csv(run.epochs)),
        checkpoints=tuple(map(_or_error, run.checkpoints)),
        number=run.number,
    )


def _or_error(file: Path) -> CheckpointFacts:
    try:
        return _described(file)
    except CheckpointError as error:
        return CheckpointFacts(file, {}, error=str(error))


def _described(file: Path) -> CheckpointFacts:
    found = checkpoint.describe(file)
    model = [shape for name, (_, shape) in found.shapes.items() if name.startswith("model.")]
    return CheckpointFacts(
        path=file,
        header=found.header,
        parameters=sum(map(math.prod, model)),
        tensors=dict(Counter(name.partition(".")[0] for name in found.shapes)),
        size=found.size,
        sha256=found.sha256,
        error=None if found.intact else checkpoint.mismatch(file),
    )
