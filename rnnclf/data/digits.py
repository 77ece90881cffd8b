"""scikit-learn's handwritten digits: embedded, no network, no files."""

from __future__ import annotations

from dataclasses import dataclass

from rnnclf.data.base import SequenceDataset, Source, Splits, fingerprint_of
from rnnclf.options import option


@dataclass
class Digits(Source):
    """1,797 real handwritten digits of 8 × 8 pixels, read row by row: 8 steps of 8 features in [0, 1].

    The test set of the UCI Optical Recognition of Handwritten Digits data, as scikit-learn ships it.
    """

    name: str = "digits"
    validation: int = option(180, "sequences set aside to choose the best epoch", low=1)
    test: int = option(360, "sequences set aside for the test", low=1)

    def load(self) -> Splits:
        import torch
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x_NTI = torch.from_numpy(bunch.images).float() / 16
        y_N = torch.from_numpy(bunch.target).long()
        whole = SequenceDataset(x_NTI, y_N, tuple(map(str, bunch.target_names)))
        rest, test = self._set_aside(whole, self.test, "test")
        train, validation = self._set_aside(rest, self.validation, "validation")
        return Splits(train, validation, test, fingerprint_of(bunch.images, bunch.target))
