"""The jobs of a sweep on disk. Every job has a folder and a status from the start, so however the sweep
ended, it is known which jobs are done, failed or never started, and it can be resumed. Prints nothing."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from rnnclf.config_reading import from_plain
from rnnclf.data import DATASETS, Source
from rnnclf.errors import CheckpointError, ConfigError, InUseError, JobFailed, RnnclfError
from rnnclf.files import made_folder, missing_folders, read_record, refuse_pipe, remove_empty, write_json
from rnnclf.hydra_app import Job
from rnnclf.hydra_app.checks import Planned, plan
from rnnclf.hydra_app.compose import key_of
from rnnclf.hydra_app.grammar import is_resolved, meant
from rnnclf.hydra_app.plugins import LATER
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.hydra_app.repeats import ranges
from rnnclf.hydra_app.words import anchored, prepared
from rnnclf.system import fork, slurm
from rnnclf.system.fork import ChildDied
from rnnclf.system.signals import ended_by
from rnnclf.workflows.pretrained import continued_jobs
from rnnclf.workflows.runs import RunFolder, config_record, reason_of
from rnnclf.workflows.sweep_folder import (
    ListedJob,
    fault_of,
    files_of_sweep,
    is_sweep,
    jobs_of,
    jobs_record,
    list_jobs,
    listed_jobs,
    numbered_folders,
    refuse_used_folder,
    refuse_used_job,
    sweep_record,
)

log = logging.getLogger("rnnclf")

SUBMITTED = ".submitit/*/*_submission.sh"  # named after the job that submitit got from Slurm

LONGEST = 2**18  # characters of a multirun.yaml; Hydra writes about 10,000
MOST_PARTS = 50_000  # of its lists and mappings, with aliases expanded
LONGEST_WORDS = 10_000  # characters in all: Hydra's grammar takes a minute for a list of some ten thousand

# The words of a sweep that are used again when it is resumed. Others may run commands (setup, python), and a
# sweep folder may come from an untrusted source.
LAUNCHERS_WORDS = re.compile(
    r"hydra\.sweeper\.max_batch_size=\d+"
    r"|hydra\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|gpus_per_task|tasks_per_node|mem_gb"
    r"|mem_per_cpu|mem_per_gpu|cpus_per_gpu|nodes|partition|qos|account|constraint|gres|exclude"
    r"|array_parallelism|max_num_timeout|signal_delay_s)"
    r"=[\w.:+-]{1,100}"
    r"|\+{0,2}hydra\.launcher\.ray\.remote\.(num_cpus|num_gpus|max_retries)=[\d.-]{1,10}"
)


@contextmanager
def create_sweep(folder: Path, jobs: list[Planned]) -> Iterator[None]:
    """Creates a sweep with a folder for each job, and locks it for this process.

    Raises OutputError if the folder holds another sweep or a run, if a job's folder exists already, or if one
    cannot be made. Nothing that was there before is changed.
    """
    refuse_used_folder(folder)
    listed = [_listed(number, job.folder, job) for number, job in enumerate(jobs)]
    for job in listed:
        if fault := fault_of(job.folder):
            raise ConfigError(f"hydra.sweep.subdir gives job {job.number} the folder {job.folder}, {fault}.")
        refuse_used_job(RunFolder(folder / job.folder))
    new_folders, is_created = missing_folders(folder), False
    made_folder(folder)
    try:
        with RunFolder(folder).locked(*files_of_sweep(folder)):
            try:
                if listed:  # a sweeper that chooses its jobs as it goes has none yet
                    list_jobs(folder, listed)
                for job in listed:
                    _create_job(folder, job)
            except RnnclfError:
                _discard(folder, listed)
                raise
            is_created = True
            yield
    finally:
        if not is_created:
            remove_empty(new_folders)


def _discard(folder: Path, listed: list[ListedJob]) -> None:
    """Removes a sweep that could not be created."""
    for job in listed:
        run = RunFolder(folder / job.folder)
        run.discard_start()
        remove_empty([run.path, *(run.path.parents[: len(PurePosixPath(job.folder).parts) - 1])])
    for path in (jobs_record(folder), RunFolder(folder).lock):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _listed(number: int, folder: str, job: Planned) -> ListedJob:
    return ListedJob(number, folder, config_record(job.config, job.words))


def _create_job(sweep: Path, job: ListedJob) -> RunFolder:
    run = RunFolder(made_folder(sweep / job.folder), job.number)
    write_json(run.status, {"state": "waiting", **job.record})
    return run


@contextmanager
def open_sweep(folder: Path) -> Iterator[None]:
    """Locks an existing sweep for this process. Raises CheckpointError if `folder` is not a sweep, and
    OutputError if another process holds it."""
    if not is_sweep(folder):
        raise CheckpointError(f"{folder} is not a sweep folder: it has no {sweep_record(folder).name}.")
    with RunFolder(folder).locked(*files_of_sweep(folder)):
        _restore_jobs(folder)
        yield


def _restore_jobs(folder: Path) -> None:
    """Creates again what is missing of the jobs: a folder that was deleted, a status that was lost. Such a
    job then waits; if its checkpoints are there, it continues from them."""
    for run in jobs_of(folder):
        refuse_pipe(run.log)
    listed = listed_jobs(folder) or _list_again(folder)
    for job in listed:
        status = RunFolder(folder / job.folder).read_status()
        if status.get("state") != "done" and not isinstance(status.get("configuration"), dict):
            _create_job(folder, job)


def _list_again(folder: Path) -> list[ListedJob]:
    """Lists the jobs of a sweep that has no list, of which the grid in multirun.yaml says which there should
    be. Points that were added to the grid are known from their folders. Lists nothing if the two disagree, or
    if the grid is unknown."""
    try:
        grid = [
            _listed(number, job.folder, job)
            for number, job in enumerate(continued_jobs(plan(_other_words(folder, []))))
        ]
    except RnnclfError:
        return []
    listed = {job.number: job for job in grid}
    known = {job.record["config"] for job in grid}
    for run in numbered_folders(folder):
        status, digest = run.read_status(), _digest(run)
        if digest is None or run.number is None:
            continue
        if run.number in listed and digest != listed[run.number].record["config"]:
            return []
        if digest not in known and isinstance(status.get("configuration"), dict):
            known.add(digest)
            record = {key: status.get(key) for key in ("overrides", "config", "configuration")}
            listed[run.number] = ListedJob(run.number, run.path.name, record)
    found = [listed[number] for number in sorted(listed)]
    list_jobs(folder, found)
    return found


def in_subprocess(job: Job, work: Callable[[], float | None]) -> float | None:
    """Runs a job in a process of its own, so that the other jobs continue if it crashes."""
    run = RunFolder(job.folder)
    if run.is_finished():  # a launcher may start a job twice
        return float(run.read_results()["validation"]["accuracy"])
    with recorded_end(run):
        return fork.in_subprocess(work, run.log)


@contextmanager
def recorded_end(run: RunFolder) -> Iterator[None]:
    """A context in which another process runs a job; its status tells how that ended, whatever happens.

    Raises JobFailed if the process has died.
    """
    try:
        yield
    except ChildDied as death:
        if ended_by(death.exit_code) and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            raise SystemExit(death.exit_code) from None  # no result: Slurm may start the job again
        log.error("%s", death)
        _close(run, "failed", str(death))
        raise JobFailed(f"{death} (log in {run.log})") from None
    except InUseError:
        raise
    except (RnnclfError, JobFailed) as error:
        if not run.has_begun():  # so its process could not record it
            _close(run, "failed", str(error))
        raise
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end.__cause__, ChildDied) and not run.busy():
            record_kill(run, end.__cause__)
        else:
            record_interruption(run, end)
        raise


def record_interruption(run: RunFolder, end: BaseException) -> None:
    """Records why a job that has saved was interrupted: its own process received SIGTERM from this one."""
    known = isinstance(end, KeyboardInterrupt) or (isinstance(end, SystemExit) and ended_by(end.code))
    if known and run.read_status().get("state") == "interrupted":  # submitit exits with -1
        _close(run, "interrupted", reason_of(end))


def record_kill(run: RunFolder, death: ChildDied) -> None:
    """Records that a job did not save when its process was asked to end. No other process may
    have claimed it."""
    _close(run, "interrupted", str(death))


def killed(run: RunFolder, death: ChildDied) -> str:
    """What the user is told of such a job."""
    return f"#{run.number} {death}: it goes on from its last checkpoint."


def _close(run: RunFolder, state: str, reason: str) -> None:
    """Records the end of a job if its process could not, or did not know the reason."""
    status = run.read_status()
    if status.get("state") in ("waiting", "running", state):
        write_json(run.status, {**status, "state": state, "error": reason})


def unfinished(folder: Path) -> list[RunFolder]:
    """The jobs that are not finished and that no process is running."""
    return [run for run in jobs_of(folder) if not run.is_finished() and not run.busy()]


def pending_jobs(folder: Path) -> list[RunFolder]:
    """The unfinished jobs that did not fail: they never started, or were interrupted."""
    return [run for run in unfinished(folder) if run.read_status().get("state") != "failed"]


def queued(folder: Path) -> list[str]:
    """The numbers of the sweep's jobs, or arrays of jobs, in Slurm's queue: they run even if no process of
    ours waits for them."""
    scripts = [*folder.glob(SUBMITTED), *folder.glob(f".resumed/*/*/{SUBMITTED}")]
    numbers = {path.name.partition("_")[0] for path in scripts}
    return sorted(numbers & slurm.own_jobs(), key=int) if numbers else []


def wait_for_queue(folder: Path) -> None:
    """Waits until Slurm has none of the sweep's jobs left: one that was killed says nothing of the others."""
    while queued(folder):
        time.sleep(slurm.PAUSE)


