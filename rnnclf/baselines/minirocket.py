"""MiniRocket: many fixed convolutions, and a linear classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rnnclf.baselines.base import Baseline, Clock, LeftOutError, Sequences, at_length, in_columns
from rnnclf.data.recordings import Array

FEATURES = 10_000
LEAST_STEPS = 9  # the length of a kernel
MOST = 20_000  # known sequences; the linear classifier holds several copies of all their features
TOGETHER = 2**24  # steps of all sequences, times channels, to transform between two looks at the clock


@dataclass
class MiniRocket(Baseline):
    """MiniRocket (Dempster et al. 2021, https://arxiv.org/abs/2012.08791) with 10,000 features.

    A ridge classifier, whose penalty is chosen by leave-one-out among the known sequences, works on the
    features. Shorter sequences get zeros at their end. The logits are the values of its linear functions,
    which are not made to be probabilities.
    """

    name: ClassVar[str] = "minirocket"
    title: ClassVar[str] = "MiniRocket"
    packages: ClassVar[tuple[str, ...]] = ("aeon",)

    def prepare(self, known: Sequences) -> None:
        self._fitted(at_length(known, max(known.longest, LEAST_STEPS))[:1])

    def logits(self, known: Sequences, asked: Sequences, clock: Clock) -> Array:
        import numpy as np
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if len(known) > MOST:
            raise LeftOutError(f"is for up to {MOST:,} sequences; these are {len(known):,}")
        x_NCT = at_length(known, max(known.longest, LEAST_STEPS))
        transform = self._fitted(x_NCT)
        share = len(known) / (len(known) + len(asked))
        features_NF = _features(transform, x_NCT, clock.between(0, share))
        ridge = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(np.logspace(-3, 3, 10)))
        ridge.fit(features_NF, known.y_N)
        asked_NCT = at_length(asked, x_NCT.shape[2])
        features_NF = _features(transform, asked_NCT, clock.between(share, 1))
        found_Nk = ridge.decision_function(features_NF)
        if found_Nk.ndim == 1:
            found_Nk = np.stack((-found_Nk, found_Nk), axis=1)
        return in_columns(found_Nk, ridge.classes_.tolist(), known.classes, float(found_Nk.min()) - 1)

    def _fitted(self, x_NCT: Array) -> Any:
        from aeon.transformations.collection.convolution_based import MiniRocket

        transform = MiniRocket(FEATURES, n_jobs=self.threads, random_state=self.seed)
        transform.fit(x_NCT)
        transform.transform(x_NCT[:1])
        return transform


def _features(transform: Any, x_NCT: Array, clock: Clock) -> Array:
    """The features (N, F), float32, computed in parts."""
    import numpy as np

    rows, n = max(TOGETHER // x_NCT[0].size // 10, 1), len(x_NCT)
    parts = []
    for first in range(0, n, rows):
        parts.append(np.asarray(transform.transform(x_NCT[first : first + rows])))
        clock(min(first + rows, n) / n)
    return np.concatenate(parts)
