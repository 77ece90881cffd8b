"""The user's own arrays: NumPy files, mapped from the disk where they are large.

Shapes: N sequences, T steps, C channels, K classes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rnnclf.data.cache import folder_for, identity
from rnnclf.data.conversion import refuse_unseen, unpack
from rnnclf.data.delimited import shown
from rnnclf.data.npy import COPY_LIMIT, layout_of, mapped, parsed, plain, refuse_other_than_numbers
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Array, Progress, Recordings, encoded, numbered, restarting_at, silent
from rnnclf.data.splits import SPLITS
from rnnclf.errors import ConfigError, DataError, RnnclfError
from rnnclf.files import absolute
from rnnclf.options import option

NAMES = ("x", "y", "lengths", "groups", "split", "channels", "classes")
NEEDED = {"x": "sequences, an array (N, T) or (N, T, C),", "y": "labels, an array (N,),"}
PER_SEQUENCE = ("y", "lengths", "groups", "split")
IN_MEMORY = 2**28  # bytes of a packed array that are unpacked to memory; more are, once, to the cache
REMEMBERED = 2**26  # bytes of x from which on what is found out about it is kept


class Named(NamedTuple):
    """An array, and what messages call it."""

    array: Array
    what: str


@dataclass
class Arrays(OwnData):
    """Your own arrays: x (N, T) or (N, T, C) and y (N,), in an .npz file, a folder, or x.npy and y.npy.

    Beside them, where there are such: lengths (N,), behind which x is padding; groups (N,), of which each
    stays in one split; split (N,), train, validation or test, or 0, 1, 2; the names channels (C,) and
    classes (K,). An x.npy is mapped from the disk: it may be larger than memory.
    """

    name: str = "arrays"
    labels: str | None = option(
        None, "the .npy file of y where dataset.path is that of x; null: y.npy beside it"
    )
    axes: str = option("NTC", "the axes of x: N sequences, T steps, C channels", choices=("NTC", "NCT"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = absolute(self.labels)

    @classmethod
    def takes(cls, path: Path) -> bool:
        return path.suffix.lower() in (".npz", ".npy") or (path / "x.npy").is_file()

    def read(self, progress: Progress = silent) -> Recordings:
        paths = self.paths()
        files = [_files(path, labels) for path, labels in zip(paths, (self.labels, None), strict=False)]
        if len(paths) == 2 and files[0]["y"] == files[1]["y"]:
            raise ConfigError(
                f"{files[0]['y']} cannot hold the labels of dataset.path and of dataset.test_path:"
                " put the arrays of each into a folder of their own."
            )
        whole, *test = (
            _recordings(_opened(path, own, progress), own["x"].name, self.axes)
            for path, own in zip(paths, files, strict=True)
        )
        recordings = _joined(whole, test[0], paths[1]) if test else whole
        if recordings.values_SC.nbytes < REMEMBERED:
            return recordings
        facts = [identity(file) for own in files for _, file in sorted(own.items())]
        return replace(recordings, cache=folder_for("arrays", self.axes, facts))


def _files(path: Path, labels: str | None) -> dict[str, Path]:
    """The file of each array; for an .npz file, which holds all, itself as x and y. Raises DataError."""
    if path.suffix == ".npz":
        if labels is not None:
            raise ConfigError(
                f"dataset.labels={labels} is for x in an .npy file; {path.name} holds its y itself."
            )
        return dict.fromkeys(NEEDED, path)
    if path.is_dir():
        found = {name: path / f"{name}.npy" for name in NAMES}
    elif path.suffix == ".npy":
        found = {name: path.with_name(f"{name}.npy") for name in NAMES} | {"x": path}
    else:
        identity(path)
        raise DataError(f"{path} is neither an .npz nor an .npy file, nor a folder of such.")
    if labels is not None:
        found["y"] = Path(labels)
    for name, meaning in NEEDED.items():
        if not found[name].is_file():
            hint = "" if path.is_dir() or name == "x" else ", or name it with dataset.labels"
            raise DataError(f"{found[name]} does not exist: put the {meaning} there{hint}.")
    return {name: file for name, file in found.items() if file.is_file()}


def _opened(path: Path, files: Mapping[str, Path], progress: Progress) -> dict[str, Named]:
    if path.suffix == ".npz":
        return _unpacked(path, progress)
    return {name: Named(mapped(file, str(file)), str(file)) for name, file in files.items()}


def _unpacked(path: Path, progress: Progress) -> dict[str, Named]:
    """The arrays of an .npz file, small ones in memory. Raises DataError."""
    identity(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            held = [member.filename.removesuffix(".npy") for member in members]
            twice = next((name for name in held if held.count(name) > 1), None)
            if twice is not None or not NEEDED.keys() <= set(held):
                fault = (
                    f"holds {shown(twice)} twice"
                    if twice
                    else f"holds {shown(', '.join(held), 120) or 'no arrays'}"
                )
                raise DataError(f"{path} {fault}: x and y are needed, once each.")
            return {
                name: Named(_member(path, archive, member, progress), f"{path}: {name}")
                for name, member in zip(held, members, strict=True)
                if name in NAMES
            }
    except RnnclfError:
        raise
    except Exception as error:  # zipfile and its decompressors raise a dozen kinds for a damaged file
        raise DataError(f"{path} is no .npz file, or a damaged one ({shown(str(error), 120)}).") from error


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, progress: Progress) -> Array:
    what, size = f"{path}: {member.filename.removesuffix('.npy')}", member.file_size
    with archive.open(member) as file:
        layout_of(file, size, what)  # refuses a claim about what follows before it is unpacked
    if size <= IN_MEMORY:
        return parsed(archive.read(member), what)
    folder = folder_for("unpacked", identity(path), member.filename)
    unpack(archive, {"array.npy": member}, folder, progress)
    return mapped(folder / "array.npy", what)


def _recordings(arrays: Mapping[str, Named], file: str, axes: str) -> Recordings:
    """The recordings of the arrays of one file or folder; messages call it `file`."""
    sequences = unlabelled(arrays["x"], file, axes, arrays.get("lengths"))
    for name in PER_SEQUENCE:
        if name in arrays:
            _refuse_shape(arrays[name], len(sequences), arrays["x"].what)
    labels_N, classes = _labels(arrays)
    return replace(
        sequences,
        labels_N=labels_N,
        classes=classes,
        channels=_channels(arrays, len(sequences.channels)),
        groups_N=_coded(arrays["groups"])[0] if "groups" in arrays else None,
        given_N=_given(arrays["split"]) if "split" in arrays else None,
    )


def unlabelled(named: Named, file: str, axes: str, lengths: Named | None = None) -> Recordings:
    """The sequences of an array x, all of one nameless class; `file` is its name in messages.

    Without lengths, trailing steps that hold no value count as padding. Raises DataError if x is not an array
    of sequences.
    """
    import numpy as np

    x, notes = _values(named, axes)
    n, steps, size = x.shape
    if lengths is not None:
        _refuse_shape(lengths, n, named.what)
        lengths_N = _lengths(lengths, x)
    else:
        lengths_N = _unpadded(x)
        if (lengths_N < steps).any():
            padded = int((lengths_N < steps).sum())
            notes.append(f"{padded:,} of {n:,} sequences of {file} end in missing values: taken for padding.")
    return Recordings(
        values_SC=x.reshape(n * steps, size),
        starts_N=np.arange(n, dtype=np.int64) * steps,
        lengths_N=lengths_N,
        labels_N=np.zeros(n, np.int64),
        classes=("",),
        channels=numbered(size),
        notes=tuple(notes),
        locate=lambda step: f"{file}, sequence {step // steps}, step {step % steps} (counted from 0)",
    )


def _values(named: Named, axes: str) -> tuple[Array, list[str]]:
    """x as (N, T, C) in a type that training takes, and a note where the axes may be others."""
    x, what = named
    refuse_other_than_numbers(x, what)
    if x.ndim not in (2, 3):
        raise DataError(f"{what} has the shape {x.shape}: (N, T) or ({', '.join(axes)}) is needed.")
    if x.ndim == 2:
        return plain(x, what)[:, :, None], []
    if axes == "NCT":
        return plain(x.transpose(0, 2, 1), what, "x.transpose(0, 2, 1)", " and leave dataset.axes out"), []
    _, steps, size = x.shape
    odd = f"x has {steps} steps of {size} channels: if it is the other way round, give dataset.axes=NCT."
    return plain(x, what), [odd] if size > steps else []


def _refuse_shape(named: Named, n: int, x: str) -> None:
    array, what = named
    if array.ndim == 2:
        way = "argmax(axis=1)" if array.shape[1] > 1 else "ravel()"
        raise DataError(
            f"{what} has the shape {array.shape}: (N,) is needed; its .{way} may be what you mean."
        )
    if array.ndim != 1:
        raise DataError(f"{what} has the shape {array.shape}: (N,) is needed.")
    if len(array) != n:
        raise DataError(f"{what} is for {len(array):,} sequences, but {x} holds {n:,}.")


def _lengths(named: Named, x: Array) -> Array:
    """The given lengths as int64 (N,). Raises DataError for one that is none."""
    import numpy as np

    given_N, what = named
    if given_N.dtype.kind not in "iu":
        raise DataError(f"{what} holds {given_N.dtype} values: whole numbers are needed.")
    lengths_N = np.array(given_N, np.int64)
    wrong_N = (lengths_N < 1) | (lengths_N > x.shape[1])
    if wrong_N.any():
        n = int(wrong_N.argmax())
        raise DataError(
            f"{what}: sequence {n} (counted from 0) has the length {lengths_N[n]}; it must be between 1 and"
            f" {x.shape[1]}, the number of steps of x."
        )
    return lengths_N


def _unpadded(x: Array) -> Array:
    """The number of steps of each sequence before those at its end that hold no value; all steps where no
    step holds one, or where x is too large to look at."""
    import numpy as np

    whole_N = np.full(len(x), x.shape[1], np.int64)
    if x.dtype.kind != "f" or x.nbytes > COPY_LIMIT:
        return whole_N
    empty_NT = np.all(np.isnan(x), axis=2)
    after_N = (~empty_NT[:, ::-1]).argmax(axis=1)
    return np.where(empty_NT.all(axis=1), whole_N, whole_N - after_N)


def _labels(arrays: Mapping[str, Named]) -> tuple[Array, tuple[str, ...]]:
    """y as int64 places in the names of the classes, and these names."""
    import numpy as np

    y_N, found = _coded(arrays["y"])
    if "classes" not in arrays:
        return y_N, found
    names = _names(arrays["classes"])
    if arrays["y"].array.dtype.kind in "US":
        known = {name: place for place, name in enumerate(names)}
    else:
        known = {str(place): place for place in range(len(names))}
    foreign = [name for name in found if name not in known]
    if foreign:
        raise DataError(
            f"{arrays['y'].what} holds the label {shown(foreign[0])},"
            f" {arrays['classes'].what} no name for it."
        )
    return np.array([known[name] for name in found], np.int64)[y_N], names


def _channels(arrays: Mapping[str, Named], size: int) -> tuple[str, ...]:
    if "channels" not in arrays:
        return numbered(size)
    names = _names(arrays["channels"])
    if len(names) != size:
        raise DataError(
            f"{arrays['channels'].what} names {len(names)} channels; {arrays['x'].what} has {size}."
        )
    return names


def _names(named: Named) -> tuple[str, ...]:
    """Names, each once. Raises DataError."""
    array, what = named
    if array.ndim != 1:
        raise DataError(f"{what} has the shape {array.shape}: a list of names is needed.")
    places, found = _coded(named)
    if len(found) != len(places):
        raise DataError(f"{what} holds a name twice: each is needed once.")
    return tuple(found[place] for place in places)


def _coded(named: Named) -> tuple[Array, tuple[str, ...]]:
    """Whole numbers or names as int64 places in the different ones, and these, sorted. Raises DataError."""
    import numpy as np

    array, what = _readable(named), named.what
    different, places_N = np.unique(array, return_inverse=True)
    places_K, names = encoded(different.tolist())
    if "" in names:
        n = int((array == "").argmax())
        raise DataError(f"{what}: name {n} (counted from 0) is empty.")
    return places_K[places_N.reshape(-1)], names


def _readable(named: Named) -> Array:
    """The array as whole numbers or text. Raises DataError."""
    import numpy as np

    array, what = named
    if array.dtype.kind in "iub":
        return np.array(array, np.uint8 if array.dtype == bool else None)
    try:
        if array.dtype.kind in "US":
            return np.array(array) if array.dtype.kind == "U" else np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} holds bytes that are not UTF-8 text: save names as text.") from error
    if array.dtype.kind != "f":
        raise DataError(f"{what} holds {array.dtype} values: whole numbers or names are needed."[:300])
    array = array.astype(np.float64)
    wrong_N = ~(np.abs(array) < 2**53) | (np.floor(array) != array)
    if wrong_N.any():
        n = int(wrong_N.argmax())
        value = "missing (NaN)" if np.isnan(array[n]) else array[n]
        raise DataError(f"{what}: number {n} (counted from 0) is {value}; whole numbers or names are needed.")
    return array.astype(np.int64)


def _given(named: Named) -> Array:
    """The split as int8 places in SPLITS. Raises DataError."""
    import numpy as np

    places_N, names = _coded(named)
    known = {name: place for place, name in enumerate(SPLITS)} | {str(place): place for place in range(3)}
    foreign = [name for name in names if name not in known]
    if foreign:
        raise DataError(
            f"{named.what} holds '{shown(foreign[0])}': {', '.join(SPLITS)} or 0, 1, 2 are needed."
        )
    return np.array([known[name] for name in names], np.int8)[places_N]


def _joined(whole: Recordings, test: Recordings, test_path: Path) -> Recordings:
    """Both as one, the second being the test split. Raises DataError where they do not go together."""
    import numpy as np

    if whole.channels != test.channels:
        raise DataError(
            f"{test_path} has the channels {shown(', '.join(test.channels), 120)};"
            f" those of dataset.path are {shown(', '.join(whole.channels), 120)}."
        )
    if test.given_N is not None:
        raise DataError(f"{test_path} is the test split, but names splits itself: leave its split out.")
    if whole.values_SC.nbytes + test.values_SC.nbytes > COPY_LIMIT:
        raise DataError(
            "dataset.path and dataset.test_path are too large to be joined in memory: save all sequences as"
            " one x, and a split (N,) that names train and test."
        )
    classes = tuple(dict.fromkeys((*whole.classes, *test.classes)))
    place_K = np.array([classes.index(name) for name in test.classes], np.int64)
    border = len(whole.values_SC)
    given_N = np.full(len(whole), -1, np.int8) if whole.given_N is None else whole.given_N
    test_N = np.full(len(test), SPLITS.index("test"), np.int8)
    own_group_N = np.full(len(test), -1, np.int64)  # what is given is not drawn: its groups decide nothing
    joined = Recordings(
        values_SC=np.concatenate((whole.values_SC, test.values_SC)),
        starts_N=np.concatenate((whole.starts_N, border + test.starts_N)),
        lengths_N=np.concatenate((whole.lengths_N, test.lengths_N)),
        labels_N=np.concatenate((whole.labels_N, place_K[test.labels_N])),
        classes=classes,
        channels=whole.channels,
        groups_N=None if whole.groups_N is None else np.concatenate((whole.groups_N, own_group_N)),
        given_N=np.concatenate((given_N, test_N)),
        notes=(*whole.notes, *test.notes),
        locate=lambda step: whole.place(step) if step < border else test.place(step - border),
        ids=restarting_at(len(whole)),
    )
    refuse_unseen(joined)
    return joined
