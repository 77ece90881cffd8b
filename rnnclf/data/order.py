"""The order of the training sequences in an epoch.  Shapes: N sequences, B batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rnnclf.data.dataset import SequenceDataset

POOL = 50  # batches; sequences are sorted by length within pools of this many


def epoch_batches(
    data: SequenceDataset, batch_size: int, sampling: str = "shuffled", whole_only: bool = False
) -> list[Tensor]:
    """The indices of the sequences in each batch of one epoch, drawn from torch's random generator.

    shuffled: each sequence once; even: the same, in as many batches, all of about equal size; balanced: N
    draws with replacement, each class equally probable. With `whole_only`, sequences that do not fill a last
    batch are left out. If lengths differ, sequences of similar length share a batch: the shuffled order is
    sorted by length within pools of batches, then the batches are shuffled, so that the batches differ from
    epoch to epoch.
    """
    n = len(data)
    order_N = _balanced(data.y_N.cpu()) if sampling == "balanced" else torch.randperm(n)
    if whole_only:
        order_N = order_N[: max(n // batch_size, 1) * batch_size]
    if data.ragged:
        pools = torch.split(order_N, POOL * batch_size)
        order_N = torch.cat([pool[data.lengths_N[pool].argsort(stable=True)] for pool in pools])
    if sampling == "even":
        batches = list(torch.tensor_split(order_N, math.ceil(len(order_N) / batch_size)))
    else:
        batches = list(torch.split(order_N, batch_size))
    if not data.ragged:
        return batches
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def _balanced(y_N: Tensor) -> Tensor:
    """N indices drawn with replacement: first a class, then one of its members."""
    by_class_N = y_N.argsort(stable=True)
    _, members_K = torch.unique(y_N, return_counts=True)
    drawn_N = torch.randint(len(members_K), y_N.shape)
    first_K = members_K.cumsum(0) - members_K
    member_N = (torch.rand(y_N.shape, dtype=torch.float64) * members_K[drawn_N]).long()
    return by_class_N[first_K[drawn_N] + member_N]
