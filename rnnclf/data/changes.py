"""Notices files that change while they are read. Torch-free."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from rnnclf.data.cache import Identity, identity
from rnnclf.errors import DataError


class MappedFile:
    """A file that is mapped into memory; `name` is what messages call it.

    It is kept open, so that it is the mapped file that is looked at: replacing it by another of the same name
    does no harm, because the mapping keeps the old content.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._version = self._now()

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def refuse_changed(self) -> None:
        """Raises DataError if the size or the modification time has changed since the file was mapped."""
        if self._now() != self._version:
            raise _changed(self.name)


MappedFiles = tuple[MappedFile, ...]


def refuse_changed(versions: Iterable[Identity]) -> None:
    """Raises DataError if a file is no longer the one that `identity` described."""
    for version in versions:
        path = Path(version[0])
        if identity(path) != version:
            raise _changed(path.name)


def _changed(name: str) -> DataError:
    return DataError(f"{name} changed while it was being read: try again when it is complete.")
