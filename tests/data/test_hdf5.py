"""HDF5 files: the same arrays as in .npz files; nothing outside the file is opened."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from rnnclf.data import hdf5
from rnnclf.data.arrays import Arrays
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError, RnnclfError
from rnnclf.system import helper
from tests.damage import DAMAGE, damaged
from tests.data.arrays import NAMES, C, N, T, X, Y, read


def h5(path: Path, **arrays: Any) -> Path:
    """Arrays by name; train__x is in a group."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, ("0", "1", "2")),
        (NAMES.tolist(), ("run", "sit", "walk")),
        (NAMES.astype("S"), ("run", "sit", "walk")),
        (Y > 0, ("0", "1")),
    ],
)
def test_an_hdf5_file_holds_arrays_as_an_npz_file_does(tmp_path, y, classes):
    path = h5(tmp_path / "a.h5", X=X.astype(">f8"), y=y)
    assert Arrays.takes(path)
    for _ in range(2):  # the second time what was copied is read
        recordings = read(path)
        np.testing.assert_array_equal(recordings.values_SC, X.reshape(N * T, C))
        assert recordings.classes == classes
        assert recordings.place(0) == "a.h5, sequence 0, step 0 (counted from 0)"


@pytest.mark.parametrize("between", ["_", "__"])
def test_splits_may_be_groups(tmp_path, between):
    arrays = {"x_train": X[:3], "y_train": Y[:3], "x_test": X[3:], "y_test": Y[3:]}
    if between == "__":
        arrays = {"__".join(reversed(name.split("_"))): array for name, array in arrays.items()}
    recordings = read(h5(tmp_path / "a.hdf5", **arrays))
    assert recordings.given_N.tolist() == [0, 0, 0, 2, 2, 2]
    assert recordings.place(0).startswith("a.hdf5: " + ("train/x" if between == "__" else "x_train"))


def test_packed_arrays_are_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "CHUNK", 100)
    monkeypatch.setattr(hdf5, "in_helper", lambda _, *paths, reads: hdf5.copy(*paths))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=X, compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("y", data=Y, compression="lzf")
    np.testing.assert_array_equal(read(tmp_path / "a.h5").values_SC, X.reshape(N * T, C))


def linked(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("other.h5", "x")


def linked_within(file: h5py.File) -> None:
    file["a/b"], file["x"] = X, h5py.SoftLink("/a/b")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(X.shape, X.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "x", X.shape)
    file.create_virtual_dataset("x", layout)


def raw(file: h5py.File) -> None:
    file.create_dataset("x", X.shape, X.dtype, external=[("x.bin", 0, X.nbytes)])


def claims(file: h5py.File) -> None:
    file.create_dataset("x", (10**6, 10**6), "f4", chunks=(1000, 1000))


def of_pandas(file: h5py.File) -> None:
    file.create_group("frame").attrs["pandas_type"] = "frame"


def in_circles(file: h5py.File) -> None:
    file["a/b"] = X
    file["a/c"] = file["a"]


BAD: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "another file": (linked, "x is a link, or is in another file: only what is in the file itself is read"),
    "a link": (linked_within, "x is a link"),
    "a view of another file": (virtual, "x is a link, or is in another file"),
    "values in another file": (raw, "x is a link, or is in another file"),
    "no memory": (claims, "x claims 4,000,000,000,000 bytes of data, the file has"),
    "objects": (lambda f: f.create_dataset("x", (6,), h5py.vlen_dtype("f4")), "x holds objects or records"),
    "references": (lambda f: f.create_dataset("x", (6,), h5py.ref_dtype), "x holds objects or records"),
    "records": (lambda f: f.create_dataset("x", (6,), [("a", "f4")]), "x holds objects or records"),
    "a frame": (of_pandas, "is written by pandas, whose HDF5 files are not read: save the table with"),
    "no x": (in_circles, "holds a/b, a/c/b, y; it needs one x and one y"),
    "a number": (lambda f: f.create_dataset("x", data=3.0), "x has shape (); it must be (N, T) or (N, T, C)"),
    "text": (lambda f: f.create_dataset("x", data=["a"] * N), "x holds text; it must hold real numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_array_in_the_file_is_refused_in_words(tmp_path, what):
    fill, words = BAD[what]
    h5(tmp_path / "other.h5", x=X)
    (tmp_path / "x.bin").write_bytes(X.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        fill(file)
        file["y"] = Y
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.h5")
    assert words in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(DataError, match=r"a\.h5 is not an HDF5 file, or is damaged"):
        read(tmp_path / "a.h5")


def test_the_package_that_is_needed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"Reading a\.h5 needs h5py, .* pip install 'rnnclf\[hdf5\]'"):
        hdf5.copy(str(tmp_path / "a.h5"), str(tmp_path))


@pytest.mark.long
def test_a_file_on_which_the_library_runs_in_circles_is_refused(monkeypatch):
    """Damage that the next test once made; nothing but the time tells it from a slow file."""
    monkeypatch.setattr(helper, "LEAST_SECONDS", 3.0)
    path = Path(__file__).parents[1] / "fixtures" / "endless.h5"
    with pytest.raises(
        DataError, match=r"endless\.h5 is damaged, or reading it takes too much memory or time\.$"
    ):
        read(path)


with tempfile.TemporaryDirectory() as folder:
    CONTENT = h5(Path(folder, "a.h5"), x=X, y=NAMES.tolist()).read_bytes()


@pytest.mark.long
@given(*DAMAGE)
@settings(max_examples=60, deadline=None)
def test_damaged_hdf5_files_are_read_or_refused_in_words(kind, place, other):
    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", base)
        patch.setattr(helper, "LEAST_SECONDS", 3.0)  # the library runs in circles on some of them
        path = Path(base, "a.h5")
        path.write_bytes(damaged(CONTENT, kind, place, other))
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(path), Recordings)
