"""Combines sequences that are read one by one, and caches the result. Torch-free."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnnclf.data.cache import CHUNK, crc32, seal, unsealed
from rnnclf.data.npy import opened_arrays
from rnnclf.data.recordings import Array, Progress, Recordings, encoded
from rnnclf.data.splits import SPLITS
from rnnclf.errors import DataError
from rnnclf.files import flush

FORMAT = 2  # of the cached files; those of any other format are rebuilt
FACTS = "recordings.json"
ARRAYS = ("values_SC", "starts_N", "lengths_N", "labels_N", "times_S", "groups_N", "given_N")
STALE = 24 * 3600  # seconds; leftovers of killed processes that are older are removed


@dataclass(frozen=True, eq=False)
class Part:
    """One sequence as read: values_TC (T, C), and times_T (T,) float64 if it has times."""

    values_TC: Array
    label: str
    place: str
    """Its name in messages: 'walk/a.csv'."""
    line: int = 0
    """The line number of the first step if each step is a line, otherwise 0."""
    times_T: Array | None = None
    group: str | None = None
    given: int = -1
    """The split that the data assign it to, an index into SPLITS, or -1 for none."""


@dataclass(frozen=True, eq=False)
class StepOrigins:
    """Maps a step to its origin for messages: file and line, or name of the sequence and step number."""

    names: tuple[str, ...]
    lines: tuple[int, ...]
    starts: tuple[int, ...]

    def __call__(self, step: int) -> str:
        n = bisect_right(self.starts, step) - 1
        within = step - self.starts[n]
        if self.lines[n]:
            return f"{self.names[n]}, line {self.lines[n] + within}"
        return f"{self.names[n]}, step {within} (counted from 0)"

    def ids(self, numbers_n: Array) -> Array:
        """The names of sequences, as ids in predictions."""
        import numpy as np

        return np.array([self.names[n] for n in numbers_n.tolist()], dtype=object)


def combine(parts: Sequence[Part], channels: tuple[str, ...], notes: Sequence[str] = ()) -> Recordings:
    """The sequences as one Recordings. Raises DataError if a class occurs in the test split only."""
    import numpy as np

    lengths_N = np.array([len(part.values_TC) for part in parts], np.int64)
    starts_N = np.cumsum(lengths_N) - lengths_N
    labels_N, classes = encoded(part.label for part in parts)
    times = [part.times_T for part in parts if part.times_T is not None]
    groups = [part.group for part in parts if part.group is not None]
    given_N = np.array([part.given for part in parts], np.int8)
    origins = StepOrigins(
        tuple(part.place for part in parts), tuple(part.line for part in parts), tuple(starts_N.tolist())
    )
    recordings = Recordings(
        values_SC=np.concatenate([part.values_TC for part in parts]),
        starts_N=starts_N,
        lengths_N=lengths_N,
        labels_N=labels_N,
        classes=classes,
        channels=channels,
        times_S=np.concatenate(times) if times else None,
        groups_N=encoded(groups)[0] if groups else None,
        given_N=given_N if (given_N >= 0).any() else None,
        notes=tuple(notes),
        locate=origins,
        ids=origins.ids,
    )
    refuse_unseen(recordings)
    return recordings


def refuse_unseen(recordings: Recordings) -> None:
    """Raises DataError if a class has sequences in the given test split and nowhere else."""
    import numpy as np

    if recordings.given_N is None:
        return
    is_test_N = recordings.given_N == SPLITS.index("test")
    seen = np.unique(recordings.labels_N[~is_test_N])
    unseen = np.setdiff1d(recordings.labels_N[is_test_N], seen)
    if len(unseen):
        name = recordings.classes[int(unseen[0])]
        raise DataError(f"Class '{name}' occurs in the test split only: there is nothing to train on.")


def cached(folder: Path, read: Callable[[], Recordings]) -> Recordings:
    """Returns `read()` and saves it to the cache `folder`, from which later calls map it.

    `locate` of the recordings must be a `StepOrigins`. Without a writable cache, or if what is there is
    damaged, `read` runs again.
    """
    if (found := _load(folder)) is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    recordings = read()
    try:
        with staged(folder) as staging:
            _save(recordings, staging)
    except OSError:
        return recordings
    return replace(recordings, cache=folder)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `folder` on success and removed on failure.

    If another process made `folder` first, that one stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        with suppress(OSError):  # another process may be removing it
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield staging
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        flush(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def unpack(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: Path, progress: Progress
) -> Path:
    """Unpacks members of a .zip file to a cache folder, unless they are there already. Returns the folder:
    without a writable cache, a temporary one, which is removed when the process ends.

    `members` maps the file name to write to the member. Raises DataError if there is no room for the sizes
    that they claim, or nothing can be written.
    """
    if all(_is_unpacked(folder / name, member) for name, member in members.items()):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return made(folder, lambda staging: _unpack(archive, members, staging, progress), str(archive.filename))


def made(folder: Path, fill: Callable[[Path], None], what: str) -> Path:
    """Makes a cache folder with what `fill` puts into an empty one. Returns the folder: without a writable
    cache, a temporary one, which is removed when the process ends.

    Raises DataError if nothing can be written; messages call what is unpacked `what`.
    """
    try:
        with staged(folder) as staging:
            fill(staging)
        return folder
    except OSError:  # damage raises other errors
        pass
    try:
        _temporary.append(tempfile.TemporaryDirectory(prefix="rnnclf-", ignore_cleanup_errors=True))
        elsewhere = Path(_temporary[-1].name) / "unpacked"
        with staged(elsewhere) as staging:
            fill(staging)
        return elsewhere
    except OSError as error:
        raise DataError(
            f"{what} cannot be unpacked to {folder.parent}: {error.strerror or error}."
            " Set XDG_CACHE_HOME=DIR to use another folder."
        ) from error


_temporary: list[tempfile.TemporaryDirectory[str]] = []
"""Folders in use until the process ends."""


def _is_unpacked(path: Path, member: zipfile.ZipInfo) -> bool:
    try:
        return path.stat().st_size == member.file_size and crc32(path) == member.CRC
    except OSError:
        return False


def _unpack(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: Path, progress: Progress
) -> None:
    whole, done = max(sum(member.file_size for member in members.values()), 1), 0
    refuse_more_than_disk(whole, folder)
    for name, member in members.items():
        with archive.open(member) as packed, open(folder / name, "wb") as file:
            while block := packed.read(CHUNK):
                file.write(block)
                done += len(block)
                progress(f"unpacking {archive.filename}", done / whole)
        flush(folder / name)


def refuse_more_than_disk(size: int, folder: Path) -> None:
    """Raises OSError if so many bytes are not free where the folder is."""
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(
            errno.ENOSPC, f"it holds {size / 2**30:,.1f} GiB, and only {free / 2**30:,.1f} GiB are free"
        )


def _save(recordings: Recordings, folder: Path) -> None:
    import numpy as np

    origins = recordings.locate
    assert isinstance(origins, StepOrigins)
    plain: dict[str, Any] = {
        "format": FORMAT,
        "classes": recordings.classes,
        "channels": recordings.channels,
        "notes": recordings.notes,
        "names": origins.names,
        "lines": origins.lines,
        "arrays": [],
    }
    for name in ARRAYS:
        if (array := getattr(recordings, name)) is not None:
            np.save(folder / f"{name}.npy", array)
            plain["arrays"].append(name)
    seal(folder, FACTS, plain)


def _load(folder: Path) -> Recordings | None:
    """The recordings saved in a cache folder; None if they are missing or damaged."""
    try:
        plain = unsealed(folder, FACTS)
        if plain["format"] != FORMAT:
            return None
        arrays, files = opened_arrays(folder, plain["checksums"], ("values_SC",))
        names, lines = tuple(plain["names"]), tuple(plain["lines"])
        origins = StepOrigins(names, lines, tuple(arrays["starts_N"].tolist()))
        return Recordings(
            **arrays,
            classes=tuple(plain["classes"]),
            channels=tuple(plain["channels"]),
            notes=tuple(plain["notes"]),
            locate=origins,
            ids=origins.ids,
            cache=folder,
            files=files,
        )
    except Exception:  # whatever is wrong with it, it is read again
        return None
