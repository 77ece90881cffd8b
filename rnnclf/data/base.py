"""Sequences, their splits, and where they come from.  Shapes: N sequences, T time, I features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from rnnclf.errors import ConfigError
from rnnclf.options import Component, option

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

SplitName: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Batch(NamedTuple):
    """Some sequences: x_BTI float32, y_B int64, and their lengths where they are ragged."""

    x_BTI: Tensor
    y_B: Tensor
    lengths_B: Tensor | None


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Labelled sequences in memory.

    x_NTI is float32; y_N int64 below the number of classes; lengths_N the number of valid steps of
    each sequence, or None where all are whole.
    """

    x_NTI: Tensor
    y_N: Tensor
    classes: tuple[str, ...]
    lengths_N: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x_NTI.ndim != 3:
            raise ValueError(f"x must have shape (N, T, I), got {tuple(self.x_NTI.shape)}.")
        if self.y_N.shape != self.x_NTI.shape[:1]:
            raise ValueError(f"{len(self.x_NTI)} sequences, but labels of shape {tuple(self.y_N.shape)}.")
        if self.lengths_N is not None and not ((self.lengths_N >= 1) & (self.lengths_N <= self.steps)).all():
            raise ValueError(f"lengths must be between 1 and the number of steps, {self.steps}.")

    def __len__(self) -> int:
        return len(self.y_N)

    @property
    def steps(self) -> int:
        return self.x_NTI.shape[1]

    @property
    def input_size(self) -> int:
        return self.x_NTI.shape[2]

    def subset(self, indices: Tensor) -> SequenceDataset:
        """The sequences at `indices`, in that order."""
        lengths_N = None if self.lengths_N is None else self.lengths_N[indices]
        return replace(self, x_NTI=self.x_NTI[indices], y_N=self.y_N[indices], lengths_N=lengths_N)

    def to(self, device: torch.device) -> SequenceDataset:
        lengths_N = None if self.lengths_N is None else self.lengths_N.to(device)
        return replace(self, x_NTI=self.x_NTI.to(device), y_N=self.y_N.to(device), lengths_N=lengths_N)

    def batches(self, batch_size: int, order_N: Tensor | None = None) -> Iterator[Batch]:
        """The sequences in batches, in the order of `order_N` or as they are; the last may be smaller."""
        for start in range(0, len(self) if order_N is None else len(order_N), batch_size):
            part: Any = slice(start, start + batch_size)
            if order_N is not None:
                part = order_N[part]
            lengths_B = None if self.lengths_N is None else self.lengths_N[part]
            yield Batch(self.x_NTI[part], self.y_N[part], lengths_B)


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set, and the SHA-256 of all of it as it was read."""

    train: SequenceDataset
    validation: SequenceDataset
    test: SequenceDataset
    fingerprint: str

    def __getitem__(self, name: SplitName) -> SequenceDataset:
        part: SequenceDataset = getattr(self, name)
        return part


@dataclass
class Source(Component):
    """Base of every data source: its options, and how they become three splits."""

    validation: int = option(0, "sequences of the training data set aside to choose the best epoch", low=1)
    split: str = option("random", "which ones: a stratified draw, or the first", choices=("random", "first"))
    split_seed: int = option(0, "seed of the draw; apart from `seed`, so that runs share their splits", low=0)

    def load(self) -> Splits:
        """Reads the data. Raises DataError where a file is missing or not what it should be."""
        raise NotImplementedError(f"{type(self).__name__} must define load().")

    def _set_aside(
        self, data: SequenceDataset, count: int, what: str
    ) -> tuple[SequenceDataset, SequenceDataset]:
        """(the rest, `count` sequences set aside as `what`), as the options `split` and `split_seed` say."""
        import torch

        rest = len(data) - count
        if min(rest, count) < len(data.classes):
            raise ConfigError(
                f"dataset.{what}={count} does not divide {len(data)} sequences:"
                f" both parts need at least one for each of the {len(data.classes)} classes."
            )
        if self.split == "first":
            return data.subset(torch.arange(count, len(data))), data.subset(torch.arange(count))
        from sklearn.model_selection import train_test_split

        kept, aside = train_test_split(
            torch.arange(len(data)).numpy(),
            test_size=count,
            stratify=data.y_N.numpy(),
            random_state=self.split_seed,
        )
        return data.subset(torch.from_numpy(kept)), data.subset(torch.from_numpy(aside))


def fingerprint_of(*arrays: np.ndarray[Any, Any]) -> str:
    """SHA-256 over the types, shapes and values of the arrays, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
