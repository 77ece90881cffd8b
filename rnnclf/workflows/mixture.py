"""The answers of an ensemble: the weighted mean of the probabilities of its members. Torch-free.

Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rnnclf.data.recordings import Array
from rnnclf.metrics import Evaluation

LEAST = np.finfo(np.float64).tiny  # a probability that became 0 by rounding


class Mixture:
    """The sum of the probabilities of members so far, each as often as its weight says.

    Takes 8 bytes for each sequence and class. Members that are added in the same order with the same
    probabilities have the same mean to the last bit.
    """

    def __init__(self) -> None:
        self._total_KN: list[Array] = []
        self._weight = 0

    def add(self, probability_KN: Iterable[Array], weight: int) -> None:
        """Adds a member: for each class the probabilities of the sequences, float64."""
        weighted_KN = [weight * probability_N for probability_N in probability_KN]
        if self._total_KN:
            for total_N, weighted_N in zip(self._total_KN, weighted_KN, strict=True):
                total_N += weighted_N
        else:
            self._total_KN = weighted_KN
        self._weight += weight

    def evaluation(
        self, classes: Sequence[str], y_N: Array, ids_N: Array, recordings_N: Array | None
    ) -> Evaluation:
        """The mean as predictions for these sequences; their logits are its logarithms."""
        mean_NK = np.stack(self._total_KN, axis=1) / self._weight
        return Evaluation(tuple(classes), y_N, np.log(np.maximum(mean_NK, LEAST)), ids_N, recordings_N)


def columns_of(found: Evaluation) -> Iterable[Array]:
    """The probabilities of each class, as predictions.parquet has them."""
    return (found.probabilities_of(k) for k in range(len(found.classes)))


def weighted_mean(probability_MNK: Sequence[Array], weights_M: Sequence[int]) -> Array:
    """The weighted mean (N, K) of the probabilities of M models."""
    if len({*weights_M}) == 1:
        return np.asarray(np.mean(probability_MNK, axis=0))
    return np.asarray(np.average(probability_MNK, axis=0, weights=weights_M))
