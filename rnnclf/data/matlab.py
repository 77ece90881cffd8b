"""Reads MATLAB's .mat files of versions 4 to 7, with scipy; never objects, functions or cells. Torch-free.

The format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rnnclf.data.delimited import excerpt
from rnnclf.data.npy import refuse_more_than_memory
from rnnclf.data.recordings import Array
from rnnclf.errors import DataError, RnnclfError

# classes of variables that hold nothing but numbers or text, with the bytes of a value
BYTES = {"double": 8, "single": 4, "char": 4, "logical": 1}
BYTES |= {f"{sign}int{8 * size}": size for size in (1, 2, 4, 8) for sign in ("", "u")}
IN_HDF5 = (b"MATLAB 7.3", b"\x89HDF")  # how files of version 7.3 begin
COPIES = 3  # of an array in memory: unpacked, as read and as it is used


def variables(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and the class of each variable, read without their values. Raises DataError."""
    content = _content(path)
    if content.startswith(IN_HDF5):
        raise DataError(
            f"{path} is a .mat file of version 7.3, which is not read: save it with '-v7', or as .npz."
        )
    found = _by_scipy("whosmat", path, content)
    return {str(name): (tuple(map(int, shape)), str(kind)) for name, shape, kind in found}


def arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Some of the variables. Raises DataError for those that hold something else than numbers or text."""
    there = variables(path)
    for name in names:
        shape, kind = there[name]
        if kind not in BYTES:
            raise DataError(
                f"{path}: {excerpt(name)} is a MATLAB {excerpt(kind)}, which is not read: save an array of"
                " numbers, with sequences of different lengths padded by NaN."
            )
        refuse_more_than_memory(COPIES * BYTES[kind] * math.prod(shape), f"{excerpt(name)} of {path}")
        if not math.prod(shape):
            raise DataError(f"{path}: {excerpt(name)} is empty: its shape is {shape}.")
    found = _by_scipy("loadmat", path, _content(path), variable_names=list(names))
    return {name: _plain(found[name], f"{path}: {name}") for name in names}


def _content(path: Path) -> bytes:
    try:
        refuse_more_than_memory(path.stat().st_size, str(path))
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _by_scipy(function: str, path: Path, content: bytes, **options: Any) -> Any:
    import scipy.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about variables that are there twice, and odd headers
            return getattr(scipy.io, function)(io.BytesIO(content), **options)
    except RnnclfError:
        raise
    except Exception as error:  # scipy raises nearly anything for a damaged file
        reason = excerpt(str(error), 120).rstrip(".") or type(error).__name__
        raise DataError(f"{path} is not a .mat file, or is damaged ({reason}).") from error


def _plain(array: Any, what: str) -> Array:
    """The array without what MATLAB adds: a second axis for lists, spaces behind text. Raises DataError."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise DataError(f"{what} is damaged: it holds something else than numbers or text.")
    if array.dtype.kind == "U":
        return np.char.rstrip(array.reshape(-1))
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
