"""final_fit: trains once more, on the training and the validation sequences together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from rnnclf.config import Config
from rnnclf.data import SequenceDataset
from rnnclf.data.grid import Grid
from rnnclf.model import SequenceClassifier
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import BatchProgress, Training
from rnnclf.workflows.beginning import Beginning
from rnnclf.workflows.loading import build_model


def fitted_to_all(
    config: Config,
    recipe: Recipe,
    train: SequenceDataset,
    validation: SequenceDataset,
    epochs: float,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
    stop: Callable[[], str] = lambda: "",
    begun: Beginning | None = None,
    grid: Grid | None = None,
) -> tuple[SequenceClassifier, str]:
    """A classifier trained from new weights on both sets, by a recipe whose weights of classes are theirs;
    and why that was ended early, '' if it was not.

    It makes as many steps as the first training made to its best epoch, which is `epochs`, at the rates of a
    schedule of as many steps as that of the first. Both sets must be parts of the same data set.

    stop: as in `fit`. begun: the weights of another model, with which it begins. grid: as in `Data`. Raises
    DivergedError.
    """
    both = joined(train, validation)
    per_epoch = math.ceil(len(both) / recipe.batch_size)
    share = math.ceil(len(train) / recipe.batch_size) / per_epoch
    planned = max(round(recipe.epochs * share), 1)
    last = min(max(round(epochs * share), 1), planned)
    torch.manual_seed(config.seed)
    model = build_model(config, both.input_size, len(both.classes), both.coded, grid)
    model = (begun or Beginning()).filled(model).to(both.y_N.device)
    training = Training(model, replace(recipe, epochs=planned))
    stopped = ""
    for result in fit(training, both, validation, on_batch, stop=stop):
        is_cut = result.epoch < last or result.train.total < len(both)
        stopped = training.stopped if is_cut else ""
        if result.epoch == last:
            break
    model.load_state_dict(training.result)
    return model, stopped


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
