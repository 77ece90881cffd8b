"""The training steps of an epoch, and checks of their results: after each step, or of many steps at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnnclf.data import SequenceDataset
from rnnclf.data.dataset import Batch
from rnnclf.model import SequenceClassifier
from rnnclf.optim import make_step
from rnnclf.training.cuda_graph import CapturedStep
from rnnclf.training.divergence import Divergence, blame, not_finite_in
from rnnclf.training.eligibility import training_obstacle
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Snapshot, Training

if TYPE_CHECKING:
    from rnnclf.training.whole_step import WholeSteps

READ_EVERY = 50  # batches, on a device that computes asynchronously


@dataclass(frozen=True)
class _DivergenceCheck:
    """Checks the loss and the gradients of a batch. Raises Divergence."""

    training: Training
    number: int
    of: int
    indices_B: Tensor
    batch: Callable[[], Batch]
    chance_loss: float

    def check_loss(self, loss: float) -> None:
        model = self.training.model
        if not math.isfinite(loss):
            batch = self.batch()
            in_data = not_finite_in(batch.x_BTI, batch.lengths_B, self.indices_B)
            raise self._divergence(f"The loss became {loss}", in_data or blame(model), bool(in_data))
        if self.training.losses.diverged(loss, self.chance_loss):
            raise self._divergence(f"The loss rose to {loss:.3g} and stayed high", blame(model))

    def check_norm(self, norm: float) -> None:
        if not math.isfinite(norm):
            cause = blame(self.training.model)
            raise self._divergence(f"The norm of the gradients became {norm}", cause)

    def _divergence(self, what: str, cause: str, in_data: bool = False) -> Divergence:
        place = f"in epoch {self.training.epoch + 1}, at batch {self.number + 1} of {self.of}"
        return Divergence(f"{what} {place}{cause}", in_data)


class Epoch:
    """The batches of the current epoch, and the results of its steps.

    On a CPU, the loss and the gradients of each batch are checked before the weights are updated. Another
    device computes asynchronously: each step stores its loss, gradient norm and number of correct predictions
    on the device, in a row of `rows`, and the host reads many rows at once, or when results are
    requested. If one of them has diverged, training returns to the state after the last read and repeats the
    steps since then with a check after each: so it ends at the same batch as on a CPU, with the same message.
    """

    def __init__(self, training: Training, train: SequenceDataset) -> None:
        recipe, weight = training.recipe, training.model.head.weight
        self.training, self.train = training, train
        self.indices = training.draw_batches(train)
        self.at_hand = train.at_hand(self.indices)
        self.total = sum(map(len, self.indices))
        self.chance_loss = math.log(len(train.classes))
        self.steps = recipe.epochs * len(self.indices)
        self.every = _read_interval(weight.device)
        self.rows = torch.zeros(self.every, 3, dtype=weight.dtype, device=weight.device)
        self.unread = 0
        self.last_read: Snapshot | None = None
        self.compiled = compiled_steps(training.model, recipe, train) if self.every == 1 else None

    def close(self) -> None:
        if self.compiled is not None:
            self.compiled.close()

    def run(self, after_batch: Callable[[int], None], stop: Callable[[], str]) -> None:
        """Runs the remaining steps, or fewer if `stop` gives a reason to; the epoch has at least one. Raises
        Divergence."""
        self._take_snapshot()
        begin = self.training.so_far.batches
        with closing(self.train.in_turn(self.indices[begin:])) as batches:
            for number, _ in enumerate(batches, begin):
                if number and stop():
                    break
                self._step(number, checked=self.every == 1)
                if self.unread == self.every or number + 1 == len(self.indices):
                    self.read_results()
                after_batch(self.total)
        self.read_results()

    @property
    def is_complete(self) -> bool:
        """Whether all steps have been run."""
        return self.training.so_far.batches == len(self.indices)

    def batch(self, number: int) -> Batch:
        recipe, batch = self.training.recipe, self.train.batch(self.at_hand[number])
        return recipe.augmented(batch) if recipe.augment.active else batch

    def divergence_check(self, number: int, batch: Callable[[], Batch]) -> _DivergenceCheck:
        total, indices_B = len(self.indices), self.indices[number]
        return _DivergenceCheck(self.training, number, total, indices_B, batch, self.chance_loss)

    def _step(self, number: int, checked: bool) -> None:
        training, so_far = self.training, self.training.so_far
        step = training.epoch * len(self.indices) + number
        so_far.learning_rate = _set_rate(training, step, self.steps)
        if checked:
            self._add_results(self.indices[number], self._checked_step(number))
        else:
            batch = self.batch(number)
            self.rows[self.unread] = self._step_function(batch)(batch)
            self.unread += 1
        training.average.add(step, self.steps)
        so_far.batches += 1

    def _checked_step(self, number: int) -> list[float]:
        """Runs a step, but updates the weights only if it has not diverged. Returns its results."""
        if self.compiled is None:
            batch = self.batch(number)
            results = _step_on(self.training, batch, self.divergence_check(number, lambda: batch))
            return [result.item() for result in results]
        loss, norm, correct = self.compiled(self.indices[number])
        prepared = self.compiled.source.batch  # not made again: augmentation would change it differently
        check = self.divergence_check(number, lambda: prepared or self.batch(number))
        check.check_loss(loss)
        check.check_norm(norm)
        make_step(self.training.torch_optimizer)
        return [loss, norm, correct]

    def _step_function(self, batch: Batch) -> Callable[[Batch], Tensor]:
        """The function that runs the step of a batch: with graph=true and batches of equal shape, a CUDA
        graph."""
        training = self.training
        step = partial(_unchecked_step, training)
        full = batch.lengths_B is None and len(batch.y_B) == training.recipe.batch_size
        if not (training.recipe.graph and full):
            return step
        if training.captured is None:
            training.captured = CapturedStep(step, batch, training.unchanged())
        return training.captured if training.captured.fits(batch) else step

    def read_results(self) -> None:
        """Reads the results that are still on the device. Raises Divergence."""
        if not self.unread:
            return
        so_far = self.training.so_far
        rows = self.rows[: self.unread].tolist()
        if self.every > 1 and any(map(self._is_divergent, rows)):
            self._repeat_checked()
            return
        indices = self.indices[so_far.batches - self.unread : so_far.batches]
        for indices_B, row in zip(indices, rows, strict=True):
            self._add_results(indices_B, row)
        self.unread = 0
        self._take_snapshot()

    def _add_results(self, indices_B: Tensor, row: list[float]) -> None:
        training, (loss, norm, correct) = self.training, row
        training.so_far.add(len(indices_B), loss, norm, int(correct), training.recipe.clip)

    def _is_divergent(self, row: list[float]) -> bool:
        loss, norm, _ = row
        return not math.isfinite(loss + norm) or self.training.losses.diverged(loss, self.chance_loss)

    def _take_snapshot(self) -> None:
        if self.every > 1:
            self.last_read = self.training.snapshot()

    def _repeat_checked(self) -> None:
        """Repeats the steps since the last read, with a check after each."""
        assert self.last_read is not None
        end, every, self.unread, self.every = self.training.so_far.batches, self.every, 0, 1
        self.training.restore_within_epoch(self.last_read)
        for number in range(self.training.so_far.batches, end):
            self._step(number, checked=True)
        self.every = every
        self._take_snapshot()


def compiled_steps(model: SequenceClassifier, recipe: Recipe, train: SequenceDataset) -> WholeSteps | None:
    """The whole training steps of a classifier, or None if it is not eligible for them."""
    if training_obstacle(model, recipe, train):
        return None
    from rnnclf.training.whole_step import WholeSteps

    loss = recipe.cross_entropy(len(train.classes))
    augment = recipe.augment
    change = recipe.augmented if augment.active else None
    return WholeSteps(model, loss, train, recipe.clip, change=change, keeps_lengths=augment.keeps_lengths)


Results = tuple[Tensor, Tensor, Tensor]
"""Scalars: the loss of a batch, the norm of its gradients, the number of correct predictions."""


def _read_interval(device: torch.device) -> int:
    """The number of batches after which results are read. A CPU computes synchronously: each batch."""
    return 1 if device.type == "cpu" else READ_EVERY


def differentiate(training: Training, batch: Batch, check: _DivergenceCheck | None = None) -> Results:
    """Computes the loss and the gradients of a batch, and clips the gradients for the optimizer.

    With a check it waits for the results, and raises Divergence if they have diverged.
    """
    recipe = training.recipe
    logits_BK = training.model(batch.x_BTI, batch.lengths_B)
    loss = recipe.loss(logits_BK, batch.y_B)
    if check is not None:
        check.check_loss(loss.item())
    for weight in training.weights:
        weight.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in training.weights if weight.grad is not None]
    # like nn.utils.get_total_norm and clip_grads_with_norm_, but these group tensors by device and dtype each
    # time
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if check is not None:
        check.check_norm(norm.item())
    if recipe.clip is not None:
        torch._foreach_mul_(gradients, (recipe.clip / (norm + 1e-6)).clamp(max=1.0))
    correct = (logits_BK.detach().argmax(dim=-1) == batch.y_B).sum()
    return loss.detach(), norm, correct


def _step_on(training: Training, batch: Batch, check: _DivergenceCheck | None = None) -> Results:
    """Updates the weights with a batch; returns what `differentiate` does."""
    results = differentiate(training, batch, check)
    make_step(training.torch_optimizer)
    return results


def _unchecked_step(training: Training, batch: Batch) -> Tensor:
    """Updates the weights with a batch, without waiting for the device; returns its results (3,)."""
    loss, norm, correct = _step_on(training, batch)
    return torch.stack((loss, norm, correct.to(norm.dtype)))


def _set_rate(training: Training, step: int, total: int) -> float:
    recipe = training.recipe
    rate = recipe.optimizer.lr * recipe.schedule.factor(step, total) * training.rate_factor
    for group in training.torch_optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return rate
