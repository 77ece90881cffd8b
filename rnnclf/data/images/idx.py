"""IDX files, in which MNIST and its descendants are published. Torch-free."""

from __future__ import annotations

import math
import struct

from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}  # the whole numbers; there are floats, too


def parse_idx(content: bytes, dimensions: int, what: str) -> Array:
    """The array of an IDX file: two zero bytes, its type, its number of dimensions, their sizes, its numbers.

    Raises DataError, which names `what`, where header and length do not go together, or dimensions differ.
    """
    import numpy as np

    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or content[3] != dimensions:
        begin = content[:4].hex(" ") or "nothing"
        raise DataError(f"{what} is no IDX file of {dimensions} dimensions: it begins with {begin}.")
    kind, start = np.dtype(TYPES[content[2]]), 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{what} ends inside its header, after {len(content)} bytes.")
    shape = struct.unpack_from(f">{dimensions}I", content, offset=4)
    expected, found = math.prod(shape) * kind.itemsize, len(content) - start
    if found != expected:
        raise DataError(
            f"{what} says that it holds an array of {shape}, {expected:,} bytes; it has {found:,}."
        )
    return np.frombuffer(content, dtype=kind, offset=start).reshape(shape)
