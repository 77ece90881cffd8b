"""Base classes of the image data sets. Torch-free.  Shapes: N pictures, H height, W width, C colours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rnnclf.data.base import Learned, Source
from rnnclf.data.images.folder import pictures_in
from rnnclf.data.layout import PATCH, PictureLayout
from rnnclf.data.permutations import NAMES, permutation, refuse_unknown
from rnnclf.data.recordings import Array, Ids, Progress, Recordings, numbered, restarting_at, silent
from rnnclf.data.splits import SPLITS
from rnnclf.errors import ConfigError, DataError
from rnnclf.files import absolute
from rnnclf.options import option

CHUNK = 4096  # pictures to convert to grey at a time


class Pictures(NamedTuple):
    """uint8 pictures, int64 labels (N,), and the assigned splits as in Recordings."""

    x_NHWC: Array
    labels_N: Array
    given_N: Array | None = None


def _ids_in_files(given_N: Array | None) -> Ids | None:
    """Ids that count from 0 again in the test file, whose pictures come last."""
    import numpy as np

    if given_N is None:
        return None
    last = np.flatnonzero(given_N != SPLITS.index("test"))
    return restarting_at(int(last[-1]) + 1) if len(last) < len(given_N) else None


@dataclass
class Images(Source):
    """Base of the sources of labelled pictures, all of one size."""

    shape: ClassVar[tuple[int, int, int]]
    """Height, width and colours of a picture."""
    WITHOUT: ClassVar[tuple[str, ...]] = ("missing",)
    unit: ClassVar[float] = 255.0
    """The maximum value of a pixel."""

    sequence: str = option(
        "rows",
        "what makes up a step: a row, a column, a pixel or a square patch",
        choices=("rows", "columns", "pixels", "patches"),
    )
    patch: int = option(PATCH, "side of a patch in pixels, for sequence=patches", low=1)
    permutation: str = option(
        "none",
        f"order of the pixels, for sequence=pixels: {', '.join(NAMES)} or seed:N",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown(self.permutation)
        if self.permutation != "none" and self.sequence != "pixels":
            raise ConfigError("dataset.permutation reorders pixels: it needs dataset.sequence=pixels.")
        if self.patch != PATCH and self.sequence != "patches":
            raise ConfigError(f"dataset.patch={self.patch} has no effect without dataset.sequence=patches.")
        if self.missing != "error":
            raise ConfigError(
                f"dataset.missing={self.missing} has no effect: pictures have no missing values."
            )
        height, width, _ = self.shape
        if self.sequence == "patches" and (height % self.patch or width % self.patch):
            raise ConfigError(
                f"dataset.patch must divide the height and width of the pictures, {height} × {width},"
                f" got {self.patch}."
            )

    def classes(self) -> tuple[str, ...]:
        """The class names; the ten digits unless overridden."""
        return tuple(map(str, range(10)))

    def load_pictures(self, progress: Progress) -> Pictures:
        """Reads all pictures. Raises DataError if a file is missing or malformed."""
        raise NotImplementedError(f"{type(self).__name__} must define load_pictures().")

    def read(self, progress: Progress = silent) -> Recordings:
        pictures = self.load_pictures(progress)
        recordings = self.recordings_of(pictures.x_NHWC, pictures.labels_N, self.classes())
        ids = _ids_in_files(pictures.given_N)
        return replace(recordings, given_N=pictures.given_N, ids=ids)

    def recordings_to_predict(
        self, path: Path, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        return replace(pictures_in(path, self, progress, lenient), classes=learned.classes)

    def recordings_of(self, x_NHWC: Array, labels_N: Array, classes: tuple[str, ...]) -> Recordings:
        """Pictures, uint8, as sequences."""
        import numpy as np

        layout = self.layout()
        x_NHWC = grey(x_NHWC) if layout.colours < self.shape[2] else x_NHWC
        n, (steps, features) = len(x_NHWC), layout.places_TI.shape
        return Recordings(
            values_SC=layout.steps_of(x_NHWC),
            starts_N=np.arange(n, dtype=np.int64) * steps,
            lengths_N=np.full(n, steps, np.int64),
            labels_N=labels_N,
            classes=classes,
            channels=numbered(features),
            unit=self.unit,
        )

    def layout(self) -> PictureLayout:
        return PictureLayout(*self.shape, self.sequence, self.patch, self.permutation)

    def reading(self) -> dict[str, Any]:
        layout = self.layout()
        order = permutation(self.permutation, layout.height * layout.width)
        return {
            "picture": f"{layout.height} × {layout.width} × {layout.colours}",
            "sequence": self.sequence,
            "patch": self.patch if self.sequence == "patches" else None,
            "permutation": self.permutation,
            "permutation_sha256": None if order is None else sha256_of(order),
        }

    def title(self) -> str:
        words = self.name if self.sequence == "rows" else f"{self.name} {self.sequence}"
        if self.sequence == "patches":
            words += f" of {self.patch}"
        return words if self.permutation == "none" else f"{words}, {self.permutation}"


@dataclass
class PublishedImages(Images):
    """Base of the sources that read published files."""

    root: str | None = option(
        None, "folder with the files, never written to; null: the cache folder", path=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is not None:
            # absolute, so that a checkpoint finds its data whatever the current folder
            self.root = absolute(self.root)


@dataclass
class ColourImages(PublishedImages):
    """Base of the sources of colour pictures."""

    colour: str = option(
        "keep", "keep: three colours per pixel; grey: one grey value per pixel", choices=("keep", "grey")
    )

    def layout(self) -> PictureLayout:
        height, width, colours = self.shape
        kept = colours if self.colour == "keep" else 1
        return PictureLayout(height, width, kept, self.sequence, self.patch, self.permutation)

    def title(self) -> str:
        return super().title() if self.colour == "keep" else f"{super().title()}, grey"


def sha256_of(order: Array) -> str:
    """The SHA-256 of a permutation as little-endian int64."""
    return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()


def grey(x_NHWC: Array) -> Array:
    """Converts uint8 colours (N, H, W, 3) to rounded luma (N, H, W, 1), 0.299 R + 0.587 G + 0.114 B.

    ITU-R BT.601. Fixed-point weights in units of 2⁻¹⁶ give the same bits as Pillow's mode L.
    """
    import numpy as np

    luma_NHW1 = np.empty((*x_NHWC.shape[:3], 1), np.uint8)
    for first in range(0, len(x_NHWC), CHUNK):
        part = x_NHWC[first : first + CHUNK].astype(np.uint32)
        luma = part[..., 0] * 19595 + part[..., 1] * 38470 + part[..., 2] * 7471
        luma_NHW1[first : first + CHUNK, ..., 0] = (luma + 2**15) >> 16
    return luma_NHW1


def checked(x_NHWC: Array, labels_N: Array, shape: tuple[int, int, int], classes: int, what: str) -> Pictures:
    """Checks pictures of `shape` with one label below `classes` each. Raises DataError for anything else."""
    import numpy as np

    if x_NHWC.shape[1:] != shape or x_NHWC.dtype != np.uint8:
        expected = f"expected bytes (N, {', '.join(map(str, shape))})"
        raise DataError(f"{what}: the pictures are {x_NHWC.dtype} {x_NHWC.shape}, {expected}.")
    if labels_N.shape != (len(x_NHWC),) or not len(labels_N):
        raise DataError(
            f"{what}: there are {len(x_NHWC)} pictures, but the labels have shape {labels_N.shape}."
        )
    labels_N = labels_N.astype(np.int64)
    if labels_N.min() < 0 or labels_N.max() >= classes:
        wrong = int(labels_N[(labels_N < 0) | (labels_N >= classes)][0])
        raise DataError(f"{what}: label {wrong} is not one of the {classes} classes.")
    return Pictures(x_NHWC, labels_N)


def concatenated(*parts: Pictures) -> Pictures:
    """All pictures in one; the last part becomes the test split."""
    import numpy as np

    labels_N = np.concatenate([part.labels_N for part in parts])
    given_N = np.full(len(labels_N), -1, np.int8)
    given_N[len(labels_N) - len(parts[-1].labels_N) :] = SPLITS.index("test")
    return Pictures(np.concatenate([part.x_NHWC for part in parts]), labels_N, given_N)
