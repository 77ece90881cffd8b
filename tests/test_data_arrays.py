"""Arrays of the user: what is read from .npz and .npy files, and what is said of those that cannot be."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data import arrays as arrays_module
from rnnclf.data import npy
from rnnclf.data.arrays import Arrays
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError, RnnclfError
from tests.damage import DAMAGE, damaged

N, T, C = 6, 5, 2
X = np.arange(N * T * C, dtype=np.float32).reshape(N, T, C)
Y = np.array([0, 1, 2, 0, 1, 2])
NAMES = np.array(["walk", "run", "sit"] * 2)


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def folder(path: Path, **arrays: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def read(path: Path, **options: object) -> Recordings:
    return Arrays(path=str(path), **options).read()


def sequence(recordings: Recordings, n: int) -> np.ndarray:
    start = recordings.starts_N[n]
    return recordings.values_SC[start : start + recordings.lengths_N[n]]


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy header as it is written by hand."""
    content = text.encode("latin1") + b"\n"
    size = len(content).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + content


def npy_bytes(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that need a newer NumPy
        np.lib.format.write_array(file, array, version)
    return file.getvalue()


@pytest.mark.parametrize("write", [npz, folder])
def test_sequences_labels_and_names_are_those_of_the_arrays(tmp_path, write):
    path = tmp_path / ("data.npz" if write is npz else "data")
    channels, lengths = np.array(["ax", "ay"]), np.array([1, 2, 3, 4, 5, 5])
    recordings = read(write(path, x=X, y=NAMES, channels=channels, lengths=lengths))
    assert recordings.classes == ("run", "sit", "walk")
    assert [recordings.classes[label] for label in recordings.labels_N] == NAMES.tolist()
    assert recordings.channels == ("ax", "ay")
    for n, length in enumerate([1, 2, 3, 4, 5, 5]):
        np.testing.assert_array_equal(sequence(recordings, n), X[n, :length])


def test_x_of_two_axes_has_one_channel(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", x=X[:, :, 0], y=Y))
    assert recordings.channels == ("0",)
    np.testing.assert_array_equal(sequence(recordings, 3), X[3, :, :1])


def test_labels_lie_beside_x_or_where_they_are_said_to_lie(tmp_path):
    folder(tmp_path, x=X, y=Y, other=Y[::-1])
    assert read(tmp_path / "x.npy").labels_N.tolist() == Y.tolist()
    recordings = read(tmp_path / "x.npy", labels=str(tmp_path / "other.npy"))
    assert recordings.labels_N.tolist() == Y[::-1].tolist()


def test_an_npy_file_is_mapped_not_loaded(tmp_path):
    recordings = read(folder(tmp_path / "a", x=X, y=Y))
    assert isinstance(recordings.values_SC, np.memmap)


def test_axes_may_be_channels_first(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", x=X.transpose(0, 2, 1), y=Y), axes="NCT")
    np.testing.assert_array_equal(sequence(recordings, 2), X[2])


def test_more_channels_than_steps_are_read_as_they_are_with_a_note(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", x=X.transpose(0, 2, 1), y=Y))
    assert recordings.channels == ("0", "1", "2", "3", "4")
    assert "dataset.axes=NCT" in " ".join(recordings.notes)
    assert read(npz(tmp_path / "b.npz", x=X, y=Y)).notes == ()


def test_numbers_are_names_for_classes_in_their_order(tmp_path):
    path = npz(tmp_path / "a.npz", x=X, y=Y, classes=np.array(["walk", "run", "sit"]))
    recordings = read(path)
    assert recordings.classes == ("walk", "run", "sit")
    assert recordings.labels_N.tolist() == Y.tolist()


@pytest.mark.parametrize(
    "y", [Y, Y.astype(np.uint8), Y.astype(float), Y.astype(">i4"), Y.astype(str), Y.astype("S")]
)
def test_whole_numbers_and_names_are_the_same_labels_in_any_type(tmp_path, y):
    recordings = read(npz(tmp_path / "a.npz", x=X, y=y))
    assert recordings.classes == ("0", "1", "2")
    assert recordings.labels_N.tolist() == Y.tolist()


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", x=X, y=np.array([10, 2, -1, 10, 2, -1])))
    assert recordings.classes == ("-1", "2", "10")


def test_groups_and_splits_are_taken(tmp_path):
    split = np.array(["train", "train", "validation", "train", "test", "test"])
    recordings = read(npz(tmp_path / "a.npz", x=X, y=Y % 2, groups=np.array(list("bbaacc")), split=split))
    assert recordings.groups_N.tolist() == [1, 1, 0, 0, 2, 2]
    assert recordings.given_N.tolist() == [0, 0, 1, 0, 2, 2]
    numbered = npz(tmp_path / "b.npz", x=X, y=Y % 2, split=np.array([0, 0, 1, 0, 2, 2]))
    assert read(numbered).given_N.tolist() == [0, 0, 1, 0, 2, 2]


def test_missing_values_at_the_end_are_padding_where_no_lengths_are_given(tmp_path):
    x = X.copy()
    x[0, 3:] = x[4, 1:] = x[5] = np.nan
    x[1, 4, 0] = x[2, 1] = np.nan
    recordings = read(npz(tmp_path / "a.npz", x=x, y=Y))
    assert recordings.lengths_N.tolist() == [3, 5, 5, 5, 1, 5]  # the last holds nothing: told later
    assert "2 of 6 sequences" in " ".join(recordings.notes)
    whole = read(npz(tmp_path / "b.npz", x=x, y=Y, lengths=np.full(N, T)))
    assert whole.lengths_N.tolist() == [5] * 6
    assert whole.notes == ()


@pytest.mark.parametrize(
    ("kind", "becomes"),
    [
        ("bool", "uint8"),
        ("int8", "int8"),
        ("uint16", "int32"),
        ("uint32", "int64"),
        ("uint64", "float64"),
        ("float16", "float16"),
        (">f4", "float32"),
        (">i2", "int16"),
        ("longdouble", "float64"),
    ],
)
def test_numbers_of_every_type_are_read_in_one_that_torch_takes(tmp_path, kind, becomes):
    import torch

    x = (X % 2).astype(kind)
    recordings = read(npz(tmp_path / "a.npz", x=x, y=Y))
    assert recordings.values_SC.dtype == becomes
    np.testing.assert_array_equal(sequence(recordings, 3), X[3] % 2)
    assert torch.from_numpy(recordings.values_SC.copy()).shape == (N * T, C)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_and_order_of_the_format_is_read(tmp_path, version):
    path = folder(tmp_path / "a", y=Y)
    (path / "x.npy").write_bytes(npy_bytes(np.asfortranarray(X), version))
    np.testing.assert_array_equal(sequence(read(path), 4), X[4])


def test_the_test_split_may_be_a_second_file(tmp_path):
    whole = npz(tmp_path / "a.npz", x=X, y=NAMES, groups=Y)
    test = npz(tmp_path / "b.npz", x=X[:2, :3].astype(np.float64) + 100, y=NAMES[:2])
    recordings = read(whole, test_path=str(test))
    assert recordings.given_N.tolist() == [-1] * 6 + [2] * 2
    assert [recordings.classes[label] for label in recordings.labels_N] == [*NAMES.tolist(), "walk", "run"]
    np.testing.assert_array_equal(sequence(recordings, 7), X[1, :3] + 100)
    assert recordings.place(0).startswith("a.npz, sequence 0, step 0")
    assert recordings.place(N * T + 4).startswith("b.npz, sequence 1, step 1")


def test_places_are_told_by_sequence_and_step(tmp_path):
    recordings = read(folder(tmp_path / "a", x=X, y=Y))
    assert recordings.place(2 * T + 3) == "x.npy, sequence 2, step 3 (counted from 0)"


def test_arrays_that_are_not_needed_are_ignored(tmp_path):
    path = npz(tmp_path / "a.npz", x=X, y=Y, ids=np.array([object()] * N, dtype=object))
    assert len(read(path)) == N


def test_all_splits_are_made_of_them(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, T, C))
    splits = Arrays(path=str(folder(tmp_path / "a", x=x, y=np.arange(60) % 3))).load()
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [39, 9, 12]


def test_a_packed_array_too_large_for_memory_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "IN_MEMORY", 100)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=Y)
    told: list[str] = []
    first = Arrays(path=str(path)).read(lambda what, share: told.append(what))
    assert isinstance(first.values_SC, np.memmap)
    assert told
    told.clear()
    again = Arrays(path=str(path)).read(lambda what, share: told.append(what))
    assert not told
    np.testing.assert_array_equal(again.values_SC, X.reshape(-1, C))


def test_a_damaged_packed_array_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "IN_MEMORY", 100)
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[content.index(X.tobytes()) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz.* a damaged one \(Bad CRC-32 for file 'x\.npy'\)"):
        read(path)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_packed_array_that_the_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "IN_MEMORY", 100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"has room for 0\.0 GiB"):
        read(npz(tmp_path / "a.npz", x=X, y=Y))


