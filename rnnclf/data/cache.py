"""The on-disk cache: downloads, converted data, statistics of large files. Torch-free.

Everything is inside the user's cache folder and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from rnnclf.errors import DataError, OutputError
from rnnclf.files import flush, replacement_of
from rnnclf.system.user_cache import cache_root

CHUNK = 2**24  # bytes

PARTS = 16  # of a large file that are looked at to tell its versions apart
PART = 2**16  # bytes of each

Identity: TypeAlias = tuple[str, int, int, int, str]


def folder_for(kind: str, *facts: Any) -> Path:
    """The cache folder for what `facts` (plain data) determine; it may not exist yet."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return cache_root() / kind / hashlib.sha256(text.encode()).hexdigest()[:24]


def identity(path: Path) -> Identity:
    """Path, size, times of the last change of its content and of anything (ns), and a hash of parts.

    Tells versions of a file apart: copying another over it changes the second time even where size and first
    time stay; where a file system keeps no such time, the hash differs, unless the file is larger than
    PARTS * PART and they agree in each part. Raises DataError if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            parts = _hash_of_parts(file, found.st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, parts


def _hash_of_parts(file: IO[bytes], size: int) -> str:
    """A hash of the whole of a small file, of PARTS evenly spaced parts of a large one."""
    digest = hashlib.blake2b(digest_size=16)
    if size <= PARTS * PART:
        digest.update(file.read(PARTS * PART))
        return digest.hexdigest()
    for part in range(PARTS):
        file.seek(part * (size - PART) // (PARTS - 1))
        digest.update(file.read(PART))
    return digest.hexdigest()


def remember(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays to an .npz file in the cache, without a copy of them in memory: those of a large data set
    take gigabytes. Failing to write only costs time later, so errors are ignored."""
    import numpy as np

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_of(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except (OSError, OutputError):
        return


def crc32(path: Path) -> int:
    """The CRC-32 of a file's content, as in .zip files."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            crc = zlib.crc32(block, crc)
    return crc


def seal(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """Writes `facts` (plain data) about a folder of files to the file `name` in it, with checksums of them
    and of the facts. Flushes everything to disk, so that a power cut cannot leave files of zeros."""
    sums = {path.name: crc32(path) for path in sorted(folder.iterdir())}
    facts = {**facts, "checksums": sums}
    (folder / name).write_text(json.dumps({"facts": facts, "checksum": _checksum(facts)}), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        flush(path)


def unsealed(folder: Path, name: str) -> dict[str, Any]:
    """The facts written by `seal`. Raises OSError, ValueError, KeyError, TypeError or RecursionError if
    anything in the folder is not as it was then."""
    sealed = json.loads((folder / name).read_text(encoding="utf-8"))
    facts: dict[str, Any] = sealed["facts"]
    if _checksum(facts) != sealed["checksum"]:
        raise ValueError(f"{folder / name} is damaged")
    for file, crc in facts["checksums"].items():
        if crc32(folder / file) != crc:
            raise ValueError(f"{folder / file} is damaged")
    return facts


def _checksum(facts: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())
