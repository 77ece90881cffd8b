"""The checkpoints that a path stands for: a file, or the folder of a run, a sweep or a search."""

from __future__ import annotations

from pathlib import Path

from rnnclf.errors import CheckpointError
from rnnclf.workflows.runs import RunFolder, evaluation_record
from rnnclf.workflows.search.standing import runs_of_search
from rnnclf.workflows.sweep_folder import is_ensemble, is_search, is_sweep, jobs_of


def checkpoints_in(path: Path, ensembles: bool = False) -> list[Path]:
    """The checkpoint that `path` is, or the best one of a run folder, or those of all jobs of a sweep; of a
    search, those of the runs that stand for it.

    ensembles: whether `path` may also be the file of an ensemble.

    Not all of a sweep's need exist. Raises CheckpointError if there is none at all.
    """
    if path.is_file():
        if is_ensemble(path) and not ensembles:
            raise CheckpointError(
                f"{path} is not a single model: only rnnclf eval and rnnclf predict take the file of an"
                " ensemble. Give the folder of a run."
            )
        return [path]
    if not path.is_dir():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}: give a checkpoint file, a run folder or a sweep folder.")
    if is_search(path):
        return [run.best for run in runs_of_search(path)]
    if is_sweep(path):
        found = [run.best for run in jobs_of(path)]
        if not any(best.is_file() for best in found):
            raise CheckpointError(f"{path} is a sweep without a single checkpoint.")
        return found
    best = RunFolder(path).best
    if evaluation_record(path).is_file():
        raise CheckpointError(f"{path} holds an evaluation: give the folder of a run or a sweep.")
    if not best.is_file():
        raise no_checkpoint(best)
    return [best]


def only_checkpoint(path: Path) -> Path:
    """The checkpoint at `path`. Raises CheckpointError if there are several."""
    first, *others = checkpoints_in(path)
    if others and is_search(path):
        raise CheckpointError(
            f"{path} is a search, whose best settings were trained {len(others) + 1} times: give the folder"
            f" of one of these runs, such as {first.parent}."
        )
    if others:
        raise CheckpointError(f"{path} is a sweep of {len(others) + 1} runs: give the folder of one of them.")
    return first


def no_checkpoint(best: Path) -> CheckpointError:
    run = RunFolder(best.parent)
    if run.baseline is not None:
        return CheckpointError(
            f"{run.path} holds a baseline, which has no checkpoint: its scores are in {run.results.name}."
        )
    return CheckpointError(f"{best.parent} holds no checkpoint: {best.name} is missing.")
