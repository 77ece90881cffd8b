"""Data sets: what is read, how it is split, what is said of damaged files."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnclf.data import DATASETS, SPLITS, SequenceDataset, mnist
from rnnclf.data.base import fingerprint_of
from rnnclf.data.digits import Digits
from rnnclf.data.mnist import CONTENT_MD5, MNIST
from rnnclf.errors import ConfigError, DataError
from tests.conftest import ROOT

REAL = Path(os.environ.get("RNNCLF_DATA", ROOT.parent / "shared" / "data"))
needs_mnist = pytest.mark.skipif(
    not (REAL / "MNIST" / "raw").is_dir(), reason=f"the MNIST files are not in {REAL}; RNNCLF_DATA names them"
)
FILES = list(CONTENT_MD5)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch) -> Path:
    """A folder with files like MNIST's, 200 training and 50 test images, packed; their MD5 expected."""
    random = np.random.default_rng(0)
    arrays = {
        FILES[0]: random.integers(0, 256, (200, 28, 28)),
        FILES[1]: np.arange(200) % 10,
        FILES[2]: random.integers(0, 256, (50, 28, 28)),
        FILES[3]: np.arange(50) % 10,
    }
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in arrays.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        monkeypatch.setitem(CONTENT_MD5, name, hashlib.md5(idx(array)).hexdigest())
    return tmp_path / "data"


def no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(mnist, "_download", no_network)


def load_small(root: Path, **options: object) -> MNIST:
    return MNIST(root=str(root), validation=20, **options)


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_data_set_has_a_summary_and_three_options_at_least(name):
    source = DATASETS[name]()
    assert source.name == name
    assert {"validation", "split", "split_seed"} <= set(vars(source))


def test_digits_are_what_scikit_learn_ships():
    from sklearn.datasets import load_digits

    splits = Digits().load()
    assert [len(splits[name]) for name in SPLITS] == [1257, 180, 360]
    assert splits.train.x_NTI.shape[1:] == (8, 8)
    together = torch.cat([splits[name].x_NTI for name in SPLITS])
    original = torch.from_numpy(load_digits().images).float() / 16
    key = {tuple(image.flatten().tolist()) for image in original}
    assert {tuple(image.flatten().tolist()) for image in together} == key
    assert together.min() == 0
    assert together.max() == 1


def test_a_random_split_is_stratified_disjoint_and_the_same_every_time():
    first, second = Digits().load(), Digits().load()
    for name in SPLITS:
        torch.testing.assert_close(first[name].x_NTI, second[name].x_NTI)
        share_K = torch.bincount(first[name].y_N, minlength=10) / len(first[name])
        assert (share_K - 0.1).abs().max() < 0.02
    rows = [tuple(image.flatten().tolist()) for name in SPLITS for image in first[name].x_NTI]
    assert len(rows) == 1797


def test_another_split_seed_gives_another_split_of_the_same_data():
    a, b = Digits(split_seed=0).load(), Digits(split_seed=1).load()
    assert not torch.equal(a.test.y_N, b.test.y_N)
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize("options", [{"validation": 1433}, {"validation": 5}, {"test": 1793}])
def test_a_split_without_room_for_each_class_is_refused(options):
    with pytest.raises(ConfigError, match=rf"dataset\.{next(iter(options))}="):
        Digits(**options).load()


def test_mnist_is_read_packed_and_unpacked_alike(small_mnist):
    packed = load_small(small_mnist).load()
    raw = small_mnist / "MNIST" / "raw"
    for file in list(raw.iterdir()):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    unpacked = load_small(small_mnist).load()
    for name in SPLITS:
        assert torch.equal(packed[name].x_NTI, unpacked[name].x_NTI)
    assert packed.fingerprint == unpacked.fingerprint


def test_mnist_is_read_from_the_folder_itself_too(small_mnist):
    assert len(load_small(small_mnist / "MNIST" / "raw").load().test) == 50


def test_the_first_training_images_are_the_validation_split(small_mnist):
    splits = load_small(small_mnist).load()
    packed = (small_mnist / "MNIST" / "raw" / f"{FILES[0]}.gz").read_bytes()
    images = np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(200, 28, 28)
    assert np.array_equal(splits.validation.x_NTI.numpy() * 255, images[:20].astype(np.float32))
    assert len(splits.train) == 180
    assert not torch.equal(splits.train.x_NTI, load_small(small_mnist, split="random").load().train.x_NTI)


