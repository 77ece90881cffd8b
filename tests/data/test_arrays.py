"""Arrays of the user: what is read from .npz and .npy files, and what is said of those that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnnclf.data import array_files, joining, npy
from rnnclf.data import arrays as arrays_module
from rnnclf.data.arrays import Arrays
from rnnclf.data.folder import Folder
from rnnclf.data.recordings import Recordings
from rnnclf.errors import DataError
from tests.data.arrays import NAMES, C, N, T, X, Y, folder, npy_bytes, npz, read


def sequence(recordings: Recordings, n: int) -> np.ndarray:
    start = recordings.starts_N[n]
    return recordings.values_SC[start : start + recordings.lengths_N[n]]


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
    called = npz(
        tmp_path / "c.npz", x=X, y=Y % 2, split=np.array(["Train", "training", "val", *["TEST"] * 3])
    )
    assert read(called).given_N.tolist() == [0, 0, 1, 2, 2, 2]


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
    monkeypatch.setattr(array_files, "IN_MEMORY", 100)
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
    monkeypatch.setattr(array_files, "IN_MEMORY", 100)
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[content.index(X.tobytes()) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz.* is damaged \(Bad CRC-32 for file 'x\.npy'\)"):
        read(path)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_packed_array_that_the_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "IN_MEMORY", 100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"only 0\.0 GiB are free"):
        read(npz(tmp_path / "a.npz", x=X, y=Y))


def test_what_is_found_out_about_large_arrays_is_remembered_until_they_change(tmp_path, monkeypatch):
    path = folder(tmp_path / "a", x=X, y=Y)
    assert read(path).cache is None
    monkeypatch.setattr(arrays_module, "CACHED_FROM", 100)
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
        DataError, match=r"x\.transpose\(0, 2, 1\), 'float32'\)\) and leave out dataset\.axes"
    ):
        read(folder(tmp_path / "a", x=X, y=Y), axes="NCT")


def test_two_files_too_large_to_be_joined_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "COPY_LIMIT", 100)
    path = npz(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match="one x, with a split"):
        read(path, test_path=str(npz(tmp_path / "b.npz", x=X, y=Y)))


@pytest.mark.parametrize("kind", ["int32", "uint32", "int64", "float64"])
def test_large_counts_keep_their_digits_in_arrays_and_folders(tmp_path, kind):
    x = (np.random.default_rng(0).normal(size=(12, 20, 1)) * 5 + 2e9).round()
    read_x = {}
    npz(tmp_path / "a.npz", x=x.astype(kind), y=np.arange(12) % 2)
    for n in range(12):
        folder(tmp_path / f"d/class{n % 2}", **{f"s{n // 2}": x[n].astype(kind)})
    for source in (Arrays(path=str(tmp_path / "a.npz")), Folder(path=str(tmp_path / "d"))):
        whole = source.read()
        read_x[source.name] = np.sort(whole.values_SC.astype(np.float64).reshape(12, 20), axis=0)
        assert len(source.load().train.batch(torch.arange(2)).x_BTI.unique()) > 15
    np.testing.assert_array_equal(read_x["arrays"], np.sort(x[..., 0], axis=0))
    np.testing.assert_array_equal(read_x["folder"], np.sort(x[..., 0], axis=0))


def test_whole_numbers_that_no_type_of_ours_holds_are_refused(tmp_path):
    x = np.array([[[2**64 - 1]], [[2**64 - 2]]], np.uint64)
    with pytest.raises(
        DataError, match=r"lose their last digits here: subtract x\.min\(\) and save them as int64"
    ):
        read(npz(tmp_path / "a.npz", x=x, y=np.arange(2)))


BY_SPLIT = {"train": slice(0, 3), "val": slice(3, 4), "test": slice(4, 6)}


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("X", "y"),
        ("X", "Y"),
        ("data", "labels"),
        ("Data", "target"),
        ("sequences", "targets"),
        ("series", "label"),
    ],
)
@pytest.mark.parametrize("write", [npz, folder])
def test_arrays_have_the_names_that_people_give_them(tmp_path, write, x, y):
    path = write(tmp_path / ("data.npz" if write is npz else "data"), **{x: X, y: NAMES})
    assert Arrays.takes(path)
    recordings = read(path)
    np.testing.assert_array_equal(recordings.values_SC, X.reshape(N * T, C))
    assert [recordings.classes[label] for label in recordings.labels_N] == NAMES.tolist()


@pytest.mark.parametrize("form", ["x_{}", "X_{}", "{}_x", "x{}", "{}X", "X-{}", "data_{}"])
@pytest.mark.parametrize("write", [npz, folder])
def test_names_of_arrays_may_say_the_split(tmp_path, write, form):
    arrays = {}
    for split, some in BY_SPLIT.items():
        name = form.format(split.capitalize() if form == "{}X" else split)
        label = name.replace("data", "labels") if "data" in name else name.replace("x", "y").replace("X", "y")
        arrays |= {name: X[some], label: Y[some] % 2}
    recordings = read(write(tmp_path / ("data.npz" if write is npz else "data"), **arrays))
    np.testing.assert_array_equal(recordings.values_SC, X.reshape(N * T, C))
    assert recordings.labels_N.tolist() == (Y % 2).tolist()
    assert recordings.given_N.tolist() == [0, 0, 0, 1, 2, 2]
    name = form.format("Test" if form == "{}X" else "test")
    assert recordings.place(4 * T + 2).endswith(
        f"{name}{'' if write is npz else '.npy'}, sequence 0, step 2 (counted from 0)"
    )
    assert recordings.ids(np.array([0, 2, 3, 4])).tolist() == [0, 2, 0, 0]


def test_without_a_validation_array_that_split_is_drawn(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 5, 2))
    path = npz(
        tmp_path / "a.npz", x_train=x[:30], y_train=np.arange(30) % 2, x_test=x[30:], y_test=np.arange(10) % 2
    )
    splits = Arrays(path=str(path)).load()
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [26, 4, 10]


def test_the_arrays_of_one_split_alone_are_the_data(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", X_test=X, y_test=Y))
    assert recordings.given_N is None
    whole = npz(tmp_path / "b.npz", X_train=X, y_train=Y)
    assert read(whole, test_path=str(tmp_path / "a.npz")).given_N.tolist() == [-1] * N + [2] * N


def test_labels_lie_beside_the_array_of_a_split(tmp_path):
    root = folder(tmp_path / "d", x_train=X, y_train=NAMES, x_test=X[:2], y_test=Y[:2])
    assert read(root / "x_train.npy").classes == ("run", "sit", "walk")


def test_the_manuals_name_is_taken_where_another_could_be_meant_too(tmp_path):
    recordings = read(npz(tmp_path / "a.npz", x=X, data=X + 1, y=Y, labels=NAMES, name=np.array(["it"])))
    np.testing.assert_array_equal(recordings.values_SC, X.reshape(N * T, C))
    assert recordings.classes == ("0", "1", "2")
