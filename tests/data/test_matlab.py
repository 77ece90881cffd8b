"""MATLAB's files: the same arrays as in .npz files; nothing but numbers and text is read from them."""

from __future__ import annotations

import contextlib
import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data import npy
from rnnclf.data.arrays import Arrays
from rnnclf.data.matlab import arrays, variables
from rnnclf.data.recordings import Recordings
from rnnclf.errors import DataError, RnnclfError
from tests.damage import DAMAGE, damaged
from tests.data.arrays import NAMES, C, N, T, X, Y, read


def mat(path: Path, held: dict[str, object], **options: object) -> Path:
    scipy.io.savemat(path, held, **options)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("y", [Y, Y[:, None], Y.astype(float), NAMES])
def test_a_mat_file_holds_arrays_as_an_npz_file_does(tmp_path, y, packed):
    path = mat(tmp_path / "a.mat", {"X": X, "y": y}, do_compression=packed)
    assert Arrays.takes(path)
    recordings = read(path)
    np.testing.assert_array_equal(recordings.values_SC, X.reshape(N * T, C))
    assert [recordings.classes[label] for label in recordings.labels_N] == list(
        map(str, np.ravel(y).astype(NAMES.dtype if y is NAMES else int))
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"])
def test_every_type_of_numbers_is_what_was_saved(tmp_path, dtype, packed):
    saved = (np.random.default_rng(0).random((4, 3, 5)) * 100).astype(dtype)
    path = mat(tmp_path / "a.mat", {"x": saved, "y": [0, 1, 0, 1]}, do_compression=packed)
    assert variables(path)["x"][0] == saved.shape
    np.testing.assert_array_equal(arrays(path, ["x"])["x"], saved)


def test_files_of_the_other_byte_order_are_read(tmp_path):
    """Written by hand: scipy writes that of the machine."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")

    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">2i", 2, 3)) + element(1, b"x")
    content = element(14, parts + element(9, struct.pack(">6d", 1, 2, 3, 4, 5, 6)))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\0MI" + content)
    np.testing.assert_array_equal(arrays(tmp_path / "a.mat", ["x"])["x"], [[1, 3, 5], [2, 4, 6]])


def test_version_4_and_splits_are_read(tmp_path):
    old = mat(tmp_path / "a.mat", {"x": X[:, :, 0], "y": Y.astype(float)}, format="4")
    np.testing.assert_array_equal(read(old).values_SC[:, 0], X[:, :, 0].ravel())
    by_split = {"x_train": X[:3], "y_train": Y[:3], "x_test": X[3:], "y_test": Y[3:]}
    recordings = read(mat(tmp_path / "b.mat", by_split))
    assert recordings.given_N.tolist() == [0, 0, 0, 2, 2, 2]
    assert recordings.place(0) == "b.mat: x_train, sequence 0, step 0 (counted from 0)"


CELLS = np.empty(2, object)
CELLS[:] = [X[0], X[1, :2]]


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"x": CELLS, "y": Y}, "x is a MATLAB cell, which is not read"),
        ({"x": {"a": 1}, "y": Y}, "x is a MATLAB struct, which is not read"),
        ({"x": X, "y": np.empty((0, 0))}, "y is empty: its shape is (0, 0)"),
        ({"x": X}, "holds x; it needs one x and one y"),
        ({"x": X, "y": Y[:4]}, "y has 4 entries"),
        ({"x": X * 1j, "y": Y}, "x holds complex numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_words(tmp_path, held, words):
    with pytest.raises(DataError) as caught:
        read(mat(tmp_path / "a.mat", held))
    assert words in str(caught.value)


def test_version_7_3_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.mat").write_bytes(
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n"
    )
    with pytest.raises(DataError, match=r"version 7\.3, which is not read: save it with '-v7'"):
        read(tmp_path / "a.mat")


def test_a_claim_of_more_than_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = mat(
        tmp_path / "a.mat", {"x": np.zeros((1000, 200)), "y": np.arange(1000) % 2}, do_compression=True
    )
    monkeypatch.setattr(npy, "excess", lambda size: "too much" if size > 10**6 else "")
    with pytest.raises(DataError, match=r"Reading x of .*a\.mat takes too much"):
        read(path)


PACKED = io.BytesIO()
scipy.io.savemat(PACKED, {"x": X, "y": NAMES}, do_compression=True)
PLAIN = io.BytesIO()
scipy.io.savemat(PLAIN, {"x": X, "y": Y})


@pytest.mark.long
@given(st.sampled_from([PACKED.getvalue(), PLAIN.getvalue()]), *DAMAGE)
@settings(max_examples=150, deadline=None)
def test_damaged_mat_files_are_read_or_refused_in_words(content, kind, place, other):
    with tempfile.TemporaryDirectory() as base:
        path = Path(base, "a.mat")
        path.write_bytes(damaged(content, kind, place, other))
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(path), Recordings)
