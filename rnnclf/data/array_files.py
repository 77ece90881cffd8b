"""Finds and opens the arrays in the files of NumPy, MATLAB and HDF5. Torch-free."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rnnclf.data import hdf5, matlab
from rnnclf.data.cache import folder_for, identity
from rnnclf.data.changes import MappedFile
from rnnclf.data.conversion import unpack
from rnnclf.data.delimited import excerpt
from rnnclf.data.naming import NEEDED, WHOLE, Chosen, by_split, chosen, chosen_in, role_of, unlabelled_in
from rnnclf.data.npy import layout_of, mapped, parsed
from rnnclf.data.recordings import Array, Progress
from rnnclf.data.refused import advice
from rnnclf.errors import ConfigError, DataError, RnnclfError

IN_MEMORY = 2**28  # bytes; smaller packed arrays are unpacked to memory, larger ones once to the cache
PACKED = (".npz", ".mat", *hdf5.SUFFIXES)  # files of many arrays
SUFFIXES = (".npy", *PACKED)


class NamedArray(NamedTuple):
    """An array, its name in messages, and the file that it is mapped from, if it is not in memory."""

    array: Array
    what: str
    file: MappedFile | None = None


Choose: TypeAlias = Callable[[list[str], str], Chosen]
"""Tells which of several named arrays is which; messages begin with the second argument."""

Files: TypeAlias = dict[int, dict[str, Path]]
"""For each split (see `naming.Chosen`) the file of each array."""


def holds_arrays(path: Path) -> bool:
    """Whether it looks like arrays, judged by names only."""
    if path.is_dir():
        return any(_is_x(file.stem) for file in path.glob("*.npy"))
    return path.suffix.lower() in SUFFIXES


def files_of(path: Path, labels: str | None) -> Files:
    """The file of each array; one that holds them all as both x and y. Raises DataError."""
    if path.is_dir():
        return _in_folder(path, labels)
    if path.suffix.lower() in PACKED:
        if labels is not None:
            raise ConfigError(
                f"dataset.labels={labels} only works if x is an .npy file; {path.name} contains its own y."
            )
        return {WHOLE: dict.fromkeys(NEEDED, path)}
    if path.suffix.lower() != ".npy":
        identity(path)
        raise DataError(
            f"{path} is not a file of arrays ({', '.join(SUFFIXES)}) or a folder of .npy files.{advice(path)}"
        )
    return {WHOLE: _beside(path, labels)}


def unlabelled_files(path: Path) -> Files:
    """The file of each array as `files_of` gives them, but without labels. Raises DataError."""
    if path.is_dir():
        there = {file.stem: file for file in sorted(path.glob("*.npy"))}
        return {WHOLE: {array: there[name] for array, name in unlabelled_in(there, str(path))[WHOLE].items()}}
    identity(path)
    return {WHOLE: {"x": path}}


def _in_folder(path: Path, labels: str | None) -> Files:
    there = {file.stem: file for file in sorted(path.glob("*.npy"))}
    found = {
        split: {array: there[name] for array, name in names.items()}
        for split, names in chosen(there, str(path)).items()
    }
    if labels is not None:
        if WHOLE not in found:
            raise ConfigError(
                f"dataset.labels={labels} is one file, but {path} has sequences for each split."
            )
        found[WHOLE]["y"] = Path(labels)
    for arrays in found.values():
        _refuse_lacking(arrays, path, "")
    return found


def _beside(path: Path, labels: str | None) -> dict[str, Path]:
    """The files that belong to an .npy file of sequences: y.npy, or y_train.npy to x_train.npy."""
    there = {file.stem: file for file in sorted(path.parent.glob("*.npy"))}
    own = role_of(path.stem)
    others = by_split([name for name in there if not _is_x(name)], str(path.parent))
    names = others.get(WHOLE, {}) | others.get(WHOLE if own is None else own.split, {})
    found = {array: there[name] for array, name in names.items()}
    found["x"] = path
    if labels is not None:
        found["y"] = Path(labels)
    _refuse_lacking(found, path.parent, ", or set dataset.labels")
    return found


def _is_x(name: str) -> bool:
    role = role_of(name)
    return role is not None and role.array == "x"


def _refuse_lacking(files: Mapping[str, Path], folder: Path, hint: str) -> None:
    for name, meaning in NEEDED.items():
        file = files.get(name, folder / f"{name}.npy")
        if not file.is_file():
            raise DataError(f"{file} does not exist: put the {meaning} there{hint if name == 'y' else ''}.")


def opened(
    path: Path, files: Files, progress: Progress, choose: Choose = chosen_in
) -> dict[int, dict[str, NamedArray]]:
    """The arrays of each split, those that `choose` finds. Raises DataError for damaged files."""
    suffix = path.suffix.lower()
    if suffix == ".npz" and not path.is_dir():
        return _unpacked(path, progress, choose)
    if suffix == ".mat" and not path.is_dir():
        return _of_matlab(path, choose)
    if suffix in hdf5.SUFFIXES and not path.is_dir():
        return {
            split: {array: _mapped(file, f"{path}: {name}") for array, (name, file) in arrays.items()}
            for split, arrays in hdf5.arrays_in(path, progress, choose is chosen_in).items()
        }
    return {
        split: {name: _mapped(file, str(file)) for name, file in arrays.items()}
        for split, arrays in files.items()
    }


def _mapped(path: Path, what: str) -> NamedArray:
    array, file = mapped(path, what)
    return NamedArray(array, what, file)


def _unpacked(path: Path, progress: Progress, choose: Choose) -> dict[int, dict[str, NamedArray]]:
    """The arrays of an .npz file; large ones are mapped from the cache. Raises DataError."""
    identity(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            names = [member.filename.removesuffix(".npy") for member in members]
            found = choose(names, str(path))
            member_of = dict(zip(names, members, strict=True))
            used = {name for arrays in found.values() for name in arrays.values()}
            held = {name: _member(path, archive, member_of[name], progress) for name in sorted(used)}
    except RnnclfError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types for a damaged file
        raise DataError(f"{path} is not an .npz file, or is damaged ({excerpt(str(error), 120)}).") from error
    return _by_role(found, held)


def _of_matlab(path: Path, choose: Choose) -> dict[int, dict[str, NamedArray]]:
    identity(path)
    found = choose(list(matlab.variables(path)), str(path))
    used = {name for names in found.values() for name in names.values()}
    held = matlab.arrays(path, used)
    return _by_role(found, {name: NamedArray(array, f"{path}: {name}") for name, array in held.items()})


def _by_role(found: Chosen, held: Mapping[str, NamedArray]) -> dict[int, dict[str, NamedArray]]:
    return {split: {array: held[name] for array, name in names.items()} for split, names in found.items()}


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, progress: Progress) -> NamedArray:
    what, size = f"{path}: {member.filename.removesuffix('.npy')}", member.file_size
    with archive.open(member) as file:
        layout_of(file, size, what)  # checks the claimed size before anything is unpacked
    if size <= IN_MEMORY:
        return NamedArray(parsed(archive.read(member), what), what)
    folder = folder_for("unpacked", identity(path), member.filename)
    folder = unpack(archive, {"array.npy": member}, folder, progress)
    return _mapped(folder / "array.npy", what)
