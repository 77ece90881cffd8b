"""What every Hydra job does around its body: own components, a typed config, errors in the log."""

from __future__ import annotations

import functools
import logging
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


def as_task(body: Body) -> TaskFunction:
    """`body` as Hydra calls it. What leaves it is an RnnclfError, a JobFailed, or no Exception."""

    @functools.wraps(body)
    def task(composed: DictConfig) -> float:
        job = _current_job()
        try:
            register([str(module) for module in composed.plugins])
            return body(from_composed(composed), job)
        except RnnclfError as error:
            log.error("%s", error)
            raise
        except Exception as error:
            log.exception("The job failed.")  # Hydra itself never writes it to the log
            name, file = HydraConfig.get().job.name, job.folder
            raise JobFailed(f"{type(error).__name__}: {error} (traceback in {file / name}.log)") from error

    return task


def _current_job() -> Job:
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    return Job(
        folder=Path(hydra.runtime.output_dir),
        overrides=list(hydra.overrides.task),
        number=int(hydra.job.num) if sweep else None,
        parallel=sweep and hydra.runtime.choices.get("hydra/launcher") != "basic",
    )
