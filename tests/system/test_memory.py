"""What does not fit into memory is refused before it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnclf.data.archive import Archive
from rnnclf.data.arrays import Arrays
from rnnclf.data.folder import Folder
from rnnclf.data.table import Table
from rnnclf.errors import DataError
from rnnclf.system import memory

HUGE = 10**12  # bytes; the file takes no space on the disk


def huge(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.truncate(path, HUGE)
    return path


def folder_with(file: Path) -> Folder:
    return Folder(path=str(file.parent.parent))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Archive(path=str(huge(folder / "x.ts"))), "takes 3.0 TB of memory; this machine"),
        (lambda folder: Table(path=str(huge(folder / "x.csv"))), "line 1 has a NUL byte"),
        (lambda folder: Table(path=str(huge(folder / "x.csv", b"id,x,label\n"))), "line 2 has a NUL byte"),
        (lambda folder: Table(path=str(huge(folder / "x.parquet"))), "is not a Parquet file"),
        (lambda folder: Arrays(path=str(huge(folder / "x.npz"))), "is not an .npz file"),
        (
            lambda folder: Folder(path=str(huge(folder / "a" / "1.npy").parent.parent)),
            "takes 2.0 TB of memory",
        ),
        (
            lambda folder: Folder(path=str(huge(folder / "a" / "1.csv").parent.parent)),
            "takes 3.0 TB of memory",
        ),
    ],
    ids=["ts", "csv", "csv with a header", "parquet", "npz", "folder of npy", "folder of csv"],
)
def test_a_huge_file_is_refused_in_words(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        make(tmp_path / "data").read()


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "GROUP_LIMITS", (str(limit),))
    for text, excess in (("max\n", None), ("1000000\n", "2.0 MB of memory; this machine has 1.0 MB")):
        limit.write_text(text)
        assert memory.excess(2_000_000) == excess


@pytest.mark.parametrize(
    ("size", "words"), [(1, "1 byte"), (312, "312 bytes"), (4200, "4.2 kB"), (10**12, "1.0 TB")]
)
def test_sizes_in_words(size, words):
    assert memory.in_bytes(size) == words
