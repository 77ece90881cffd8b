"""The on-disk cache: downloads, converted tables, statistics of large files. Torch-free.

Everything is inside the user's cache folder and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from rnnclf.data.recordings import Progress
from rnnclf.errors import DataError, OutputError
from rnnclf.files import write_atomically

CHUNK = 2**24  # bytes


def cache_root() -> Path:
    """$XDG_CACHE_HOME/rnnclf, or ~/.cache/rnnclf."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rnnclf"


def folder_for(kind: str, *facts: Any) -> Path:
    """The cache folder for what `facts` (plain data) determine; it may not exist yet."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return cache_root() / kind / hashlib.sha256(text.encode()).hexdigest()[:24]


def identity(path: Path) -> tuple[str, int, int]:
    """Path, size and modification time (ns): tells versions of a file apart without reading it.

    Raises DataError if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def content_hash(path: Path, progress: Progress) -> str:
    """The SHA-256 of a file's content; computed again only if the file changed."""
    remembered = folder_for("hashes", *identity(path))
    if remembered.is_file():
        return remembered.read_text(encoding="ascii")
    digest, size = hashlib.sha256(), max(path.stat().st_size, 1)
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            progress(f"checking {path.name}", file.tell() / size)
    remember(remembered, digest.hexdigest().encode())
    return digest.hexdigest()


def remember(path: Path, content: bytes) -> None:
    """Writes a file to the cache. Failing to write only costs time later, so errors are ignored."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, OutputError):
        return
