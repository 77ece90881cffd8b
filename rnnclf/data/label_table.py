"""A table that says the class of each file: dataset.labels=labels.csv. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnnclf.data.delimited import delimiter_of, excerpt, lines_of, refuse_empty_lines, unquoted
from rnnclf.errors import DataError

FILE = ("file", "filename", "file_name", "path", "filepath", "name", "recording", "id")
LABEL = ("label", "labels", "class", "target", "y", "category", "activity")


def labels_in_table(table: Path) -> dict[str, tuple[int, str]]:
    """The line number and the label of each file that the table names. Raises DataError.

    The columns are found by their names in the first line; a table of two columns needs none.
    """
    lines = lines_of(table, str(table))
    refuse_empty_lines(lines, str(table))
    delimiter = "\t" if table.suffix.lower() == ".tsv" else delimiter_of(lines[0])
    rows = [[unquoted(field) for field in line.split(delimiter)] for line in lines]
    file, label, first = _columns(table, rows[0])
    found: dict[str, tuple[int, str]] = {}
    for line, row in enumerate(rows[first:], start=first + 1):
        if len(row) != len(rows[0]):
            raise DataError(f"{table}, line {line} has {len(row)} fields, line 1 has {len(rows[0])}.")
        if not row[file] or not row[label]:
            raise DataError(f"{table}, line {line} has no {'label' if row[file] else 'file name'}.")
        name = row[file].replace("\\", "/").removeprefix("./")
        if name in found:
            raise DataError(f"{table}, line {line}: '{excerpt(name)}' is also in line {found[name][0]}.")
        found[name] = line, row[label]
    if not found:
        raise DataError(f"{table} names no files.")
    return found


def _columns(table: Path, header: Sequence[str]) -> tuple[int, int, int]:
    """The columns of the file and of the label, and the index of the first row. Raises DataError."""
    names = [name.lower() for name in header]
    files = [names.index(name) for name in FILE if name in names]
    labels = [names.index(name) for name in LABEL if name in names]
    if files and labels:
        return files[0], labels[0], 1
    if len(names) == 2 and not files and not labels:
        return 0, 1, 0
    if len(names) == 2:
        file = files[0] if files else 1 - labels[0]
        return file, 1 - file, 1
    raise DataError(
        f"{table} needs a column '{FILE[0]}' and a column '{LABEL[0]}'; it has"
        f" {excerpt(', '.join(header), 120)}."
    )


def matched(paths: Sequence[Path], root: Path, table: Path) -> list[tuple[Path, str]]:
    """The files that the table names, with their labels; those that it does not name are left out.

    A name may be the path below `root`, the name of the file, or that without its suffix. Raises DataError
    for one that no file has, or several have.
    """
    known: dict[str, set[Path]] = {}
    for path in paths:
        within = path.relative_to(root)
        for name in {within.as_posix(), within.with_suffix("").as_posix(), path.name, path.stem}:
            known.setdefault(name, set()).add(path)
    label_of: dict[Path, str] = {}
    for name, (line, label) in labels_in_table(table).items():
        of_name = known.get(name, set())
        if len(of_name) != 1:
            fault = f"{len(of_name)} files have this name" if of_name else "no sequence file has this name"
            raise DataError(f"{table}, line {line}: '{excerpt(name, 120)}': {fault} in {root}.")
        (path,) = of_name
        if path in label_of:
            raise DataError(f"{table}, line {line}: '{excerpt(name, 120)}' is named a second time.")
        label_of[path] = label
    return sorted(label_of.items())
