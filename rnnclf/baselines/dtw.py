"""1-NN DTW: the class of the nearest known sequence, by dynamic time warping."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from rnnclf.baselines.base import Baseline, Clock, Sequences, in_columns
from rnnclf.data.recordings import Array

WINDOW = 0.1  # of the length: how far steps may be shifted against each other
CELLS = 2e7  # of the tables of dynamic programming, computed between two looks at the clock
FAR = 1e30  # the distance to a class that is not known


@dataclass
class NearestDTW(Baseline):
    """Nearest neighbour by dynamic time warping (Sakoe and Chiba 1978) with a window of 10 %.

    The distance is the sum of squared differences of all channels along the best alignment. The probability
    of a class is proportional to the inverse of the distance to its nearest member, so that it has no
    settings of its own.
    """

    name: ClassVar[str] = "dtw"
    title: ClassVar[str] = "1-NN DTW"
    packages: ClassVar[tuple[str, ...]] = ("aeon",)

    def prepare(self, known: Sequences) -> None:
        self._distances(known.x_N[:1], known.x_N[:1])

    def work(self, known: int, asked: int) -> float:
        return known * asked

    def logits(self, known: Sequences, asked: Sequences, clock: Clock) -> Array:
        import numpy as np

        longest, channels = max(known.longest, asked.longest), known.x_N[0].shape[0]
        cells = len(known) * longest * (2 * WINDOW * longest + 1) * channels
        rows = int(max(CELLS // cells, 1))
        there = np.unique(known.y_N).tolist()
        nearest = []
        for first in range(0, len(asked), rows):
            distance_nN = self._distances(asked.x_N[first : first + rows], known.x_N)
            nearest.append(np.stack([distance_nN[:, known.y_N == k].min(axis=1) for k in there], axis=1))
            clock(min(first + rows, len(asked)) / len(asked))
        tiny = np.finfo(np.float32).tiny
        distance_NK = in_columns(np.concatenate(nearest), there, known.classes, FAR)
        logits_NK: Array = -np.log(np.maximum(distance_NK, tiny))
        return logits_NK

    def _distances(self, first: tuple[Array, ...], second: tuple[Array, ...]) -> Array:
        """The distance of each of the first to each of the second, float64."""
        import numpy as np
        from aeon.distances import dtw_pairwise_distance
        from numba.core.errors import NumbaTypeSafetyWarning

        with warnings.catch_warnings():  # numba warns about loops of aeon when it compiles them
            warnings.simplefilter("ignore", NumbaTypeSafetyWarning)
            found: Array = dtw_pairwise_distance(
                [x_CT.astype(np.float64) for x_CT in first],
                [x_CT.astype(np.float64) for x_CT in second],
                window=WINDOW,
                n_jobs=self.threads,
            )
        return found
