"""The steps of an epoch: each judged at once, or many of them looked at together, and how one is made."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from rnnclf.training.eligibility import is_eligible
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Snapshot, Training

if TYPE_CHECKING:
    from rnnclf.training.compiled_step import CompiledSteps

LOOK_EVERY = 50  # batches, on a device that works on while the host prepares what comes next


@dataclass(frozen=True)
class _Judge:
    """Looks at the loss of a batch and at its gradients. Raises Divergence where there is no going on."""

    training: Training
    number: int
    of: int
    indices_B: Tensor
    batch: Callable[[], Batch]
    ignorance: float

    def see_loss(self, loss: float) -> None:
        model = self.training.model
        if not math.isfinite(loss):
            batch = self.batch()
            in_data = not_finite_in(batch.x_BTI, batch.lengths_B, self.indices_B)
            raise self._divergence(f"The loss became {loss}", in_data or blame(model), bool(in_data))
        if self.training.losses.spiked(loss, self.ignorance):
            raise self._divergence(f"The loss rose to {loss:.3g} and stayed high", blame(model))

    def see_norm(self, norm: float) -> None:
        if not math.isfinite(norm):
            why = blame(self.training.model)
            raise self._divergence(f"The norm of the gradients became {norm}", why)

    def _divergence(self, what: str, why: str, in_data: bool = False) -> Divergence:
        place = f"in epoch {self.training.epoch + 1}, at batch {self.number + 1} of {self.of}"
        return Divergence(f"{what} {place}{why}", in_data)


class Epoch:
    """The batches of the epoch that is on, and what its steps have come to since the host last looked.

    A CPU has each loss judged before the weights follow it. Another device works on by itself: each step
    leaves its loss, norm of the gradients and number of right answers there, in a row of `rows`, and the host
    looks at many rows at once, or where somebody wants to know. If one of them cannot be, training goes back
    to the look before and makes the same steps again, each of them judged: it ends where it would have ended
    on a CPU, and says the same.
    """

    def __init__(self, training: Training, train: SequenceDataset) -> None:
        recipe, weight = training.recipe, training.model.head.weight
        self.training, self.train = training, train
        self.indices = training.draw_batches(train)
        self.at_hand = train.at_hand(self.indices)
        self.total = sum(map(len, self.indices))
        self.ignorance = math.log(len(train.classes))
        self.steps = recipe.epochs * len(self.indices)
        self.every = _between_looks(weight.device)
        self.rows = torch.zeros(self.every, 3, dtype=weight.dtype, device=weight.device)
        self.unseen = 0
        self.before: Snapshot | None = None
        self.compiled = compiled_steps(training.model, recipe, train) if self.every == 1 else None

    def close(self) -> None:
        if self.compiled is not None:
            self.compiled.close()

    def run(self, after_batch: Callable[[int], None]) -> None:
        """Makes the steps that are left. Raises Divergence."""
        self._remember()
        for number in range(self.training.so_far.batches, len(self.indices)):
            self._step(number, judged=self.every == 1)
            if self.unseen == self.every or number + 1 == len(self.indices):
                self.read_results()
            after_batch(self.total)

    def batch(self, number: int) -> Batch:
        recipe, batch = self.training.recipe, self.train.batch(self.at_hand[number])
        if not recipe.augment.active:
            return batch
        changed = recipe.augment(batch.x_BTI, batch.lengths_B, recipe.layout, values=recipe.values)
        return Batch(changed[0], batch.y_B, changed[1])

    def judge(self, number: int, batch: Callable[[], Batch]) -> _Judge:
        return _Judge(self.training, number, len(self.indices), self.indices[number], batch, self.ignorance)

    def _step(self, number: int, judged: bool) -> None:
        training, so_far = self.training, self.training.so_far
        step = training.epoch * len(self.indices) + number
        so_far.learning_rate = _set_rate(training, step, self.steps)
        if judged:
            self._account(self.indices[number], self._judged(number))
        else:
            batch = self.batch(number)
            self.rows[self.unseen] = self._way_of(batch)(batch)
            self.unseen += 1
        so_far.batches += 1

    def _judged(self, number: int) -> list[float]:
        """Makes the step of a batch, if its numbers let it; what they are."""
        if self.compiled is None:
            batch = self.batch(number)
            found = _stepped(self.training, batch, self.judge(number, lambda: batch))
            return [one.item() for one in found]
        judge = self.judge(number, partial(self.batch, number))
        loss, norm, right = self.compiled(self.indices[number])
        judge.see_loss(loss)
        judge.see_norm(norm)
        make_step(self.training.torch_optimizer)
        return [loss, norm, right]

    def _way_of(self, batch: Batch) -> Callable[[Batch], Tensor]:
        """How to make the step of a batch: recorded, where it is wanted and all like it are of one size."""
        training = self.training
        make = partial(_row_of_step, training)
        alike = batch.lengths_B is None and len(batch.y_B) == training.recipe.batch_size
        if not (training.recipe.graph and alike):
            return make
        if training.captured is None:
            training.captured = CapturedStep(make, batch, training.unchanged())
        return training.captured if training.captured.fits(batch) else make

    def read_results(self) -> None:
        """Takes the rows that nobody has seen into the account. Raises Divergence."""
        if not self.unseen:
            return
        so_far = self.training.so_far
        rows = self.rows[: self.unseen].tolist()
        if self.every > 1 and any(map(self._is_divergent, rows)):
            self._once_more()
            return
        seen = self.indices[so_far.batches - self.unseen : so_far.batches]
        for indices_B, row in zip(seen, rows, strict=True):
            self._account(indices_B, row)
        self.unseen = 0
        self._remember()

    def _account(self, indices_B: Tensor, row: list[float]) -> None:
        so_far, (loss, _, right) = self.training.so_far, row
        so_far.seen += len(indices_B)
        so_far.correct += int(right)
        so_far.loss_sum += loss * len(indices_B)

    def _is_divergent(self, row: list[float]) -> bool:
        loss, norm, _ = row
        return not math.isfinite(loss + norm) or self.training.losses.spiked(loss, self.ignorance)

    def _remember(self) -> None:
        if self.every > 1:
            self.before = self.training.snapshot()

    def _once_more(self) -> None:
        """The steps since the last look, each of them judged."""
        assert self.before is not None
        end, every, self.unseen, self.every = self.training.so_far.batches, self.every, 0, 1
        self.training.restore_within_epoch(self.before)
        for number in range(self.training.so_far.batches, end):
            self._step(number, judged=True)
        self.every = every
        self._remember()


def compiled_steps(model: SequenceClassifier, recipe: Recipe, train: SequenceDataset) -> CompiledSteps | None:
    """What makes the steps of a plain classifier on a CPU in machine code; None: it is not plain."""
    loss = recipe.cross_entropy(len(train.classes))
    if loss is None or recipe.augment.active or not is_eligible(model, train):
        return None
    from rnnclf.training.compiled_step import CompiledSteps

    return CompiledSteps(model, loss, train, recipe.clip)


Found = tuple[Tensor, Tensor, Tensor]
"""Scalars: the loss of a batch, the norm of its gradients, the number of right answers."""


def _between_looks(device: torch.device) -> int:
    """Batches. A CPU has nothing to do meanwhile."""
    return 1 if device.type == "cpu" else LOOK_EVERY


def differentiate(training: Training, batch: Batch, judge: _Judge | None = None) -> Found:
    """What a batch has come to: its loss, the norm of its gradients, the number of right answers.

    Leaves the gradients, clipped, for the optimizer. With a judge it waits for the numbers, and raises
    Divergence where there is no going on from them.
    """
    recipe = training.recipe
    logits_BK = training.model(batch.x_BTI, batch.lengths_B)
    loss = recipe.loss(logits_BK, batch.y_B)
    if judge is not None:
        judge.see_loss(loss.item())
    for weight in training.weights:
        weight.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in training.weights if weight.grad is not None]
    # as nn.utils.get_total_norm and clip_grads_with_norm_, which sort them by device and type each time
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if judge is not None:
        judge.see_norm(norm.item())
    if recipe.clip is not None:
        torch._foreach_mul_(gradients, (recipe.clip / (norm + 1e-6)).clamp(max=1.0))
    right = (logits_BK.detach().argmax(dim=-1) == batch.y_B).sum()
    return loss.detach(), norm, right


def _stepped(training: Training, batch: Batch, judge: _Judge | None = None) -> Found:
    """A step; returns what `differentiate` does."""
    found = differentiate(training, batch, judge)
    make_step(training.torch_optimizer)
    return found


def _row_of_step(training: Training, batch: Batch) -> Tensor:
    """A step without looking; what it found, (3,)."""
    loss, norm, right = _stepped(training, batch)
    return torch.stack((loss, norm, right.to(norm.dtype)))


def _set_rate(training: Training, step: int, total: int) -> float:
    recipe = training.recipe
    rate = recipe.optimizer.lr * recipe.schedule.factor(step, total) * training.rate_factor
    for group in training.torch_optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return rate
