"""The sweep folder: the only module that knows the layout of a sweep.

Its jobs are listed in jobs.json, written before the first job starts. The list says which jobs there should
be, so a lost folder is noticed and a copied one is not taken for a job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rnnclf.errors import ConfigError, OutputError
from rnnclf.files import RECORD_LIMIT, write_json
from rnnclf.workflows.runs import (
    EVALUATIONS,
    RunFolder,
    earlier_run,
    fits,
    pictures,
    read_json,
    refuse_existing,
)

ENSEMBLE_SUFFIX = ".json"


def sweep_record(folder: Path) -> Path:
    """Hydra's record of a sweep."""
    return folder / "multirun.yaml"


def jobs_record(folder: Path) -> Path:
    """Our list of the jobs of a sweep. Sweeps of older versions have none."""
    return folder / "jobs.json"


def search_record(folder: Path) -> Path:
    """What a search looks for. Its folder is that of a sweep whose jobs are chosen one by one."""
    return folder / "search.json"


def trials_table(folder: Path) -> Path:
    """The table with a line for each trial of a search."""
    return folder / "trials.csv"


def search_results(folder: Path) -> Path:
    """What a search has found."""
    return folder / "found.json"


def sweep_table(folder: Path) -> Path:
    """The table with a line for each configuration."""
    return folder / "sweep.csv"


def sweep_results(folder: Path) -> Path:
    """The same as JSON."""
    return folder / "sweep.json"


def runs_table(folder: Path) -> Path:
    """The table with a line for each job."""
    return folder / "runs.csv"


def out_of_fold(folder: Path) -> Path:
    """The predictions of all folds of a cross-validation."""
    return folder / "out_of_fold.parquet"


def ensemble_record(folder: Path) -> Path:
    """The ensemble that was chosen of the runs in a folder."""
    return folder / f"ensemble{ENSEMBLE_SUFFIX}"


def is_ensemble(path: Path) -> bool:
    """Whether a file is that of an ensemble, judged by its name: no other model has this suffix."""
    return path.suffix.lower() == ENSEMBLE_SUFFIX


def files_of_sweep(folder: Path) -> list[Path]:
    """The files that a sweep writes beside the folders of its jobs."""
    records = sweep_record(folder), jobs_record(folder), search_record(folder), RunFolder(folder).tracker
    tables = sweep_table(folder), sweep_results(folder), runs_table(folder), out_of_fold(folder)
    of_search = trials_table(folder), search_results(folder)
    return [*records, *tables, *of_search, ensemble_record(folder), *pictures(folder)]


def is_sweep(folder: Path) -> bool:
    return any(record(folder).is_file() for record in (sweep_record, jobs_record, search_record))


def is_search(folder: Path) -> bool:
    return search_record(folder).is_file()


def refuse_used_folder(folder: Path) -> None:
    """Raises OutputError if a run or a sweep in `folder` would write over something there."""
    run = RunFolder(folder)
    if run.status.exists() or is_sweep(folder):
        raise earlier_run(folder)
    refuse_existing([*run.files, *files_of_sweep(folder)])


@dataclass(frozen=True)
class ListedJob:
    """A job as it stands in jobs.json."""

    number: int
    folder: str
    """Relative to the sweep's folder, with slashes."""
    record: dict[str, Any]
    """overrides, config and configuration, as in the job's status.json."""


def list_jobs(sweep: Path, jobs: Sequence[ListedJob]) -> None:
    """Writes jobs.json. What all configurations share is written once, so that a long list stays small.

    Raises ConfigError if the list is still too long to be read back, OutputError if it cannot be written.
    """
    plain = [job.record["configuration"] for job in jobs]
    common = {key: value for key, value in plain[0].items() if all(p.get(key) == value for p in plain)}
    content = {
        "configuration": common,
        "jobs": [
            {
                "job": job.number,
                "folder": job.folder,
                **job.record,
                "configuration": {k: v for k, v in job.record["configuration"].items() if k not in common},
            }
            for job in jobs
        ],
    }
    write_json(jobs_record(sweep), content)
    if jobs_record(sweep).stat().st_size > RECORD_LIMIT:
        raise ConfigError("The words of this sweep's jobs take too much space: sweep over fewer values.")


LISTED = {"job": int, "folder": str, "overrides": [str], "config": str, "configuration": dict}


def listed_jobs(sweep: Path) -> list[ListedJob]:
    """The jobs in jobs.json by number; none if the file is missing or damaged."""
    found = read_json(jobs_record(sweep))
    common, jobs = found.get("configuration"), found.get("jobs")
    if not (isinstance(common, dict) and fits(jobs, [LISTED])):
        return []
    listed = {
        job["job"]: ListedJob(
            job["job"],
            job["folder"],
            {
                "overrides": job["overrides"],
                "config": job["config"],
                "configuration": {**common, **job["configuration"]},
            },
        )
        for job in jobs  # type: ignore[union-attr]
        if fault_of(job["folder"]) is None
    }
    return [listed[number] for number in sorted(listed)]


def fault_of(folder: str) -> str | None:
    """Why a job of a sweep cannot have this folder; None if it can. The folder is relative to the sweep's."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "which is not inside the folder of the sweep"
    first = path.parts[0]
    if first.startswith(".") or first == EVALUATIONS or Path(first) in files_of_sweep(Path()):
        return "a name that the sweep itself uses"
    return None


def jobs_of(sweep: Path) -> list[RunFolder]:
    """The run folders of a sweep, by job number: those in its list of jobs, whether they exist or not.
    Without a list, all folders that are named by a number."""
    if listed := listed_jobs(sweep):
        return [RunFolder(sweep / job.folder, job.number) for job in listed]
    return numbered_folders(sweep)


def numbered_folders(sweep: Path) -> list[RunFolder]:
    found = [path for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal()]
    return [RunFolder(path, int(path.name)) for path in sorted(found, key=lambda path: int(path.name))]


def refuse_used_job(run: RunFolder) -> None:
    """Raises OutputError if the folder of a job that is to be created exists and is not empty."""
    try:
        used = os.path.lexists(run.path) and any(run.path.iterdir())
    except NotADirectoryError:
        used = True
    if used:
        raise OutputError(f"{run.path} exists already: choose another folder for the sweep.")