def test_what_is_found_out_about_large_arrays_is_remembered_until_they_change(tmp_path, monkeypatch):
    path = folder(tmp_path / "a", x=X, y=Y)
    assert read(path).cache is None
    monkeypatch.setattr(arrays_module, "REMEMBERED", 100)
    caches = [read(path).cache, read(path).cache]
    folder(path, x=X[:, :4], y=Y)
    caches.append(read(path).cache)
    assert caches[0] == caches[1] != caches[2]


@pytest.mark.parametrize(
    ("x", "expression"),
    [
        (np.asfortranarray(X), "np.ascontiguousarray(x, 'float32')"),
        (X.astype(">f8"), "np.ascontiguousarray(x, 'float64')"),
        (X.astype("uint16"), "np.ascontiguousarray(x, 'int32')"),
    ],
)
def test_what_is_too_large_to_be_copied_is_refused_with_the_way_to_save_it(
    tmp_path, monkeypatch, x, expression
):
    monkeypatch.setattr(npy, "COPY_LIMIT", 100)
    path = folder(tmp_path / "a", x=x, y=Y)
    with pytest.raises(DataError) as caught:
        read(path)
    assert expression in str(caught.value)


def test_channels_first_that_are_too_large_to_be_copied_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "COPY_LIMIT", 100)
    with pytest.raises(
        DataError, match=r"x\.transpose\(0, 2, 1\), 'float32'\)\) and leave dataset\.axes out"
    ):
        read(folder(tmp_path / "a", x=X, y=Y), axes="NCT")


