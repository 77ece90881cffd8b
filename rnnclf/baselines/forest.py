"""A random forest on the values of sequences."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from rnnclf.baselines.base import Baseline, Clock, LeftOutError, Sequences, at_length, in_columns
from rnnclf.data.recordings import Array

TREES = 500
TOGETHER = 25  # trees between two looks at the clock
MOST_VALUES = 2**29  # of all known sequences: 2 GiB


@dataclass
class Forest(Baseline):
    """A random forest (Breiman 2001) of 500 trees on the values of all steps and channels.

    Shorter sequences get zeros at their end. The probability of a class is the mean over the trees and one
    more that guesses, so that none is zero.
    """

    name: ClassVar[str] = "forest"
    title: ClassVar[str] = "forest"

    def logits(self, known: Sequences, asked: Sequences, clock: Clock) -> Array:
        import numpy as np
        from sklearn.ensemble import RandomForestClassifier

        steps, channels = known.longest, known.x_N[0].shape[0]
        if steps * channels * len(known) > MOST_VALUES:
            size = 4 * steps * channels * len(known) / 2**30
            raise LeftOutError(f"would need all values in memory at once, {size:.1f} GiB")

        def features(sequences: Sequences) -> Array:
            return at_length(sequences, steps).reshape(len(sequences), -1)

        forest = RandomForestClassifier(0, random_state=self.seed, n_jobs=self.threads, warm_start=True)
        x_NF = features(known)
        with warnings.catch_warnings():
            # scikit-learn takes numbers of many classes for values to regress on
            warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
            for trees in range(TOGETHER, TREES + 1, TOGETHER):
                forest.set_params(n_estimators=trees).fit(x_NF, known.y_N)
                clock(trees / TREES)
        found_Nk = forest.predict_proba(features(asked))
        probability_NK = in_columns(found_Nk, forest.classes_.tolist(), known.classes, 0.0)
        logits_NK: Array = np.log((TREES * probability_NK + 1 / known.classes) / (TREES + 1))
        return logits_NK
