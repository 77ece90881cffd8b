"""The user's own arrays: NumPy files, memory-mapped if they are large.

Shapes: N sequences, T steps, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rnnclf.data.array_files import Files, NamedArray, files_of, holds_arrays, opened, unlabelled_files
from rnnclf.data.cache import folder_for, identity
from rnnclf.data.changes import refuse_changed
from rnnclf.data.delimited import excerpt
from rnnclf.data.joining import Part, joined
from rnnclf.data.naming import WHOLE, unlabelled_in
from rnnclf.data.npy import (
    COPY_LIMIT,
    refuse_more_than_memory,
    refuse_other_than_numbers,
    to_trainable,
)
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import NO_LABELS, Array, Progress, Recordings, encoded, numbered, silent
from rnnclf.data.splits import SPLITS, split_called
from rnnclf.errors import ConfigError, DataError
from rnnclf.files import absolute
from rnnclf.options import option

if TYPE_CHECKING:
    from rnnclf.data.base import Learned

PER_SEQUENCE = ("y", "lengths", "groups", "split")
BOOKKEEPING = 64  # bytes in memory for each sequence: where it begins, its length, label, split and place
COPIES = 4  # of labels while they are read, and of a sequence as float64 while it is measured
CACHED_FROM = 2**26  # bytes; the statistics of an x of at least this size are cached


@dataclass
class Arrays(OwnData):
    """Your own arrays: x (N, T) or (N, T, C) and y (N,), in .npz, .mat, .h5 or .npy files, or a folder.

    They may be called X, data, labels or target, too, and come by split: x_train, y_train, x_test, y_test.
    With dataset.window, y may be (N, T), a label for each step; for one recording, x (T, C) and y (T,) do.
    Optional arrays: lengths (N,), after which x is padding; groups (N,), each of which stays in one split;
    split (N,), train, validation or test, or 0, 1, 2; the names channels (C,) and classes (K,).
    x.npy is memory-mapped, so it may be larger than memory.
    """

    LOCATIONS: ClassVar[tuple[str, ...]] = ("path", "test_path", "labels")

    READS: ClassVar[str] = "arrays (.npz, .npy, .mat, .h5)"

    name: str = "arrays"
    labels: str | None = option(
        None,
        "the .npy file with y, if dataset.path is an .npy file with x; null: y.npy in the same folder",
        path=True,
    )
    axes: str = option(
        "NTC", "order of the axes of x: N sequences, T steps, C channels", choices=("NTC", "NCT")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = absolute(self.labels)

    @classmethod
    def takes(cls, path: Path) -> bool:
        return holds_arrays(path)

    def read(self, progress: Progress = silent) -> Recordings:
        paths = self.paths()
        files = [files_of(path, labels) for path, labels in zip(paths, (self.labels, None), strict=False)]
        shared = set.intersection(*({arrays["y"] for arrays in own.values()} for own in files))
        if len(paths) == 2 and shared:
            raise ConfigError(
                f"{shared.pop()} would be the labels of both dataset.path and dataset.test_path:"
                " put the arrays of each into a separate folder."
            )
        used = {file for own in files for arrays in own.values() for file in arrays.values()}
        versions = [identity(file) for file in sorted(used)]
        parts: list[Part] = []
        for path, own, is_test in zip(paths, files, (False, True), strict=False):
            parts += self._parts(path, own, is_test, progress)
        recordings = joined(parts) if len(parts) > 1 else parts[0].recordings
        refuse_changed(versions)
        if recordings.values_SC.nbytes < CACHED_FROM:
            return recordings
        return replace(recordings, cache=folder_for("arrays", self.axes, versions))

    def read_unlabelled(
        self, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        path = self.paths()[0]
        arrays = opened(path, unlabelled_files(path), progress, unlabelled_in)[WHOLE]
        x, size = arrays["x"], len(learned.preparation.channels)
        if self.window is not None and x.array.ndim == 1:
            x = x._replace(array=x.array[None, :, None])
        elif self.window is not None and x.array.ndim == 2 and 1 < x.array.shape[1] == size:
            x = x._replace(array=x.array[None])  # one recording
        recordings = unlabelled(x, path.name, self.axes, arrays.get("lengths"))
        recordings = replace(recordings, channels=_channels(arrays, len(recordings.channels)))
        if "y" not in arrays or arrays["y"].array.shape != (len(recordings),):
            return recordings
        try:
            labels_N, classes = _labels(arrays)
        except DataError:  # nothing about labels that are not needed is an error
            return recordings
        return replace(recordings, labels_N=labels_N, classes=classes).without_labels()

    def _parts(self, path: Path, files: Files, is_test: bool, progress: Progress) -> list[Part]:
        """The sequences of one path: one part, or one for each split. Raises DataError."""
        found = opened(path, files, progress)
        if is_test and (len(found) > 1 or "split" in found.get(WHOLE, {})):
            lot = "arrays for several splits" if len(found) > 1 else "a split array of its own"
            raise DataError(f"{path} is the test split, so it cannot have {lot}: remove them.")
        if self.test_path is not None and len(found) > 1:
            raise ConfigError(f"{path} already has arrays for its splits: leave out dataset.test_path.")
        parts = []
        for split, arrays in found.items():
            base = path if path.is_dir() else path.parent
            file = files[WHOLE]["x"].name if split == WHOLE else str(Path(arrays["x"].what).relative_to(base))
            name = file if split != WHOLE else str(path) if is_test else "dataset.path"
            given = SPLITS.index("test") if is_test else split
            parts.append(Part(name, _recordings(arrays, file, self.axes, self.window), given))
        return parts


def _recordings(
    arrays: Mapping[str, NamedArray], file: str, axes: str, window: int | str | None
) -> Recordings:
    """The recordings in the arrays of one file or folder; messages call it `file`."""
    import numpy as np

    if window is not None:
        arrays = _of_one_recording(arrays, window)
    sequences = unlabelled(arrays["x"], file, axes, arrays.get("lengths"))
    n, y = len(sequences), arrays["y"]
    of_steps = y.array.shape == (n, len(sequences.values_SC) // n)
    if of_steps and window is None:
        raise DataError(
            f"{y.what} has a label for each step of {arrays['x'].what}: set dataset.window=128 to cut the"
            " sequences into windows of so many steps."
        )
    for name in PER_SEQUENCE:
        if name in arrays and not (of_steps and name == "y"):
            _refuse_shape(arrays[name], n, arrays["x"].what)
    if of_steps:
        labels_S, classes = _labels_of_steps(arrays, sequences.lengths_N)
        labels_N = np.zeros(n, np.int64)
    else:
        (labels_N, classes), labels_S = _labels(arrays), None
    return replace(
        sequences,
        labels_N=labels_N,
        labels_S=labels_S,
        classes=classes,
        channels=_channels(arrays, len(sequences.channels)),
        groups_N=_encoded(arrays["groups"])[0] if "groups" in arrays else None,
        given_N=_given(arrays["split"]) if "split" in arrays else None,
    )


def _of_one_recording(arrays: Mapping[str, NamedArray], window: int | str) -> Mapping[str, NamedArray]:
    """The arrays with x (1, T, C) and y (1, T), if they hold the steps and the labels of one recording.

    x (T, C) with y (T,) may also be T sequences of C steps of one channel, but only if these hold a window.
    """
    x, y = arrays["x"], arrays["y"]
    labels = y.array[0] if y.array.shape[:1] == (1,) and y.array.ndim == 2 else y.array
    if labels.ndim != 1 or len(labels) < 2:
        return arrays
    wide = x.array.ndim == 2 and len(x.array) == len(labels) and not _holds(x.array.shape[1], window)
    if wide or x.array.shape == labels.shape:
        steps = x.array[None] if wide else x.array[None, :, None]
    elif x.array.ndim > 1 and len(x.array) == 1:
        steps = x.array
    else:
        return arrays
    return {**arrays, "x": x._replace(array=steps), "y": y._replace(array=labels[None])}


def _holds(steps: int, window: int | str) -> bool:
    return isinstance(window, str) or steps >= window


def unlabelled(named: NamedArray, file: str, axes: str, lengths: NamedArray | None = None) -> Recordings:
    """The sequences of an array x, all of one nameless class; `file` is its name in messages.

    Without lengths, trailing steps that hold no value count as padding. Raises DataError if x is not an array
    of sequences.
    """
    import numpy as np

    x, notes = _values(named, axes)
    n, steps, size = x.shape
    refuse_more_than_memory(n * BOOKKEEPING, f"the {n:,} sequences of {file}")
    refuse_more_than_memory(steps * size * COPIES * 8, f"a sequence of {steps:,} steps of {file}")
    if lengths is not None:
        _refuse_shape(lengths, n, named.what)
        lengths_N = _lengths(lengths, x)
    else:
        lengths_N = _unpadded(x)
        if (lengths_N < steps).any():
            padded = int((lengths_N < steps).sum())
            notes.append(
                f"{padded:,} of {n:,} sequences of {file} end in missing values: treated as padding."
            )
    return Recordings(
        values_SC=x.reshape(n * steps, size),
        starts_N=np.arange(n, dtype=np.int64) * steps,
        lengths_N=lengths_N,
        labels_N=np.zeros(n, np.int64),
        classes=NO_LABELS,
        channels=numbered(size),
        notes=tuple(notes),
        locate=lambda step: f"{file}, sequence {step // steps}, step {step % steps} (counted from 0)",
        files=(named.file,) if named.file and np.may_share_memory(x, named.array) else (),
    )


def _values(named: NamedArray, axes: str) -> tuple[Array, list[str]]:
    """x as (N, T, C) in a type that torch supports, and a note if its axes look swapped."""
    x, what = named.array, named.what
    refuse_other_than_numbers(x, what)
    if x.ndim not in (2, 3):
        raise DataError(f"{what} has shape {x.shape}; it must be (N, T) or ({', '.join(axes)}).")
    if x.ndim == 2:
        return to_trainable(x, what)[:, :, None], []
    if axes == "NCT":
        return to_trainable(
            x.transpose(0, 2, 1), what, "x.transpose(0, 2, 1)", " and leave out dataset.axes"
        ), []
    _, steps, size = x.shape
    odd = f"x has {steps} steps of {size} channels; if it is the other way round, set dataset.axes=NCT."
    return to_trainable(x, what), [odd] if size > steps else []


def _refuse_shape(named: NamedArray, n: int, x: str) -> None:
    array, what = named.array, named.what
    if array.ndim == 2:
        fix = "argmax(axis=1)" if array.shape[1] > 1 else "ravel()"
        raise DataError(f"{what} has shape {array.shape}; it must be (N,). Perhaps you mean its .{fix}.")
    if array.ndim != 1:
        raise DataError(f"{what} has shape {array.shape}; it must be (N,).")
    if len(array) != n:
        raise DataError(f"{what} has {len(array):,} entries, but {x} has {n:,} sequences.")


def _lengths(named: NamedArray, x: Array) -> Array:
    """The given lengths as int64 (N,). Raises DataError for an invalid one."""
    import numpy as np

    given_N, what = named.array, named.what
    if given_N.dtype.kind not in "iu":
        raise DataError(f"{what} holds {given_N.dtype} values; lengths must be whole numbers.")
    lengths_N = np.array(given_N, np.int64)
    wrong_N = (lengths_N < 1) | (lengths_N > x.shape[1])
    if wrong_N.any():
        n = int(wrong_N.argmax())
        raise DataError(
            f"{what}: sequence {n} (counted from 0) has length {lengths_N[n]}; it must be between 1 and"
            f" {x.shape[1]}, the number of steps of x."
        )
    return lengths_N


def _unpadded(x: Array) -> Array:
    """The lengths (N,) without the all-NaN steps at the end of each sequence.

    A sequence of NaN only keeps all its steps, and so do all sequences of an x too large to scan.
    """
    import numpy as np

    whole_N = np.full(len(x), x.shape[1], np.int64)
    if x.dtype.kind != "f" or x.nbytes > COPY_LIMIT:
        return whole_N
    empty_NT = np.all(np.isnan(x), axis=2)
    after_N = (~empty_NT[:, ::-1]).argmax(axis=1)
    return np.where(empty_NT.all(axis=1), whole_N, whole_N - after_N)


def _labels(arrays: Mapping[str, NamedArray]) -> tuple[Array, tuple[str, ...]]:
    """y as int64 indices into the class names, and these names. Raises DataError."""
    import numpy as np

    y_N, found = _encoded(arrays["y"])
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
            f"{arrays['y'].what} has label {excerpt(foreign[0])},"
            f" but {arrays['classes'].what} has no name for it."
        )
    return np.array([known[name] for name in found], np.int64)[y_N], names


def _labels_of_steps(arrays: Mapping[str, NamedArray], lengths_N: Array) -> tuple[Array, tuple[str, ...]]:
    """y (N, T) as int32 indices into the class names (N * T,), and these names.

    -1 for NaN and for empty text, which mean no label, and for padding. Raises DataError.
    """
    import numpy as np

    y_NT = arrays["y"].array
    given_NT = np.arange(y_NT.shape[1]) < lengths_N[:, None]
    if y_NT.dtype.kind == "f":
        given_NT &= ~np.isnan(y_NT)
    elif y_NT.dtype.kind in "US":
        given_NT &= y_NT != y_NT.dtype.type()
    if not given_NT.any():
        raise DataError(f"{arrays['y'].what} has no labels.")
    given_n, classes = _labels({**arrays, "y": arrays["y"]._replace(array=y_NT[given_NT])})
    labels_NT = np.full(y_NT.shape, -1, np.int32)
    labels_NT[given_NT] = given_n
    return labels_NT.reshape(-1), classes


def _channels(arrays: Mapping[str, NamedArray], size: int) -> tuple[str, ...]:
    if "channels" not in arrays:
        return numbered(size)
    names = _names(arrays["channels"])
    if len(names) != size:
        raise DataError(
            f"{arrays['channels'].what} names {len(names)} channels; {arrays['x'].what} has {size}."
        )
    return names


def _names(named: NamedArray) -> tuple[str, ...]:
    """A list of unique names. Raises DataError."""
    array, what = named.array, named.what
    if array.ndim != 1:
        raise DataError(f"{what} has shape {array.shape}; it must be a list of names, (C,) or (K,).")
    places, found = _encoded(named)
    if len(found) != len(places):
        raise DataError(f"{what} has the same name twice: names must be unique.")
    return tuple(found[place] for place in places)


def _encoded(named: NamedArray) -> tuple[Array, tuple[str, ...]]:
    """Whole numbers or names as int64 indices into the sorted unique ones, and these. Raises DataError."""
    import numpy as np

    refuse_more_than_memory(named.array.nbytes * COPIES, named.what)
    array, what = _readable(named), named.what
    different, places_N = np.unique(array, return_inverse=True)
    places_K, names = encoded(different.tolist())
    if "" in names:
        n = int((array == "").argmax())
        raise DataError(f"{what}: name {n} (counted from 0) is empty.")
    return places_K[places_N.reshape(-1)], names


def _readable(named: NamedArray) -> Array:
    """The array as whole numbers or text. Raises DataError."""
    import numpy as np

    array, what = named.array, named.what
    if array.dtype.kind in "iub":
        return np.array(array, np.uint8 if array.dtype == bool else None)
    try:
        if array.dtype.kind in "US":
            return np.array(array) if array.dtype.kind == "U" else np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} holds bytes that are not UTF-8 text: save the names as text.") from error
    if array.dtype.kind != "f":
        raise DataError(f"{what} holds {array.dtype} values; it must hold whole numbers or names."[:300])
    array = array.astype(np.float64)
    wrong_N = ~(np.abs(array) < 2**53) | (np.floor(array) != array)
    if wrong_N.any():
        n = int(wrong_N.argmax())
        value = "missing (NaN)" if np.isnan(array[n]) else array[n]
        raise DataError(
            f"{what}: entry {n} (counted from 0) is {value}; it must be a whole number or a name."
        )
    return array.astype(np.int64)


def _given(named: NamedArray) -> Array:
    """The given split as int8 indices into SPLITS. Raises DataError."""
    import numpy as np

    places_N, names = _encoded(named)
    found = [int(name) if name in ("0", "1", "2") else split_called(name) for name in names]
    if None in found:
        raise DataError(
            f"{named.what} has '{excerpt(names[found.index(None)])}';"
            f" it must be {', '.join(SPLITS)}, or 0, 1, 2."
        )
    return np.array(found, np.int8)[places_N]
