"""Files of the UCR and UEA time series archives, https://www.timeseriesclassification.com.

Shapes: N sequences, T steps, C channels.
"""

from __future__ import annotations

import contextlib
import io
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from rnnclf.data.arff import arff_sequences
from rnnclf.data.cache import folder_for, identity
from rnnclf.data.changes import refuse_changed
from rnnclf.data.conversion import Part, cached, combine, unpack
from rnnclf.data.delimited import (
    MISSING,
    delimiter_of,
    excerpt,
    is_number,
    lines_of,
    number,
    numbers,
    refuse_empty_lines,
    unquoted,
)
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Progress, Recordings, numbered, silent
from rnnclf.data.refused import advice
from rnnclf.data.splits import SPLITS
from rnnclf.errors import ConfigError, DataError, RnnclfError

if TYPE_CHECKING:
    from rnnclf.data.base import Learned

SUFFIXES = (".ts", ".arff", ".tsv", ".txt")  # in order of preference, if a data set comes in several formats


@dataclass
class Archive(OwnData):
    """Files of the UCR and UEA archives: .ts, .arff, or the UCR archive's .tsv and .txt (label first).

    dataset.path is NAME_TRAIN.ts (NAME_TEST.ts next to it becomes the test split), or a folder or .zip file
    with both. Bagnall et al. 2018, https://arxiv.org/abs/1811.00075; .ts files are read with aeon.
    """

    READS: ClassVar[str] = "files of the UCR and UEA archives (.ts, .arff, .tsv, .txt, .zip)"

    name: str = "archive"

    @classmethod
    def takes(cls, path: Path) -> bool:
        named = path.stem.endswith(("_TRAIN", "_TEST")) and path.suffix.lower() in SUFFIXES
        held = any(any(path.glob(f"*_TRAIN{suffix}")) for suffix in SUFFIXES)
        return named or held or path.suffix.lower() in (".ts", ".arff", ".zip")

    def read(self, progress: Progress = silent) -> Recordings:
        path, *test = self.paths()
        training = _training_file(path, progress)
        notes: list[str] = []
        given = [-1, SPLITS.index("test")]
        if not test and (test_file := _test_file(training)) is not None:
            if test_file.is_file():
                test = [test_file]
                notes = [f"{test_file.name}, in the same folder, is the test split."]
            else:
                notes = [f"There is no {test_file.name} in the same folder: a test split is drawn."]
        files = [training, *test]
        versions = [identity(file) for file in files]
        folder = folder_for("archives", versions, notes)

        def read() -> Recordings:
            recordings = _read(list(zip(files, given, strict=False)), notes, progress)
            refuse_changed(versions)
            return recordings

        return cached(folder, read)

    def read_unlabelled(
        self, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        path, notes = _training_file(self.paths()[0], progress), list[str]()
        versions = [identity(path)]
        recordings = _read([(path, -1)], notes, progress, labelled=False)
        refuse_changed(versions)
        return recordings.without_labels()


def _training_file(path: Path, progress: Progress) -> Path:
    """The training file: the path itself, or the file inside this folder or .zip file. Raises DataError."""
    if path.suffix.lower() == ".zip":
        path = _unpacked(path, progress)
    if not path.is_dir():
        identity(path)
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path} is not an archive file: its name should end in {', '.join(SUFFIXES)} or .zip."
                f"{advice(path)}"
            )
        return path
    for suffix in SUFFIXES:
        found = sorted(path.glob(f"*_TRAIN{suffix}"))
        if len(found) > 1:
            raise DataError(
                f"{path} holds {len(found)} data sets, {found[0].name} …: set dataset.path to one of them."
            )
        if found:
            return found[0]
    raise DataError(f"{path} has no file that ends in {', '.join(f'_TRAIN{suffix}' for suffix in SUFFIXES)}.")


def _test_file(path: Path) -> Path | None:
    """NAME_TEST.ts for NAME_TRAIN.ts."""
    name = path.stem.removesuffix("_TRAIN")
    return path.with_name(f"{name}_TEST{path.suffix}") if name != path.stem else None


