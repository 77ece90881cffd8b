"""scikit-learn's handwritten digits, which ship with it: no download. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rnnclf.data.images.base import Images, Pictures
from rnnclf.data.recordings import Array, Progress
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
        180,
        "size of the validation split, which chooses the best epoch: a count, or a fraction below 1",
        above=0,
    )
    test: float = option(360, "size of the test split: a count, or a fraction below 1", above=0)

    def load_pictures(self, progress: Progress) -> Pictures:
        import numpy as np

        rows_NK = _rows()
        x_NHWC = rows_NK[:, :-1].reshape(-1, *self.shape)
        return Pictures(x_NHWC.astype(np.uint8), rows_NK[:, -1].astype(np.int64))


def _rows() -> Array:
    """The data of scikit-learn's load_digits: one row per picture, its pixels followed by its class.

    Reads the file directly if possible: importing scikit-learn takes half as long as importing torch.
    """
    import numpy as np

    found = find_spec("sklearn")
    path = Path(found.origin).parent / "datasets/data/digits.csv.gz" if found and found.origin else None
    if path is not None and path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    pixels_NK, labels_N = load_digits(return_X_y=True)
    return np.column_stack((pixels_NK, labels_N))
