"""EMNIST: handwritten letters and digits, as IDX files in one zip archive. Torch-free."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.images.archives import zip_member
from rnnclf.data.images.base import Pictures, PublishedImages, checked, concatenated
from rnnclf.data.images.idx import parse_idx
from rnnclf.data.images.published import FileSearch, Published, refuse_changed, unpacked
from rnnclf.data.recordings import Array, Progress
from rnnclf.options import option

ARCHIVE = Published(
    "gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",)
)
ALONE_IN_LOWER_CASE = "abdefghnqrt"  # letters whose lower case looks different from the upper case
CHARACTERS = {
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "bymerge": string.digits + string.ascii_uppercase + ALONE_IN_LOWER_CASE,
    "balanced": string.digits + string.ascii_uppercase + ALONE_IN_LOWER_CASE,
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}


@dataclass
class EMNIST(PublishedImages):
    """Handwritten digits and letters of 28 × 28 pixels in [0, 1]: 28 steps of 28 features, row by row.

    Cohen et al. 2017, https://arxiv.org/abs/1702.05373. The files store the pictures
    transposed; here they are upright.
    """

    shape = (28, 28, 1)

    name: str = "emnist"
    variant: str = option(
        "balanced",
        "byclass: 62 unbalanced classes; bymerge: 47, look-alike cases merged; balanced: the same 47 with"
        " equal counts; letters: 26, cases merged; digits: 10; mnist: 10, as many as in MNIST",
        choices=CHARACTERS,
    )

    def classes(self) -> tuple[str, ...]:
        return tuple(CHARACTERS[self.variant])

    def title(self) -> str:
        return super().title().replace(self.name, f"{self.name} {self.variant}", 1)

    def load_pictures(self, progress: Progress) -> Pictures:
        path = FileSearch("EMNIST", "EMNIST/raw", self.root).path(ARCHIVE, ARCHIVE.name)
        progress(f"checking {path.name}", 0.0)
        refuse_changed(ARCHIVE, path)
        return concatenated(*(self._part(part, path, progress) for part in ("train", "test")))

    def _part(self, part: str, path: Path, progress: Progress) -> Pictures:
        stem = f"emnist-{self.variant}-{part}"
        progress(f"reading {stem}", 0.5)
        x_NHW = _array(path, f"gzip/{stem}-images-idx3-ubyte.gz", 3)
        labels_N = _array(path, f"gzip/{stem}-labels-idx1-ubyte.gz", 1)
        first = 1 if self.variant == "letters" else 0  # its labels start at 1
        upright_NHWC = x_NHW.swapaxes(1, 2)[..., None]
        return checked(upright_NHWC, labels_N.astype("i2") - first, self.shape, len(self.classes()), stem)


def _array(path: Path, member: str, dimensions: int) -> Array:
    what = f"{path}, member {member},"
    return parse_idx(unpacked(zip_member(path, member), what), dimensions, what)
