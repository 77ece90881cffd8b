"""Pictures in a folder, to be classified by a model that was trained on others. Torch-free.

Shapes: N pictures, H height, W width, C colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.recordings import NO_LABELS, Array, Progress, Recordings, silent
from rnnclf.errors import DataError

if TYPE_CHECKING:
    from rnnclf.data.images.base import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def pictures_in(path: Path, like: Images, progress: Progress = silent, lenient: bool = False) -> Recordings:
    """The pictures of a folder and the folders below it, or a single one, read as steps like those of `like`.

    They are called by their path below the folder, and come in its order. If `lenient`, one that cannot be
    read becomes infinite. Raises DataError for another size, and for a folder without pictures.
    """
    import numpy as np

    root = path if path.is_dir() else path.parent
    files = _files(path)
    if not files:
        raise DataError(f"{path} has no pictures: their names must end in {', '.join(SUFFIXES)}.")
    names = [file.relative_to(root).as_posix() for file in files]
    height, width, colours = like.shape
    x_NHWC = np.zeros((len(files), height, width, colours), np.uint8)
    bad = []
    for n, file in enumerate(files):
        try:
            x_NHWC[n] = _pixels(file, names[n], like)
        except DataError:
            if not lenient:
                raise
            bad.append(n)
        progress(f"reading {path.name}", (n + 1) / len(files))
    found = like.recordings_of(x_NHWC, np.zeros(len(files), np.int64), NO_LABELS)
    ids = np.array(names, dtype=object)
    values_SC = found.values_SC
    if bad:
        values_SC = values_SC.astype(np.float32)
        for n in bad:
            values_SC[found.starts_N[n] : found.starts_N[n] + found.lengths_N[n]] = np.inf
    return found.copied(values_SC, ids=lambda numbers: ids[numbers])


def holds_pictures(path: Path) -> bool:
    """Whether a path is a picture, or a folder with one somewhere in it, judged by names only."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    """The pictures at a path, sorted."""
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in below if file.suffix.lower() in SUFFIXES and file.is_file()]


def _pixels(path: Path, place: str, like: Images) -> Array:
    """The pixels of a picture, uint8 (H, W, C), with the maximum of those of `like`. Raises DataError."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    height, width, colours = like.shape
    try:
        with Image.open(path) as picture:
            if picture.size != (width, height):  # before it is unpacked, which could take any memory
                raise DataError(
                    f"{place} has {picture.size[0]} × {picture.size[1]} pixels; the model was trained on"
                    f" pictures of {width} × {height}."
                )
            pixels = np.asarray(picture.convert("L" if colours == 1 else "RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{place} is not a picture, or is damaged.") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises the last for a damaged PNG
        raise DataError(f"{place} cannot be read: {error}.") from error
    whole = pixels if like.unit == 255 else np.rint(pixels / 255 * like.unit).astype(np.uint8)
    return whole.reshape(height, width, colours)
