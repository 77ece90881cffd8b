"""MNIST and the data sets in its format: four gzipped IDX files each. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rnnclf.data.images.base import Pictures, PublishedImages, checked, concatenated
from rnnclf.data.images.idx import parse_idx
from rnnclf.data.images.published import FileSearch, Published, content_of
from rnnclf.data.recordings import Progress
from rnnclf.options import option

NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def four_files(
    mirrors: Sequence[str],
    md5s: Sequence[str],
    content_md5s: Sequence[str | None] = (None,) * 4,
    names: Sequence[str] = NAMES,
) -> tuple[Published, ...]:
    """The files with training images and labels, then test images and labels, each on all mirrors."""
    return tuple(
        Published(name, md5, tuple(mirror + name for mirror in mirrors), content_md5)
        for name, md5, content_md5 in zip(names, md5s, content_md5s, strict=True)
    )


@dataclass
class MNISTLike(PublishedImages):
    """Base of the data sets in MNIST's format, with 60,000 training pictures."""

    shape = (28, 28, 1)
    folder: ClassVar[str]
    files: ClassVar[tuple[Published, ...]]
    label_dimensions: ClassVar[int] = 1

    validation: float = option(
        5000,
        "size of the validation split, which chooses the best epoch: a count, or a fraction below 1",
        above=0,
    )
    split: str = option(
        "first",
        "which sequences to hold out: a stratified random draw, or the first ones",
        choices=("random", "first"),
    )

    def load_pictures(self, progress: Progress) -> Pictures:
        what, count = type(self).__name__, len(self.classes())
        search, arrays = FileSearch(what, self.folder, self.root), []
        for number, file in enumerate(self.files):
            progress(f"reading {file.name}", number / len(self.files))
            path = search.path(file, ", ".join(other.name for other in self.files))
            dimensions = self.label_dimensions if number % 2 else 3
            arrays.append(parse_idx(content_of(file, path), dimensions, str(path)))
        x_train, y_train, x_test, y_test = arrays
        if self.label_dimensions == 2:  # the class comes first, then the writer and other metadata
            y_train, y_test = y_train[:, 0], y_test[:, 0]
        return concatenated(
            checked(x_train[..., None], y_train, self.shape, count, f"{what}, training"),
            checked(x_test[..., None], y_test, self.shape, count, f"{what}, test"),
        )


@dataclass
class MNIST(MNISTLike):
    """70,000 handwritten digits of 28 × 28 pixels in [0, 1]: 28 steps of 28 features, row by row.

    LeCun et al. 1998. 10,000 of them are the test split; the usual validation split is the first
    5,000 of the others.
    """

    folder = "MNIST/raw"
    files = four_files(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    )

    name: str = "mnist"


@dataclass
class FashionMNIST(MNISTLike):
    """70,000 pictures of clothes in ten classes, 28 × 28 pixels in [0, 1]: 28 steps of 28 features.

    Xiao et al. 2017, https://arxiv.org/abs/1708.07747. 10,000 of them are the test split.
    """

    folder = "FashionMNIST/raw"
    files = four_files(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    )

    name: str = "fashion_mnist"

    def classes(self) -> tuple[str, ...]:
        upper = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
        return (*upper, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass
class KMNIST(MNISTLike):
    """70,000 cursive Japanese characters in ten classes, 28 × 28 pixels in [0, 1]: 28 steps of 28 features.

    Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718. 10,000 of them are the test split.
    """

    folder = "KMNIST/raw"
    files = four_files(
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    )

    name: str = "kmnist"

    def classes(self) -> tuple[str, ...]:
        return ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass
class QMNIST(MNISTLike):
    """MNIST rebuilt from its sources, with all 60,000 test digits: 28 steps of 28 features, row by row.

    Yadav and Bottou 2019, https://arxiv.org/abs/1905.10498. The 60,000 training digits are in MNIST's order,
    and the first 10,000 test digits are MNIST's test set.
    """

    folder = "QMNIST/raw"
    files = four_files(
        ("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
        (
            "ed72d4157d28c017586c42bc6afe6370",
            "0058f8dd561b90ffdd0f734c6a30e5e4",
            "1394631089c404de565df7b7aeaf9412",
            "5b5b05890a5e13444e108efe57b788aa",
        ),
        names=(
            "qmnist-train-images-idx3-ubyte.gz",
            "qmnist-train-labels-idx2-int.gz",
            "qmnist-test-images-idx3-ubyte.gz",
            "qmnist-test-labels-idx2-int.gz",
        ),
    )
    label_dimensions = 2

    name: str = "qmnist"
