"""Validates the configurations of a run or a sweep before it starts."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
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

from rnnclf.config import GROUPS, Config
from rnnclf.config_reading import from_composed
from rnnclf.errors import ConfigError, OutputError, RnnclfError
from rnnclf.files import missing_folders, remove_empty
from rnnclf.hydra_app.compose import composing, explained, plugins_in, refuse_conflicting
from rnnclf.hydra_app.grammar import parse
from rnnclf.hydra_app.job import is_grid
from rnnclf.hydra_app.job_folders import OUR_DIR, JobFolders, is_numbered
from rnnclf.hydra_app.plugins import LATER
from rnnclf.hydra_app.setup import register
from rnnclf.hydra_app.words import GLOBAL

EXPECTED = (RnnclfError, HydraException, OmegaConfBaseException)
HYDRAS_RECORDS = ("config.yaml", "hydra.yaml", "overrides.yaml")
MAX_JOBS = 10_000  # of a grid; all are composed before the first starts


class Planned(NamedTuple):
    """A job of a grid before it starts."""

    words: list[str]
    config: Config
    folder: str
    """Relative to the folder of the sweep, with slashes."""


class Refusal(BaseException):
    """Carries an error out of a callback, where Hydra turns every Exception into a warning."""

    def __init__(self, error: RnnclfError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Start:
    """The caller's callbacks before Hydra starts a run or a sweep.

    begin_run is called with the run folder, begin_sweep with the sweep folder and its planned jobs, before
    anything is written there. They raise an RnnclfError to refuse. note gets remarks on how the words were
    understood. parallel and sweep_folder are set when a sweep starts.
    """

    begin_run: Callable[[Path], None] = lambda folder: None
    begin_sweep: Callable[[Path, list[Planned]], None] = lambda folder, jobs: None
    note: Callable[[str], None] = lambda sentence: None
    sweep_folder: Path | None = None
    parallel: bool = False
    """Whether the jobs of the sweep run in other processes, several at once."""
    later: bool = False
    """Whether the jobs of the sweep are left to workers."""
    jobs: int = 0
    """The number of jobs of the sweep."""
    new_folders: list[Path] = field(default_factory=list)
    """The folders made for this run or sweep, the innermost first."""
    records: list[Path] = field(default_factory=list)
    """The files that Hydra writes into the folder of a single run."""

    def discard(self) -> None:
        """Removes Hydra's records of a run that could not start, and the folders that are then empty."""
        for path in self.records:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        remove_empty({path.parent: None for path in self.records[:1]})
        remove_empty(self.new_folders)


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
            start, folder = _start.get(), _claimed(config.hydra.run)
            start.begin_run(folder)
            _refuse_used_records(config, folder)
            start.records = [*_records(config, folder), folder / f"{config.hydra.job.name}.log"]
        except EXPECTED as error:
            raise Refusal(explained(error)) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            plan = planned(config)
            start, folder = _start.get(), _claimed(config.hydra.sweep)
            for job in plan:
                _refuse_used_records(config, folder / job.folder)
            launcher = config.hydra.runtime.choices.get("hydra/launcher")
            start.parallel = side_by_side(str(launcher), config.hydra.launcher.get("n_jobs"))
            start.later, start.jobs = launcher == LATER, len(plan)
            start.begin_sweep(folder, plan)
        except EXPECTED as error:
            raise Refusal(explained(error)) from error
        start.sweep_folder = folder


def side_by_side(launcher: str, n_jobs: Any) -> bool:
    """Whether a launcher runs jobs in processes of its own; joblib with one process at a time does not."""
    if launcher == "joblib":
        return str(n_jobs) != "1" and (os.cpu_count() or 1) > 1
    return launcher not in ("basic", LATER)


def own_part(composed: DictConfig) -> Config:
    """The typed Config from a composed configuration, without Hydra's own node. Raises ConfigError."""
    return from_composed(own_node(composed))


def own_node(composed: DictConfig) -> DictConfig:
    """A copy of a composed configuration without Hydra's own node."""
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        task.pop("hydra", None)
    return task


def plan(words: list[str]) -> list[Planned]:
    """The jobs of the grid that words in Hydra's grammar define. Raises ConfigError if one is invalid."""
    register(plugins_in(words))
    try:
        with composing():
            loader = GlobalHydra.instance().config_loader()
            return planned(loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN))
    except Exception as error:  # the only input is the words, for some of which Hydra raises nearly anything
        raise explained(error) from error


