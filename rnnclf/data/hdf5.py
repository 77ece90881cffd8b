"""Copies the arrays of HDF5 files into .npy files: nothing outside the file is opened. Torch-free.

The format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html. A damaged file can crash the
library that reads it, so this happens once, in a process of its own; what that wrote is used from then on.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from rnnclf.data.cache import CHUNK, folder_for, identity, seal, unsealed
from rnnclf.data.conversion import made, refuse_more_than_disk
from rnnclf.data.delimited import excerpt
from rnnclf.data.naming import chosen_in, unlabelled_in
from rnnclf.data.recordings import Array, Progress
from rnnclf.errors import ConfigError, DataError
from rnnclf.system.fork import ChildDied
from rnnclf.system.helper import in_helper

SUFFIXES = (".h5", ".hdf5", ".hdf")
INDEX = "arrays.json"
DEPTH = 2  # groups in groups that are looked into, as for train/x
MOST = 1000  # entries of a file that are looked at
PACKED_AT_MOST = 1100  # times as small as its content a file can be: gzip reaches 1,032
LONGEST = 1000  # letters of a name
FILTERS = (1, 2, 3, 4, 5, 6, 32000)  # what comes with the library: gzip, shuffle, checksum, szip … and lzf

Index: TypeAlias = dict[str, dict[str, tuple[str, str]]]
"""By split and array: the name of the array in the file, and its .npy file."""


def arrays_in(
    path: Path, progress: Progress, labelled: bool = True
) -> dict[int, dict[str, tuple[str, Path]]]:
    """For each split (see `naming.Chosen`) the name of each array in the file, and its .npy file.

    labelled: whether there must be labels. Raises DataError for a damaged file, ConfigError without h5py.
    """
    version = identity(path)
    folder = folder_for("hdf5", version, *([] if labelled else ["unlabelled"]))
    progress(f"reading {path.name}", 0.0)
    found = _known(folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder = made(folder, lambda staging: _copied(path, staging, labelled), str(path))
        found = _known(folder)
    if found is None:
        raise DataError(
            f"{path} could not be copied to {folder}: set XDG_CACHE_HOME=DIR to use another folder."
        )
    return {
        int(split): {array: (name, folder / file) for array, (name, file) in arrays.items()}
        for split, arrays in found.items()
    }


def _known(folder: Path) -> Index | None:
    """The files that were copied into a folder before; None if they are missing or damaged."""
    try:
        found: Index = unsealed(folder, INDEX)["arrays"]
        return found
    except Exception:  # whatever is wrong with them, they are copied again
        return None


def _copied(path: Path, folder: Path, labelled: bool) -> None:
    try:
        in_helper(f"{__name__}:copy", str(path), str(folder), labelled, reads=path)
    except ChildDied as error:
        raise DataError(f"{path} is damaged, or reading it takes too much memory or time.") from error


def copy(path: str, folder: str, labelled: bool = True) -> None:
    """Copies the arrays of sequences, labels and so on into a folder, with an index. Raises DataError."""
    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"  # no filters from elsewhere
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            f"Reading {Path(path).name} needs h5py, which is not installed: pip install 'rnnclf[hdf5]'."
        ) from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            _copy(path, file, Path(folder), labelled)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # h5py raises many types for a damaged file
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise DataError(f"{path} is not an HDF5 file, or is damaged.") from error


def _copy(path: str, file: Any, folder: Path, labelled: bool) -> None:
    if any("pandas_type" in group.attrs for group in (file, *_groups(file))):
        raise DataError(
            f"{path} is written by pandas, whose HDF5 files are not read: save the table with"
            " to_parquet('new.parquet')."
        )
    held = dict(_datasets(file))
    found = (chosen_in if labelled else unlabelled_in)(list(held), path)
    size = os.path.getsize(path)
    files: dict[str, str] = {}
    for name in (name for arrays in found.values() for name in arrays.values()):
        if name not in files:
            files[name] = f"{len(files)}.npy"
            _write(held[name], f"{path}: {excerpt(name)}", size, folder / files[name])
    index: Index = {
        str(split): {array: (name, files[name]) for array, name in arrays.items()}
        for split, arrays in found.items()
    }
    seal(folder, INDEX, {"arrays": index})


def _groups(file: Any) -> Iterator[Any]:
    import h5py

    for name in list(file)[:MOST]:
        if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file.get(name), h5py.Group):
            yield file[name]


def _datasets(group: Any, before: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """The arrays of a group and of those in it, by their path. Links are not followed."""
    import h5py

    for name in list(group)[:MOST]:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield before + name, None
        elif isinstance(entry := group[name], h5py.Dataset):
            yield before + name, entry
        elif depth and isinstance(entry, h5py.Group):
            yield from _datasets(entry, f"{before}{name}/", depth - 1)


def _write(dataset: Any, what: str, size: int, target: Path) -> None:
    """Writes an array in pieces. Raises DataError for one that is not in the file, or holds objects."""
    import h5py
    import numpy as np

    if dataset is None or dataset.is_virtual or dataset.external:
        raise DataError(f"{what} is a link, or is in another file: only what is in the file itself is read.")
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    if any(number not in FILTERS for number in filters):
        raise DataError(f"{what} is compressed in a way that is not read: save it with gzip or lzf.")
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if dataset.dtype.kind not in "biufSU" and not is_text:
        raise DataError(f"{what} holds objects or records; it must hold numbers or names.")
    claimed = dataset.size * dataset.dtype.itemsize
    if claimed > PACKED_AT_MOST * size:
        raise DataError(f"{what} claims {claimed:,} bytes of data, the file has {size:,}.")
    if dataset.ndim and not is_text:
        _write_in_pieces(dataset, target)
        return
    values = dataset.asstr("utf-8")[()] if is_text else dataset[()]
    names: Array = np.asarray(values, object).ravel() if is_text else np.zeros(0)
    if any(len(name) > LONGEST for name in names):
        raise DataError(f"{what} holds a name of more than {LONGEST:,} letters.")
    np.save(target, np.array(values, str) if is_text else np.asarray(values), allow_pickle=False)


def _write_in_pieces(dataset: Any, target: Path) -> None:
    import numpy as np

    rows = max(CHUNK * int(dataset.shape[0]) // max(dataset.size * dataset.dtype.itemsize, 1), 1)
    refuse_more_than_disk(dataset.size * dataset.dtype.itemsize, target.parent)
    with open(target, "wb") as file:
        facts = {"descr": dataset.dtype.str, "fortran_order": False, "shape": dataset.shape}
        np.lib.format.write_array_header_1_0(file, facts)  # type: ignore[no-untyped-call]
        for begin in range(0, dataset.shape[0], rows):
            file.write(np.ascontiguousarray(dataset[begin : begin + rows]).tobytes())
