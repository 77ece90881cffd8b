"""Files of pictures that are damaged, or are none, are refused in words."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from rnnclf.data.images import (
    MNIST,
    published,
)
from rnnclf.data.images.archives import tar_members, zip_member
from rnnclf.data.images.cifar10 import parse_binary, parse_python
from rnnclf.data.images.idx import parse_idx
from rnnclf.data.images.published import unpacked
from rnnclf.data.images.svhn import parse_mat
from rnnclf.errors import DataError
from tests.data.pictures import (
    _offline,  # noqa: F401 - a fixture
    arrays,
    binary_batch,
    drawn,
    idx,
    mat,
    md5,
    packed_tar,
    python_batch,
)

# --- damaged files: what the parsers say that come after the checksums


def bare(content: bytes) -> bytes:
    return idx(np.zeros((2, 3, 4)))[:4] + content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file with 3 dimensions: it starts with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"PK\x03\x04" + bytes(100), "it starts with 50 4b 03 04"),
        (idx(np.zeros(5)), "not an IDX file with 3 dimensions: it starts with 00 00 08 01"),
        (b"\0\0\x0d\x03" + bytes(100), "not an IDX file"),
        (bare(b"\0\0\0\x02\0\0"), "ends inside its header, after 10 bytes"),
        (bare(struct.pack(">3I", 2, 3, 4) + bytes(23)), r"\(2, 3, 4\), 24 bytes; it has 23"),
        (bare(struct.pack(">3I", 2, 3, 4) + bytes(25)), r"24 bytes; it has 25"),
        (bare(struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)), r"bytes; it has 0"),
    ],
)
def test_an_idx_file_that_is_none_is_refused(content, words):
    with pytest.raises(DataError, match=words):
        parse_idx(content, 3, "the file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x[:, :27], y), r"expected bytes \(N, 28, 28, 1\)"),
        (lambda x, y: (x[:-1], y), "39 pictures, but the labels have shape"),
        (lambda x, y: (x[:0], y[:0]), "0 pictures, but the labels have shape"),
        (lambda x, y: (x, y + 1), "label 10 is not one of the 10 classes"),
    ],
)
def test_pictures_and_labels_that_do_not_go_together_are_refused(change, words, tmp_path, monkeypatch):
    x, y, x_test, y_test = arrays((28, 28))
    contents = [*map(idx, change(x, y)), idx(x_test), idx(y_test)]
    files = tuple(replace(f, content_md5=md5(c)) for f, c in zip(MNIST.files, contents, strict=True))
    monkeypatch.setattr(MNIST, "files", files)
    for file, content in zip(files, contents, strict=True):
        (tmp_path / file.name).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=words):
        MNIST(root=str(tmp_path)).read()


def test_a_file_that_unpacks_to_more_than_any_published_is_refused(monkeypatch):
    monkeypatch.setattr(published, "LARGEST", 1000)
    assert unpacked(gzip.compress(bytes(1000)), "it") == bytes(1000)
    with pytest.raises(DataError, match="it unpacks to more than 1,000 bytes"):
        unpacked(gzip.compress(bytes(1001)), "it")


def zipped(members: dict[str, bytes]) -> bytes:
    """Of 1980, so that no byte of it depends on the time of day."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "File is not a zip file"),
        (zipped({"a": b"1" * 99})[:-30], "File is not a zip file"),
        (zipped({"b": b"1"}), "has no member a"),
        (zipped({"../a": b"1", "/a": b"1"}), "has no member a"),
        (zipped({"a": b"1" * 1001}), "member a, has 1,001 bytes: this is not the published file"),
        (zipped({"a": b"123456789"}).replace(b"a", b"b", 1), "member a, cannot be read"),
    ],
    ids=["empty", "cut", "other", "outside", "large", "renamed"],
)
def test_a_zip_archive_without_the_member_is_refused(content, words, tmp_path, monkeypatch):
    monkeypatch.setattr("rnnclf.data.images.archives.LARGEST", 1000)
    (tmp_path / "my.zip").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        zip_member(tmp_path / "my.zip", "a")
    assert "my.zip" in str(caught.value)


