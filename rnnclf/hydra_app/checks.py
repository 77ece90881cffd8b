"""Everything that can be wrong with a configuration is found before a run or a sweep starts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import Config, from_composed
from rnnclf.errors import ConfigError, OutputError, RnnclfError
from rnnclf.hydra_app.compose import explained

EXPECTED = (RnnclfError, HydraException, OmegaConfBaseException)


class Refusal(BaseException):
    """Carries an error out of a callback: Hydra turns every Exception raised there into a warning."""

    def __init__(self, error: RnnclfError) -> None:
        super().__init__(str(error))
        self.error = error


class Checks(Callback):
    """Hydra's hooks before anything starts. `sweep_folder` is set in the parent while a sweep is on."""

    sweep_folder: Path | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            own_part(config)
            _refuse_two_sizes([str(word) for word in config.hydra.overrides.task])
            _refuse_used(Path(str(config.hydra.run.dir)), "status.json")
        except EXPECTED as error:
            raise Refusal(explained(error)) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            for words in _jobs(config):
                _check_job(config, words)
            folder = Path(str(config.hydra.sweep.dir))
            _refuse_used(folder, "multirun.yaml")
        except EXPECTED as error:
            raise Refusal(explained(error)) from error
        Checks.sweep_folder = folder


def own_part(composed: DictConfig) -> Config:
    """The typed Config in what Hydra composed, its own node left out. Raises ConfigError."""
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        task.pop("hydra", None)
    return from_composed(task)


def _jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of a grid sweep; none for sweepers that choose as they go."""
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return []
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += [str(word) for word in config.hydra.overrides.task]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    batches = BasicSweeper.split_arguments(parser.parse_overrides(words), max_batch_size=None)
    return batches[0]


def _check_job(config: DictConfig, words: list[str]) -> None:
    try:
        _refuse_two_sizes(words)
        own_part(GlobalHydra.instance().config_loader().load_sweep_config(config, words))
    except EXPECTED as error:
        message = f"{explained(error)} (in the job {' '.join(words)}; no job was started)"
        raise ConfigError(message) from error


def _refuse_two_sizes(words: list[str]) -> None:
    keys = {word.split("=")[0].lstrip("+") for word in words}
    if "match_parameters" in keys and (sizes := keys & {"hidden", "cell.hidden_size"}):
        raise ConfigError(f"match_parameters chooses hidden: leave out {sorted(sizes)[0]}.")


def _refuse_used(folder: Path, mark: str) -> None:
    if (folder / mark).exists():
        raise OutputError(f"{folder} holds the results of an earlier run: choose another folder.")
