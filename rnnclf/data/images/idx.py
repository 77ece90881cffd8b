"""Parses IDX files, the format of MNIST and its relatives. Torch-free."""

from __future__ import annotations

import math
import struct

from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}  # integer types; IDX also has floats


def parse_idx(content: bytes, dimensions: int, what: str) -> Array:
    """The array in an IDX file: two zero bytes, type, number of dimensions, their sizes, data.

    Raises DataError, which names `what`, if header and length do not match, or the number of dimensions is
    another.
    """
    import numpy as np

    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or content[3] != dimensions:
        begin = content[:4].hex(" ") or "nothing"
        raise DataError(f"{what} is not an IDX file with {dimensions} dimensions: it starts with {begin}.")
    kind, start = np.dtype(TYPES[content[2]]), 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{what} is truncated: it ends inside its header, after {len(content)} bytes.")
    shape = struct.unpack_from(f">{dimensions}I", content, offset=4)
    expected, found = math.prod(shape) * kind.itemsize, len(content) - start
    if found != expected:
        raise DataError(
            f"{what} should hold an array of shape {shape}, {expected:,} bytes; it has {found:,}."
        )
    return np.frombuffer(content, dtype=kind, offset=start).reshape(shape)
