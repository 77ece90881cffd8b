"""Atomic file writes, and small helpers for files and paths."""

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnclf.errors import ConfigError, OutputError
from rnnclf.escaping import json_text

TEMPORARY = ".tmp"  # the last suffix of an incomplete file
MAX_NESTING = 32  # levels of JSON; ours have up to six
# Bytes of a file to parse; ours have a few thousand. Python's lists and dictionaries may take thirty times
# as much memory.
RECORD_LIMIT = 16 * 2**20

LATEST = "latest"  # stands for the newest run or sweep wherever one is named
_RUN_NAME = re.compile(r"\w(?:[\w.+-]{0,58}\w)?")


def is_run_name(text: str) -> bool:
    """Whether a run may have this name: at most 60 letters and digits, with - _ . + between them, so that it
    can be part of a folder's name anywhere."""
    return bool(_RUN_NAME.fullmatch(text))


def refuse_odd_run_name(name: str) -> None:
    """Raises ConfigError for what cannot be the name of a run."""
    if not is_run_name(name):
        raise ConfigError(
            f"name must be at most 60 letters, digits and any of - _ . + between them, got {name!r}."
        )
    if name == LATEST:
        raise ConfigError(f"name cannot be {LATEST}, which stands for the newest run: choose another name.")


def paths_starting(start: str) -> list[str]:
    """The files and folders that a path typed so far may become, as TAB offers them.

    Folders end with a slash, `~/` stays as it was typed, and hidden names are left out unless their dot was
    typed. Names that no terminal can show are left out, too.
    """
    parent, slash, name = start.rpartition("/")
    found = []
    with suppress(OSError), os.scandir(os.path.expanduser(parent + slash) or ".") as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not name.startswith(".")
            if entry.name.startswith(name) and not hidden and entry.name.isprintable():
                found.append(parent + slash + entry.name + "/" * entry.is_dir())
    return sorted(found)


def write_atomically(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Replaces the content of `path`, or leaves the old file intact and raises OutputError.

    The content is written to a temporary file, flushed to disk and renamed over the old file; then the folder
    is flushed, too. A full disk, a killed process or a power cut can only lose the new content. With `keep`,
    the old file is first renamed to `keep`. Between the two renames `path` does not exist, so readers must
    fall back on `keep`.
    """
    with _renamed_to(path, keep) as temporary:
        _write(temporary, content)


@contextmanager
def replacement_of(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a large file to, which then replaces `path`. Raises OutputError.

    If anything fails, the old file at `path` stays intact, as with `write_atomically`.
    """
    with _renamed_to(path) as temporary:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _renamed_to(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path in the same folder. The file that was written and flushed there is renamed to
    `path` on exit, or removed after an error. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        try:
            if os.path.lexists(temporary):  # in a stranger's folder, perhaps a link or a pipe
                os.unlink(temporary)
            yield temporary
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        flush(path.parent)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error


def _write(path: Path, content: bytes) -> None:
    """Writes a new file and flushes it to disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(content)
        while rest:  # os.write may write only a part
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Flushes a file, or the renames in a folder, to disk, if the system supports it."""
    if os.name == "nt":  # which flushes neither folders nor files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not supported by some network file systems
            raise
    finally:
        os.close(descriptor)


def clear_leftovers(*files: Path) -> None:
    """Removes what killed processes had written of these files, and nothing else; only safe for the one
    process that writes them."""
    for folder in {path.parent for path in files}:
        names = "|".join(re.escape(path.name) for path in files if path.parent == folder)
        own = re.compile(rf"\.({names})\.\d+{re.escape(TEMPORARY)}")
        for path in folder.glob(f".*{TEMPORARY}"):
            if own.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()


def open_regular(path: Path, flags: int) -> int:
    """A descriptor of a regular file, which is created if `flags` have O_CREAT. Raises OSError for anything
    else: opening a pipe could block for ever."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON; NaN and infinity become null. Raises OutputError."""
    write_atomically(path, f"{json_text(value)}\n".encode())


def refuse_pipe(path: Path) -> None:
    """Raises OutputError for a named pipe: opening it to write would wait for a reader."""
    if path.is_fifo():
        raise OutputError(f"Cannot write {path}: it is a pipe, not a file.")


def read_record(path: Path) -> str:
    """The text of a small file.

    Raises OSError or ValueError for anything else: a pipe, which could block forever, a file too large for
    memory, bytes that are not UTF-8.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > RECORD_LIMIT:
        raise ValueError(f"{path} is not a record of a run")
    return path.read_bytes().decode("utf-8")


def refuse_odd(value: Any) -> None:
    """Raises ValueError for valid JSON that we never write.

    That is nesting deep enough for a RecursionError, and lone surrogates other than those that Python has for
    the bytes of file names that are not UTF-8.
    """
    parts, depth = [value], 0
    while parts:
        if (depth := depth + 1) > MAX_NESTING:
            raise ValueError("nested too deeply")
        inner = (
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, dict | list)
        )
        parts = [part for container in inner for part in container]
    json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def is_path(word: str) -> bool:
    """Whether a command-line word is a path rather than an override KEY=VALUE."""
    return "=" not in word or os.path.exists(word)


def absolute(path: str) -> str:
    """The absolute path, with ~ expanded. Raises ConfigError for the home folder of an unknown user."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"Cannot expand {path}: {error}") from error


def missing_folders(path: Path) -> list[Path]:
    """Those of a folder and the folders above it that do not exist yet, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes these folders in order, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def made_folder(path: Path) -> Path:
    """The folder, which is made with those above it where it does not exist. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_created(path, error) from error
    return path


def not_created(path: Path, error: OSError) -> OutputError:
    """The error of a folder that could not be made."""
    return OutputError(f"Cannot create the folder {path}: {in_the_way(path) or error.strerror}.")


def in_the_way(path: Path) -> str | None:
    """The file or the dangling link because of which a folder cannot be made, or a file below it; None if
    there is none. The system's own messages do not name it."""
    for place in (*reversed(path.parents), path):
        if os.path.islink(place) and not os.path.exists(place):
            return f"{place} is a link to {os.readlink(place)}, which does not exist"
        if os.path.exists(place) and not os.path.isdir(place):
            return f"{place} is a file"
    return None


def claim_folder(base: Path, pattern: str = "%Y-%m-%d/%H-%M-%S", name: str = "") -> Path:
    """Creates and returns base/YYYY-MM-DD/HH-MM-SS, or …-2, …-3 if that exists; with a name, …_NAME. Raises
    OutputError.

    mkdir succeeds in one process only, so two runs in the same second never share a folder.
    """
    first, end = base / datetime.now().strftime(pattern), f"_{name}" if name else ""
    path, number = first.with_name(f"{first.name}{end}"), 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except OSError as error:
            if not isinstance(error, FileExistsError) or not path.is_dir():
                raise not_created(path, error) from error
            number += 1
            path = first.with_name(f"{first.name}-{number}{end}")
