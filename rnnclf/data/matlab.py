"""Reads the arrays of MATLAB's .mat files of versions 4 to 7; never objects, functions or cells. Torch-free.

The format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf. scipy reads it, too, but damaged
files make its compiled code crash, which ends the process; here each length is checked before it is used.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from rnnclf.data.delimited import excerpt
from rnnclf.data.npy import refuse_more_than_memory
from rnnclf.data.recordings import Array
from rnnclf.errors import DataError

IN_HDF5 = (b"MATLAB 7.3", b"\x89HDF")  # how files of version 7.3 begin
COPIES = 3  # of an array in memory: unpacked, as read and as it is used
HEADER = 128  # bytes
HEAD = 4096  # bytes of a packed variable that are unpacked to learn its name and shape

MATRIX, PACKED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
KINDS = {
    **{1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", 7: "single"},
    **{
        8: "int8",
        9: "uint8",
        10: "int16",
        11: "uint16",
        12: "int32",
        13: "uint32",
        14: "int64",
        15: "uint64",
    },
    **{16: "function", 17: "opaque"},
}
NUMBERS = (
    "double",
    "single",
    "logical",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
COMPLEX, LOGICAL = 0x0800, 0x0200  # flags
OF_VERSION_4 = ("f8", "f4", "i4", "i2", "u2", "u1")


class Variable(NamedTuple):
    """The name, shape and class of a variable, and the bytes that follow them: those of its values."""

    name: str
    shape: tuple[int, ...]
    kind: str
    order: str
    """Of the bytes: < or >."""
    values: bytes
    stored: str = ""
    """The type of the values in version 4; otherwise it stands before them."""


class _DamagedError(ValueError):
    """Something in a file that cannot be."""


def variables(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and the class of each variable. Raises DataError."""
    return {found.name: (found.shape, found.kind) for found in _variables(path, whole=())}


def arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Some of the variables. Raises DataError for those that hold something else than numbers or text."""
    for name, (shape, kind) in variables(path).items():
        if name not in names:
            continue
        if kind == "complex":
            raise DataError(f"{path}: {excerpt(name)} holds complex numbers, which are not read.")
        if kind not in (*NUMBERS, "char"):
            raise DataError(
                f"{path}: {excerpt(name)} is a MATLAB {excerpt(kind)}, which is not read: save an array of"
                " numbers, with sequences of different lengths padded by NaN."
            )
        refuse_more_than_memory(COPIES * 8 * math.prod(shape), f"{excerpt(name)} of {path}")
        if not math.prod(shape):
            raise DataError(f"{path}: {excerpt(name)} is empty: its shape is {shape}.")
    try:
        return {found.name: _array(found) for found in _variables(path, whole=names) if found.name in names}
    except (_DamagedError, struct.error, UnicodeDecodeError, zlib.error) as error:
        raise _refusal(path, error) from error


def _variables(path: Path, whole: Collection[str]) -> list[Variable]:
    """All variables; packed ones with all of their values only if they are named in `whole`."""
    content = _content(path)
    if content.startswith(IN_HDF5):
        raise DataError(
            f"{path} is a .mat file of version 7.3, which is not read: save it with '-v7', or as .npz."
        )
    try:
        found = list(
            _of_version_5(content, path, whole) if _is_version_5(content) else _of_version_4(content)
        )
        if not found:
            raise _DamagedError("it holds no variables")
        return found
    except (_DamagedError, struct.error, UnicodeDecodeError, zlib.error) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> DataError:
    reason = "it is truncated" if isinstance(error, struct.error) else excerpt(str(error), 120).rstrip(".")
    return DataError(f"{path} is not a .mat file, or is damaged ({reason}).")


def _content(path: Path) -> bytes:
    try:
        refuse_more_than_memory(path.stat().st_size, str(path))
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _is_version_5(content: bytes) -> bool:
    """A file of version 4 begins with a small number, so that one of its first four bytes is zero."""
    return len(content) >= HEADER and 0 not in content[:4] and content[126:128] in (b"IM", b"MI")


def _of_version_5(content: bytes, path: Path, whole: Collection[str]) -> Iterator[Variable]:
    order = "<" if content[126:128] == b"IM" else ">"
    for kind, data in _elements(content[HEADER:], order):
        if kind == PACKED:
            found = _unpacked(data, order, path, whole)
        elif kind == MATRIX:
            found = _variable(data, order)
        else:
            raise _DamagedError(f"a variable is of type {kind}")
        if found.name:  # MATLAB keeps some things of its own without a name
            yield found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The elements that follow each other: type and content."""
    place = 0
    while place < len(data):
        kind, content, place = _element(data, place, order)
        yield kind, content


