"""Files that change while they are read: noticed, whatever reads them, and harmless where they are copied."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnclf.data import Learned, SequenceDataset, dataset
from rnnclf.data.archive import Archive
from rnnclf.data.arrays import Arrays
from rnnclf.data.base import assembled
from rnnclf.data.folder import Folder
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Recordings
from rnnclf.data.survey import digests
from rnnclf.data.table import Table
from rnnclf.errors import DataError
from tests.data.arrays import NAMES, C, X, Y, folder, read

CHANGED = r"x\.npy changed while it was being read: try again when it is complete\."


def overwrite(path: Path) -> None:
    """Changes values in place, as numpy.memmap with mode r+ does."""
    np.load(path, mmap_mode="r+")[...] = 7
    moment = path.stat().st_mtime_ns + 1  # the clock of a file system may stand still for milliseconds
    os.utime(path, ns=(moment, moment))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def prepared_by(recordings: Recordings) -> Learned:
    size = len(recordings.channels)
    return Learned(
        Preparation(recordings.channels, "error", (0.0,) * size, (1.0,) * size), recordings.classes
    )


def mapped_dataset(path: Path, monkeypatch) -> SequenceDataset:
    monkeypatch.setattr(dataset, "RESIDENT", 0)
    recordings = read(path)
    return assembled(recordings, prepared_by(recordings))


@pytest.mark.parametrize("change", [overwrite, cut_short])
def test_a_mapped_file_that_changes_is_noticed_by_the_next_batch_and_by_every_later_look(
    tmp_path, monkeypatch, change
):
    data = mapped_dataset(folder(tmp_path, x=X, y=Y), monkeypatch)
    assert data.batch(torch.arange(3)).x_BTI.shape == (3, 5, C)
    change(tmp_path / "x.npy")
    for look in (
        data.refuse_changed,
        data.prepared,
        lambda: data.subset(torch.arange(2)).batch(torch.arange(1)),
    ):
        with pytest.raises(DataError, match=CHANGED):
            look()


@pytest.mark.parametrize("change", [overwrite, cut_short])
def test_statistics_of_a_file_that_changes_are_neither_made_nor_kept(tmp_path, monkeypatch, change):
    monkeypatch.setattr("rnnclf.data.arrays.CACHED_FROM", 0)
    recordings = read(folder(tmp_path, x=X, y=Y))
    assert recordings.cache is not None
    change(tmp_path / "x.npy")
    with pytest.raises(DataError, match=CHANGED):
        digests(recordings)
    assert not recordings.cache.exists()


@pytest.mark.parametrize("leave", [lambda path: path.unlink(), lambda path: None])
def test_a_file_that_is_deleted_or_replaced_is_still_read_as_it_was(tmp_path, monkeypatch, leave):
    data = mapped_dataset(folder(tmp_path, x=X, y=Y), monkeypatch)
    leave(tmp_path / "x.npy")
    np.save(tmp_path / "new.npy", X + 1)
    os.replace(tmp_path / "new.npy", tmp_path / "x.npy")
    np.testing.assert_array_equal(data.batch(torch.arange(6)).x_BTI, X)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_data_that_fit_into_memory_are_copied_so_that_no_change_matters(tmp_path, dtype):
    recordings = read(folder(tmp_path, x=X.astype(dtype), y=Y))
    assert recordings.files
    data = assembled(recordings, prepared_by(recordings))
    overwrite(tmp_path / "x.npy")
    np.testing.assert_array_equal(data.batch(torch.arange(6)).x_BTI, X)
    assert data.files == ()


def test_arrays_copied_to_another_type_are_in_memory(tmp_path):
    assert read(folder(tmp_path, x=X.astype(">f4"), y=Y)).files == ()


def test_a_dataset_that_is_gone_holds_no_file_open(tmp_path, monkeypatch):
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("the open files of this system cannot be listed")

    def held() -> int:
        return sum(path.resolve() == tmp_path / "x.npy" for path in open_files.iterdir())

    data = mapped_dataset(folder(tmp_path, x=X, y=Y), monkeypatch)
    assert held() > 0
    del data
    assert held() == 0


def write_folder(path: Path) -> Folder:
    for name in ("a", "b"):
        folder(path / name, one=X[0], two=X[1])
    return Folder(path=str(path))


def write_archive(path: Path) -> Archive:
    path.mkdir()
    (path / "P_TRAIN.tsv").write_text("1\t0.1\t0.2\n2\t0.3\t0.4\n")
    return Archive(path=str(path))


def write_arrays(path: Path) -> Arrays:
    return Arrays(path=str(folder(path, x=X, y=NAMES)))


def write_table(path: Path) -> Table:
    path.mkdir()
    (path / "my.csv").write_text("label,t0,t1\na,1,2\nb,3,4\n")
    return Table(path=str(path / "my.csv"))


@pytest.mark.parametrize(
    ("write", "reader", "name"),
    [
        (write_folder, "rnnclf.data.folder.Folder._read", "two.npy"),
        (write_archive, "rnnclf.data.archive._read", "P_TRAIN.tsv"),
        (write_arrays, "rnnclf.data.arrays._recordings", "y.npy"),
        (write_table, "rnnclf.data.table.write_sequences", "my.csv"),
    ],
)
def test_a_file_of_any_kind_that_changes_while_it_is_read_is_refused(
    tmp_path, monkeypatch, write, reader, name
):
    source, read_it = write(tmp_path / "data"), pkgutil.resolve_name(reader.replace(".Folder", ":Folder"))

    def changing(*arguments: object, **options: object) -> object:
        found = read_it(*arguments, **options)
        for path in (tmp_path / "data").rglob(name):
            os.utime(path, ns=(1, 1))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reader, changing)
        with pytest.raises(DataError, match=f"{name} changed while it was being read"):
            source.read()
    assert len(source.read()) >= 2
