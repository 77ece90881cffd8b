"""Converted tables on disk: arrays in a cache folder that is either complete or absent. Torch-free.

Shapes: N sequences, S steps, C channels.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnnclf.data.cache import seal, unsealed
from rnnclf.data.npy import opened_arrays
from rnnclf.data.recordings import Array, Ids, Progress, Recordings, restarting_at
from rnnclf.errors import OutputError
from rnnclf.files import flush

FORMAT = 6  # of what is kept; another is made anew
META = "meta.json"
MAPPED = ("values_SC", "times_S", "labels_S", "lines", "ids_bytes", "ids_ends")
OPTIONAL = ("times_S", "labels_S", "groups_N", "given_N")
HEADER = 128  # bytes of a .npy header, enough for any number of rows


class GrowingArray:
    """A .npy file that rows are appended to; its header is written last."""

    def __init__(self, path: Path, dtype: str, *row: int) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._file.write(bytes(HEADER))
        self._dtype, self._row, self.rows = dtype, row, 0

    def append(self, array: Array) -> None:
        import numpy as np

        with np.errstate(over="ignore"):  # what is too large for the type is found by others
            self._file.write(np.ascontiguousarray(array, self._dtype).data)
        self.rows += len(array)

    def __enter__(self) -> GrowingArray:
        return self

    def __exit__(self, *_: object) -> None:
        import numpy as np

        with self._file as file:
            facts = {"descr": self._dtype, "fortran_order": False, "shape": (self.rows, *self._row)}
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, facts)  # type: ignore[no-untyped-call]
            assert file.tell() == HEADER


@dataclass(frozen=True, eq=False)
class StepOrigins:
    """Maps a step to its origin, for messages.

    files: the name, the word for its rows and the number of steps of each file.
    lines: the line of each step or, if a row is a sequence, of each sequence.
    """

    files: Sequence[tuple[str, str, int]]
    lines: Array
    starts_N: Array
    row_is_step: bool

    def __call__(self, step: int) -> str:
        import numpy as np

        ends = np.cumsum([steps for _, _, steps in self.files])
        name, unit, _ = self.files[int(np.searchsorted(ends, step, side="right"))]
        if self.row_is_step:
            return f"{name}, {unit} {self.lines[step]}"
        n = int(np.searchsorted(self.starts_N, step, side="right")) - 1
        return f"{name}, {unit} {self.lines[n]}, step {step - int(self.starts_N[n])} (counted from 0)"


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts stored in two arrays that can be memory-mapped: concatenated UTF-8 bytes, and end offsets."""

    bytes_B: Array
    end_N: Array

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        import numpy as np

        encoded = [text.encode() for text in texts]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded]))

    def __call__(self, numbers_n: Array) -> Array:
        """The texts at these indices, as an array of objects."""
        import numpy as np

        if not len(numbers_n):
            return np.zeros(0, dtype=object)
        end_n = np.asarray(self.end_N[numbers_n])
        begin_n = np.where(numbers_n > 0, self.end_N[numbers_n - 1], 0)
        low = int(begin_n.min())  # one copy of the part that they are in: slices of a mapped array are slow
        held = np.asarray(self.bytes_B[low : int(end_n.max())]).tobytes()
        bounds = zip((begin_n - low).tolist(), (end_n - low).tolist(), strict=True)
        return np.array([held[begin:end].decode() for begin, end in bounds], dtype=object)


def cached(folder: Path, build: Callable[[Path], None], progress: Progress) -> Recordings:
    """The recordings in the cache `folder`, which `build` fills on the first call.

    One process at a time builds, in a temporary folder that is renamed when it is complete. If the cache
    cannot be written, everything is built in the system's temporary folder each time.

    Sibling folders belong to the same table file. Those whose names differ before the first hyphen are of
    older versions of it and are removed.
    """
    if (found := opened(folder)) is not None:
        return found
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_exclusive(folder, progress))
            return opened(folder) or _built(folder, build)
        except (OSError, ImportError):
            pass
    return built_elsewhere(build, f"to {folder.parent}", "XDG_CACHE_HOME")


@contextmanager
def _exclusive(folder: Path, progress: Progress) -> Iterator[None]:
    """Waits until no other process is building the folder; the lock of a process that dies is released."""
    import fcntl

    with open(folder.with_name(f"{folder.name}.lock"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is reading the same table", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _built(folder: Path, build: Callable[[Path], None]) -> Recordings:
    """Raises OSError if the folder cannot be written."""
    staging = folder.with_name(f"{folder.name}.part")
    try:
        for leftover in (staging, folder):  # left by a killed process; damaged
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir()
        build(staging)
        staging.rename(folder)
        flush(folder.parent)
        for other in folder.parent.iterdir():
            if other.name.split("-")[0] != folder.name.split("-")[0]:
                shutil.rmtree(other, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    result = opened(folder)
    if result is None:
        raise OSError(errno.EIO, "what was written is not what can be read")
    return result


def built_elsewhere(build: Callable[[Path], None], where: str, variable: str) -> Recordings:
    """The recordings in the system's temporary folder, for this process only.

    Raises OutputError, which says `where` it should have been, and the environment variable for another
    place.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="rnnclf-", ignore_cleanup_errors=True) as staging:
            # a mapped file stays readable after it is deleted
            return replace(_built(Path(staging) / "table", build), cache=None)
    except OSError as error:
        raise OutputError(
            f"Cannot write the converted table {where}: {error.strerror or error}."
            f" Set {variable}=DIR to use another folder."
        ) from error


def write_metadata(folder: Path, **facts: Any) -> None:
    """Writes the metadata of a folder of arrays, with checksums."""
    seal(folder, META, {"format": FORMAT, **facts})


def opened(folder: Path) -> Recordings | None:
    """The recordings in a folder, memory-mapped; None if they are missing or damaged."""
    try:
        return _opened(folder)
    except Exception:  # whatever is wrong with them, they are converted again
        return None


def _opened(folder: Path) -> Recordings | None:
    import numpy as np

    meta = unsealed(folder, META)
    if meta["format"] != FORMAT:
        return None
    arrays, files = opened_arrays(folder, meta["checksums"], MAPPED)
    lengths_N, labels_N, lines = arrays["lengths_N"], arrays["labels_N"], arrays["lines"]
    starts_N = np.cumsum(lengths_N) - lengths_N
    steps, row_is_step = len(arrays["values_SC"]), meta["form"] == "long"
    valid = lengths_N.min() >= 1 and lengths_N.sum() == steps
    valid &= 0 <= labels_N.min() <= labels_N.max() < len(meta["classes"])
    valid &= len(lines) == (steps if row_is_step else len(lengths_N))
    if not valid:
        return None
    return Recordings(
        values_SC=arrays["values_SC"],
        starts_N=starts_N,
        lengths_N=lengths_N,
        labels_N=labels_N,
        classes=tuple(meta["classes"]),
        channels=tuple(meta["channels"]),
        **{name: arrays[name] for name in OPTIONAL if name in arrays},
        categories={channel: tuple(names) for channel, names in meta["categories"].items()},
        notes=tuple(meta["notes"]),
        columns=meta["columns"],
        locate=StepOrigins(meta["files"], lines, starts_N, row_is_step),
        ids=_ids(arrays, meta["firsts"]),
        cache=folder,
        files=files,
    )


def _ids(arrays: dict[str, Any], firsts: Sequence[int]) -> Ids:
    """The ids in the table or, without an id column, row numbers from 0 in each file."""
    if "ids_ends" not in arrays:
        return restarting_at(*firsts[1:])
    return Texts(arrays["ids_bytes"], arrays["ids_ends"])
