"""A launcher that leaves the jobs of a sweep to workers, and a sweeper that does not check them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

LATER = "later"
TARGET = "hydra_plugins.rnnclf.Later"
"""The name of the class in conf/hydra/launcher/later.yaml: Hydra takes no plugins from other packages."""
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class Later(Launcher):
    """Starts no job. When a sweep begins, its jobs are written down, which is all that workers need."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Does nothing."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Does nothing, and returns the results of no job."""
        return []


def register_plugins() -> None:
    """Makes the launcher known to Hydra."""
    plugins = Plugins.instance()
    plugins.register(Later)
    plugins.class_name_to_class[TARGET] = Later


@contextmanager
def checked_once() -> Iterator[None]:
    """A context in which Hydra does not compose all jobs of a grid to see whether they are valid: our checks
    have done that when the sweep began, and it takes a fifth of a second for each job."""
    sweeper = Plugins.instance().class_name_to_class[GRID]  # Hydra imports its plugins a second time
    sweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del sweeper.validate_batch_is_legal  # type: ignore[attr-defined]
