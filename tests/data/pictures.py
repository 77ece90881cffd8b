"""Small files in the form of every published set of pictures."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from rnnclf.data.images import (
    CIFAR10,
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    SVHN,
    FashionMNIST,
    cifar10,
    emnist,
    published,
    svhn,
)

FILES = [file.name.removesuffix(".gz") for file in MNIST.files]

MNIST_LIKE = (MNIST, FashionMNIST, KMNIST, QMNIST)
PUBLISHED = (*MNIST_LIKE, EMNIST, CIFAR10, SVHN)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def drawn(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def no_network(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(published, "download", no_network)


# --- how pictures lie in sequences


def by_loops(x_HWC: np.ndarray, sequence: str, patch: int, order: list[int] | None) -> list[list[int]]:
    """The steps of one picture, value by value."""
    height, width, colours = x_HWC.shape
    pixel = lambda row, column: [int(x_HWC[row, column, c]) for c in range(colours)]  # noqa: E731
    steps: list[list[int]] = []
    if sequence == "rows":
        for row in range(height):
            steps.append([v for column in range(width) for v in pixel(row, column)])
    elif sequence == "columns":
        for column in range(width):
            steps.append([v for row in range(height) for v in pixel(row, column)])
    elif sequence == "pixels":
        for t in range(height * width):
            place = t if order is None else order[t]
            steps.append(pixel(place // width, place % width))
    else:
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                square = [(top + r, left + c) for r in range(patch) for c in range(patch)]
                steps.append([v for place in square for v in pixel(*place)])
    return steps


# --- small files like the published ones


def idx(array: np.ndarray, code: int = 8, kind: str = "u1") -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(kind).tobytes()


Small = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def arrays(shape: tuple[int, ...], classes: int = 10) -> Small:
    """Training pictures and labels, test pictures and labels."""
    return (
        drawn(40, *shape),
        np.arange(40) % classes,
        drawn(20, *shape, seed=1),
        np.arange(20)[::-1] % classes,
    )


def mnist_like(kind: type, folder: Path, patch: pytest.MonkeyPatch) -> Small:
    small = arrays((28, 28))
    (folder / kind.folder).mkdir(parents=True)
    files = []
    for number, (file, array) in enumerate(zip(kind.files, small, strict=True)):
        content = idx(array)
        if kind is QMNIST and number % 2:
            rest = np.arange(7 * len(array)).reshape(-1, 7) + 1000
            content = idx(np.column_stack((array, rest)), code=12, kind=">i4")
        packed = gzip.compress(content)
        (folder / kind.folder / file.name).write_bytes(packed)
        known = None if file.content_md5 is None else md5(content)
        files.append(replace(file, md5=md5(packed), content_md5=known))
    patch.setattr(kind, "files", tuple(files))
    x_train, y_train, x_test, y_test = small
    return x_train[..., None], y_train, x_test[..., None], y_test


def emnist_like(folder: Path, patch: pytest.MonkeyPatch, variant: str = "balanced") -> Small:
    first = 1 if variant == "letters" else 0
    small = arrays((28, 28), classes=len(emnist.CHARACTERS[variant]))
    path = folder / "EMNIST" / "raw" / "gzip.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, array in enumerate(small):
            part = f"emnist-{variant}-{'train' if number < 2 else 'test'}"
            name = f"{part}-labels-idx1-ubyte.gz" if number % 2 else f"{part}-images-idx3-ubyte.gz"
            stored = array + first if number % 2 else array.transpose(0, 2, 1)
            archive.writestr(f"gzip/{name}", gzip.compress(idx(stored)))
    patch.setattr(emnist, "ARCHIVE", replace(emnist.ARCHIVE, md5=md5(path.read_bytes())))
    return small[0][..., None], small[1], small[2][..., None], small[3]


def planes(x_NHWC: np.ndarray) -> np.ndarray:
    """The red bytes of a picture, then the green, then the blue."""
    return np.stack([[x[..., c].ravel() for c in range(3)] for x in x_NHWC]).reshape(len(x_NHWC), -1)


def binary_batch(x_NHWC: np.ndarray, y_N: np.ndarray) -> bytes:
    return b"".join(bytes([y]) + row.tobytes() for y, row in zip(y_N, planes(x_NHWC), strict=True))


def python_batch(x_NHWC: np.ndarray, y_N: np.ndarray) -> bytes:
    """The pickle that Python 2 makes of a dict of batch_label, labels, data and filenames."""
    text = lambda word: b"U" + bytes([len(word)]) + word  # noqa: E731
    labels = b"](" + b"".join(b"K" + bytes([y]) for y in y_N) + b"e"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    kind = (
        b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff"
    )
    kind += b"\xff\xff\xffK\x00tb"
    raw = planes(x_NHWC).tobytes()
    shape = b"(M" + struct.pack("<H", len(x_NHWC)) + b"M\x00\x0ct"
    data = empty + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
    names = b"](" + b"".join(text(b"plane_s_%06d.png" % n) for n in range(len(y_N))) + b"e"
    pairs = ((b"batch_label", text(b"training batch 1 of 5")), (b"labels", labels), (b"data", data))
    body = b"".join(text(key) + b"q\x01" + value for key, value in (*pairs, (b"filenames", names)))
    return b"\x80\x02}q\x00(" + body + b"u."


def six_batches(small: Small) -> list[tuple[np.ndarray, np.ndarray]]:
    x_train, y_train, x_test, y_test = small
    return [*((x_train[n : n + 8], y_train[n : n + 8]) for n in range(0, 40, 8)), (x_test, y_test)]


def packed_tar(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, member in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


def cifar10_like(folder: Path, patch: pytest.MonkeyPatch, form: str = "binary") -> Small:
    small = arrays((32, 32, 3))
    parts, root = six_batches(small), folder / "CIFAR10"
    root.mkdir(parents=True)
    python = {f.name: python_batch(*part) for f, part in zip(cifar10.BATCHES, parts, strict=True)}
    if form == "folder":
        (root / "cifar-10-batches-py").mkdir()
        for name, content in python.items():
            (root / name).write_bytes(content)
        files = tuple(replace(file, md5=md5(python[file.name])) for file in cifar10.BATCHES)
        patch.setattr(cifar10, "BATCHES", files)
        return small
    binary = {name: binary_batch(*part) for name, part in zip(cifar10.MEMBERS, parts, strict=True)}
    kind = "BINARY" if form == "binary" else "PYTHON"
    extra = {"cifar-10-batches-bin/readme.html": b"hello", "../cifar-10-batches-bin/data_batch_1.bin": b"x"}
    content = packed_tar(extra | (binary if form == "binary" else python))
    (root / getattr(cifar10, kind).name).write_bytes(content)
    patch.setattr(cifar10, kind, replace(getattr(cifar10, kind), md5=md5(content)))
    return small


def mat(x_NHWC: np.ndarray, y_N: np.ndarray) -> bytes:
    content = io.BytesIO()
    labels = np.where(y_N == 0, 10, y_N).astype(np.uint8)[:, None]
    savemat(content, {"X": np.transpose(x_NHWC, (1, 2, 3, 0)), "y": labels}, do_compression=True)
    return content.getvalue()


def svhn_like(folder: Path, patch: pytest.MonkeyPatch) -> Small:
    small = arrays((32, 32, 3))
    (folder / "SVHN").mkdir(parents=True)
    contents = [mat(*small[:2]), mat(*small[2:])]
    for file, content in zip(svhn.FILES, contents, strict=True):
        (folder / "SVHN" / file.name).write_bytes(content)
    known = tuple(replace(f, md5=md5(content)) for f, content in zip(svhn.FILES, contents, strict=True))
    patch.setattr(svhn, "FILES", known)
    return small


MAKERS: dict[type, Callable[[Path, pytest.MonkeyPatch], Small]] = {
    **{kind: lambda folder, patch, kind=kind: mnist_like(kind, folder, patch) for kind in MNIST_LIKE},
    EMNIST: emnist_like,
    CIFAR10: cifar10_like,
    SVHN: svhn_like,
}
