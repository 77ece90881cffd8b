"""Wraps the body of every Hydra job: registers plugins, makes a typed Config, logs errors."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig

from rnnclf.config import Config
from rnnclf.config_reading import from_composed
from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.hydra_app.setup import add_plugins

log = logging.getLogger("rnnclf")


@dataclass(frozen=True)
class Job:
    """One run as Hydra started it."""

    folder: Path
    overrides: list[str]
    number: int | None
    """Its number in a sweep, None for a single run."""
    parallel: bool
    """Whether other jobs may write to the same terminal at the same time."""
    sweep: Path | None = None
    """The folder of its sweep."""


Body: TypeAlias = Callable[[DictConfig, Job], float | None]
Isolate: TypeAlias = Callable[[Job, Callable[[], float | None]], float | None]
"""Runs the given work of a job, for instance in a subprocess."""


def with_config(body: Callable[[Config, Job], float | None]) -> Body:
    """Adapts a body that takes a typed Config to the DictConfig composed by Hydra."""

    def call(composed: DictConfig, job: Job) -> float | None:
        add_plugins([str(module) for module in composed.plugins])  # this may be a worker process
        return body(from_composed(composed), job)

    return call


def as_task(body: Body, failures: list[Exception], isolate: Isolate) -> TaskFunction:
    """Turns `body`, which raises only RnnclfError or JobFailed, into a Hydra task function.

    A single run appends its error to `failures`, since Hydra would print unhelpful lines about it. A job of a
    sweep runs through `isolate`. In a grid it raises nothing: the outcome is recorded in its folder, and an
    exception would make Hydra skip the following batches. Other sweepers rely on the exception.
    """

    command = sys.argv  # the worker processes of a launcher have another one

    @functools.wraps(body)
    def task(composed: DictConfig) -> float | None:
        sys.argv = command
        hydra = HydraConfig.get()
        if hydra.job.chdir:  # paths are relative to the folder where the command was typed
            os.chdir(hydra.runtime.cwd)
        job = _current_job(composed)
        work = functools.partial(_logged, body, composed, job)
        try:
            return work() if job.number is None else isolate(job, work)
        except (RnnclfError, JobFailed) as error:
            if job.number is None:
                failures.append(error)
            elif not is_grid(HydraConfig.get()):
                raise
            return None

    return task


def _logged(body: Body, composed: DictConfig, job: Job) -> float | None:
    try:
        return body(composed, job)
    except RnnclfError as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("The job failed.")  # Hydra itself does not log it
        file = job.folder / f"{HydraConfig.get().job.name}.log"
        raise JobFailed(f"{type(error).__name__}: {error} (traceback in {file})") from error


def is_grid(hydra: Any) -> bool:
    """Whether Hydra's node of the configuration selects the grid sweeper."""
    return str(hydra.sweeper._target_).endswith(".BasicSweeper")


def _current_job(composed: DictConfig) -> Job:
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    return Job(
        folder=Path(hydra.runtime.output_dir),
        overrides=list(hydra.overrides.task),
        number=_number(composed) if sweep else None,
        parallel=sweep and hydra.runtime.choices.get("hydra/launcher") != "basic",
        sweep=Path(hydra.sweep.dir) if sweep else None,
    )


def _number(composed: DictConfig) -> int:
    """The number of a job in its sweep; in a resumed one, Hydra numbers those that are left."""
    resumed = composed.get("job")
    return int(HydraConfig.get().job.num if resumed is None else str(resumed).removeprefix("job"))
