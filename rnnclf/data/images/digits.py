"""scikit-learn's handwritten digits: embedded, no network, no files."""

from __future__ import annotations

from dataclasses import dataclass

from rnnclf.data.images.base import Images, Pictures
from rnnclf.data.recordings import Progress
from rnnclf.options import option


@dataclass
class Digits(Images):
    """1,797 real handwritten digits of 8 × 8 pixels in [0, 1]: 8 steps of 8 features, row by row.

    The test set of the UCI Optical Recognition of Handwritten Digits data, as scikit-learn ships it.
    """

    shape = (8, 8, 1)
    unit = 16.0

    name: str = "digits"
    validation: float = option(
        180, "set aside to choose the best epoch: a number of sequences, or a share below 1", above=0
    )
    test: float = option(360, "set aside for the test: a number, or a share below 1", above=0)

    def load_pictures(self, progress: Progress) -> Pictures:
        import numpy as np
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return Pictures(bunch.images[..., None].astype(np.uint8), bunch.target.astype(np.int64))
