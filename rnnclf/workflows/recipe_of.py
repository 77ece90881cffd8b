"""The recipe of a run: what its configuration and its data say about the steps of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnclf.config import Config
from rnnclf.training.recipe import Recipe, balanced_weights

if TYPE_CHECKING:
    from rnnclf.workflows.train import Data


def recipe(config: Config, data: Data) -> Recipe:
    preparation = data.splits.learned.preparation
    balanced = balanced_weights(data.splits.train) if config.class_weights == "balanced" else None
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        schedule=config.schedule,
        clip=config.clip,
        label_smoothing=config.label_smoothing,
        class_weights=balanced,
        focal=config.focal,
        sampling=config.sampling,
        augment=config.augment,
        average=config.average,
        layout=config.dataset.layout(),
        values=preparation.values if preparation.missing == "mask" else None,
        codes=preparation.coded.number if preparation.coded else 0,
        patch=preparation.patch,
        last_batch=config.protocol == "tutorial",
        on_divergence=config.on_divergence,
        graph=config.graph and config.cell.capturable and data.device.type == "cuda",
    )
