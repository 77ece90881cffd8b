"""Loads the model of a checkpoint, its configuration, and the preparation of its data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnnclf import checkpoint
from rnnclf.checkpoint import Checkpoint
from rnnclf.config import Config
from rnnclf.data import DATASETS, Learned, Source
from rnnclf.data.categories import CodedFeatures
from rnnclf.data.grid import Grid, grid_of
from rnnclf.data.images.folder import holds_pictures
from rnnclf.data.own import OwnData
from rnnclf.data.preparation import Preparation
from rnnclf.data.recognition import source_for
from rnnclf.data.splits import SPLITTING
from rnnclf.data.training_data import TrainingData
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.registry import PLUGGABLE
from rnnclf.workflows import machine
from rnnclf.workflows.checkpoints import only_checkpoint
from rnnclf.workflows.pretrained import recorded_config
from rnnclf.workflows.sweep_folder import is_search

READING = ("sequence", "patch", "colour", "permutation", "missing", "normalise", "window")
"""Dataset options that determine what a time step means: a trained model fixes them."""
FREE_KEYS = ("dataset", "device", "threads", "engine", "precision", "plugins")
"""The keys that words may change for a trained model; its checkpoint fixes the others."""


class Loaded(NamedTuple):
    """A checkpoint and its model, ready to classify data that are read with its configuration."""

    checkpoint: Checkpoint
    config: Config
    learned: Learned
    model: SequenceClassifier
    elsewhere: Source | None
    """If other data than those of the training run are named: their source, without the options that belonged
    to the old data. It differs from `config.dataset` in how splits are drawn, because the training data keep
    their splits when they are named by another path. None if no other data are named."""

    @property
    def temperature(self) -> float:
        return self.checkpoint.temperature

    def limit_of_sets(self, level: float, word: str) -> float:
        """See `Checkpoint.limit_of_sets`."""
        return self.checkpoint.limit_of_sets(level, word)

    @property
    def cell(self) -> str:
        return self.config.cell.name

    @property
    def hidden(self) -> int:
        return self.config.cell.hidden_size

    @property
    def steps(self) -> int | None:
        """The number of steps that a sequence must have; None if the model reads any number."""
        return None if self.model.grid is None else self.model.grid.steps


def build_model(
    config: Config,
    input_size: int,
    classes: int,
    coded: CodedFeatures | None = None,
    grid: Grid | None = None,
) -> SequenceClassifier:
    """The classifier that `config` describes, with weights drawn from torch's random generator."""
    model = SequenceClassifier(config.cell, input_size, classes, config.stack(), coded, grid)
    if config.freeze == "cell":
        model.freeze()
    return model


def grid_for(config: Config, learned: Learned) -> Grid | None:
    """The grid as which the model reads its sequences; None if it reads their steps alone. Raises ConfigError
    for data that cannot be read as one."""
    if config.axes == "steps":
        return None
    return grid_of(config.axes, learned.steps, learned.preparation, config.dataset.layout())


def load_model(
    file: Path, overrides: list[str], data: Path | None = None, *, labelled: bool = False
) -> Loaded:
    """Loads a checkpoint and applies overrides to its configuration; `data` takes the place of its data.

    labelled: whether these data must have labels.
    No code in the file is run, and a damaged or oversized file is refused before memory is allocated for it.
    Raises CheckpointError or ConfigError.
    """
    saved = checkpoint.load(file)
    config, elsewhere = config_for(saved, overrides, data, labelled=labelled)
    learned = learned_of(saved, config)
    with torch.device("meta"):
        prepared = learned.preparation
        grid = grid_for(config, learned)
        model = build_model(config, prepared.input_size, len(learned.classes), prepared.coded, grid)
    checkpoint.fill(model, saved)
    return Loaded(saved, config, learned, model, elsewhere)


def config_for(
    saved: Checkpoint, overrides: list[str], data: Path | None = None, *, labelled: bool = False
) -> tuple[Config, Source | None]:
    """The configuration of a checkpoint with overrides and other data, and `elsewhere` as in `Loaded`.

    Raises CheckpointError or ConfigError, also for data that are read in another way than those of training.
    """
    trained = config_of(saved)
    config, asked = trained, dict[str, Any]()
    if overrides:  # importing Hydra takes a while
        from rnnclf.hydra_app.compose import overridden, parsed

        config, asked = overridden(trained, overrides), parsed(overrides)
    if data is not None:
        config = replace(config, dataset=_reading(config.dataset, data, "dataset" in asked, labelled))
    config = _read_as_trained(config, trained, asked)
    return _without_old_data(config, trained, asked)


def _reading(trained: Source, data: Path, named: bool, labelled: bool) -> Source:
    """The source of other data: of the kind of the training data's if that was `named` or reads them."""
    if trained.layout() is not None and labelled and hasattr(trained, "root"):
        return replace(trained, root=str(data))  # type: ignore[call-arg]
    if trained.layout() is not None and holds_pictures(data):
        return trained
    name = trained.name if named else source_for(str(data))
    if trained.name == name and "path" in trained.LOCATIONS:
        return replace(trained, path=str(data))  # type: ignore[call-arg]
    if "path" not in DATASETS[name].LOCATIONS:
        raise ConfigError(f"dataset={name} has data of its own, and does not read {data.name}: leave it out.")
    return DATASETS[name](path=str(data))  # type: ignore[call-arg]


