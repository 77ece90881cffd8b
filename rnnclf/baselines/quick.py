"""A first idea of how well classes can be told apart, in a fraction of a second. Torch-free.

Shapes: N sequences, C channels, F features.
"""

from __future__ import annotations

from typing import NamedTuple

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.survey import Moments

MOST = 2000  # sequences that are compared with each other
LEAST = 10
FAR = 5.0  # beyond that many units, values are the same
ROUNDING = 1e-9  # of the largest value: smaller differences mean nothing


class Quick(NamedTuple):
    """How many of some sequences were classified correctly, and how many belong to the commonest class."""

    correct: int
    commonest: int
    total: int


def nearest_by_summary(recordings: Recordings, found: Moments, which: Array) -> Quick | None:
    """Classifies each of the sequences `which` like its nearest neighbour among the others of them.

    Neighbours are found by the length and by mean, deviation, lowest and highest value and missing values of
    each channel, on comparable scales. A sequence of the same group is no neighbour. None if there are
    too few sequences, or only one group.
    """
    import numpy as np

    which = which[:: max(len(which) // MOST, 1)][:MOST]
    group_N = which if recordings.groups_N is None else recordings.groups_N[which]
    if len(which) < LEAST or len(np.unique(group_N)) < 2:
        return None
    x_NF = _comparable(_summaries(recordings, found, which))
    label_N = recordings.labels_N[which]
    square_N = (x_NF**2).sum(axis=1)
    apart_NN = square_N[:, None] + square_N - 2 * x_NF @ x_NF.T
    apart_NN[group_N[:, None] == group_N] = np.inf
    correct = int((label_N[apart_NN.argmin(axis=1)] == label_N).sum())
    return Quick(correct, int(np.bincount(label_N).max()), len(which))


def _summaries(recordings: Recordings, found: Moments, which: Array) -> Array:
    """The features (N, F), float64; infinite where a channel has no values."""
    import numpy as np

    count_NC = found.count_NC[which]
    deviation_NC = np.sqrt(found.squares_NC[which] / np.maximum(count_NC, 1))
    return np.concatenate(
        (
            recordings.lengths_N[which, None],
            np.ldexp(deviation_NC, found.power_NC[which]),
            np.where(count_NC > 0, found.mean_NC[which], np.inf),
            found.low_NC[which],
            found.high_NC[which],
            recordings.lengths_N[which, None] - count_NC,
        ),
        axis=1,
    )


def _comparable(feature_NF: Array) -> Array:
    """Each feature in units of its interquartile range or, if that is 0, of its deviation, from its median,
    at most FAR; infinite values become the median. float32."""
    import numpy as np

    there_NF = np.where(np.isfinite(feature_NF), feature_NF, np.nan)
    there_NF = there_NF[:, np.isfinite(there_NF).any(axis=0)]
    there_NF = there_NF / np.maximum(np.nanmax(np.abs(there_NF), axis=0), np.finfo(float).tiny)
    low_F, middle_F, high_F = np.nanpercentile(there_NF, (25, 50, 75), axis=0)
    apart_F = np.where(high_F - low_F > ROUNDING, high_F - low_F, np.nanstd(there_NF, axis=0))
    scaled_NF = (there_NF - middle_F) / np.where(apart_F > ROUNDING, apart_F, 1)
    comparable_NF: Array = np.nan_to_num(scaled_NF.clip(-FAR, FAR)).astype(np.float32)
    return comparable_NF
