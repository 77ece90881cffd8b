"""In which order an epoch takes the training sequences.  Shapes: N sequences, B batch."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnclf.data.dataset import SequenceDataset

POOL = 50  # batches among which sequences are sorted by length


def epoch_batches(
    data: SequenceDataset, batch_size: int, sampling: str = "shuffled", whole_only: bool = False
) -> list[Tensor]:
    """The places of the sequences of each batch of one epoch, drawn from torch's random generator.

    shuffled: each sequence once; balanced: as many draws, each class equally probable, sequences may come
    twice. With `whole_only` the rest that fills no batch is left out. Ragged sequences of similar length
    come into one batch: the shuffled order is sorted by length within pools of some batches, then the
    batches are shuffled, so that who meets whom differs from epoch to epoch.
    """
    n = len(data)
    order_N = _balanced(data.y_N.cpu()) if sampling == "balanced" else torch.randperm(n)
    if whole_only:
        order_N = order_N[: max(n // batch_size, 1) * batch_size]
    if not data.ragged:
        return list(torch.split(order_N, batch_size))
    pools = [
        pool[data.lengths_N[pool].argsort(stable=True)] for pool in torch.split(order_N, POOL * batch_size)
    ]
    batches = [batch for pool in pools for batch in torch.split(pool, batch_size)]
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def _balanced(y_N: Tensor) -> Tensor:
    """As many places as there are, drawn with replacement: first a class, then one of its members."""
    by_class_N = y_N.argsort(stable=True)
    _, members_K = torch.unique(y_N, return_counts=True)
    drawn_N = torch.randint(len(members_K), y_N.shape)
    first_K = members_K.cumsum(0) - members_K
    member_N = (torch.rand(y_N.shape, dtype=torch.float64) * members_K[drawn_N]).long()
    return by_class_N[first_K[drawn_N] + member_N]
