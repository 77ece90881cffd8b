"""SVHN: house numbers from street photographs, published as MATLAB files. Torch-free."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rnnclf.data.images.base import ColourImages, Pictures, checked, concatenated
from rnnclf.data.images.published import FileSearch, Published, read_unchanged
from rnnclf.data.recordings import Progress
from rnnclf.errors import DataError

FILES = tuple(
    Published(name, md5, (f"http://ufldl.stanford.edu/housenumbers/{name}",))
    for name, md5 in (
        ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    )
)


@dataclass
class SVHN(ColourImages):
    """99,289 digits of house numbers, 32 × 32 pixels of three colours in [0, 1]: 32 steps of 96 features.

    Netzer et al. 2011. 26,032 of them are the test split; the 531,131 easier "extra" digits are not read.
    """

    shape = (32, 32, 3)

    name: str = "svhn"

    def load_pictures(self, progress: Progress) -> Pictures:
        search, parts = FileSearch("SVHN", "SVHN", self.root), []
        for number, file in enumerate(FILES):
            progress(f"reading {file.name}", number / len(FILES))
            path = search.path(file, " and ".join(other.name for other in FILES))
            parts.append(parse_mat(read_unchanged(file, path), str(path)))
        return concatenated(*parts)


def parse_mat(content: bytes, what: str) -> Pictures:
    """Parses pictures X (H, W, C, N) and labels y (N, 1) from a MATLAB 5 file; label 10 is the digit 0.

    Raises DataError, which names `what`, for anything else.
    """
    import numpy as np
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except Exception as error:  # SciPy's reader can raise nearly anything for a damaged file
        raise DataError(f"{what} is not a valid MATLAB file ({type(error).__name__}: {error}).") from error
    x, y = (np.asarray(variables.get(name)) for name in ("X", "y"))
    if x.dtype != np.uint8 or x.ndim != 4 or y.dtype.kind not in "ui":
        raise DataError(
            f"{what} should hold the bytes X (32, 32, 3, N) and whole numbers y (N, 1);"
            f" it has X {x.shape} of {x.dtype} and y {y.shape} of {y.dtype}."
        )
    labels_N = y.ravel().astype(np.int64)
    return checked(x.transpose(3, 0, 1, 2), np.where(labels_N == 10, 0, labels_N), SVHN.shape, 10, what)
