"""Every data source, by the name used on the command line."""

from rnnclf.data.base import SPLITS, Batch, SequenceDataset, Source, SplitName, Splits
from rnnclf.data.digits import Digits
from rnnclf.data.mnist import MNIST
from rnnclf.registry import Registry

__all__ = ["DATASETS", "SPLITS", "Batch", "SequenceDataset", "Source", "SplitName", "Splits"]

DATASETS: Registry[type[Source]] = Registry("dataset", {"mnist": MNIST, "digits": Digits})
