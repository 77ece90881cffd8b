"""The training loop: a generator that yields an EpochResult per epoch.

It knows nothing about files or screens, and never sees the test split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from rnnclf.data import SequenceDataset
from rnnclf.durations import seconds_in_words
from rnnclf.errors import DivergedError
from rnnclf.metrics import Score, percent
from rnnclf.training.averaging import holding
from rnnclf.training.batch_statistics import renew_statistics
from rnnclf.training.divergence import Divergence, blame
from rnnclf.training.epoch import Epoch, differentiate
from rnnclf.training.evaluation import score_model
from rnnclf.training.gradient_norms import GradientNorms
from rnnclf.training.state import BatchProgress, EpochSoFar, Rollback, Training


@dataclass(frozen=True)
class EpochResult:
    """One epoch: scores, the learning rate of its last step, seconds of training plus validation, norms."""

    epoch: int
    train: Score
    validation: Score
    learning_rate: float
    seconds: float
    gradients: GradientNorms | None = None  # none in epochs of versions that did not keep them
    test: Score | None = None  # set by the caller that holds the test split, never here

    def in_words(self, epochs: int) -> str:
        """A line for logs. epochs: how many there are to be."""
        parts = [
            f"train loss {self.train.loss:.4f} accuracy {percent(self.train.accuracy)}",
            f"validation loss {self.validation.loss:.4f} accuracy {percent(self.validation.accuracy)}",
        ]
        if self.test is not None:
            parts.append(f"test accuracy {percent(self.test.accuracy)}")
        parts += [f"learning rate {self.learning_rate:.3g}", seconds_in_words(self.seconds)]
        return f"epoch {self.epoch}/{epochs}: {', '.join(parts)}"


def fit(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
    on_rollback: Callable[[Rollback], None] = lambda rollback: None,
    stop: Callable[[], str] = lambda: "",
) -> Iterator[EpochResult]:
    """Trains for the recipe's number of epochs, and yields the result of each; `training.result` then holds
    the weights that it is the result of.

    `stop` is asked between steps for a reason to end now, a sentence; '' to go on. An epoch that is cut short
    ends as any other, and `training.stopped` becomes the reason. The caller may set that, too, to end
    training after an epoch.

    In `on_batch` and between two results the caller may evaluate or save the model, but must not change it.

    Raises:
        DivergedError: the loss became NaN or infinite or rose far above its usual level, or the gradients
            exploded, and no rollback is possible. The message names epoch, batch and weight.
    """
    while training.epoch < training.recipe.epochs and not training.stopped:
        if training.recipe.on_divergence == "rollback" and not training.so_far.batches:
            training.mark_safe()
        try:
            result = _one_epoch(training, train, validation, on_batch, stop)
            if training.recipe.on_divergence == "rollback":
                _refuse_bad_start(training, train)
        except Divergence as divergence:
            if not training.can_roll_back:
                raise DivergedError(f"{divergence}. {_advice(training, divergence.in_data)}") from None
            on_rollback(training.roll_back(str(divergence)))
            continue
        yield result


def _refuse_bad_start(training: Training, train: SequenceDataset) -> None:
    """Raises Divergence if the first batch of the next epoch would diverge: then this epoch went wrong, and
    its start is where to roll back to. Changes nothing."""
    if training.epoch == training.recipe.epochs or training.stopped:
        return
    before = training.snapshot()
    training.model.train()
    with training.model.cores(training.recipe.batch_size, train.ragged):
        epoch = Epoch(training, train)
        batch = epoch.batch(0)
        differentiate(training, batch, epoch.divergence_check(0, lambda: batch))
    training.restore_within_epoch(before)


def _one_epoch(
    training: Training,
    train: SequenceDataset,
    validation: SequenceDataset,
    on_batch: Callable[[BatchProgress], None],
    stop: Callable[[], str],
) -> EpochResult:
    """Finishes the current epoch, and validates."""
    began = time.perf_counter() - training.so_far.seconds

    def after_batch(total: int) -> None:
        so_far = training.so_far
        so_far.seconds = time.perf_counter() - began
        on_batch(BatchProgress(training.epoch + 1, so_far.seen, total, so_far.correct))

    with training.model.cores(training.recipe.batch_size, train.ragged):
        score, is_complete = _train(training, train, after_batch, stop)
    validated = _validate(training, train, validation)
    if not math.isfinite(validated.loss):
        place = f"in epoch {training.epoch + 1}, after its last batch"
        raise Divergence(f"The validation loss became {validated.loss} {place}{blame(training.model)}")
    learning_rate, gradients = training.so_far.learning_rate, training.so_far.gradient_norms
    training.epoch += 1
    training.so_far = EpochSoFar()
    if not is_complete or training.epoch < training.recipe.epochs:
        training.stopped = stop()
    seconds = time.perf_counter() - began
    return EpochResult(training.epoch, score, validated, learning_rate, seconds, gradients)


def _train(
    training: Training, train: SequenceDataset, after_batch: Callable[[int], None], stop: Callable[[], str]
) -> tuple[Score, bool]:
    """Trains on the remaining batches of the epoch. Returns its score, and whether it was not cut short."""
    epoch = Epoch(training, train)
    training.model.train()
    training.steps = epoch
    try:
        epoch.run(after_batch, stop)
    finally:
        training.steps = None
        epoch.close()
    so_far = training.so_far
    if training.recipe.last_batch:  # scored with the weights after its own step
        last_B = epoch.indices[so_far.batches - 1]
        return score_model(training.model, train.subset(last_B)), epoch.is_complete
    return Score(so_far.correct, so_far.seen, so_far.loss_sum / so_far.seen), epoch.is_complete


def _validate(training: Training, train: SequenceDataset, validation: SequenceDataset) -> Score:
    """Scores what the epoch has led to, which becomes `training.result`: the model, or its average."""
    model, averages = training.model, training.average.tensors()
    training.result = model.state_dict() | averages
    with holding(model, training.result) if averages else nullcontext():
        renew_statistics(model, train, training.recipe.batch_size)
        if averages:
            training.result |= {name: buffer.clone() for name, buffer in model.named_buffers()}
        return score_model(model, validation)


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
