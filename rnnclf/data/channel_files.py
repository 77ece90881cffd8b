"""Folders with a file for each channel, as that of UCI HAR. Torch-free.

Each file has a row for each sequence, with a value for each step. A file beside them, y.txt, has the labels.
Anguita et al. 2013, https://archive.ics.uci.edu/dataset/240.  Shapes: N sequences, T steps, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.conversion import Part
from rnnclf.data.delimited import delimiter_of, excerpt, lines_of, numbers, refuse_empty_lines, unquoted
from rnnclf.data.npy import refuse_more_than_memory
from rnnclf.data.recordings import Array, Progress
from rnnclf.data.splits import split_called
from rnnclf.errors import DataError

SUFFIXES = (".txt", ".csv", ".tsv", ".dat")
COPIES = 4  # of the files in memory while they are joined
SPLIT = r"[_.-](?:train|training|valid|validation|val|dev|test|testing)"
LABELS = re.compile(rf"y(?:{SPLIT})?|(?:labels?|targets?){SPLIT}", re.IGNORECASE)
GROUPS = re.compile(rf"(?:subjects?|persons?|patients?|groups?)(?:{SPLIT})?", re.IGNORECASE)
FEATURES = re.compile(rf"x(?:{SPLIT})?", re.IGNORECASE)
CLASSES = re.compile(r"(?:activity|class|label)[_.-]?(?:labels?|names?)", re.IGNORECASE)
OTHER = re.compile(r"(?:readme|features|info|license).*", re.IGNORECASE)


@dataclass(frozen=True)
class ChannelFolder:
    """The files of one split: labels, groups (None without) and channels by name.

    features: a file beside folders of channels, which holds what was computed from them. given: see `Part`.
    """

    path: Path
    labels: Path
    groups: Path | None
    channels: dict[str, Path]
    features: Path | None
    given: int

    @property
    def files(self) -> list[Path]:
        return [self.labels, *([self.groups] if self.groups else []), *self.channels.values()]


def channel_folders(root: Path, given: int = -1) -> list[ChannelFolder]:
    """The splits of a folder with a file for each channel; none if it is another kind of folder.

    given: the split of all sequences; -1 if folders named like splits may say it.

    Raises DataError if labels or channels are missing.
    """
    if not root.is_dir():
        return []
    if (labels := _labels_in(root)) is not None:
        return [_folder(root, labels, given)]
    splits = [(split, path) for path in sorted(root.iterdir()) if (split := _split(path)) is not None]
    if not any(_labels_in(path) for _, path in splits):
        return []
    found = []
    for split, path in sorted(splits):
        if (labels := _labels_in(path)) is None:
            raise DataError(f"{path} has no file of labels, such as y_{path.name}.txt.")
        found.append(_folder(path, labels, split if given < 0 else given))
    return found


def _split(path: Path) -> int | None:
    return split_called(path.name) if path.is_dir() else None


def _texts(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES)


def _labels_in(folder: Path) -> Path | None:
    return next((path for path in _texts(folder) if LABELS.fullmatch(path.stem)), None)


def _folder(path: Path, labels: Path, given: int) -> ChannelFolder:
    beside = [file for file in _texts(path) if not OTHER.match(file.stem) and not CLASSES.match(file.stem)]
    groups = next((file for file in beside if GROUPS.fullmatch(file.stem)), None)
    beside = [file for file in beside if file not in (labels, groups)]
    within = [file for part in sorted(path.iterdir()) if part.is_dir() for file in _texts(part)]
    features = next((file for file in beside if within and FEATURES.fullmatch(file.stem)), None)
    files = [file for file in (*within, *beside) if file != features]
    if not files:
        raise DataError(f"{path} has no files of channels beside {labels.name}.")
    channels: dict[str, Path] = {}
    for file in files:
        name = re.sub(rf"{SPLIT}$", "", file.stem, flags=re.IGNORECASE)
        if name in channels:
            raise DataError(f"{channels[name]} and {file} are both called '{excerpt(name)}': rename one.")
        channels[name] = file
    return ChannelFolder(path, labels, groups, channels, features, given)


def sequences_of(
    root: Path, folders: Sequence[ChannelFolder], progress: Progress
) -> tuple[list[Part], tuple[str, ...], list[str]]:
    """The sequences of all splits, the names of the channels, and notes. Raises DataError."""
    files = [file for folder in folders for file in folder.files]
    refuse_more_than_memory(COPIES * sum(file.stat().st_size for file in files), str(root))
    first = folders[0]
    for folder in folders:
        if folder.channels.keys() != first.channels.keys() or (folder.groups is None) != (
            first.groups is None
        ):
            raise DataError(
                f"{folder.path} has the files {_listed(folder)}, but {first.path} has {_listed(first)}: all"
                " splits need the same."
            )
    names, parts = _class_names([root, *(folder.path for folder in folders)]), list[Part]()
    for folder in folders:
        parts += _parts(root, folder, names, progress)
    notes = [
        f"{_within(root, folder.features)} holds computed features and was left out."
        for folder in folders
        if folder.features is not None
    ]
    by = f", and {_within(root, first.groups)} its group" if first.groups else ""
    labels = _within(root, first.labels)
    told = f"{root.name} has a file for each channel; {labels} has the class of each row{by}."
    return parts, tuple(first.channels), [told, *notes]


def _within(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _listed(folder: ChannelFolder) -> str:
    return excerpt(", ".join(file.name for file in sorted(folder.files)), 200)


def _parts(root: Path, folder: ChannelFolder, names: dict[str, str], progress: Progress) -> Iterator[Part]:
    import numpy as np

    labels = _words(folder.labels)
    groups = None if folder.groups is None else _words(folder.groups)
    if groups is not None and len(groups) != len(labels):
        raise DataError(_uneven(folder.groups or root, len(groups), folder.labels, len(labels)))
    values_CNT: list[Array] = []
    for file in folder.channels.values():
        progress(f"reading {file.name}", len(values_CNT) / len(folder.channels))
        values_NT = _values(file)
        if len(values_NT) != len(labels):
            raise DataError(_uneven(file, len(values_NT), folder.labels, len(labels)))
        if values_CNT and values_NT.shape != values_CNT[0].shape:
            other = next(iter(folder.channels.values()))
            raise DataError(
                f"{file} has {values_NT.shape[1]:,} values in each row, {other.name} has"
                f" {values_CNT[0].shape[1]:,}: all channels need the same number of steps."
            )
        values_CNT.append(values_NT)
    values_NTC = np.stack(values_CNT, axis=2)
    for n, label in enumerate(labels):
        if names and label not in names:
            raise DataError(f"{folder.labels}, line {n + 1}: no class is called '{excerpt(label)}'.")
        yield Part(
            values_NTC[n],
            names.get(label, label),
            f"{_within(root, folder.labels)}, line {n + 1}",
            group=None if groups is None else groups[n],
            given=folder.given,
        )


def _uneven(file: Path, rows: int, labels: Path, there: int) -> str:
    return f"{file} has {rows:,} rows, but {labels.name} has {there:,}: each row must be a sequence."


def _words(file: Path) -> list[str]:
    """The only word of each line. Raises DataError."""
    lines = lines_of(file, str(file))
    refuse_empty_lines(lines, str(file))
    return [unquoted(line) for line in lines]


def _values(file: Path) -> Array:
    lines = lines_of(file, str(file))
    refuse_empty_lines(lines, str(file))
    delimiter = delimiter_of(lines[0].strip())
    return numbers([line.split(delimiter) for line in lines], 1, 1, str(file))


def _class_names(folders: Sequence[Path]) -> dict[str, str]:
    """The names of classes by their numbers, from a file such as activity_labels.txt, if there is one.

    Raises DataError if a line of it does not hold a number and a name.
    """
    files = [file for folder in folders for file in _texts(folder) if CLASSES.fullmatch(file.stem)]
    names = {}
    for line, text in enumerate(lines_of(files[0], str(files[0])) if files else [], start=1):
        number, *name = text.replace(",", " ").replace(";", " ").split(maxsplit=1)
        if not name:
            raise DataError(f"{files[0]}, line {line} must hold the number of a class and its name.")
        names[number] = unquoted(name[0])
    return names