def register_plugins_of(words: Sequence[str], when: str, own: Sequence[str] = ()) -> dict[str, Any]:
    """Registers the plugins that are installed or named by words for a trained model. Returns the keys and
    values of the words.

    when, own: "at evaluation", and the keys that are free only then.
    Raises ConfigError for a key that the checkpoint fixes.
    """
    if not words and not any(entry_points(group=group) for group in PLUGGABLE.values()):
        return {}
    from rnnclf.hydra_app.compose import parsed
    from rnnclf.hydra_app.setup import register

    values = parsed(list(words))
    for key in values:
        if key.split(".")[0] not in (*own, *FREE_KEYS):
            raise ConfigError(
                f"'{key}' cannot be changed {when}: the checkpoint fixes it."
                f" You can change {', '.join((*own, *FREE_KEYS))}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])
    return values


def config_of(saved: Checkpoint) -> Config:
    """The configuration of a checkpoint, adapted to this machine. Raises CheckpointError."""
    config = recorded_config(saved.path, saved.header)
    if hasattr(config.dataset, "root") and not (config.dataset.root and Path(config.dataset.root).is_dir()):
        # trained on another machine, where the files were in another folder, or an exported file
        here = os.environ.get("RNNCLF_DATA") or None
        config.dataset = replace(config.dataset, root=here)  # type: ignore[call-arg]
    if config.device not in ("auto", *machine.devices()):
        config.device = "auto"
    if config.precision == "tf32" and not machine.supports_tf32(machine.devices()[0]):
        config.precision = "float32"  # which is more exact
    return config


def _without_old_data(
    config: Config, trained: Config, asked: Mapping[str, Any]
) -> tuple[Config, Source | None]:
    """The config without the locations that belonged to the training data, if `asked` names other data.

    The test file and the labels of the old data say nothing about the new ones. Also returns `elsewhere`.
    """
    now, then = config.dataset, trained.dataset
    if type(now) is not type(then):
        return config, now
    changed = [key for key in now.LOCATIONS if getattr(now, key) != getattr(then, key)]
    if not changed:
        return config, None

    def defaults(keys: Sequence[str]) -> dict[str, Any]:
        return {key: getattr(type(now), key) for key in keys if f"dataset.{key}" not in asked}

    if changed[0] == now.LOCATIONS[0]:
        now = replace(now, **defaults(now.LOCATIONS[1:]))
    return replace(config, dataset=now), replace(now, **defaults(SPLITTING))


def _read_as_trained(config: Config, trained: Config, asked: Mapping[str, Any]) -> Config:
    """The config with its data read as in training. Raises ConfigError if words ask for another way."""
    kinds = ["series" if c.dataset.layout() is None else "pictures" for c in (trained, config)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"The model was trained on {kinds[0]} ({trained.dataset.title()}):"
            f" it cannot be evaluated on {kinds[1]} ({config.dataset.title()})."
        )
    own = {
        key: getattr(trained.dataset, key)
        for key in READING
        if hasattr(trained.dataset, key) and hasattr(config.dataset, key)
    }
    for key, value in own.items():
        if f"dataset.{key}" in asked and getattr(config.dataset, key) != value:
            then = "null" if value is None else value
            raise ConfigError(
                f"The model was trained with dataset.{key}={then}: it cannot be evaluated with"
                f" dataset.{key}={asked[f'dataset.{key}']}."
            )
    return replace(config, dataset=replace(config.dataset, **own))


def learned_of(saved: Checkpoint, config: Config) -> Learned:
    """The classes and the preparation that the model was trained with. Raises CheckpointError if `config`
    reads the data in another way."""
    try:
        preparation = Preparation.from_plain(saved.preparation)
        known = saved.training_data
        size = len(preparation.channels)
        training = TrainingData() if known is None else TrainingData.from_plain(known, size)
    except ConfigError as error:
        raise CheckpointError(f"{saved.path} is damaged: {error}") from error
    then, now = saved.reading, config.dataset.reading()
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise CheckpointError(
                f"{saved.path} was trained with {key} {then.get(key)} of the data;"
                f" these are read with {key} {now.get(key)}."
            )
    if saved.input_size != preparation.input_size:
        raise CheckpointError(f"{saved.path} is damaged: its preparation does not match its model.")
    return Learned(preparation, saved.classes, training, _steps_of(saved, config))


def _steps_of(saved: Checkpoint, config: Config) -> int | None:
    """The number of steps that a sequence must have. Raises CheckpointError."""
    if config.axes == "steps":
        return None
    steps = saved.header.get("steps")
    if type(steps) is not int or not 1 <= steps < 2**31:
        raise CheckpointError(f"{saved.path} is damaged: its header has no valid 'steps'.")
    return steps


def in_files(source: Source) -> bool:
    """Whether the training data are in files; a model that was trained in Python knows of none."""
    return not isinstance(source, OwnData) or source.path is not None


def one_checkpoint(path: Path) -> Path:
    file = only_checkpoint(path)
    if file.parent.parent == path and not is_search(path):
        raise ConfigError(f"{path} is a sweep of one job: give the folder of that job, {file.parent}.")
    return file


def with_times_told(loaded: Loaded) -> Loaded:
    """The same with a preparation that says whether the data had times. Earlier checkpoints do not; by their
    mean interval it can be told."""
    preparation = loaded.learned.preparation
    if preparation.timed is None:
        preparation = replace(preparation, timed=preparation.interval != 1)
    return loaded._replace(learned=replace(loaded.learned, preparation=preparation))