def wait_for_jobs(folder: Path, seconds: float = float("inf")) -> None:
    """Waits until no process runs a job, for at most `seconds`: after a launcher has ended, its processes may
    still be saving."""
    end = time.monotonic() + seconds
    while any(run.busy() for run in jobs_of(folder)) and time.monotonic() < end:
        time.sleep(0.1)


def add_points(folder: Path, words: list[str]) -> list[RunFolder]:
    """Adds the jobs of the sweep's grid with the values of `words`, except those that it already has.

    New jobs get the next free numbers, folders of that name, and the state waiting. Jobs are compared by the
    hash of their configuration, so different words for the same configuration are the same job. Raises an
    RnnclfError, and adds nothing, if the grid is unknown or a job is invalid.
    """
    words = prepared(ranges(words), sweep=True, recorded=_data_sets(jobs_of(folder))).words
    words = [*_other_words(folder, words), *words]
    with_one = any(word.startswith("recipe=") for word in words)  # sweeps of earlier versions have none
    return add_jobs(folder, continued_jobs(plan(with_recipe(words) if with_one else words)))


def add_jobs(folder: Path, wanted: list[Planned]) -> list[RunFolder]:
    """Adds jobs to a sweep, except those that it already has, and returns the new ones: see `add_points`."""
    jobs, listed = jobs_of(folder), listed_jobs(folder)
    there = {_digest(run) for run in jobs}
    taken = [*jobs, *numbered_folders(folder)]  # which may hold a copy of a job
    number = max((run.number for run in taken if run.number is not None), default=-1)
    added = []
    for job in wanted:
        if job.config.digest() not in there:
            there.add(job.config.digest())
            number += 1
            added.append(_listed(number, str(number), job))
    if listed:
        list_jobs(folder, [*listed, *added])
    return [_create_job(folder, job) for job in added]


