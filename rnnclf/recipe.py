"""How a classifier is trained: what is made small, with which steps, on which batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.augment import Augment, NoAugment
from rnnclf.data import PictureLayout
from rnnclf.optim import Optimizer, Schedule


@dataclass(frozen=True)
class Recipe:
    """How to train.

    class_weights: the weight of each class in the loss, None for 1.
    focal: γ of the focal loss, which looks less at what is right already (Lin et al. 2017,
        https://arxiv.org/abs/1708.02002); 0 for cross-entropy.
    sampling: shuffled or balanced, see `epoch_batches`.
    augment, layout: what is changed in each batch, and how pictures lie in the sequences.
    values: the leading features that are measured values, not masks; None: all.
    on_divergence: stop, or rollback: go back to the start of the epoch with half the learning rate.
    graph: record the step once and replay it, see rnnclf/recorded.py.

    `last_batch` is the tutorial's way: epochs of whole batches only, and the training accuracy of an
    epoch is that of its last batch instead of all of them.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    clip: float | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    focal: float = 0.0
    sampling: str = "shuffled"
    augment: Augment = field(default_factory=NoAugment)
    layout: PictureLayout | None = None
    values: int | None = None
    last_batch: bool = False
    on_divergence: str = "stop"
    graph: bool = False

    def loss(self, logits_BK: Tensor, y_B: Tensor) -> Tensor:
        """What is made small: the weighted mean over the batch, a scalar."""
        weights = self.class_weights
        weight_K = None if weights is None else _on(weights, logits_BK.dtype, logits_BK.device)
        if not self.focal:
            return functional.cross_entropy(
                logits_BK, y_B, weight=weight_K, label_smoothing=self.label_smoothing
            )
        loss_B = functional.cross_entropy(
            logits_BK, y_B, weight=weight_K, label_smoothing=self.label_smoothing, reduction="none"
        )
        wrong_B = 1 - logits_BK.softmax(dim=-1).gather(1, y_B.unsqueeze(-1)).squeeze(-1)
        total = len(y_B) if weight_K is None else weight_K[y_B].sum()
        # kept off 0, where the gradient of a power below 1 is infinite
        return (wrong_B.clamp(min=1e-7) ** self.focal * loss_B).sum() / total


@cache
def _on(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor, brought to the device once: each time it would wait for them."""
    return torch.tensor(numbers, dtype=dtype, device=device)