def _element(data: bytes, place: int, order: str, cut: bool = False) -> tuple[int, bytes, int]:
    """The element at `place`: type, content and the place of the next one; `cut`: its end may be missing."""
    if len(data) < place + 8:
        raise _DamagedError("it is truncated")
    kind, size = struct.unpack_from(f"{order}II", data, place)
    if kind >> 16:  # a small element: its size, its type and up to four bytes
        kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if size > 4:
            raise _DamagedError(f"a small element has {size} bytes")
    else:
        start = place + 8
        after = start + size + (-size % 8 if kind != PACKED else 0)
    if len(data) < start + size and not cut:
        raise _DamagedError("it is truncated")
    return kind, data[start : start + size], after


def _unpacked(data: bytes, order: str, path: Path, whole: Collection[str]) -> Variable:
    """A packed variable; unless it is named in `whole`, only the first of its values."""
    unpacker = zlib.decompressobj()
    head = unpacker.decompress(data, HEAD)
    kind, content, _ = _element(head, 0, order, cut=True)
    size = struct.unpack_from(f"{order}I", head, 4)[0]
    if kind != MATRIX:
        raise _DamagedError(f"a packed variable is of type {kind}")
    found = _variable(content, order)
    if found.name not in whole:
        return found
    refuse_more_than_memory(size, f"{excerpt(found.name)} of {path}")
    rest = unpacker.decompress(unpacker.unconsumed_tail, max(size + 8 - len(head), 1))
    kind, content, _ = _element(head + rest, 0, order)
    return _variable(content, order)


def _variable(data: bytes, order: str) -> Variable:
    """The variable in the content of a matrix element."""
    _, flags, place = _element(data, 0, order)
    _, sizes, place = _element(data, place, order)
    _, name, place = _element(data, place, order)
    if len(flags) != 8 or len(sizes) % 4 or not 2 <= len(sizes) // 4 <= 32:
        raise _DamagedError("a variable has no shape")
    flag = struct.unpack(f"{order}II", flags)[0]
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise _DamagedError(f"a shape is {shape}")
    kind = KINDS.get(flag & 0xFF, f"class {flag & 0xFF}")
    if kind in NUMBERS and flag & (COMPLEX | LOGICAL):
        kind = "complex" if flag & COMPLEX else "logical"
    return Variable(name.decode("latin-1"), shape, kind, order, data[place:])


def _of_version_4(content: bytes) -> Iterator[Variable]:
    """A header of five numbers for each variable, its name, and its values."""
    place = 0
    while place < len(content):
        order = "<" if struct.unpack_from("<I", content, place)[0] < 10_000 else ">"
        code, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", content, place)
        stored, kind = code // 10 % 10, {0: "double", 1: "char", 2: "sparse"}.get(code % 10)
        if not 0 <= code < 10_000 or kind is None or stored >= len(OF_VERSION_4) or min(rows, columns) < 0:
            raise _DamagedError("its header is not that of a .mat file")
        name = content[place + 20 : place + 20 + max(length, 0)].rstrip(b"\0").decode("latin-1")
        start = place + 20 + max(length, 0)
        type_ = OF_VERSION_4[stored]
        place = start + int(type_[1]) * rows * columns * (2 if imaginary else 1)
        if place > len(content) or length < 1:
            raise _DamagedError("it is truncated")
        values = content[start:place]
        yield Variable(name, (rows, columns), "complex" if imaginary else kind, order, values, type_)


def _array(found: Variable) -> Array:
    """The values, without what MATLAB adds: a second axis for lists, spaces behind text."""
    import numpy as np

    count = math.prod(found.shape)
    kind, data = (0, found.values) if found.stored else _element(found.values, 0, found.order)[:2]
    if found.kind == "char" and kind in TEXT:
        letters = np.array(list(_decoded(data, TEXT[kind], found.order)), "U1")
    else:
        stored = found.stored or STORED.get(kind)
        if stored is None:
            raise _DamagedError(f"{excerpt(found.name)} has values of type {kind}")
        letters = np.frombuffer(data[: len(data) // int(stored[1]) * int(stored[1])], found.order + stored)
    if len(letters) != count:
        raise _DamagedError(f"{excerpt(found.name)} has {len(letters):,} values for the shape {found.shape}")
    array = letters.reshape(found.shape, order="F")
    if found.kind == "char":
        if array.dtype.kind != "U":  # in version 4, text is stored as numbers
            array = np.array([chr(int(code)) for code in array.ravel()]).reshape(array.shape)
        return np.array(["".join(row).rstrip() for row in array.reshape(array.shape[0], -1)])
    array = array.astype(array.dtype.newbyteorder("="))
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array


def _decoded(data: bytes, encoding: str, order: str) -> str:
    ends = {"<": "-le", ">": "-be"}[order]
    return data.decode(encoding + ends if encoding in ("utf-16", "utf-32") else encoding)
