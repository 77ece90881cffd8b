"""The loss and the training hyperparameters.  Shapes: B batch, K classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.augment import Augment, NoAugment
from rnnclf.averaging import Average, NoAverage
from rnnclf.data.dataset import Batch, SequenceDataset
from rnnclf.data.layout import PictureLayout
from rnnclf.data.patches import apart, by_feature, patches_of, side_by_side
from rnnclf.optim import Optimizer, Schedule


class CrossEntropy(NamedTuple):
    """Weighted cross-entropy with label smoothing: the weights of all classes, the smoothed share."""

    weight_K: tuple[float, ...]
    smoothing: float = 0.0

    @classmethod
    def plain(cls, classes: int) -> CrossEntropy:
        return cls((1.0,) * classes)


@dataclass(frozen=True)
class Recipe:
    """How to train a classifier.

    class_weights: the weight of each class in the loss; None for 1.
    focal: γ of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), which gives little weight
        to examples that are already classified well; 0 for cross-entropy.
    sampling: shuffled, even or balanced, see `epoch_batches`.
    augment, layout: how training batches are augmented, and the layout of pictures in the sequences.
    values: the number of leading features that are measurements, not masks; None for all.
    codes: the number of features behind those that are codes of names.
    average: how the weights are averaged over the steps; the average is what is validated and kept.
    patch: how many neighbouring steps lie side by side in one step of the batches; they are augmented apart.
    last_batch: the tutorial's protocol: epochs of full batches only, and the training accuracy of an epoch
        is that of its last batch.
    on_divergence: stop, or rollback to the start of the epoch with half the learning rate.
    graph: capture the step as a CUDA graph and replay it, see rnnclf/training/cuda_graph.py.
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
    codes: int = 0
    average: Average = field(default_factory=NoAverage)
    patch: int = 1
    last_batch: bool = False
    on_divergence: str = "stop"
    graph: bool = False

    def cross_entropy(self, classes: int) -> CrossEntropy:
        """The loss, for code that computes it itself. Only without `focal`, which is no cross-entropy."""
        assert not self.focal
        return CrossEntropy(self.class_weights or (1.0,) * classes, self.label_smoothing)

    def augmented(self, batch: Batch) -> Batch:
        """The batch, augmented by the steps that its patches consist of."""
        (x_BTI, y_B, lengths_B), patch, codes = batch, self.patch, self.codes // self.patch
        values = None if self.values is None else self.values // patch
        features = 1 if values is None else 3
        if patch > 1:
            parts = x_BTI.tensor_split((x_BTI.shape[2] - self.codes,), dim=-1)
            x_BTI = torch.cat((apart(parts[0], patch, features), apart(parts[1], patch, 1)), dim=-1)
            lengths_B = None if lengths_B is None else lengths_B * patch
        x_BTI, lengths_B = self.augment(x_BTI, lengths_B, self.layout, values=values, codes=codes)
        if patch == 1:
            return Batch(x_BTI, y_B, lengths_B)
        ends_B = torch.full_like(y_B, x_BTI.shape[1]) if lengths_B is None else lengths_B
        parts = x_BTI.tensor_split((x_BTI.shape[2] - codes,), dim=-1)
        x_BTI = torch.cat(
            [
                side_by_side(by_feature(part, f), ends_B, patch)
                for part, f in zip(parts, (features, 1), strict=True)
            ],
            dim=-1,
        )
        return Batch(x_BTI, y_B, None if lengths_B is None else patches_of(lengths_B, patch))

    def loss(self, logits_BK: Tensor, y_B: Tensor) -> Tensor:
        """The weighted mean loss over the batch, a scalar."""
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
        # clamped, since the gradient of a power below 1 is infinite at 0
        return (wrong_B.clamp(min=1e-7) ** self.focal * loss_B).sum() / total


@cache
def _on(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a tensor on the device, copied once: each copy would have the host wait."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def balanced_weights(train: SequenceDataset) -> tuple[float, ...]:
    """For each of K classes N / (K · its number of sequences): all classes get the same total weight, and the
    mean weight of the sequences is 1."""
    members_K = torch.bincount(train.y_N.cpu(), minlength=len(train.classes)).clamp(min=1)
    return tuple((len(train) / (len(train.classes) * members_K)).tolist())
