"""Settles what a configuration leaves to the data. Prints nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from rnnclf.config import Config
from rnnclf.data import Splits
from rnnclf.data.categories import CodedFeatures
from rnnclf.data.grid import Grid
from rnnclf.sizing import hidden_for, parse_count
from rnnclf.workflows.loading import build_model, grid_for
from rnnclf.workflows.stopping import steps_per_epoch


def settled(config: Config, splits: Splits) -> Config:
    """The config with plain values for what depends on the data: `dataset.missing=auto` and the like, the
    epochs that `updates` takes, the hidden size that matches `match_parameters`. Raises ConfigError."""
    train = splits.train
    dataset = replace(config.dataset, **config.dataset.settled_options(splits.learned.preparation))
    config = replace(config, dataset=dataset, epochs=_epochs(config, len(train)))
    shape = train.input_size, len(train.classes), train.coded
    return sized(config, *shape, grid_for(config, splits.learned))


def _epochs(config: Config, sequences: int) -> int:
    """The number of epochs, raised to make at least `updates` steps."""
    if config.updates is None:
        return config.epochs
    return max(config.epochs, math.ceil(config.updates / steps_per_epoch(config, sequences)))


def sized(
    config: Config,
    input_size: int,
    classes: int,
    coded: CodedFeatures | None = None,
    grid: Grid | None = None,
) -> Config:
    """The config with the hidden size that matches `match_parameters`, if that is set. Raises ConfigError."""
    if config.match_parameters is None:
        return config

    def with_hidden(hidden: int) -> Config:
        return replace(config, hidden=hidden, cell=replace(config.cell, hidden_size=hidden))

    def count(hidden: int) -> int:
        with torch.device("meta"):  # shapes only: no weights are drawn
            return build_model(with_hidden(hidden), input_size, classes, coded, grid).parameter_count()

    target = parse_count(config.match_parameters)
    return with_hidden(hidden_for(target, count, config.cell.multiple))
