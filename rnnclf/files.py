"""Writing files so that what was whole stays whole."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnclf.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, or leaves it as it was and raises OutputError.

    The content is written aside, flushed to the disk, then renamed over the old file: a full disk or
    a killed process costs the new content, never the old.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from error


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by `value` as indented JSON."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def claim_folder(base: Path) -> Path:
    """Makes and returns base/YYYY-MM-DD/HH-MM-SS, or …-2, …-3: mkdir succeeds for one process only,
    so two runs of the same second never share a folder. Raises OutputError."""
    first = base / datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    path, number = first, 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not path.is_dir():
                raise OutputError(f"Cannot write to {path}: it is a file.") from None
            number += 1
            path = first.with_name(f"{first.name}-{number}")
        except OSError as error:
            raise OutputError(f"Cannot make the folder {path}: {error.strerror}.") from error