def _data_sets(jobs: list[RunFolder]) -> dict[str, Source]:
    """The data sets that the words of the sweep call by a name of their own, as in dataset=my.csv."""
    found: dict[str, Source] = {}
    for run in jobs:
        status = run.read_status()
        words = [str(word) for word in status.get("overrides", [])]
        names = [meant(word.removeprefix("dataset=")) for word in words if word.startswith("dataset=")]
        if own := [name for name in names if name not in DATASETS]:
            with suppress(RnnclfError, KeyError, TypeError, AttributeError):
                found |= dict.fromkeys(own, from_plain(status["configuration"]).dataset)
    return found


def _digest(run: RunFolder) -> str | None:
    """The hash of a job's configuration as this version computes it, with the defaults of options that
    did not exist yet when the job was created."""
    status = run.read_status()
    try:
        return from_plain(status["configuration"]).digest()
    except (RnnclfError, KeyError, TypeError, AttributeError):
        return status.get("config")


def _other_words(folder: Path, words: list[str]) -> list[str]:
    """The words of the sweep, except those whose keys are also in `words`."""
    file = sweep_record(folder)
    recorded = _recorded(folder)
    if not str(_at(recorded, "sweeper", "_target_")).endswith(".BasicSweeper"):
        raise ConfigError(f"{file} describes no grid to which points could be added.")
    found = _at(recorded, "overrides", "task")
    params = _at(recorded, "sweeper", "params") or {}
    if not isinstance(found, list) or not isinstance(params, dict):
        raise ConfigError(f"{file} is damaged: it does not say which jobs the sweep has.")
    new = {key_of(word) for word in words}
    old = [*(f"{key}={value}" for key, value in params.items()), *map(str, found)]
    if sum(map(len, old)) > LONGEST_WORDS:
        raise ConfigError(
            f"{file} holds more than {LONGEST_WORDS:,} characters of words: start another sweep."
        )
    for word in old:
        if is_resolved(word) or word.lstrip("+~").startswith("hydra"):
            raise ConfigError(f"{file} holds {word!r}, which is not allowed there: start another sweep.")
    if _at(recorded, "job", "config_name") != "config" or _own_folders(recorded):
        raise ConfigError(f"{file} names configuration files of its own: start another sweep with them.")
    folder = _at(recorded, "runtime", "cwd")
    return [anchored(word, str(folder or ".")) for word in old if key_of(word) not in new]


