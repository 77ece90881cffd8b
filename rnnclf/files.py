"""Writing files so that what was whole stays whole."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnclf.errors import ConfigError, OutputError

ASIDE = ".tmp"  # the last suffix of a file that is not whole yet
NESTING = 32  # levels of JSON; ours have up to six
RECORD_LIMIT = 16 * 2**20  # bytes of a file that is read whole; ours are a few thousand. As lists and
# dictionaries of Python's they may take thirty times as much


def write_atomically(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Replaces `path` by `content`, or leaves what was there whole and raises OutputError.

    The content is written aside, flushed to the disk, renamed over the old file, and the folder is flushed,
    too: a full disk, a killed process or a power cut costs the new content, never the old. With `keep` the
    old file is not lost either: it is renamed to `keep` first. Between the two renames there is no `path`,
    so whoever reads it falls back on `keep`.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    try:
        try:
            _write(aside, content)
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Gives a path to write a large file to, which then replaces `path`; raises OutputError where it cannot.

    What was at `path` stays whole whatever happens, as with `write_atomically`.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    try:
        try:
            yield aside
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error


def _write(path: Path, content: bytes) -> None:
    """A new file on the disk, not only in the memory of the system."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(content)
        while rest:  # the system may write less than it is given, and say so
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Brings the renames of files in `folder` to the disk, where the system can do that."""
    if os.name == "nt":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def clear_leftovers(folder: Path) -> None:
    """Removes what killed processes left unfinished in `folder`; for the one process that writes there."""
    for path in folder.glob(f".*{ASIDE}"):
        with suppress(OSError):
            path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by `value` as indented JSON."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_record(path: Path) -> str:
    """The text of a small file. Raises OSError or ValueError where it is none: a pipe, which could be waited
    for forever, a file too large for memory, bytes that are no UTF-8."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > RECORD_LIMIT:
        raise ValueError(f"{path} is no record of a run")
    return path.read_bytes().decode("utf-8")


def refuse_odd(value: Any) -> None:
    """Raises ValueError for what JSON may hold and we never write: parts nested so deeply that a walk through
    them would end in a RecursionError, halves of characters, which cannot be written or printed."""
    parts, depth = [value], 0
    while parts:
        if (depth := depth + 1) > NESTING:
            raise ValueError("nested too deeply")
        inner = (
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, dict | list)
        )
        parts = [part for container in inner for part in container]
    json.dumps(value, ensure_ascii=False).encode()


def is_path(word: str) -> bool:
    """Whether a word of a command line is a path, and not an override KEY=VALUE."""
    return "=" not in word or Path(word).exists()


def absolute(path: str) -> str:
    """The path from the root on, which means the same in any folder. Raises ConfigError for ~nobody."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"{path} cannot be found: {error}") from error


def made_folder(path: Path) -> Path:
    """The folder, which is made with those above it where it does not exist. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {path}: {error.strerror}.") from error
    return path


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
