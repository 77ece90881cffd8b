"""What every Hydra job does around its body: own components, a typed config, errors in the log."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig

from rnnclf.config import Config, from_composed
from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.hydra_app.setup import register

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


Body: TypeAlias = Callable[[Config, Job], float]


def as_task(body: Body, failures: list[Exception]) -> TaskFunction:
    """`body` as Hydra calls it. What it raises is an RnnclfError or a JobFailed.

    A job of a sweep raises, as launchers and sweepers expect. A run of its own puts its error into
    `failures` instead: Hydra would print lines about it that tell the user nothing.
    """

    command = sys.argv  # a launcher starts its processes by a line of its own

    @functools.wraps(body)
    def task(composed: DictConfig) -> float | None:
        sys.argv = command
        job = _current_job()
        try:
            return _logged(body, composed, job)
        except (RnnclfError, JobFailed) as error:
            if job.number is not None:
                raise
            failures.append(error)
            return None

    return task


def _logged(body: Body, composed: DictConfig, job: Job) -> float:
    try:
        register([str(module) for module in composed.plugins])
        return body(from_composed(composed), job)
    except RnnclfError as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("The job failed.")  # Hydra itself never writes it to the log
        file = job.folder / f"{HydraConfig.get().job.name}.log"
        raise JobFailed(f"{type(error).__name__}: {error} (traceback in {file})") from error


def _current_job() -> Job:
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    return Job(
        folder=Path(hydra.runtime.output_dir),
        overrides=list(hydra.overrides.task),
        number=int(hydra.job.num) if sweep else None,
        parallel=sweep and hydra.runtime.choices.get("hydra/launcher") != "basic",
    )
