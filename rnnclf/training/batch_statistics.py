"""What batch normalisation uses in evaluation: statistics of the training sequences by these weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rnnclf.data import SequenceDataset
from rnnclf.model import SequenceClassifier

MOST_SEQUENCES = 5_000  # then a mean is known to 0.014 standard deviations, a variance to 2 %
LEAST_BATCH = 100  # sequences: batches of few, such as one alone, have no useful variance


@torch.no_grad()
def renew_statistics(model: SequenceClassifier, data: SequenceDataset, batch_size: int) -> None:
    """Replaces the running statistics of batch normalisation by those of `data` with the current weights, or
    of MOST_SEQUENCES spread evenly over it.

    The statistics that torch collects during training are those of the last few batches, by the weights of
    earlier steps and as the batches were augmented. At a high learning rate, a network that classifies 92 %
    of its sequences by the statistics of a batch may reach 70 % by these. Averaged weights have none at all
    (Izmailov et al. 2018, section 3.2). Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, call it precise
    batch normalisation.

    Each statistic is the mean over batches of about equal size, in which sequences that follow one another in
    the data, such as those of a class, lie in different batches. Draws no random numbers.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm1d) and module.weight.requires_grad  # else it stays as it is
    ]
    if not norms:
        return
    momentum = norms[0].momentum
    model.eval()  # no dropout
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean over all batches
    batch_size = max(batch_size, LEAST_BATCH)
    with model.cores(batch_size, data.ragged):
        for at_hand_B in data.at_hand(_batches(len(data), batch_size)):
            x_BTI, _, lengths_B = data.batch(at_hand_B)
            model(x_BTI, lengths_B)
    for norm in norms:
        norm.eval()
        norm.momentum = momentum


def _batches(sequences: int, batch_size: int) -> list[Tensor]:
    """Indices of the sequences that the statistics are taken from, batch by batch."""
    count = min(sequences, MOST_SEQUENCES)
    chosen_N = torch.arange(count) * sequences // count
    number = math.ceil(count / batch_size)
    return [chosen_N[first::number] for first in range(number)]
