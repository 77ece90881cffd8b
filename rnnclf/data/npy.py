"""Reads NumPy's .npy files without trusting anything in them. Torch-free.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Container, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from rnnclf.data.changes import MappedFile, MappedFiles
from rnnclf.data.delimited import excerpt
from rnnclf.data.recordings import Array
from rnnclf.errors import DataError
from rnnclf.system.memory import excess

if TYPE_CHECKING:
    import numpy as np

COPY_LIMIT = 2**29  # bytes; larger arrays are not copied to change their type or order

WHOLE = 2**53  # float64 holds all whole numbers up to here

# NumPy types that torch lacks or cannot index, with a type that holds their values
WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "float64", "bool": "uint8"}


class Layout(NamedTuple):
    """The contents of an array's header, and the offset at which the data begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def mapped(path: Path, what: str) -> tuple[Array, MappedFile]:
    """The array of a .npy file, memory-mapped, and the file. Messages call it `what`.

    Raises DataError if the file is missing, damaged or holds Python objects.
    """
    try:
        with open(path, "rb") as file:
            source = MappedFile(file, what)
            layout = layout_of(file, os.fstat(file.fileno()).st_size, what)
            return _memmap(file, layout, what), source
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}.") from error


def _memmap(file: IO[bytes], layout: Layout, what: str) -> Array:
    import numpy as np

    order: Any = "F" if layout.fortran else "C"
    try:
        return np.memmap(file, layout.dtype, "r", layout.offset, layout.shape, order)
    except (OSError, ValueError) as error:  # a limit of the process, or the file was cut in between
        raise DataError(f"{what} cannot be mapped into memory ({excerpt(str(error), 120)}).") from error


def opened_arrays(
    folder: Path, files: Iterable[str], large: Container[str]
) -> tuple[dict[str, Any], MappedFiles]:
    """The arrays in .npy files of a cache folder, by name without suffix, and those that are mapped: the ones
    that are named in `large`. Raises DataError as `mapped` does."""
    import numpy as np

    arrays: dict[str, Any] = {}
    sources = []
    for file in files:
        name = file.removesuffix(".npy")
        array, source = mapped(folder / file, f"{file} in {folder}")
        arrays[name] = array if name in large else np.array(array)
        sources += [source] if name in large else []
    return arrays, tuple(sources)


def refuse_more_than_memory(size: int, what: str, advice: str = "") -> None:
    """Raises DataError if reading `what`, which takes `size` bytes, takes more memory than there is."""
    if taken := excess(size):
        raise DataError(f"Reading {what} takes {taken}{advice}.")


def parsed(content: bytes, what: str) -> Array:
    """The array in the bytes of a .npy file. Raises DataError as `mapped` does."""
    import numpy as np

    layout = layout_of(io.BytesIO(content), len(content), what)
    array = np.frombuffer(content, layout.dtype, offset=layout.offset)
    return array.reshape(layout.shape, order="F" if layout.fortran else "C")


def layout_of(file: IO[bytes], size: int, what: str) -> Layout:
    """Reads the header of a .npy file of `size` bytes, leaving `file` at the first byte after it.

    Raises DataError for a damaged header, one that does not match the size, an empty array, and Python
    objects.
    """
    dtype, shape, fortran = _header(file, what)
    offset = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{what} holds Python objects, which are never loaded: save numbers or names only, and pad"
            " sequences of different lengths to the longest, with an array of their lengths."
        )
    claimed, there = math.prod(shape) * dtype.itemsize, size - offset
    if min(shape, default=1) < 0 or claimed > there:
        raise DataError(
            f"{what} is truncated: its header claims {claimed:,} bytes of data, the file has {there:,}."
        )
    if claimed < there:
        raise DataError(
            f"{what} has {there - claimed:,} bytes more than its header claims: save a single array."
        )
    if claimed == 0:
        raise DataError(f"{what} is empty: its shape is {shape}.")
    return Layout(dtype, shape, fortran, offset)


def _header(file: IO[bytes], what: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    from numpy.lib import format as npy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # NumPy warns about headers written by Python 2 and some damaged ones
            version = npy.read_magic(file)  # type: ignore[no-untyped-call]
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
            # 3.0 only differs from 2.0 in the names of fields, and arrays with fields are refused
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged header can raise nearly anything
        reason = excerpt(str(error), 120).rstrip(".") or type(error).__name__
        raise DataError(f"{what} is not an .npy array, or is damaged ({reason}).") from error
    return dtype, shape, fortran


def refuse_other_than_numbers(array: Array, what: str) -> None:
    """Raises DataError for text, dates, complex numbers and records."""
    if array.dtype.kind not in "biuf":
        kinds = {"c": "complex numbers", "U": "text", "S": "text", "M": "dates", "m": "durations"}
        kind = kinds.get(array.dtype.kind, f"records ({array.dtype})"[:80])
        way = " Names and letters are read from tables." if array.dtype.kind in "US" else ""
        raise DataError(f"{what} holds {kind}; it must hold real numbers.{way}")


def to_trainable(array: Array, what: str, expression: str = "x", then: str = "") -> Array:
    """The array in C order and a type that torch supports; copied only if it has to be.

    Raises DataError for an array too large to copy; the message says how to save `expression` once, and
    `then` adds what to do after that.
    """
    import numpy as np

    dtype = np.dtype(WIDER.get(array.dtype.name, array.dtype.newbyteorder("=")))
    if array.dtype.char == "g":  # long double, whose name differs from one machine to another
        dtype = np.dtype("float64")
    if array.dtype == bool and array.flags.c_contiguous:
        return array.view(np.uint8)
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    if array.size * dtype.itemsize > COPY_LIMIT:
        raise DataError(
            f"{what} is too large to be converted in memory ({array.nbytes / 2**30:.1f} GiB)."
            " Convert it once:"
            f" np.save('new.npy', np.ascontiguousarray({expression}, '{dtype.name}')){then}."
        )
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.max(initial=0) > WHOLE:
        raise DataError(
            f"{what} holds whole numbers up to {array.max()}, which lose their last digits here:"
            f" subtract {expression}.min() and save them as int64."
        )
    with np.errstate(over="ignore"):  # infinite values are reported later, with their position
        return np.ascontiguousarray(array, dtype)
