"""The folders of the jobs of a sweep, worked out before the first job starts.

Hydra works them out when a job starts, from hydra.sweep.dir and hydra.sweep.subdir. Both may refer to the
job's own configuration, so two jobs could get the same folder, or one outside the sweep.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rnnclf.errors import ConfigError

NUMBERED = "${hydra.job.num}"
OUR_DIR = "${fresh_dir:outputs,${name}}"


def is_numbered(config: DictConfig) -> bool:
    """Whether the job folders are named by job number, which hydra.sweep.subdir can change."""
    return _patterns(config)[1] == NUMBERED


class JobFolders:
    """Assigns the folders, none of them twice."""

    def __init__(self, config: DictConfig) -> None:
        self._dir, self._subdir = _patterns(config)
        if "${now:" in self._subdir:  # a job may start at another time than its folder is worked out
            raise ConfigError("hydra.sweep.subdir cannot contain the time: use ${hydra.job.num}.")
        fixed = self._dir == OUR_DIR or "${" not in self._dir
        self._sweep = None if fixed else str(config.hydra.sweep.dir)
        self._numbers: dict[PurePosixPath, int] = {}

    @property
    def are_numbered(self) -> bool:
        """Whether they do not depend on the configuration of a job."""
        return self._sweep is None and self._subdir == NUMBERED

    def claim(self, number: int, job: DictConfig) -> str:
        """The folder of a job relative to that of the sweep. Raises ConfigError if there is none."""
        if self.are_numbered:
            return str(number)
        with open_dict(job):
            job.hydra.job.num = number  # as launchers do
        with _current(job):
            own_sweep = None if self._sweep is None else _value(job, "hydra.sweep.dir")
            folder = PurePosixPath(os.path.normpath(_value(job, "hydra.sweep.subdir")).replace(os.sep, "/"))
        if own_sweep != self._sweep:
            raise ConfigError(
                "hydra.sweep.dir must be the same for all jobs: put what differs into hydra.sweep.subdir."
            )
        if (other := self._numbers.setdefault(folder, number)) != number:
            raise ConfigError(
                f"hydra.sweep.subdir gives jobs {other} and {number} the same folder, {folder}:"
                " add ${hydra.job.num} to it."
            )
        return str(folder)

    def refuse_nested(self) -> None:
        """Raises ConfigError if one of the folders is inside another one."""
        for folder in self._numbers:
            if above := next((path for path in folder.parents if path in self._numbers), None):
                raise ConfigError(f"hydra.sweep.subdir puts the job folder {folder} inside another, {above}.")


def _patterns(config: DictConfig) -> tuple[str, str]:
    sweep: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    return str(sweep["dir"]), str(sweep["subdir"])


def _value(job: DictConfig, key: str) -> str:
    try:
        return str(OmegaConf.select(job, key, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            f"{key} contains something that is unknown before the jobs start:"
            " use ${hydra.job.num}, ${hydra.job.override_dirname} or keys such as ${cell.name}."
        ) from error


@contextmanager
def _current(job: DictConfig) -> Iterator[None]:
    """Makes `job` what ${hydra:…} refers to."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before