def _own_folders(recorded: Any) -> bool:
    sources = _at(recorded, "runtime", "config_sources")
    ours = ("hydra", "main", "schema")
    return not isinstance(sources, list) or any(_at(source, "provider") not in ours for source in sources)


def launching(folder: Path, words: list[str]) -> list[str]:
    """The words that set the launcher of the sweep's jobs: `words`, preceded by the harmless ones of the
    original command, which are left out if `words` choose another launcher."""
    if any(word.startswith("hydra/launcher=") for word in words):
        return words
    recorded = _recorded(folder)
    name = _at(recorded, "runtime", "choices", "hydra/launcher")
    old = _at(recorded, "overrides", "hydra")
    old = [word for word in old if isinstance(word, str)] if isinstance(old, list) else []
    return [
        *([f"hydra/launcher={name}"] if isinstance(name, str) and _runs_jobs(name) else []),
        *(word for word in old if LAUNCHERS_WORDS.fullmatch(word)),
        *words,
    ]


def _runs_jobs(launcher: str) -> bool:
    """Whether this may be the name of a launcher, of one that does not leave the jobs to workers."""
    return bool(re.fullmatch(r"\w{1,50}", launcher)) and launcher != LATER


def _recorded(folder: Path) -> Any:
    """Hydra's node of multirun.yaml as plain data, without resolving or instantiating anything. None if the
    file is damaged."""
    try:
        text = read_record(sweep_record(folder))
        found = yaml.load(text, _Loader) if len(text) <= LONGEST else None
        return None if _has_more_parts(found, MOST_PARTS) else _at(found, "hydra")
    except Exception:  # PyYAML raises a dozen types for invalid YAML, and this block does nothing but read
        return None


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _has_more_parts(value: Any, most: int) -> bool:
    """Whether a value has more than `most` parts: with aliases, nine lines of YAML can describe 10^9."""
    rest, count = [value], 0
    while rest and count <= most:
        part = rest.pop()
        count += 1
        inner = (
            part.items() if isinstance(part, dict) else part if isinstance(part, list | tuple | set) else ()
        )
        rest += [*inner]
    return bool(rest)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