def test_two_files_too_large_to_be_joined_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "COPY_LIMIT", 100)
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match="one x, and a split"):
        read(path, test_path=str(npz(tmp_path / "b.npz", x=X, y=Y)))


ONE_HOT = np.eye(3)[Y]
RECORDS = np.zeros((N, T), dtype=[("a", float), ("b", int)])
BAD_ARRAYS = {
    "text": ({"x": X.astype(str)}, "x{} holds text: real numbers are needed"),
    "complex": ({"x": X.astype(complex)}, "x{} holds complex numbers"),
    "records": ({"x": RECORDS}, "x{} holds records"),
    "dates": ({"x": X.astype(int).astype("M8[s]")}, "x{} holds dates"),
    "objects": (
        {"x": np.array([X[0], X[1, :2]], dtype=object)},
        "holds Python objects, which are never loaded",
    ),
    "object labels": ({"y": NAMES.astype(object)}, "y{} holds Python objects"),
    "one axis": ({"x": X[:, 0, 0]}, r"x{} has the shape \(6,\): \(N, T\) or \(N, T, C\)"),
    "four axes": ({"x": X[None]}, r"shape \(1, 6, 5, 2\)"),
    "no sequences": ({"x": X[:0]}, r"x{} is empty: its shape is \(0, 5, 2\)"),
    "no steps": ({"x": X[:, :0]}, "x{} is empty"),
    "too few labels": ({"y": Y[:5]}, "y{} is for 5 sequences, but .*x{} holds 6"),
    "one label": ({"y": np.int64(3)}, r"y{} has the shape \(\): \(N,\) is needed"),
    "one-hot": ({"y": ONE_HOT}, r"argmax\(axis=1\)"),
    "column": ({"y": Y[:, None]}, r"ravel\(\)"),
    "missing label": ({"y": np.array([0, 1, np.nan, 0, 1, 2])}, r"y{}: number 2 .* is missing \(NaN\)"),
    "half a label": ({"y": Y + 0.5}, r"y{}: number 0 .* is 0\.5"),
    "infinite label": ({"y": np.where(Y == 2, np.inf, Y)}, "y{}: number 2 .* is inf"),
    "empty label": (
        {"y": np.array(["a", "", "b", "a", "b", "b"])},
        r"y{}: name 1 \(counted from 0\) is empty",
    ),
    "bytes": ({"y": np.array([b"a", b"\xff"] * 3)}, "y{} holds bytes that are not UTF-8"),
    "dates as labels": ({"y": Y.astype("M8[s]")}, "y{} holds datetime64"),
    "zero length": (
        {"lengths": np.array([1, 0, 1, 1, 1, 1])},
        "sequence 1 .* has the length 0; .* between 1 and 5",
    ),
    "long length": ({"lengths": np.array([5, 5, 5, 5, 5, 6])}, "sequence 5 .* has the length 6"),
    "negative length": ({"lengths": -np.ones(N, int)}, "sequence 0 .* has the length -1"),
    "broken lengths": ({"lengths": np.full(N, 2.5)}, "lengths{} holds float64 values: whole numbers"),
    "too few lengths": ({"lengths": np.ones(3, int)}, "lengths{} is for 3 sequences"),
    "too few groups": ({"groups": np.ones(3, int)}, "groups{} is for 3 sequences"),
    "unknown split": (
        {"split": np.array(["train"] * 5 + ["tset"])},
        "split{} holds 'tset': train, validation, test",
    ),
    "too few channels": ({"channels": np.array(["a"])}, "channels{} names 1 channels; .*x{} has 2"),
    "channels twice": ({"channels": np.array(["a", "a"])}, "channels{} holds a name twice"),
    "nested channels": ({"channels": np.array([["a", "b"]])}, r"channels{} has the shape \(1, 2\)"),
    "too few classes": (
        {"classes": np.array(["a", "b"])},
        "y{} holds the label 2, .*classes{} no name for it",
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
    "empty file": (b"", "no .npy array, or a damaged one"),
    "other file": (b"t,x\n0,1\n", "no .npy array, or a damaged one"),
    "pickle": (b"\x80\x04\x95", "no .npy array"),
    "cut": (GOOD[:-3], "is cut off: its header claims 240 bytes of numbers, 237 are there"),
    "cut header": (GOOD[:60], "no .npy array, or a damaged one"),
    "more": (GOOD + b"123", "3 bytes more than its header claims"),
    "future": (GOOD.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x07"), r"version 7\.0 of the format is not known"),
    "absurd": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**9, 10**9)}"),
        "no .npy array",
    ),
    "huge": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999)}"),
        "is cut off",
    ),
    "negative": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3)}") + bytes(48),
        "is cut off",
    ),
    "program": (
        header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}"),
        "no .npy array",
    ),
    "no type": (header("{'descr': '<q9', 'fortran_order': False, 'shape': (1,)}"), "no .npy array"),
    "deep": (header("(" * 5000), "no .npy array"),
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
    (tmp_path / "x.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"neither an \.npz nor an \.npy"):
        read(tmp_path / "x.mat")
    with pytest.raises(ConfigError, match=r"needs dataset\.path"):
        Arrays().read()


def test_an_npz_file_without_x_is_told_with_what_it_holds(tmp_path):
    with pytest.raises(DataError, match="holds X_train, y: x and y are needed"):
        read(npz(tmp_path / "a.npz", X_train=X, y=Y))
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"is no \.npz file"):
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
        ({"x": X[:, :, :1], "y": Y}, "has the channels 0; those of dataset.path are 0, 1"),
        ({"x": X, "y": Y + 1}, "of class '3', of which none can be trained on"),
        ({"x": X, "y": Y, "split": Y}, "leave its split out"),
    ],
)
def test_a_test_file_that_does_not_fit_is_refused(tmp_path, test, words):
    whole = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match=words):
        read(whole, test_path=str(npz(tmp_path / "b.npz", **test)))


def test_one_file_of_labels_does_not_serve_two_of_sequences(tmp_path):
    folder(tmp_path, x=X, y=Y, x_test=X)
    with pytest.raises(
        ConfigError, match=r"cannot hold the labels of dataset\.path and of dataset\.test_path"
    ):
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
