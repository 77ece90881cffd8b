"""NumPy's .npy arrays, of which nothing is believed before it is checked. Torch-free.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from rnnclf.data.delimited import shown
from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import numpy as np

COPY_LIMIT = 2**29  # bytes that are copied to bring an array into a type and an order that training takes

# torch cannot index these, or does not know them
WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "float64", "bool": "uint8"}


class Layout(NamedTuple):
    """What the header of an array tells, and how many bytes it has itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def mapped(path: Path, what: str) -> Array:
    """The array of a .npy file; it is read from the disk when it is used. Errors call it `what`.

    Raises DataError where the file is missing, damaged or holds Python objects.
    """
    import numpy as np

    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            layout = layout_of(file, size, what)
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}.") from error
    order: Any = "F" if layout.fortran else "C"
    return np.memmap(path, layout.dtype, "r", layout.offset, layout.shape, order)


def parsed(content: bytes, what: str) -> Array:
    """The array of the content of a .npy file. Raises DataError as `mapped` does."""
    import numpy as np

    layout = layout_of(io.BytesIO(content), len(content), what)
    array = np.frombuffer(content, layout.dtype, offset=layout.offset)
    return array.reshape(layout.shape, order="F" if layout.fortran else "C")


def layout_of(file: IO[bytes], size: int, what: str) -> Layout:
    """Reads the header of an array that has `size` bytes in all, and leaves `file` behind it.

    Raises DataError for a damaged header, one that claims more or less than is there, no elements, and
    for Python objects.
    """
    dtype, shape, fortran = _header(file, what)
    offset = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{what} holds Python objects, which are never loaded: save numbers and names, sequences of"
            " different lengths padded to the longest, with their lengths."
        )
    claimed, there = math.prod(shape) * dtype.itemsize, size - offset
    if min(shape, default=1) < 0 or claimed > there:
        raise DataError(
            f"{what} is cut off: its header claims {claimed:,} bytes of numbers, {there:,} are there."
        )
    if claimed < there:
        raise DataError(
            f"{what} holds {there - claimed:,} bytes more than its header claims: save one array."
        )
    if claimed == 0:
        raise DataError(f"{what} is empty: its shape is {shape}.")
    return Layout(dtype, shape, fortran, offset)


def _header(file: IO[bytes], what: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    from numpy.lib import format as npy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers written by Python 2, of what damage looks like
            version = npy.read_magic(file)  # type: ignore[no-untyped-call]
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
            # 3.0 differs from 2.0 in the names of fields only, and no array with fields is taken
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged header raises nearly anything
        reason = shown(str(error), 120).rstrip(".") or type(error).__name__
        raise DataError(f"{what} is no .npy array, or a damaged one ({reason}).") from error
    return dtype, shape, fortran


def refuse_other_than_numbers(array: Array, what: str) -> None:
    """Raises DataError for text, dates, complex numbers and records."""
    if array.dtype.kind not in "biuf":
        kinds = {"c": "complex numbers", "U": "text", "S": "text", "M": "dates", "m": "durations"}
        kind = kinds.get(array.dtype.kind, f"records ({array.dtype})"[:80])
        raise DataError(f"{what} holds {kind}: real numbers are needed.")


def plain(array: Array, what: str, expression: str = "x", then: str = "") -> Array:
    """The array in a type and an order that training takes; copied where it has not got them.

    For an array too large to be copied, DataError tells how to save `expression`, and what to do `then`.
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
            f"{what} is too large to be brought into the order and type that training takes"
            f" ({array.nbytes / 2**30:.1f} GiB). Do it once:"
            f" np.save('new.npy', np.ascontiguousarray({expression}, '{dtype.name}')){then}."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is told later, with its place
        return np.ascontiguousarray(array, dtype)
