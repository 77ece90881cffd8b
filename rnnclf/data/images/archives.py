"""Reads members of archives by their exact names, without unpacking anything to disk. Torch-free."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from rnnclf.data.images.published import LARGEST
from rnnclf.errors import DataError


def zip_member(path: Path, name: str) -> bytes:
    """The bytes of one member. Raises DataError if it is missing, damaged or larger than LARGEST."""
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_size(path, name, archive.getinfo(name).file_size)
            return archive.read(name)
    except KeyError as error:
        raise DataError(f"{path} has no member {name}.") from error
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}, member {name}, cannot be read ({error}).") from error


def tar_members(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The bytes of members of a .tar.gz archive, in the order of `names`.

    Raises DataError if one is missing, not a regular file, damaged or larger than LARGEST.
    """
    wanted, found = list(names), {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in wanted and member.isreg():
                    _refuse_size(path, member.name, member.size)
                    opened = archive.extractfile(member)
                    assert opened is not None  # it is a regular file
                    found[member.name] = opened.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    if absent := [name for name in wanted if name not in found]:
        raise DataError(f"{path} has no member {absent[0]}.")
    return {name: found[name] for name in wanted}


def _refuse_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise DataError(f"{path}, member {name}, has {size:,} bytes: this is not the published file.")
