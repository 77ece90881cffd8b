"""Validates the configurations of a run or a sweep before it starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import Config, from_composed
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.hydra_app.compose import composing, explained, plugins_in, refuse_conflicting
from rnnclf.hydra_app.job import is_grid
from rnnclf.hydra_app.setup import register

EXPECTED = (RnnclfError, HydraException, OmegaConfBaseException)
MAX_JOBS = 10_000  # of a grid; all are composed before the first starts


class Planned(NamedTuple):
    """A job of a grid before it starts."""

    words: list[str]
    config: Config


class Refusal(BaseException):
    """Carries an error out of a callback, where Hydra turns every Exception into a warning."""

    def __init__(self, error: RnnclfError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Start:
    """The caller's callbacks before Hydra starts a run or a sweep.

    begin_run is called with the run folder, begin_sweep with the sweep folder and its planned jobs, before
    anything is written there. They raise an RnnclfError to refuse. sweep_folder is set when a sweep starts.
    """

    begin_run: Callable[[Path], None] = lambda folder: None
    begin_sweep: Callable[[Path, list[Planned]], None] = lambda folder, jobs: None
    sweep_folder: Path | None = None


_start: ContextVar[Start] = ContextVar("start")


@contextmanager
def starting(start: Start) -> Iterator[None]:
    """Makes Hydra's callbacks use `start`; Hydra constructs them itself, from a name in the configuration."""
    token = _start.set(start)
    try:
        yield
    finally:
        _start.reset(token)


class Checks(Callback):
    """Hydra callback that validates everything before a run or a sweep starts."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            own_part(config)
            refuse_conflicting([str(word) for word in config.hydra.overrides.task])
            _start.get().begin_run(Path(str(config.hydra.run.dir)))
        except EXPECTED as error:
            raise Refusal(explained(error)) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            plan = planned(config)
            folder, start = Path(str(config.hydra.sweep.dir)), _start.get()
            start.begin_sweep(folder, plan if _numbered(config) else [])
        except EXPECTED as error:
            raise Refusal(explained(error)) from error
        start.sweep_folder = folder


def own_part(composed: DictConfig) -> Config:
    """The typed Config from a composed configuration, without Hydra's own node. Raises ConfigError."""
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        task.pop("hydra", None)
    return from_composed(task)


def plan(words: list[str]) -> list[Planned]:
    """The jobs of the grid defined by these words. Raises ConfigError if any of them is invalid."""
    register(plugins_in(words))
    try:
        with composing():
            loader = GlobalHydra.instance().config_loader()
            return planned(loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN))
    except Exception as error:  # the only input is the words, for some of which Hydra raises nearly anything
        raise explained(error) from error


def planned(config: DictConfig) -> list[Planned]:
    """The jobs of a grid sweep in order; none for sweepers that choose jobs as they go.

    Raises ConfigError if any of them is invalid.
    """
    if not is_grid(config.hydra):
        return []
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += [str(word) for word in config.hydra.overrides.task]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(words)
    _refuse_too_many(overrides)
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [_checked(config, job) for job in jobs]


def _numbered(config: DictConfig) -> bool:
    """Whether the job folders are named by job number, which hydra.sweep.subdir can change."""
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    return isinstance(sweep, dict) and sweep["subdir"] == "${hydra.job.num}"


def _refuse_too_many(overrides: list[Override]) -> None:
    if not math.prod(map(_values, overrides)) <= MAX_JOBS:
        raise ConfigError(f"The sweep would have more than {MAX_JOBS:,} jobs: sweep over fewer values.")


def _values(override: Override) -> float:
    """The number of values of a sweep override, without listing them: it could be range(1e12)."""
    value = override.value()
    if isinstance(value, RangeSweep):
        return max(0.0, ((value.stop or 0) - (value.start or 0)) / (value.step or 1))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def _checked(config: DictConfig, words: list[str]) -> Planned:
    try:
        refuse_conflicting(words)
        loader = GlobalHydra.instance().config_loader()
        return Planned(words, own_part(loader.load_sweep_config(config, words)))
    except EXPECTED as error:
        message = f"{explained(error)} (in the job {' '.join(words)}; no job was started)"
        raise ConfigError(message) from error