def linked() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
        (packed_tar({"a": drawn(900).tobytes()})[:200], "cannot be read"),
        (packed_tar({"b": b"1"}), "has no member a"),
        (packed_tar({"../a": b"1", "/a": b"1", "./a": b"1"}), "has no member a"),
        (packed_tar({"a": bytes(1001)}), "member a, has 1,001 bytes: this is not the published file"),
        (linked(), "has no member a"),
    ],
    ids=["empty", "no archive", "cut", "other", "outside", "large", "link"],
)
def test_a_tar_archive_without_the_member_is_refused(content, words, tmp_path, monkeypatch):
    monkeypatch.setattr("rnnclf.data.images.archives.LARGEST", 1000)
    (tmp_path / "my.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        tar_members(tmp_path / "my.tar.gz", ["a"])
    assert "my.tar.gz" in str(caught.value)


PICTURES, LABELS = drawn(2, 32, 32, 3), np.array([0, 7])


@pytest.mark.parametrize(
    ("parse", "content", "words"),
    [
        (parse_binary, b"", "has 0 bytes, which is not a multiple of 3,073 per picture"),
        (parse_binary, bytes(3074), "has 3,074 bytes, which is not a multiple"),
        (parse_binary, binary_batch(PICTURES, [3, 10]), "label 10 is not one of the 10 classes"),
        (parse_python, b"", "is not a batch of CIFAR-10"),
        (parse_python, b"cos\nsystem\n(U\x04exittR.", r"has \d bytes of pixels, which is not a multiple"),
        (parse_python, python_batch(PICTURES, LABELS)[:-1], "is not a batch of CIFAR-10"),
        (parse_python, python_batch(PICTURES, LABELS[:1]), r"2 pictures, but the labels have shape \(1,\)"),
        (parse_python, python_batch(PICTURES, [3, 10]), "label 10 is not one of the 10 classes"),
        (parse_mat, b"", "is not a valid MATLAB file"),
        (parse_mat, mat(PICTURES, LABELS)[:300], "is not a valid MATLAB file"),
        (parse_mat, mat(PICTURES[:, :30], LABELS), r"expected bytes \(N, 32, 32, 3\)"),
        (parse_mat, mat(PICTURES.astype("f8"), LABELS), "should hold the bytes X"),
        (parse_mat, mat(PICTURES, LABELS[:1]), "2 pictures, but the labels have shape"),
        (parse_mat, mat(PICTURES, LABELS + 10), "label 17 is not one of the 10 classes"),
    ],
)
def test_a_batch_that_holds_anything_else_is_refused(parse, content, words):
    with pytest.raises(DataError, match=words) as caught:
        parse(content, "my batch")
    assert "my batch" in str(caught.value)


def test_a_mat_file_without_the_two_variables_is_refused():
    content = io.BytesIO()
    savemat(content, {"X": PICTURES})
    with pytest.raises(DataError, match="should hold the bytes X"):
        parse_mat(content.getvalue(), "my file")


def test_a_pickle_is_never_run(tmp_path):
    touched = tmp_path / "touched"
    command = f"open({str(touched)!r}, 'w')".encode()
    attack = (
        b"cbuiltins\nexec\n(U" + bytes([len(command)]) + command + b"tR0" + python_batch(PICTURES, LABELS)[2:]
    )
    assert np.array_equal(parse_python(attack, "it").x_NHWC, PICTURES)
    assert not touched.exists()


@st.composite
def harmed(draw: st.DrawFn, content: bytes) -> bytes:
    """The content truncated, with bits flipped, garbage inserted, or a part of it moved."""
    at = draw(st.integers(0, len(content) - 1))
    how = draw(st.sampled_from(["truncate", "flip", "insert", "splice"]))
    if how == "truncate":
        return content[:at]
    if how == "flip":
        return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
    start = draw(st.integers(0, len(content) - 1))
    return content[:at] + content[start : start + 64] + content[at + 64 :]


def on_disk(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def read_bytes(content: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(content)
            return read(path)

    return read_bytes


READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "idx": (idx(drawn(2, 3, 4)), lambda content: parse_idx(content, 3, "it")),
    "idx gz": (gzip.compress(idx(drawn(2, 3, 4))), lambda c: parse_idx(unpacked(c, "it"), 3, "it")),
    "zip": (zipped({"a": bytes(range(50)), "b": b"2"}), on_disk(lambda path: zip_member(path, "a"))),
    "tar": (packed_tar({"a": b"12", "b": b"3"}), on_disk(lambda path: tar_members(path, ["a", "b"]))),
    "cifar bin": (binary_batch(PICTURES, LABELS), lambda content: parse_binary(content, "it")),
    "cifar pickle": (python_batch(PICTURES, LABELS), lambda content: parse_python(content, "it")),
    "mat": (mat(PICTURES // 64, LABELS), lambda content: parse_mat(content, "it")),
}


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # of damaged pickles
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_told_or_harmless(name, data):
    content, read = READERS[name]
    read(content)
    with contextlib.suppress(DataError):
        read(data.draw(harmed(content)))
