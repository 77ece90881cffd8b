"""The launcher of a sweep whose jobs are left to workers: hydra/launcher=later."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

LATER = "later"
TARGET = "hydra_plugins.rnnclf.Later"
"""The name of the class in conf/hydra/launcher/later.yaml: Hydra takes no plugins from other packages."""


class Later(Launcher):
    """Starts no job. When a sweep begins, its jobs are written down, which is all that workers need."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Does nothing."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Does nothing, and returns the results of no job."""
        return []


def register_launcher() -> None:
    """Makes the launcher known to Hydra."""
    plugins = Plugins.instance()
    plugins.register(Later)
    plugins.class_name_to_class[TARGET] = Later
