"""Every data source, by the name used on the command line."""

from rnnclf.data.archive import Archive
from rnnclf.data.arrays import Arrays
from rnnclf.data.base import Learned, Source, Splits
from rnnclf.data.dataset import Batch, SequenceDataset, padded_dataset
from rnnclf.data.folder import Folder
from rnnclf.data.images import (
    CIFAR10,
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    SVHN,
    Digits,
    FashionMNIST,
)
from rnnclf.data.layout import PictureLayout
from rnnclf.data.splits import SPLITS, SplitName
from rnnclf.data.table import Table
from rnnclf.registry import Registry

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "Learned",
    "PictureLayout",
    "SequenceDataset",
    "Source",
    "SplitName",
    "Splits",
    "padded_dataset",
]

DATASETS: Registry[type[Source]] = Registry(
    "dataset",
    {
        "digits": Digits,
        "mnist": MNIST,
        "fashion_mnist": FashionMNIST,
        "kmnist": KMNIST,
        "emnist": EMNIST,
        "qmnist": QMNIST,
        "cifar10": CIFAR10,
        "svhn": SVHN,
        "table": Table,
        "arrays": Arrays,
        "folder": Folder,
        "archive": Archive,
    },
)
