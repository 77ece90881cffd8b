"""Training: one generator that yields an EpochResult per epoch.

Knows nothing of files or screens, and never sees the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rnnclf.data import SequenceDataset
from rnnclf.epoch_steps import Epoch, differentiate
from rnnclf.errors import DivergedError
from rnnclf.guards import Divergence, behind
from rnnclf.metrics import Score
from rnnclf.progress import EpochSoFar, Rollback, Training
from rnnclf.scoring import evaluate


@dataclass(frozen=True)
class BatchProgress:
    """Where training stands after a batch; the counts are those of the epoch up to the last look at them."""

    epoch: int
    seen: int
    of: int
    correct: int


@dataclass(frozen=True)
class EpochResult:
    """One epoch: its scores, the learning rate of its last step, its seconds of training and validation."""

    epoch: int
    train: Score
    validation: Score
    learning_rate: float
    seconds: float
    test: Score | None = None  # filled in by whoever holds the test split, never here


def fit(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
    on_rollback: Callable[[Rollback], None] = lambda rollback: None,
) -> Iterator[EpochResult]:
    """Trains until the recipe's epochs are done, and yields the result of each.

    After a batch and between two results the caller may score or save the model; it must not change it.

    Raises:
        DivergedError: the loss became NaN or infinite or rose far above what it was, or the gradients
            exploded, and there is no going back; the message names epoch, batch and weight.
    """
    while training.epoch < training.recipe.epochs:
        if training.recipe.on_divergence == "rollback" and not training.so_far.batches:
            training.take_as_safe()
        try:
            result = _one_epoch(training, train, validation, on_batch)
            if training.recipe.on_divergence == "rollback":
                _refuse_bad_start(training, train)
        except Divergence as divergence:
            if not training.can_roll_back:
                raise DivergedError(f"{divergence}. {_advice(training, divergence.in_data)}") from None
            on_rollback(training.roll_back(str(divergence)))
            continue
        yield result


def _refuse_bad_start(training: Training, train: SequenceDataset) -> None:
    """Raises Divergence where the next epoch would with its first batch: then it is this epoch that went
    wrong. Leaves everything as it was."""
    if training.epoch == training.recipe.epochs:
        return
    before = training.snapshot()
    training.model.train()
    with training.model.cores(training.recipe.batch_size, train.ragged):
        epoch = Epoch(training, train)
        batch = epoch.batch(0)
        differentiate(training, batch, epoch.judge(0, lambda: batch))
    training.go_back(before)


def _one_epoch(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None],
) -> EpochResult:
    """The epoch that is on, from where it stands to its end."""
    began = time.perf_counter() - training.so_far.seconds

    def after_batch(total: int) -> None:
        so_far = training.so_far
        so_far.seconds = time.perf_counter() - began
        on_batch(BatchProgress(training.epoch + 1, so_far.seen, total, so_far.correct))

    with training.model.cores(training.recipe.batch_size, train.ragged):
        score = _train(training, train, after_batch)
    validated = evaluate(training.model, validation).score
    if not math.isfinite(validated.loss):
        place = f"in epoch {training.epoch + 1}, after its last batch"
        raise Divergence(f"The validation loss became {validated.loss} {place}{behind(training.model)}")
    learning_rate = training.so_far.learning_rate
    training.epoch += 1
    training.so_far = EpochSoFar()
    return EpochResult(training.epoch, score, validated, learning_rate, time.perf_counter() - began)


def _train(training: Training, train: SequenceDataset, after_batch: Callable[[int], None]) -> Score:
    """Trains on the batches of the epoch that are left."""
    epoch = Epoch(training, train)
    training.model.train()
    training._look = epoch.look
    try:
        epoch.run(after_batch)
    finally:
        training._look = lambda: None
        epoch.close()
    so_far = training.so_far
    if training.recipe.last_batch:  # scored once more, with the weights that it has just changed
        return evaluate(training.model, train.subset(epoch.indices[-1])).score
    return Score(so_far.correct, so_far.seen, so_far.loss_sum / so_far.seen)


def _advice(training: Training, in_data: bool) -> str:
    if in_data:
        return "Leave such sequences out, or repair them."
    recipe = training.recipe
    ways = [f"a smaller learning rate (optimizer.lr is {recipe.optimizer.lr:g}"]
    ways[0] += f", halved {len(training.rollbacks)} times already)" if training.rollbacks else ")"
    if recipe.clip is None or recipe.clip > 1:
        ways.append("clipped gradients (clip=1)")
    if recipe.on_divergence == "stop":
        ways.append("on_divergence=rollback")
    return f"Try {', '.join(ways[:-1])} or {ways[-1]}." if len(ways) > 1 else f"Try {ways[0]}."
