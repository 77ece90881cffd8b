"""What every Hydra job does around its body: own components, a typed config, errors in the log."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig

from rnnclf.config import Config, from_composed
from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.hydra_app.setup import add_own

log = logging.getLogger("rnnclf")


@dataclass(frozen=True)
class Job:
    """One run as Hydra started it."""

    folder: Path
    overrides: list[str]
    number: int | None
    """Its place in a sweep, None for a run of its own."""
    parallel: bool
    """Whether other jobs may use the same terminal at the same time."""


Body: TypeAlias = Callable[[DictConfig, Job], float | None]
Isolate: TypeAlias = Callable[[Job, Callable[[], float | None]], float | None]


def with_config(body: Callable[[Config, Job], float]) -> Body:
    """A body that is given what Hydra composed as a typed Config."""

    def call(composed: DictConfig, job: Job) -> float:
        add_own([str(module) for module in composed.plugins])  # this may be another process
        return body(from_composed(composed), job)

    return call


def as_task(body: Body, failures: list[Exception], isolate: Isolate) -> TaskFunction:
    """`body` as Hydra calls it. What it raises is an RnnclfError or a JobFailed.

    A run of its own puts its error into `failures`: Hydra would print lines about it that tell the user
    nothing. A job of a sweep is run through `isolate`. In a grid it raises nothing: its folder records the
    outcome, and Hydra would skip the batches that follow. Other sweepers rely on the exception.
    """

    command = sys.argv  # a launcher starts its processes by a line of its own

    @functools.wraps(body)
    def task(composed: DictConfig) -> float | None:
        sys.argv = command
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
        log.exception("The job failed.")  # Hydra itself never writes it to the log
        file = job.folder / f"{HydraConfig.get().job.name}.log"
        raise JobFailed(f"{type(error).__name__}: {error} (traceback in {file})") from error


def is_grid(hydra: Any) -> bool:
    """Whether Hydra's node of the configuration names the sweeper of grids."""
    return str(hydra.sweeper._target_).endswith(".BasicSweeper")


def _current_job(composed: DictConfig) -> Job:
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    return Job(
        folder=Path(hydra.runtime.output_dir),
        overrides=list(hydra.overrides.task),
        number=int(composed.job if "job" in composed else hydra.job.num) if sweep else None,
        parallel=sweep and hydra.runtime.choices.get("hydra/launcher") != "basic",
    )
