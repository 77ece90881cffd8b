"""Pictures as sequences: how they lie there, where their files are found, what is said of damaged ones."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from rnnclf.data import SPLITS
from rnnclf.data.images import (
    CIFAR10,
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    SVHN,
    Digits,
    FashionMNIST,
    PictureLayout,
    cifar10,
    emnist,
    published,
    svhn,
)
from rnnclf.data.images.archives import tar_members, zip_member
from rnnclf.data.images.base import grey
from rnnclf.data.images.cifar10 import parse_binary, parse_python
from rnnclf.data.images.idx import parse_idx
from rnnclf.data.images.published import Published, unpacked
from rnnclf.data.images.svhn import parse_mat
from rnnclf.data.permutations import permutation
from rnnclf.data.recordings import silent
from rnnclf.errors import ConfigError, DataError
from tests.conftest import REAL, needs_mnist

FILES = [file.name.removesuffix(".gz") for file in MNIST.files]

MNIST_LIKE = (MNIST, FashionMNIST, KMNIST, QMNIST)
PUBLISHED = (*MNIST_LIKE, EMNIST, CIFAR10, SVHN)
ALL = (*PUBLISHED, Digits)


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


LAYOUTS = [
    ("rows", 4, "none"),
    ("columns", 4, "none"),
    ("pixels", 4, "none"),
    ("pixels", 4, "bitrev"),
    ("pixels", 4, "seed:3"),
    ("patches", 2, "none"),
    ("patches", 1, "none"),
]


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("sequence", "patch", "order"), LAYOUTS)
def test_a_sequence_holds_the_values_that_loops_over_its_picture_find(sequence, patch, order, colours):
    x_NHWC = drawn(5, 4, 6, colours)
    layout = PictureLayout(4, 6, colours, sequence, patch, order)
    places = permutation(order, 24)
    expected = [by_loops(x, sequence, patch, None if places is None else places.tolist()) for x in x_NHWC]
    steps = layout.steps_of(x_NHWC)
    assert steps.dtype == np.uint8
    assert steps.reshape(5, -1, steps.shape[1]).tolist() == expected


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("sequence", "patch", "order"), LAYOUTS)
def test_pictures_and_sequences_are_inverses_and_agree_with_what_is_read(sequence, patch, order, colours):
    x_NHWC = drawn(5, 4, 6, colours)
    layout = PictureLayout(4, 6, colours, sequence, patch, order)
    x_BTI = torch.from_numpy(layout.steps_of(x_NHWC).copy()).view(5, *layout.places_TI.shape).float()
    x_BCHW = layout.pictures(x_BTI)
    assert torch.equal(x_BCHW, torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).float())
    assert torch.equal(layout.sequences(x_BCHW), x_BTI)


def test_grey_is_pillows():
    from PIL import Image

    x_NHWC = np.concatenate((drawn(4, 64, 64, 3), np.repeat(drawn(1, 64, 64, 1, seed=1), 3, axis=3)))
    expected = np.stack([np.asarray(Image.fromarray(x).convert("L")) for x in x_NHWC])
    assert np.array_equal(grey(x_NHWC)[..., 0], expected)


def test_many_pictures_are_made_grey_like_one():
    x_NHWC = drawn(4100, 2, 2, 3)  # more than are converted at a time
    one_by_one = np.concatenate([grey(x_NHWC[n : n + 1]) for n in (0, 4095, 4096, 4099)])
    assert np.array_equal(grey(x_NHWC)[[0, 4095, 4096, 4099]], one_by_one)


# --- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sequence": "diagonals"}, r"dataset|sequence must be rows, columns, pixels or patches"),
        ({"permutation": "bitrev"}, r"dataset\.permutation needs dataset\.sequence=pixels"),
        ({"sequence": "patches", "permutation": "seed:1"}, r"dataset\.permutation needs"),
        ({"sequence": "pixels", "permutation": "random"}, r"dataset\.permutation must be none, bitrev"),
        ({"patch": 2}, r"dataset\.patch=2 changes nothing without dataset\.sequence=patches"),
        ({"sequence": "patches", "patch": 5}, r"must divide the sides of the pictures, \d+ × \d+, got 5"),
        ({"sequence": "patches", "patch": 0}, r"patch must be at least 1, got 0"),
        ({"missing": "mask"}, r"Pictures miss no values: dataset\.missing=mask"),
    ],
)
@pytest.mark.parametrize("kind", ALL)
def test_options_that_do_not_go_together_are_refused(kind, options, words):
    with pytest.raises(ConfigError, match=words):
        kind(**options)


@pytest.mark.parametrize("kind", ALL)
def test_each_source_has_its_name_a_summary_and_a_layout_of_its_pictures(kind):
    source = kind()
    assert source.name == kind.name
    assert "steps of" in kind.__doc__
    height, width, colours = kind.shape
    assert source.layout() == PictureLayout(height, width, colours)
    assert source.layout().places_TI.shape == (height, width * colours)


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (MNIST(), "mnist"),
        (MNIST(sequence="pixels", permutation="bitrev"), "mnist pixels, bitrev"),
        (Digits(sequence="patches"), "digits patches of 4"),
        (CIFAR10(sequence="pixels", colour="grey"), "cifar10 pixels, grey"),
        (EMNIST(variant="letters", sequence="columns"), "emnist letters columns"),
    ],
)
def test_a_label_says_what_is_not_the_default(source, label):
    assert source.title() == label


def test_a_reading_tells_everything_that_changes_a_step():
    readings = [
        CIFAR10().reading(),
        CIFAR10(sequence="columns").reading(),
        CIFAR10(sequence="pixels").reading(),
        CIFAR10(sequence="pixels", colour="grey").reading(),
        CIFAR10(sequence="pixels", permutation="bitrev").reading(),
        CIFAR10(sequence="pixels", permutation="seed:1").reading(),
        CIFAR10(sequence="patches").reading(),
        CIFAR10(sequence="patches", patch=8).reading(),
    ]
    assert len({tuple(reading.values()) for reading in readings}) == len(readings)
    assert MNIST(split="random").reading() == MNIST().reading() == QMNIST().reading()


def test_a_reading_holds_the_hash_of_its_permutation():
    order = np.random.RandomState(5).permutation(64).astype("<i8")
    reading = Digits(sequence="pixels", permutation="seed:5").reading()
    assert reading["permutation_sha256"] == hashlib.sha256(order.tobytes()).hexdigest()
    assert Digits().reading()["permutation_sha256"] is None


# --- digits


def test_digits_are_what_scikit_learn_ships():
    from sklearn.datasets import load_digits

    bunch, recordings = load_digits(), Digits().read()
    assert recordings.values_SC.dtype == np.uint8
    assert np.array_equal(recordings.values_SC.reshape(1797, 8, 8), bunch.images)
    assert np.array_equal(recordings.labels_N, bunch.target)
    assert recordings.unit == 16
    x = Digits().load().train.batch(torch.arange(1257)).x_BTI
    assert (x.min(), x.max()) == (0, 1)


def test_digits_are_read_by_scikit_learn_itself_where_their_file_lies_elsewhere(monkeypatch, tmp_path):
    pictures = Digits().load_pictures(silent)
    elsewhere = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("rnnclf.data.images.digits.find_spec", lambda name: elsewhere)
    for ours, theirs in zip(pictures[:2], Digits().load_pictures(silent)[:2], strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_the_published_splits_of_the_digits_stay_what_they_are():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    rest, test = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=bunch.target)
    train, validation = train_test_split(rest, test_size=180, random_state=0, stratify=bunch.target[rest])
    splits = Digits().load()
    for name, places in zip(SPLITS, (train, validation, test), strict=True):
        batch = splits[name].batch(torch.arange(len(places)))
        assert torch.equal(batch.x_BTI, torch.from_numpy(bunch.images[places]).float() / 16)
        assert batch.y_B.tolist() == bunch.target[places].tolist()


@pytest.mark.parametrize("options", [{"validation": 1433}, {"validation": 5}, {"test": 1793}])
def test_a_split_without_room_for_each_class_is_refused(options):
    with pytest.raises(ConfigError, match=rf"dataset\.{next(iter(options))}="):
        Digits(**options).load()


def test_another_split_seed_gives_another_split_of_the_same_data():
    a, b = Digits(split_seed=0).load(), Digits(split_seed=1).load()
    assert not torch.equal(a.test.y_N, b.test.y_N)
    assert a.fingerprint == b.fingerprint


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


def test_the_pickles_made_here_are_such_as_python_reads():
    import pickle

    x, y = drawn(3, 32, 32, 3), np.array([3, 0, 9])
    batch = pickle.loads(python_batch(x, y), encoding="latin1")
    assert batch["labels"] == [3, 0, 9]
    assert np.array_equal(batch["data"], planes(x))


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


def first_file(folder: Path) -> Path:
    return min(path for path in folder.rglob("*") if path.is_file())


def assert_read(source, small: Small) -> None:
    """The source reads these training and test pictures in their order, the latter given as test split."""
    x_train, y_train, x_test, y_test = small
    recordings = source.read()
    expected = np.concatenate((x_train, x_test))
    assert np.array_equal(recordings.values_SC.reshape(expected.shape), expected)
    assert recordings.labels_N.tolist() == [*y_train, *y_test]
    assert recordings.given_N.tolist() == [-1] * len(y_train) + [2] * len(y_test)
    assert recordings.unit == 255
    assert len(recordings.classes) == len(set(recordings.classes)) >= 10


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_pictures_are_read_upright_with_their_labels(kind, tmp_path, monkeypatch):
    small = MAKERS[kind](tmp_path / "data", monkeypatch)
    assert_read(kind(root=str(tmp_path / "data")), small)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_pictures_are_found_in_the_cache_too(kind, tmp_path, monkeypatch):
    small = MAKERS[kind](tmp_path / "cache" / "rnnclf", monkeypatch)
    assert_read(kind(), small)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_given_folder_is_never_written_to(kind, tmp_path, monkeypatch):
    MAKERS[kind](tmp_path / "data", monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    kind(root=str(tmp_path / "data")).read()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_file_with_another_checksum_is_refused_by_name(kind, tmp_path, monkeypatch):
    MAKERS[kind](tmp_path / "data", monkeypatch)
    path = first_file(tmp_path / "data")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"MD5 [0-9a-f]{32}") as caught:
        kind(root=str(tmp_path / "data")).read()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "folder", "files"),
    [
        *((kind, kind.folder, [file.name for file in kind.files]) for kind in MNIST_LIKE),
        (EMNIST, "EMNIST/raw", ["gzip.zip"]),
        (CIFAR10, "CIFAR10", ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "cifar-10-batches-py"]),
        (SVHN, "SVHN", ["train_32x32.mat", "test_32x32.mat"]),
    ],
)
def test_without_files_and_network_the_way_out_is_named(kind, folder, files, tmp_path):
    with pytest.raises(DataError, match="no network") as caught:
        kind(root=str(tmp_path / "nowhere")).read()
    message = str(caught.value)
    assert str(tmp_path / "nowhere" / folder) in message
    assert "dataset.root=DIR" in message
    assert "dataset=digits" in message
    assert all(file in message for file in files)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_root_is_kept_absolute(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kind(root="data").root == str(tmp_path / "data")


@pytest.mark.parametrize("kind", [CIFAR10, SVHN])
def test_grey_pixels_are_pillows_of_the_pictures_read(kind, tmp_path, monkeypatch):
    from PIL import Image

    small = MAKERS[kind](tmp_path, monkeypatch)
    recordings = kind(root=str(tmp_path), colour="grey", sequence="pixels").read()
    assert recordings.channels == ("0",)
    expected = np.asarray(Image.fromarray(small[0][7]).convert("L"))
    assert np.array_equal(recordings.values_SC.reshape(60, 32, 32)[7], expected)


@pytest.mark.parametrize("form", ["folder", "python", "binary"])
def test_every_form_of_cifar10_gives_the_same_pictures(form, tmp_path, monkeypatch):
    small = cifar10_like(tmp_path, monkeypatch, form)
    assert_read(CIFAR10(root=str(tmp_path)), small)


def test_where_a_batch_is_missing_the_archive_beside_the_folder_is_read(tmp_path, monkeypatch):
    cifar10_like(tmp_path / "data", monkeypatch, "folder")
    first_file(tmp_path / "data").unlink()
    small = cifar10_like(tmp_path / "cache" / "rnnclf", monkeypatch, "python")
    assert_read(CIFAR10(root=str(tmp_path / "data")), small)


@pytest.mark.parametrize("variant", emnist.CHARACTERS)
def test_every_variant_of_emnist_is_read_with_the_names_of_its_classes(variant, tmp_path, monkeypatch):
    small = emnist_like(tmp_path, monkeypatch, variant)
    source = EMNIST(root=str(tmp_path), variant=variant)
    assert_read(source, small)
    torchvision = pytest.importorskip("torchvision.datasets")
    assert list(source.classes()) == [
        name for name in torchvision.EMNIST.classes_split_dict[variant] if name != "N/A"
    ]


@pytest.mark.parametrize("kind", MNIST_LIKE)
def test_classes_have_the_names_and_the_order_of_torchvision(kind):
    torchvision = pytest.importorskip("torchvision.datasets")
    names = [name.split(" - ")[0] for name in getattr(torchvision, kind.__name__).classes]
    assert list(kind().classes()) == names


def test_the_checksums_are_those_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    for kind in (MNIST, FashionMNIST, KMNIST):
        known = {file.name: file.md5 for file in kind.files}
        assert known == dict(getattr(datasets, kind.__name__).resources)
    resources = datasets.QMNIST.resources
    known = [(file.urls[0], file.md5) for file in QMNIST.files]
    assert known == [tuple(pair) for pair in (*resources["train"], *resources["test"])]
    assert emnist.ARCHIVE.md5 == datasets.EMNIST.md5
    assert [[f.name, f.md5] for f in cifar10.BATCHES] == [
        [f"cifar-10-batches-py/{name}", known]
        for name, known in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)
    ]
    assert (cifar10.PYTHON.name, cifar10.PYTHON.md5) == (datasets.CIFAR10.filename, datasets.CIFAR10.tgz_md5)
    for file, part in zip(svhn.FILES, ("train", "test"), strict=True):
        assert [file.urls[0], file.name, file.md5] == list(datasets.SVHN.split_list[part])


# --- MNIST's own ways


@pytest.fixture
def small_mnist(tmp_path, monkeypatch) -> Path:
    mnist_like(MNIST, tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def load_small(root: Path, **options: object):
    return MNIST(**{"root": str(root), "validation": 10, **options}).load()


def test_mnist_is_read_packed_and_unpacked_alike(small_mnist):
    packed = load_small(small_mnist)
    for file in list((small_mnist / "MNIST" / "raw").iterdir()):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    unpacked_too = load_small(small_mnist)
    assert packed.fingerprint == unpacked_too.fingerprint
    for name in SPLITS:
        places = torch.arange(len(packed[name]))
        assert torch.equal(packed[name].batch(places).x_BTI, unpacked_too[name].batch(places).x_BTI)


def test_mnist_is_read_from_the_folder_itself_too(small_mnist):
    assert len(load_small(small_mnist / "MNIST" / "raw").test) == 20


def test_the_first_training_images_are_the_validation_split(small_mnist):
    splits = load_small(small_mnist)
    x = splits.validation.batch(torch.arange(10)).x_BTI
    assert torch.equal(x, torch.from_numpy(drawn(40, 28, 28)[:10]).float() / 255)
    assert len(splits.train) == 30
    assert not torch.equal(load_small(small_mnist, split="random").validation.y_N, splits.validation.y_N)


def damaged(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "text": b"<html>not found</html>",
        "foreign": gzip.compress(idx(np.zeros((200, 28, 28)))),
        "trailing": content + b"garbage",
    }[how]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("how", ["empty", "truncated", "text", "foreign", "trailing"])
def test_a_damaged_file_is_named_with_the_checksum_it_should_have(small_mnist, number, how):
    file = MNIST.files[number]
    path = small_mnist / "MNIST" / "raw" / file.name
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(DataError) as caught:
        load_small(small_mnist)
    assert str(path) in str(caught.value)
    assert file.content_md5 in str(caught.value)


def test_a_download_takes_the_next_mirror_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    from torchvision.datasets import utils

    asked = []

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        asked.append((url, md5))
        Path(root, filename).write_bytes(b"part")
        if len(asked) == 1:
            raise OSError("broken off")
        Path(root, filename).write_bytes(b"whole")

    monkeypatch.undo()
    monkeypatch.setattr(utils, "download_url", download_url)
    file = MNIST.files[0]
    path = published.download(file, tmp_path / "cache")
    assert asked == [(url, file.md5) for url in file.urls[:2]]
    assert path == tmp_path / "cache" / file.name
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_download_that_fails_everywhere_raises_the_last_failure_and_leaves_nothing(tmp_path, monkeypatch):
    import socket

    from torchvision.datasets import utils

    def download_url(url: str, *_: object) -> None:
        assert socket.getdefaulttimeout() == published.PATIENCE
        raise OSError(f"no {url}")

    monkeypatch.undo()
    monkeypatch.setattr(utils, "download_url", download_url)
    with pytest.raises(OSError, match=r"no b"):
        published.download(Published("name", "0" * 32, ("a", "b")), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert socket.getdefaulttimeout() is None


@pytest.mark.long
@needs_mnist
def test_the_real_mnist_has_its_sizes_and_first_labels():
    source = MNIST(root=str(REAL))
    splits = source.load()
    assert [len(splits[name]) for name in SPLITS] == [55000, 5000, 10000]
    assert splits.validation.y_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert splits.test.y_N[:5].tolist() == [7, 2, 1, 0, 4]
    assert source.read().values_SC[: 60000 * 28].mean() / 255 == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.long
@needs_mnist
def test_the_first_sequence_of_the_real_mnist_is_what_its_file_holds():
    with gzip.open(REAL / "MNIST" / "raw" / f"{FILES[0]}.gz") as file:
        assert struct.unpack(">4I", file.read(16)) == (2051, 60000, 28, 28)
        x_HWC = np.frombuffer(file.read(784), np.uint8).reshape(28, 28, 1)
    pictures = MNIST(root=str(REAL)).load_pictures(lambda *_: None)
    torch.manual_seed(5544)
    torch5544 = torch.randperm(784).tolist()
    torch.manual_seed(12008)
    torch12008 = torch.randperm(784).tolist()
    orders = {
        "none": None,
        "bitrev": [n for m in range(1024) if (n := int(format(m, "010b")[::-1], 2)) < 784],
        "torch5544": torch5544,
        "torch12008": torch12008,
        "urnn92916": np.random.RandomState(92916).permutation(784).tolist(),
    }
    assert by_loops(x_HWC, "rows", 4, None) == MNIST().layout().steps_of(pictures.x_NHWC[:1]).tolist()
    for name, order in orders.items():
        layout = MNIST(sequence="pixels", permutation=name).layout()
        assert layout.steps_of(pictures.x_NHWC[:1]).tolist() == by_loops(x_HWC, "pixels", 4, order)


# --- damaged files: what the parsers say that come after the checksums


def bare(content: bytes) -> bytes:
    return idx(np.zeros((2, 3, 4)))[:4] + content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no IDX file of 3 dimensions: it begins with nothing"),
        (b"\0\0\x08", "no IDX file"),
        (b"PK\x03\x04" + bytes(100), "it begins with 50 4b 03 04"),
        (idx(np.zeros(5)), "no IDX file of 3 dimensions: it begins with 00 00 08 01"),
        (b"\0\0\x0d\x03" + bytes(100), "no IDX file"),
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
        (lambda x, y: (x[:-1], y), "39 pictures, but labels of shape"),
        (lambda x, y: (x[:0], y[:0]), "0 pictures, but labels of shape"),
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
        (zipped({"a": b"1" * 1001}), "member a, has 1,001 bytes: this is no published file"),
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
        (packed_tar({"a": bytes(1001)}), "member a, has 1,001 bytes: this is no published file"),
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
        (parse_binary, b"", "has 0 bytes, which are no pictures of 3,073"),
        (parse_binary, bytes(3074), "has 3,074 bytes, which are no pictures"),
        (parse_binary, binary_batch(PICTURES, [3, 10]), "label 10 is not one of the 10 classes"),
        (parse_python, b"", "cannot be read as a batch of CIFAR-10"),
        (parse_python, b"cos\nsystem\n(U\x04exittR.", r"has \d bytes, which are no pictures"),
        (parse_python, python_batch(PICTURES, LABELS)[:-1], "cannot be read as a batch"),
        (parse_python, python_batch(PICTURES, LABELS[:1]), r"2 pictures, but labels of shape \(1,\)"),
        (parse_python, python_batch(PICTURES, [3, 10]), "label 10 is not one of the 10 classes"),
        (parse_mat, b"", "cannot be read as a MATLAB file"),
        (parse_mat, mat(PICTURES, LABELS)[:300], "cannot be read as a MATLAB file"),
        (parse_mat, mat(PICTURES[:, :30], LABELS), r"expected bytes \(N, 32, 32, 3\)"),
        (parse_mat, mat(PICTURES.astype("f8"), LABELS), "should hold the bytes X"),
        (parse_mat, mat(PICTURES, LABELS[:1]), "2 pictures, but labels of shape"),
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
