"""Where whole training steps read their sequences: in the data set itself or, if its values need more than a
shift and a scale, in batches that torch has prepared as it does for autograd.

Shapes: N sequences, S steps of all of them, B batch, T time, C channels as read, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnclf.data import SequenceDataset
from rnnclf.data.dataset import Batch

RAW_TYPES = (torch.uint8, torch.float32)
"""Types of values that machine code reads."""


def reads_raw(data: SequenceDataset) -> bool:
    """Whether machine code can prepare these data: at most a shift and a scale per channel, in float32."""
    x_SI, preparation = data.x_SI, data.preparation
    if x_SI.dtype not in RAW_TYPES or not x_SI.is_contiguous():
        return False
    if preparation is None:
        return True
    changed = (
        preparation.fills_gaps or preparation.patch > 1 or preparation.vocabularies or preparation.curve_C
    )
    return preparation.fits_float32 and not changed


class Source:
    """The sequences that a step can read, and the batch that it is to read.

    Sequence n begins at x_SI[starts_N[n]], has the label y_N[n], and is read as (x - shift) / scale. Machine
    code knows the addresses of these tensors; they change only with `steps` and the size of the batch.
    steps: the number of steps of the longest sequence that there is memory for. ragged: whether lengths may
    differ, within a batch or from one to the next.
    """

    x_SI: Tensor
    y_N: Tensor
    starts_N: Tensor
    shift_I: tuple[float, ...]
    scale_I: tuple[float, ...]
    steps: int
    ragged: bool
    batch: Batch | None = None
    """The last batch, if torch has prepared it."""

    def read(self, indices_B: Tensor) -> tuple[Any, Any]:
        """Makes the sequences of the data set with these indices available. Returns their indices in this
        source and their lengths, both as arrays (B,); instead of the lengths None if the source is not
        ragged."""
        raise NotImplementedError


def source_of(
    data: SequenceDataset, change: Callable[[Batch], Batch] | None = None, keeps_lengths: bool = False
) -> Source:
    """The source of these data. change: what is done to each batch before it is used, such as
    augmentation. keeps_lengths: whether that leaves the number of steps of all sequences as it is."""
    if change is None and reads_raw(data):
        return RawData(data)
    return PreparedBatches(data, change, keeps_lengths)


class RawData(Source):
    """The data set itself, as it was read or as it is in memory."""

    def __init__(self, data: SequenceDataset) -> None:
        preparation, inputs = data.preparation, data.input_size
        self.x_SI, self.y_N, self.starts_N = data.x_SI, data.y_N.contiguous(), data.starts_N.contiguous()
        self.shift_I = preparation.shift_C if preparation else (0.0,) * inputs
        self.scale_I = preparation.scale_C if preparation else (1.0,) * inputs
        self.steps, self.ragged = data.steps, data.ragged
        self.lengths_N = data.lengths_N.numpy()

    def read(self, indices_B: Tensor) -> tuple[Any, Any]:
        chosen_B = indices_B.numpy()
        return chosen_B, self.lengths_N[chosen_B] if self.ragged else None


class PreparedBatches(Source):
    """One batch at a time, as torch prepares and changes it: the same values as with autograd, and the same
    random numbers in the same order."""

    def __init__(
        self,
        data: SequenceDataset,
        change: Callable[[Batch], Batch] | None = None,
        keeps_lengths: bool = False,
    ) -> None:
        self.data, self.change = data, change
        inputs = data.input_size
        self.shift_I, self.scale_I = (0.0,) * inputs, (1.0,) * inputs
        self.steps = data.steps
        self.ragged = data.ragged or not (change is None or keeps_lengths)
        self._allocate(0)

    def _allocate(self, batch: int) -> None:
        with torch.inference_mode(False):
            self.x_BTI = torch.zeros(batch, self.steps, len(self.shift_I))
            self.x_SI = self.x_BTI.flatten(0, 1)
            self.y_N = torch.zeros(batch, dtype=torch.int64)
            self.starts_N = torch.arange(batch) * self.steps

    def read(self, indices_B: Tensor) -> tuple[Any, Any]:
        batch = self.data.batch(indices_B)
        self.batch = batch = batch if self.change is None else self.change(batch)
        count, steps, _ = batch.x_BTI.shape
        if steps > self.steps or count != len(self.y_N):
            self.steps = max(self.steps, steps)
            self._allocate(count)
        self.x_BTI[:, :steps] = batch.x_BTI
        self.y_N[:] = batch.y_B
        chosen_B = torch.arange(count).numpy()
        if not self.ragged:
            assert steps == self.steps
            return chosen_B, None
        lengths_B = torch.full((count,), steps) if batch.lengths_B is None else batch.lengths_B
        return chosen_B, lengths_B.numpy()
