"""CIFAR-10, in any of the forms in which it is published or kept by torchvision. Torch-free.

Its Python version is a pickle, which could run code when it is loaded. Here it is never loaded: the numbers
and strings that it holds are read from its opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass

from rnnclf.data.images.archives import tar_members
from rnnclf.data.images.base import ColourImages, Pictures, checked, together
from rnnclf.data.images.published import Published, Shelf, read_unchanged, refuse_changed
from rnnclf.data.recordings import Array, Progress
from rnnclf.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/"
BINARY = Published(
    "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", (f"{URL}cifar-10-binary.tar.gz",)
)
PYTHON = Published(
    "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", (f"{URL}cifar-10-python.tar.gz",)
)
BATCHES = tuple(
    Published(f"cifar-10-batches-py/{name}", md5)
    for name, md5 in (
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ("test_batch", "40351d587109b95175f43aff81a1287e"),
    )
)
MEMBERS = tuple(f"cifar-10-batches-bin/{file.name.split('/')[1]}.bin" for file in BATCHES)
SIDE, COLOURS = 32, 3
BYTES = COLOURS * SIDE * SIDE
"""Of a picture."""


@dataclass
class CIFAR10(ColourImages):
    """60,000 photographs of ten kinds, 32 × 32 pixels of three colours in [0, 1]: 32 steps of 96 features.

    Krizhevsky 2009. 10,000 of them are the test set.
    """

    shape = (SIDE, SIDE, COLOURS)

    name: str = "cifar10"

    def classes(self) -> tuple[str, ...]:
        animals = ("bird", "cat", "deer", "dog", "frog", "horse")
        return ("airplane", "automobile", *animals, "ship", "truck")

    def load_pictures(self, progress: Progress) -> Pictures:
        progress("reading CIFAR-10", 0.0)
        contents, parse = _contents(Shelf("CIFAR-10", "CIFAR10", self.root))
        return together(*(parse(content, what) for what, content in contents.items()))


def _contents(shelf: Shelf) -> tuple[dict[str, bytes], Callable[[bytes, str], Pictures]]:
    """The bytes of the six batches, the test batch last, and what reads them."""
    paths = [path for file in BATCHES if (path := shelf.seek(file))]
    if len(paths) == len(BATCHES):
        batches = zip(BATCHES, paths, strict=True)
        return {str(path): read_unchanged(file, path) for file, path in batches}, parse_python
    if path := shelf.seek(PYTHON):
        refuse_changed(PYTHON, path)
        return tar_members(path, [file.name for file in BATCHES]), parse_python
    path = shelf.path(BINARY, f"{BINARY.name}, {PYTHON.name} or the folder cifar-10-batches-py")
    refuse_changed(BINARY, path)
    return tar_members(path, MEMBERS), parse_binary


def parse_binary(content: bytes, what: str) -> Pictures:
    """The pictures of a batch of the binary version: each a byte for its label, then the three colours.

    Raises DataError, which names `what`, where it holds anything else.
    """
    import numpy as np

    if not content or len(content) % (1 + BYTES):
        raise DataError(f"{what} has {len(content):,} bytes, which are no pictures of {1 + BYTES:,} each.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + BYTES)
    return _pictures(rows[:, 1:], rows[:, 0], what)


def parse_python(content: bytes, what: str) -> Pictures:
    """The pictures of a batch of the Python version, a pickle of a dict of 'labels', a list of numbers, and
    'data', an array of bytes: the only long string.

    Raises DataError, which names `what`, where it holds anything else.
    """
    import numpy as np

    data, labels, key = "", [], ""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if pickletools.pyint in opcode.stack_after and key == "labels":
                labels.append(argument)
            elif isinstance(argument, str) and opcode.stack_after:
                key, data = argument, max(data, argument, key=len)
        pixels, labels_N = np.frombuffer(data.encode("latin-1"), np.uint8), np.array(labels, np.int64)
    except (ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{what} cannot be read as a batch of CIFAR-10 ({error}).") from error
    if not len(pixels) or len(pixels) % BYTES:
        raise DataError(f"{what} has {len(pixels):,} bytes, which are no pictures of {BYTES:,} each.")
    return _pictures(pixels.reshape(-1, BYTES), labels_N, what)


def _pictures(pixels_NP: Array, labels_N: Array, what: str) -> Pictures:
    """Of rows of the red pixels of a picture, then the green, then the blue."""
    x_NCHW = pixels_NP.reshape(-1, COLOURS, SIDE, SIDE)
    return checked(x_NCHW.transpose(0, 2, 3, 1), labels_N, CIFAR10.shape, 10, what)
