"""What is said of arrays that cannot be read, or mean nothing."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data.arrays import Arrays
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError, RnnclfError
from tests.damage import DAMAGE, damaged
from tests.data.arrays import NAMES, N, T, X, Y, folder, npy_bytes, npz, read


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy header as it is written by hand."""
    content = text.encode("latin1") + b"\n"
    size = len(content).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + content


ONE_HOT = np.eye(3)[Y]
RECORDS = np.zeros((N, T), dtype=[("a", float), ("b", int)])
BAD_ARRAYS = {
    "text": ({"x": X.astype(str)}, "x{} holds text; it must hold real numbers"),
    "complex": ({"x": X.astype(complex)}, "x{} holds complex numbers"),
    "records": ({"x": RECORDS}, "x{} holds records"),
    "dates": ({"x": X.astype(int).astype("M8[s]")}, "x{} holds dates"),
    "objects": (
        {"x": np.array([X[0], X[1, :2]], dtype=object)},
        "holds Python objects, which are never loaded",
    ),
    "object labels": ({"y": NAMES.astype(object)}, "y{} holds Python objects"),
    "one axis": ({"x": X[:, 0, 0]}, r"x{} has shape \(6,\); it must be \(N, T\) or \(N, T, C\)"),
    "four axes": ({"x": X[None]}, r"shape \(1, 6, 5, 2\)"),
    "no sequences": ({"x": X[:0]}, r"x{} is empty: its shape is \(0, 5, 2\)"),
    "no steps": ({"x": X[:, :0]}, "x{} is empty"),
    "too few labels": ({"y": Y[:5]}, "y{} has 5 entries, but .*x{} has 6 sequences"),
    "one label": ({"y": np.int64(3)}, r"y{} has shape \(\); it must be \(N,\)"),
    "one-hot": ({"y": ONE_HOT}, r"argmax\(axis=1\)"),
    "column": ({"y": Y[:, None]}, r"ravel\(\)"),
    "missing label": ({"y": np.array([0, 1, np.nan, 0, 1, 2])}, r"y{}: entry 2 .* is missing \(NaN\)"),
    "half a label": ({"y": Y + 0.5}, r"y{}: entry 0 .* is 0\.5"),
    "infinite label": ({"y": np.where(Y == 2, np.inf, Y)}, "y{}: entry 2 .* is inf"),
    "empty label": (
        {"y": np.array(["a", "", "b", "a", "b", "b"])},
        r"y{}: name 1 \(counted from 0\) is empty",
    ),
    "bytes": ({"y": np.array([b"a", b"\xff"] * 3)}, "y{} holds bytes that are not UTF-8"),
    "dates as labels": ({"y": Y.astype("M8[s]")}, "y{} holds datetime64"),
    "zero length": (
        {"lengths": np.array([1, 0, 1, 1, 1, 1])},
        "sequence 1 .* has length 0; .* between 1 and 5",
    ),
    "long length": ({"lengths": np.array([5, 5, 5, 5, 5, 6])}, "sequence 5 .* has length 6"),
    "negative length": ({"lengths": -np.ones(N, int)}, "sequence 0 .* has length -1"),
    "broken lengths": (
        {"lengths": np.full(N, 2.5)},
        "lengths{} holds float64 values; lengths must be whole numbers",
    ),
    "too few lengths": ({"lengths": np.ones(3, int)}, "lengths{} has 3 entries"),
    "too few groups": ({"groups": np.ones(3, int)}, "groups{} has 3 entries"),
    "unknown split": (
        {"split": np.array(["train"] * 5 + ["tset"])},
        "split{} has 'tset'; it must be train, validation, test",
    ),
    "too few channels": ({"channels": np.array(["a"])}, "channels{} names 1 channels; .*x{} has 2"),
    "channels twice": ({"channels": np.array(["a", "a"])}, "channels{} has the same name twice"),
    "nested channels": ({"channels": np.array([["a", "b"]])}, r"channels{} has shape \(1, 2\)"),
    "too few classes": (
        {"classes": np.array(["a", "b"])},
        "y{} has label 2, but .*classes{} has no name for it",
    ),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
@pytest.mark.parametrize("write", [npz, folder])
def test_arrays_that_mean_nothing_are_refused_by_name(tmp_path, write, fault):
    arrays, words = BAD_ARRAYS[fault]
    path = write(tmp_path / ("data.npz" if write is npz else "data"), **{"x": X, "y": Y, **arrays})
    with pytest.raises(DataError, match=words.replace("{}", "" if write is npz else r"\.npy")):
        read(path)


GOOD = npy_bytes(X)
BAD_FILES = {
    "empty file": (b"", "is not an .npy array, or is damaged"),
    "other file": (b"t,x\n0,1\n", "is not an .npy array, or is damaged"),
    "pickle": (b"\x80\x04\x95", "not an .npy array"),
    "cut": (GOOD[:-3], "is truncated: its header claims 240 bytes of data, the file has 237"),
    "cut header": (GOOD[:60], "is not an .npy array, or is damaged"),
    "more": (GOOD + b"123", "3 bytes more than its header claims"),
    "future": (GOOD.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x07"), r"version 7\.0 of the format is not known"),
    "absurd": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**9, 10**9)}"),
        "not an .npy array",
    ),
    "huge": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999)}"),
        "is truncated",
    ),
    "negative": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3)}") + bytes(48),
        "is truncated",
    ),
    "program": (
        header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}"),
        "not an .npy array",
    ),
    "no type": (header("{'descr': '<q9', 'fortran_order': False, 'shape': (1,)}"), "not an .npy array"),
    "deep": (header("(" * 5000), "not an .npy array"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_array_is_refused_before_memory_is_taken(tmp_path, fault, packed):
    content, words = BAD_FILES[fault]
    if packed:
        path = npz(tmp_path / "a.npz", y=Y)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x.npy", content)
    else:
        path = folder(tmp_path / "a", y=Y)
        (path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read(path)


def test_a_missing_file_is_told_with_what_should_be_there(tmp_path):
    with pytest.raises(DataError, match=r"a\.npz does not exist"):
        read(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"x\.npy does not exist: put the sequences"):
        read(folder(tmp_path / "a", y=Y))
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"y\.npy does not exist: put the labels, .*dataset\.labels"):
        read(tmp_path / "x.npy")
    (tmp_path / "x.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"not a file of arrays \(\.npy, \.npz,"):
        read(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"needs dataset\.path"):
        Arrays().read()


def test_an_npz_file_without_x_is_told_with_what_it_holds(tmp_path):
    with pytest.raises(DataError, match="holds X_train, y; it needs one x and one y"):
        read(npz(tmp_path / "a.npz", X_train=X, y=Y))
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"is not an \.npz file"):
        read(tmp_path / "b.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", npy_bytes(Y))
    with pytest.raises(DataError, match="holds y twice"):
        read(path)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"x": X[:, :, :1], "y": Y}, "has the channels 0; dataset.path has 0, 1"),
        ({"x": X, "y": Y + 1}, "Class '3' occurs in the test split only"),
        ({"x": X, "y": Y, "split": Y}, "cannot have a split array of its own"),
    ],
)
def test_a_test_file_that_does_not_fit_is_refused(tmp_path, test, words):
    whole = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match=words):
        read(whole, test_path=str(npz(tmp_path / "b.npz", **test)))