def _unpacked(path: Path, progress: Progress) -> Path:
    """Unpacks the data files of a .zip file into the cache, and returns their folder. Raises DataError."""
    folder = folder_for("unpacked", identity(path))
    try:
        with zipfile.ZipFile(path) as archive:
            return unpack(archive, _members(path, archive), folder, progress)
    except RnnclfError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types for a damaged file
        raise DataError(f"{path} is not a .zip file, or is damaged ({excerpt(str(error), 120)}).") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members to unpack, by file name. Raises DataError for paths that lead outside, and for links."""
    members = archive.infolist()
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise DataError(
                f"{path} holds {excerpt(member.filename, 120)}, a path that leads outside:"
                " nothing was unpacked."
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{path} holds a link, {excerpt(member.filename, 120)}: nothing was unpacked.")
    for suffix in SUFFIXES:
        chosen = [m for m in members if m.filename.endswith((f"_TRAIN{suffix}", f"_TEST{suffix}"))]
        named = {PurePosixPath(member.filename).name: member for member in chosen}
        visible = {name: member for name, member in named.items() if not name.startswith(".")}
        training = [name for name in visible if name.endswith(f"_TRAIN{suffix}")]
        if len(training) > 1:
            raise DataError(
                f"{path} holds {len(training)} data sets: unpack it and set dataset.path to one of them."
            )
        if training:
            return visible
    wanted = ", ".join(f"_TRAIN{suffix}" for suffix in SUFFIXES)
    raise DataError(f"{path} has no file that ends in {wanted}: if it holds other data, unpack it.")


def _read(
    files: Sequence[tuple[Path, int]], notes: list[str], progress: Progress, labelled: bool = True
) -> Recordings:
    """labelled: whether each sequence must have a label; without, it is '' where there is none."""
    parts: list[Part] = []
    for done, (path, given) in enumerate(files):
        progress(f"reading {path.name}", done / len(files))
        found = list(_sequences(path, given, notes, labelled))
        size, expected = found[0].values_TC.shape[1], (parts or found)[0].values_TC.shape[1]
        if size != expected:
            raise DataError(f"{path} has {size} channels, {files[0][0].name} has {expected}.")
        parts += found
    return combine(parts, numbered(parts[0].values_TC.shape[1]), notes)


def _sequences(path: Path, given: int, notes: list[str], labelled: bool) -> Iterator[Part]:
    if path.suffix.lower() == ".arff":
        return arff_sequences(path, given, labelled)
    return (_ts if path.suffix.lower() == ".ts" else _ucr)(path, given, notes, labelled)


def _ucr(path: Path, given: int, notes: list[str], labelled: bool) -> Iterator[Part]:
    """The sequences of a UCR file: one per line, label first, padded at the end with missing values."""
    import numpy as np

    lines = lines_of(path, str(path))
    refuse_empty_lines(lines, str(path))
    delimiter = delimiter_of(lines[0])
    rows = [line.split(delimiter) for line in lines]
    if len(rows[0]) < 2:
        raise DataError(f"{path}, line 1 has only one field; it needs a label and the values of a sequence.")
    values_NT = numbers([row[1:] for row in rows], 1, 2, str(path))
    for line, (row, values_T) in enumerate(zip(rows, values_NT, strict=True), start=1):
        place = f"{path.name}, line {line}"
        present = np.flatnonzero(~np.isnan(values_T))
        if not len(present):
            raise DataError(f"{place}: the sequence has no values.")
        label = _label(row[0], place, labelled)
        yield Part(values_T[: present[-1] + 1, None], label, place, given=given)


def _label(field: str, place: str, labelled: bool) -> str:
    """The label as written, but whole numbers without a fraction: some files have 1.0000000e+00."""
    bare = unquoted(field)
    if not labelled and bare.lower() in MISSING:
        return ""
    if not is_number(bare):
        return bare
    value = number(bare, place)
    if value != value:
        said = (
            f"the label '{bare}' is read as missing: give the class another name"
            if bare
            else "the label is missing"
        )
        raise DataError(f"{place}: {said}.")
    return str(int(value)) if value.is_integer() else bare


def _ts(path: Path, given: int, notes: list[str], labelled: bool) -> Iterator[Part]:
    """The sequences of a .ts file. Raises DataError, with the line number if it is known."""
    import numpy as np

    lines = lines_of(path, str(path))
    first, declared = _header(path, lines, labelled)
    refuse_empty_lines(lines, str(path), first)
    if declared is None:
        labels = [""] * len(lines[first:])
    else:
        labels = _labels(path, lines, first, labelled)
        if foreign := [label for label in dict.fromkeys(labels) if label.lower() not in declared | {""}]:
            notes.append(f"The @classLabel line of {path.name} does not list class '{excerpt(foreign[0])}'.")
    cases = _with_aeon(path, lines, first, declared is not None)
    for line, (case_CT, label) in enumerate(zip(cases, labels, strict=True), start=first + 1):
        values_TC = np.ascontiguousarray(case_CT.T, np.float64)
        yield Part(values_TC, label, f"{path.name}, line {line}", given=given)


def _labels(path: Path, lines: Sequence[str], first: int, labelled: bool) -> list[str]:
    """What follows the last colon of each line of data, '' where the label is missing. Raises DataError."""
    labels = [line.rpartition(":")[2].strip() for line in lines[first:]]
    for line, label in enumerate(labels, start=first + 1):
        if (labelled and not label) or ":" not in lines[line - 1]:
            raise DataError(f"{path}, line {line} has no label: it should follow the last colon.")
    return labels if labelled else ["" if label == "?" else label for label in labels]


def _header(path: Path, lines: Sequence[str], labelled: bool) -> tuple[int, set[str] | None]:
    """The index of the first line of data, and the class names in lower case; None if sequences have no
    labels and need none. Raises DataError."""
    words = [line.lower().split() or [""] for line in lines]
    first = next((place for place, line in enumerate(words, start=1) if line[0] == "@data"), None)
    if first is None:
        raise DataError(f"{path} has no @data line: it is not a .ts file, or is damaged.")
    if first == len(lines):
        raise DataError(f"{path} has no sequences: nothing follows @data in line {first}.")
    header = {line[0]: line[1:] for line in words[:first]}
    without = header.get("@classlabel", ["true"])[:1] == ["false"]
    if header.get("@targetlabel", ["false"])[:1] == ["true"] or (without and labelled):
        raise DataError(f"{path} has numbers to predict instead of classes; rnnclf trains classifiers.")
    if header.get("@classlabel", [])[:1] != ["true"] and not without:
        raise DataError(f"{path}: the header needs a line '@classLabel true' followed by the class names.")
    if header.get("@timestamps", ["false"])[:1] == ["true"]:
        raise DataError(
            f"{path} has timestamps, which are not supported in .ts files:"
            " save it as a table with a time column."
        )
    return first, None if without else set(header["@classlabel"][1:])


def _with_aeon(path: Path, lines: Sequence[str], first: int, labels: bool) -> Any:
    """The sequences as read by aeon, from lines with or without labels: an array (N, C, T) or a list of
    arrays (C, T)."""
    try:
        from aeon.datasets import load_from_ts_file
    except ImportError as error:
        raise ConfigError(
            f"Reading {path.name} needs aeon, which is not installed: pip install 'rnnclf[archive]'."
        ) from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cases, _ = load_from_ts_file(str(path))
    except Exception as error:  # aeon does not document what it raises for a damaged file
        rows = lines if labels else [*lines[:first], *(f"{line}:" for line in lines[first:])]
        raise DataError(_fault(path, rows, first, error)) from error
    if len(cases) != len(lines) - first or not all(case.shape[0] for case in cases):
        raise DataError(
            f"{path} is damaged: it has {len(lines) - first} lines of data but {len(cases)} sequences."
        )
    return cases


def _fault(path: Path, lines: Sequence[str], first: int, error: Exception) -> str:
    """The message for a file that aeon cannot read, with the line number if the fault can be found."""
    may_differ = any(line.lower().split() == ["@equallength", "false"] for line in lines[:first])
    channels, steps = len(lines[first].split(":")) - 1, len(lines[first].partition(":")[0].split(","))
    for line, text in enumerate(lines[first:], start=first + 1):
        values = [field.split(",") for field in text.split(":")[:-1]]
        lengths = sorted({len(channel) for channel in values})
        if len(values) != channels:
            return f"{path}, line {line} has {len(values)} channels, line {first + 1} has {channels}."
        if len(lengths) > 1:
            return f"{path}, line {line}: the channels have different numbers of steps, {lengths}."
        if bad := [value for channel in values for value in channel if not _is_value(value)]:
            return f"{path}, line {line}: '{excerpt(bad[0])}' is not a number."
        if lengths != [steps] and not may_differ:
            return (
                f"{path}, line {line} has {lengths[0]} steps, line {first + 1} has {steps}:"
                " the header needs a line '@equalLength false'."
            )
    if len(path.read_text("utf-8-sig").split("\n")) > len(lines) + 1:
        return f"{path} ends with empty lines: delete them."
    reason = excerpt(str(error), 120).rstrip(".") or type(error).__name__
    return f"{path} is not a valid .ts file: {reason}."


def _is_value(field: str) -> bool:
    """Whether a field of a .ts file is a number, or ? or NaN."""
    return is_number(field) and field.strip().lower() not in MISSING - {"?", "nan"}