def test_a_given_folder_is_never_written_to(small_mnist):
    before = {path: path.stat().st_mtime_ns for path in small_mnist.rglob("*")}
    load_small(small_mnist).load()
    assert {path: path.stat().st_mtime_ns for path in small_mnist.rglob("*")} == before


def test_the_root_is_kept_absolute(small_mnist, monkeypatch):
    monkeypatch.chdir(small_mnist.parent)
    assert load_small(Path("data")).root == str(small_mnist)


def damaged(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "text": b"<html>not found</html>",
        "foreign": gzip.compress(idx(np.zeros((200, 28, 28)))),
        "trailing": content + b"garbage",
    }[how]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["empty", "truncated", "text", "foreign", "trailing"])
def test_a_damaged_file_is_named_with_the_checksum_it_should_have(small_mnist, name, how):
    path = small_mnist / "MNIST" / "raw" / f"{name}.gz"
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(DataError) as caught:
        load_small(small_mnist).load()
    assert str(path) in str(caught.value)
    assert CONTENT_MD5[name] in str(caught.value)


def test_without_files_and_network_the_way_out_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        MNIST(root=str(tmp_path / "nowhere")).load()
    message = str(caught.value)
    assert str(tmp_path / "nowhere" / "MNIST" / "raw") in message
    assert "dataset=digits" in message
    assert all(f"{name}.gz" in message for name in FILES)


def test_a_download_takes_the_next_mirror_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    from torchvision import datasets
    from torchvision.datasets import utils

    asked = []

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        Path(root, filename).write_bytes(b"part")
        if len(asked) == 1:
            raise OSError("broken off")
        Path(root, filename).write_bytes(b"whole")

    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(utils, "download_url", download_url)
    path = mnist._download(f"{FILES[0]}.gz")
    assert asked == [mirror + f"{FILES[0]}.gz" for mirror in datasets.MNIST.mirrors[:2]]
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@needs_mnist
def test_the_real_mnist_has_its_sizes_and_first_labels():
    splits = MNIST(root=str(REAL)).load()
    assert [len(splits[name]) for name in SPLITS] == [55000, 5000, 10000]
    assert splits.validation.y_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert splits.test.y_N[:5].tolist() == [7, 2, 1, 0, 4]
    assert splits.train.x_NTI.mean().item() == pytest.approx(0.1307, abs=5e-4)


def test_the_checksums_are_of_what_torchvision_would_download():
    from torchvision.datasets import MNIST as TORCHVISION

    assert [name.removesuffix(".gz") for name, _ in TORCHVISION.resources] == FILES


def ragged() -> SequenceDataset:
    return SequenceDataset(
        torch.randn(7, 3, 2), torch.arange(7) % 2, ("a", "b"), torch.tensor([1, 2, 3, 1, 2, 3, 1])
    )


def test_batches_hold_every_sequence_once_in_the_order_asked_for():
    data, order = ragged(), torch.tensor([6, 0, 5, 1, 4, 2, 3])
    batches = list(data.batches(3, order))
    assert [len(batch.y_B) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([batch.x_BTI for batch in batches]), data.x_NTI[order])
    assert torch.equal(torch.cat([batch.lengths_B for batch in batches]), data.lengths_N[order])


def test_a_subset_keeps_labels_and_lengths_beside_their_sequences():
    part = ragged().subset(torch.tensor([2, 5]))
    assert part.lengths_N.tolist() == [3, 3]
    assert part.y_N.tolist() == [0, 1]


@pytest.mark.parametrize(("x", "y"), [((4, 3), 4), ((4, 3, 2), 5)])
def test_data_of_a_wrong_shape_are_refused(x, y):
    with pytest.raises(ValueError, match=r"\(4, 3\)|\(5,\)"):
        SequenceDataset(torch.zeros(x), torch.zeros(y, dtype=torch.int64), ("a",))


@pytest.mark.parametrize("length", [0, 4])
def test_a_length_beyond_the_steps_is_refused(length):
    with pytest.raises(ValueError, match="between 1 and the number of steps, 3"):
        SequenceDataset(
            torch.zeros(1, 3, 2), torch.zeros(1, dtype=torch.int64), ("a",), torch.tensor([length])
        )


def test_the_fingerprint_sees_every_value_the_shape_and_the_type():
    array = np.arange(6, dtype=np.uint8)
    changed = array.copy()
    changed[5] = 9
    prints = [fingerprint_of(a) for a in (array, changed, array.reshape(2, 3), array.astype(np.int16))]
    assert len(set(prints)) == 4
    assert fingerprint_of(array) == fingerprint_of(array.copy())
