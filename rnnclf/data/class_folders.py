"""Finds the files of sequences in a folder, with the class, group and split of each. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rnnclf.data.delimited import excerpt
from rnnclf.data.label_table import matched
from rnnclf.data.sequence_files import SUFFIXES
from rnnclf.data.splits import SPLITS, split_called
from rnnclf.errors import ConfigError, DataError


class NoGroupError(DataError):
    """The path of a file does not say which group its sequence belongs to."""


class Entry(NamedTuple):
    """The file of one sequence, with what its path says about it."""

    path: Path
    place: str
    """Its path relative to the data folder, for messages."""
    label: str
    group: str | None
    given: int


def pattern_of(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"dataset.group: '{text}' is not a valid regular expression ({error}).") from error
    if pattern.groups != 1:
        raise ConfigError(
            f"dataset.group: '{text}' must have one group in parentheses, it has {pattern.groups}."
        )
    return pattern


def find_entries(root: Path, group: str | None, others: list[Path]) -> Iterator[Entry]:
    """The sequence files of a folder, sorted by path; other files are added to `others`. Raises DataError."""
    if not root.is_dir():
        raise DataError(
            f"{root} does not exist." if not root.exists() else f"{root} is a file, not a folder."
        )
    folders = _folders(root)
    if not folders:
        raise DataError(
            f"{root} has no folders in it: it needs one folder per class, each with one file per sequence, or"
            " dataset.labels, a table with the class of each file."
        )
    splits = _splits(root, folders)
    for split, folder in sorted(splits.items()):
        for entry in _class_entries(folder, _folders(folder), group, others):
            yield entry._replace(place=f"{folder.name}/{entry.place}", given=split)
        others += _files(folder)
    if not splits:
        yield from _class_entries(root, folders, group, others)
    others += _files(root)


def unlabelled_entries(root: Path, others: list[Path]) -> list[Entry]:
    """The sequence files in a folder and in any folders below it. Raises DataError if there are none."""
    below = _files_below(root)
    paths = [path for path in below if path.suffix.lower() in SUFFIXES]
    others += [path for path in below if path.suffix.lower() not in SUFFIXES]
    if not paths:
        raise DataError(f"{root} has no sequence files: their names must end in {', '.join(SUFFIXES)}.")
    return [Entry(path, path.relative_to(root).as_posix(), "", None, -1) for path in paths]


def _splits(root: Path, folders: Sequence[Path]) -> dict[int, Path]:
    """The folders that are named like splits, by index into SPLITS; empty if the folders are classes.

    Raises DataError where it is not clear what they are.
    """
    called = {folder: split_called(folder.name) for folder in folders}
    named = {folder: split for folder, split in called.items() if split is not None}
    if len(set(called.values()) - {None}) < 2 and not (
        len(named) == len(folders) and any(map(_folders, named))
    ):
        return {}  # a class may be called "train": in data about ways to travel it is one
    names = " and ".join(f"'{folder.name}'" for folder in named)
    found: dict[int, Path] = {}
    for folder, split in named.items():
        if split in found:
            raise DataError(
                f"{root}: '{found[split].name}' and '{folder.name}' could each be the {SPLITS[split]} split:"
                " put their class folders into one of them."
            )
        found[split] = folder
    if other := [folder for folder in folders if folder not in named]:
        raise DataError(
            f"{root}: {names} are named like splits, but '{excerpt(other[0].name)}' beside them is not."
            " Move it elsewhere, or rename the folders if they are classes."
        )
    if flat := [folder for folder in named if not _folders(folder)]:
        raise DataError(
            f"{root}: {names} are named like splits, but '{flat[0].name}' has no class folders in it."
            " Put its files into a folder for each class, or rename the folders if they are classes."
        )
    if SPLITS.index("train") not in found:
        raise DataError(f"{root} has {names}, but no folder called 'train': there is nothing to train on.")
    return found


def _files(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".")]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_entries(
    root: Path, folders: Iterable[Path], group: str | None, others: list[Path]
) -> Iterator[Entry]:
    for folder in folders:
        paths = _files_below(folder)
        sequences = [path for path in paths if path.suffix.lower() in SUFFIXES]
        others += [path for path in paths if path.suffix.lower() not in SUFFIXES]
        if not sequences:
            raise DataError(f"{folder} has no sequence files: their names must end in {', '.join(SUFFIXES)}.")
        for path in sequences:
            within = path.relative_to(folder).as_posix()
            yield Entry(path, f"{folder.name}/{within}", folder.name, _group(group, within, path), -1)


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones; links to folders are not followed."""
    found: list[Path] = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _group(group: str | None, within: str, path: Path) -> str | None:
    if group is None:
        return None
    match = pattern_of(group).search(within)
    if match is None or match[1] is None:
        raise NoGroupError(f"{path}: dataset.group='{group}' does not match its path.")
    return match[1]


def labelled_entries(root: Path, table: Path, group: str | None, others: list[Path]) -> Iterator[Entry]:
    """The sequence files below a folder whose classes are in a table, sorted by path. Raises DataError.

    Folders that are named like splits are splits. Other files, and those that the table does not name, are
    added to `others`.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} does not exist." if not root.exists() else f"{root} is a file, not a folder."
        )
    below = [path for path in _files_below(root) if path.resolve() != table.resolve()]
    paths = [path for path in below if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise DataError(f"{root} has no sequence files: their names must end in {', '.join(SUFFIXES)}.")
    named = matched(paths, root, table)
    others += sorted(set(below) - {path for path, _ in named})
    splits = {folder.name: split_called(folder.name) for folder in _folders(root)}
    are_splits = SPLITS.index("train") in splits.values() and None not in splits.values()
    for path, label in named:
        within = path.relative_to(root)
        split = splits.get(within.parts[0]) if are_splits and len(within.parts) > 1 else None
        place = within.as_posix()
        yield Entry(path, place, label, _group(group, place, path), -1 if split is None else split)