def planned(config: DictConfig) -> list[Planned]:
    """The jobs of a grid sweep in order; none for sweepers that choose jobs as they go.

    Raises ConfigError if any of them is invalid, if there are none, or if two have the same folder.
    """
    if not is_grid(config.hydra):
        if not is_numbered(config):
            raise ConfigError("hydra.sweep.subdir can only be changed for a grid of values.")
        return []
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += [str(word) for word in config.hydra.overrides.task]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(words)
    _refuse_empty(overrides)
    _refuse_too_many(overrides)
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    folders = JobFolders(config)
    grid = Grid(config)
    found = [_checked(grid, number, words, folders) for number, words in enumerate(jobs)]
    folders.refuse_nested()
    return found


def _claimed(node: DictConfig) -> Path:
    """The folder of a run or a sweep. What has to be made for it is noted in `new_folders`."""
    raw: Any = OmegaConf.to_container(node, resolve=False)
    folder = Path(str(node.dir))
    ours = raw["dir"] == OUR_DIR  # which has just been made
    _start.get().new_folders = [folder, folder.parent] if ours else missing_folders(folder)
    return folder


def _records(config: DictConfig, folder: Path) -> list[Path]:
    inner = config.hydra.output_subdir
    return [] if inner is None else [folder / str(inner) / name for name in HYDRAS_RECORDS]


def _refuse_used_records(config: DictConfig, folder: Path) -> None:
    """Raises OutputError if Hydra would write its records over those of another program."""
    for path in _records(config, folder):
        if os.path.lexists(path):
            raise OutputError(f"{path} exists already: choose another folder.")


def _refuse_empty(overrides: list[Override]) -> None:
    for override in overrides:
        values = override.sweep_string_iterator() if override.is_discrete_sweep() else ["any"]
        if next(iter(values), None) is None:
            raise ConfigError(f"{override.input_line} gives no values, so the sweep would have no jobs.")


def _refuse_too_many(overrides: list[Override]) -> None:
    if not math.prod(map(_values, overrides)) <= MAX_JOBS:
        raise ConfigError(f"The sweep would have more than {MAX_JOBS:,} jobs: sweep over fewer values.")


def _values(override: Override) -> float:
    """The number of values of a sweep override, without listing them: it could be range(1e12)."""
    value = override.value()
    if isinstance(value, RangeSweep):
        return max(0.0, ((value.stop or 0) - (value.start or 0)) / (value.step or 1))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


class Grid:
    """Composes the jobs of a grid.

    Hydra takes a fifth of a second for each. Jobs that have the same components and differ in plain values
    are made from the first of them instead.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        self._first: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def job(self, words: list[str]) -> DictConfig:
        """The configuration of a job, with Hydra's node."""
        return GlobalHydra.instance().config_loader().load_sweep_config(self._config, words)

    def config(self, words: list[str]) -> Config:
        """The same as a Config."""
        values = dict(word.split("=", 1) for word in words if _is_plain(word))
        choices = tuple(word for word in words if not _is_plain(word))
        if choices in self._first:
            with suppress(*EXPECTED):  # Hydra has the better messages
                return self._changed(*self._first[choices], values)
        composed = own_node(self.job(words))
        self._first[choices] = composed, values
        return from_composed(copy.deepcopy(composed))

    @staticmethod
    def _changed(first: DictConfig, before: dict[str, str], values: dict[str, str]) -> Config:
        node = copy.deepcopy(first)
        for key, value in values.items():
            if before.get(key) != value:
                OmegaConf.update(node, key, parse(f"{key}={value}").value(), merge=True)
        return from_composed(node)


def _is_plain(word: str) -> bool:
    """Whether a word sets an option to a value that stands for itself."""
    key, _, value = word.partition("=")
    if key in (*GROUPS, *GLOBAL) or not re.fullmatch(r"[a-z_0-9.]+", key) or key.startswith("hydra"):
        return False
    return "${" not in value and not value.startswith("{")


def _checked(grid: Grid, number: int, words: list[str], folders: JobFolders) -> Planned:
    try:
        refuse_conflicting(words)
        if folders.are_numbered:
            return Planned(words, grid.config(words), str(number))
        job = grid.job(words)
        return Planned(words, own_part(job), folders.claim(number, job))
    except EXPECTED as error:
        message = f"{explained(error)} (in the job {' '.join(words)}; no job was started)"
        raise ConfigError(message) from error
