"""Sequences that are read one by one, put together once, and kept in the cache. Torch-free."""

from __future__ import annotations

import json
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

from rnnclf.data.cache import CHUNK
from rnnclf.data.recordings import Array, Progress, Recordings, encoded
from rnnclf.data.splits import SPLITS
from rnnclf.errors import DataError

FORMAT = 1  # of what is kept: another one is made anew
ARRAYS = ("values_SC", "starts_N", "lengths_N", "labels_N", "times_S", "groups_N", "given_N")
STALE = 24 * 3600  # seconds after which what a killed process left is removed


@dataclass(frozen=True, eq=False)
class Part:
    """One sequence as a reader finds it: values_TC (T, C), and times_T (T,) float64 where it has times."""

    values_TC: Array
    label: str
    place: str
    """What messages call it: 'walk/a.csv'."""
    line: int = 0
    """The line of the first step, where each step is a line; else 0."""
    times_T: Array | None = None
    group: str | None = None
    given: int = -1
    """The split that the data name for it, a place in SPLITS, or -1."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where steps were read: a file and a line, or a place and the number of the step."""

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
        """The names of sequences, for predictions."""
        import numpy as np

        return np.array([self.names[n] for n in numbers_n.tolist()], dtype=object)


def put_together(parts: Sequence[Part], channels: tuple[str, ...], notes: Sequence[str] = ()) -> Recordings:
    """The recordings of some sequences. Raises DataError where a class is tested and never trained."""
    import numpy as np

    lengths_N = np.array([len(part.values_TC) for part in parts], np.int64)
    starts_N = np.cumsum(lengths_N) - lengths_N
    labels_N, classes = encoded(part.label for part in parts)
    times = [part.times_T for part in parts if part.times_T is not None]
    groups = [part.group for part in parts if part.group is not None]
    given_N = np.array([part.given for part in parts], np.int8)
    places = Places(
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
        locate=places,
        ids=places.ids,
    )
    refuse_unseen(recordings)
    return recordings


def refuse_unseen(recordings: Recordings) -> None:
    """Raises DataError where a class has sequences in the given test split and in no other."""
    import numpy as np

    if recordings.given_N is None:
        return
    is_test_N = recordings.given_N == SPLITS.index("test")
    seen = np.unique(recordings.labels_N[~is_test_N])
    unseen = np.setdiff1d(recordings.labels_N[is_test_N], seen)
    if len(unseen):
        name = recordings.classes[int(unseen[0])]
        raise DataError(f"The test split has sequences of class '{name}', of which none can be trained on.")


def kept(folder: Path, read: Callable[[], Recordings]) -> Recordings:
    """What `read` gives, read once: afterwards it is mapped from `folder` of the cache.

    The recordings know their places by `Places`. A cache that cannot be written costs time, never a run.
    """
    if (found := _reopened(folder)) is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    recordings = read()
    try:
        with built_aside(folder) as aside:
            _save(recordings, aside)
    except OSError:
        return recordings
    return replace(recordings, cache=folder)


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A new folder that becomes `folder` when all went well, and vanishes otherwise.

    Where another process was faster, its folder stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        with suppress(OSError):  # another process may remove it, too
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unpack(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: Path, progress: Progress
) -> None:
    """Unpacks members of a .zip file, by the names of their files, to a folder of the cache, once.

    Raises DataError where the cache has no room for what they claim to hold, or cannot be written.
    """
    sizes = {folder / name: member.file_size for name, member in members.items()}
    if all(file.is_file() and file.stat().st_size == size for file, size in sizes.items()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    whole, done = max(sum(sizes.values()), 1), 0
    try:
        with built_aside(folder) as aside:
            free = shutil.disk_usage(aside).free
            if whole > free:
                raise DataError(
                    f"{archive.filename} holds {whole / 2**30:,.1f} GiB; the cache, {folder.parent},"
                    f" has room for {free / 2**30:,.1f} GiB."
                )
            for name, member in members.items():
                with archive.open(member) as packed, open(aside / name, "wb") as file:
                    while block := packed.read(CHUNK):
                        file.write(block)
                        done += len(block)
                        progress(f"unpacking {archive.filename}", done / whole)
    except OSError as error:
        raise DataError(f"{archive.filename} cannot be unpacked to {folder.parent}: {error}.") from error


def _save(recordings: Recordings, folder: Path) -> None:
    import numpy as np

    places = recordings.locate
    assert isinstance(places, Places)
    plain: dict[str, Any] = {
        "format": FORMAT,
        "classes": recordings.classes,
        "channels": recordings.channels,
        "notes": recordings.notes,
        "names": places.names,
        "lines": places.lines,
        "arrays": [],
    }
    for name in ARRAYS:
        if (array := getattr(recordings, name)) is not None:
            np.save(folder / f"{name}.npy", array)
            plain["arrays"].append(name)
    (folder / "recordings.json").write_text(json.dumps(plain), encoding="utf-8")


def _reopened(folder: Path) -> Recordings | None:
    """The recordings of a folder of the cache; None where they are not there, or not what they were."""
    import numpy as np

    try:
        plain = json.loads((folder / "recordings.json").read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            return None
        arrays: dict[str, Any] = {
            name: np.load(folder / f"{name}.npy", mmap_mode="c" if name == "values_SC" else None)
            for name in plain["arrays"]
        }
        names, lines = tuple(plain["names"]), tuple(plain["lines"])
        places = Places(names, lines, tuple(arrays["starts_N"].tolist()))
        return Recordings(
            **arrays,
            classes=tuple(plain["classes"]),
            channels=tuple(plain["channels"]),
            notes=tuple(plain["notes"]),
            locate=places,
            ids=places.ids,
            cache=folder,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, AssertionError):
        return None
