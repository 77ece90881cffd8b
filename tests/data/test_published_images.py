"""Published pictures: where their files are found, how they are read, how they are downloaded."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnclf.data import SPLITS
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
from rnnclf.data.images.published import Published
from rnnclf.errors import DataError
from tests.conftest import REAL, needs_mnist
from tests.data.pictures import (
    FILES,
    MAKERS,
    MNIST_LIKE,
    PUBLISHED,
    Small,
    _offline,  # noqa: F401 - a fixture
    by_loops,
    cifar10_like,
    drawn,
    emnist_like,
    idx,
    mnist_like,
    planes,
    python_batch,
)


def test_the_pickles_made_here_are_such_as_python_reads():
    import pickle

    x, y = drawn(3, 32, 32, 3), np.array([3, 0, 9])
    batch = pickle.loads(python_batch(x, y), encoding="latin1")
    assert batch["labels"] == [3, 0, 9]
    assert np.array_equal(batch["data"], planes(x))


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
        assert socket.getdefaulttimeout() == published.TIMEOUT
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
