"""Image data sets, read as sequences of rows, columns, pixels or patches."""

from rnnclf.data.images.base import Images
from rnnclf.data.images.cifar10 import CIFAR10
from rnnclf.data.images.digits import Digits
from rnnclf.data.images.emnist import EMNIST
from rnnclf.data.images.mnist import KMNIST, MNIST, QMNIST, FashionMNIST
from rnnclf.data.images.svhn import SVHN

__all__ = [
    "CIFAR10",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "QMNIST",
    "SVHN",
    "Digits",
    "FashionMNIST",
    "Images",
]
