"""final_fit: trains once more, on the training and the validation sequences together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from rnnclf.config import Config
from rnnclf.data import SequenceDataset
from rnnclf.model import SequenceClassifier
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import BatchProgress, Training
from rnnclf.workflows.loading import build_model


def fitted_to_all(
    config: Config,
    recipe: Recipe,
    train: SequenceDataset,
    validation: SequenceDataset,
    best_epoch: int,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
) -> SequenceClassifier:
    """A classifier trained from new weights on both sets, by a recipe whose weights of classes are theirs.

    It makes as many steps as the first training made to its best epoch, at the rates of a schedule of as many
    steps as that of the first. Both sets must be parts of the same data set. Raises DivergedError.
    """
    both = joined(train, validation)
    per_epoch = math.ceil(len(both) / recipe.batch_size)
    share = math.ceil(len(train) / recipe.batch_size) / per_epoch
    epochs = max(round(recipe.epochs * share), 1)
    last = min(max(round(best_epoch * share), 1), epochs)
    torch.manual_seed(config.seed)
    model = build_model(config, both.input_size, len(both.classes), both.coded).to(both.y_N.device)
    training = Training(model, replace(recipe, epochs=epochs))
    for result in fit(training, both, validation, on_batch):
        if result.epoch == last:
            break
    return model


def joined(first: SequenceDataset, second: SequenceDataset) -> SequenceDataset:
    """The sequences of two parts of the same data set."""

    def both(name: str) -> torch.Tensor:
        return torch.cat((getattr(first, name), getattr(second, name)))

    numbered = first.number_N is not None and second.number_N is not None
    return replace(
        first,
        starts_N=both("starts_N"),
        lengths_N=both("lengths_N"),
        y_N=both("y_N"),
        number_N=both("number_N") if numbered else None,
    )