def test_one_file_of_labels_does_not_serve_two_of_sequences(tmp_path):
    folder(tmp_path, x=X, y=Y, x_test=X)
    with pytest.raises(ConfigError, match=r"the labels of both dataset\.path and dataset\.test_path"):
        read(tmp_path / "x.npy", test_path=str(tmp_path / "x_test.npy"))


def test_options_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="axes must be NTC or NCT"):
        Arrays(axes="TNC")
    with pytest.raises(ConfigError, match=r"dataset\.labels"):
        read(npz(tmp_path / "a.npz", x=X, y=Y), labels="y.npy")


PACKED = io.BytesIO()
np.savez_compressed(PACKED, x=X, y=NAMES)


@given(*DAMAGE)
@settings(max_examples=100, deadline=None)
def test_a_damaged_npz_file_is_read_or_refused_in_words(kind, place, other):
    with tempfile.TemporaryDirectory() as base:
        path = Path(base, "a.npz")
        path.write_bytes(damaged(PACKED.getvalue(), kind, place, other))
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(path), Recordings)


@pytest.mark.long
@given(st.sampled_from(["x", "y", "lengths"]), *DAMAGE)
@settings(max_examples=100, deadline=None)
def test_damaged_npy_files_are_read_or_refused_in_words(name, kind, place, other):
    with tempfile.TemporaryDirectory() as base:
        path = folder(Path(base, "a"), x=X, y=NAMES, lengths=Y + 1)
        file = path / f"{name}.npy"
        file.write_bytes(damaged(file.read_bytes(), kind, place * 0.6, other))  # most of it in the header
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(path), Recordings)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "X": X, "y": Y}, "holds x and X, which could each be x: rename the one that is not"),
        ({"data": X, "signals": X, "y": Y}, "holds data and signals, which could each be x"),
        ({"x_train": X, "X_train": X, "y_train": Y}, "which could each be x of the train split"),
        ({"x_train": X, "training_y": Y, "y_train": Y}, "which could each be y of the train split"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "it needs one x and one y, or both for each split"),
        (
            {"x_train": X, "y_train": Y, "x_test": X},
            "holds x_train, y_train, x_test; it needs one x and one y",
        ),
        ({"x_val": X, "y_val": Y, "x_test": X, "y_test": Y}, "it needs one x and one y, or both"),
        ({"x_train": X, "y_train": Y, "lengths": Y}, "it needs one x and one y, or both"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :, :1], "y_test": Y}, "x_test has the channels 0; "),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1},
            "Class '3' occurs in the test split only",
        ),
    ],
)
def test_names_that_may_mean_several_arrays_are_asked_about(tmp_path, arrays, words):
    with pytest.raises(DataError) as caught:
        read(npz(tmp_path / "a.npz", **arrays))
    assert words in str(caught.value)


def test_a_file_with_splits_of_its_own_is_no_test_split(tmp_path):
    both = npz(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    plain = npz(tmp_path / "b.npz", x=X, y=Y)
    with pytest.raises(DataError, match="cannot have arrays for several splits"):
        read(plain, test_path=str(both))
    with pytest.raises(ConfigError, match=r"leave out dataset\.test_path"):
        read(both, test_path=str(plain))
