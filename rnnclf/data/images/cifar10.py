"""CIFAR-10, in any of the published formats or as unpacked by torchvision. Torch-free.

The Python version is a pickle, and loading a pickle can run code. It is never loaded here: the numbers and
strings in it are read from its opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass

from rnnclf.data.images.archives import tar_members
from rnnclf.data.images.base import ColourImages, Pictures, checked, concatenated
from rnnclf.data.images.published import FileSearch, Published, read_unchanged, refuse_changed
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
BYTES = COLOURS * SIDE * SIDE  # per picture


@dataclass
class CIFAR10(ColourImages):
    """60,000 photographs in ten classes, 32 × 32 pixels of three colours in [0, 1]: 32 steps of 96 features.

    Krizhevsky 2009. 10,000 of them are the test split.
    """

    shape = (SIDE, SIDE, COLOURS)

    name: str = "cifar10"

    def classes(self) -> tuple[str, ...]:
        animals = ("bird", "cat", "deer", "dog", "frog", "horse")
        return ("airplane", "automobile", *animals, "ship", "truck")

    def load_pictures(self, progress: Progress) -> Pictures:
        progress("reading CIFAR-10", 0.0)
        contents, parse = _contents(FileSearch("CIFAR-10", "CIFAR10", self.root))
        return concatenated(*(parse(content, what) for what, content in contents.items()))


def _contents(search: FileSearch) -> tuple[dict[str, bytes], Callable[[bytes, str], Pictures]]:
    """The bytes of the six batches, the test batch last, and the function that parses them."""
    paths = [path for file in BATCHES if (path := search.find(file))]
    if len(paths) == len(BATCHES):
        batches = zip(BATCHES, paths, strict=True)
        return {str(path): read_unchanged(file, path) for file, path in batches}, parse_python
    if path := search.find(PYTHON):
        refuse_changed(PYTHON, path)
        return tar_members(path, [file.name for file in BATCHES]), parse_python
    path = search.path(BINARY, f"{BINARY.name}, {PYTHON.name} or the folder cifar-10-batches-py")
    refuse_changed(BINARY, path)
    return tar_members(path, MEMBERS), parse_binary


def parse_binary(content: bytes, what: str) -> Pictures:
    """Parses a batch of the binary version: for each picture one byte of label, then the three colours.

    Raises DataError, which names `what`, for anything else.
    """
    import numpy as np

    if not content or len(content) % (1 + BYTES):
        raise DataError(
            f"{what} has {len(content):,} bytes, which is not a multiple of {1 + BYTES:,} per picture."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + BYTES)
    return _pictures(rows[:, 1:], rows[:, 0], what)


def parse_python(content: bytes, what: str) -> Pictures:
    """Parses a batch of the Python version without unpickling it.

    It is a pickled dict of 'labels', a list of numbers, and 'data', an array whose bytes are the only long
    string. Raises DataError, which names `what`, for anything else.
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
        raise DataError(f"{what} is not a batch of CIFAR-10 ({error}).") from error
    if not len(pixels) or len(pixels) % BYTES:
        raise DataError(
            f"{what} has {len(pixels):,} bytes of pixels, which is not a multiple of {BYTES:,} per picture."
        )
    return _pictures(pixels.reshape(-1, BYTES), labels_N, what)


def _pictures(pixels_NP: Array, labels_N: Array, what: str) -> Pictures:
    """Pictures from rows of all red pixels, then all green, then all blue."""
    x_NCHW = pixels_NP.reshape(-1, COLOURS, SIDE, SIDE)
    return checked(x_NCHW.transpose(0, 2, 3, 1), labels_N, CIFAR10.shape, 10, what)
