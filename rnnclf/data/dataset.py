"""Labelled sequences ready for training: one tensor of steps, from which batches are sliced.

Shapes: N sequences, S steps in total, B batch, T time, C channels as read, I features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from rnnclf.data.categories import CodedFeatures
from rnnclf.data.changes import MappedFiles
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Array, Ids
from rnnclf.data.survey import chunks
from rnnclf.system import paging

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RESIDENT = 2**29  # bytes of prepared data to keep in memory; larger data are prepared batch by batch


class Batch(NamedTuple):
    """Some sequences: x_BTI float32, y_B int64, and lengths_B int64 if their lengths differ.

    Values of x after the end of a sequence are arbitrary.
    """

    x_BTI: Tensor
    y_B: Tensor
    lengths_B: Tensor | None


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Labelled sequences, all their steps in one tensor.

    x_SI holds the steps ready for a model or, with a `preparation`, as they were read (S, C): then each
    batch is prepared when it is sliced, and x_SI may be mapped from a file larger than memory. Sequence n is
    x_SI[starts_N[n] : starts_N[n] + lengths_N[n]]; y_N is int64, indices into `classes`. starts_N and
    lengths_N stay on the CPU, where batches are drawn.
    """

    x_SI: Tensor
    starts_N: Tensor
    lengths_N: Tensor
    y_N: Tensor
    classes: tuple[str, ...]
    times_S: Tensor | None = None
    preparation: Preparation | None = None
    device: torch.device | None = None
    """The device on which to return batches; None: the one that the tensors are on."""
    number_N: Tensor | None = None
    """The number of each sequence in the recordings; None: 0 to N - 1."""
    ids: Ids | None = None
    """Maps these numbers to the ids in the data; None: the numbers are the ids."""
    origins: Ids | None = None
    """Maps the numbers of windows to the ids of the recordings that they were cut from."""
    files: MappedFiles = ()
    """The files that the steps are mapped from; none if they are in memory."""
    coded: CodedFeatures | None = None
    """The features that are codes of names; None if there are none."""

    def __len__(self) -> int:
        return len(self.y_N)

    @cached_property
    def steps(self) -> int:
        """The number of steps of the longest sequence, once prepared."""
        return int(self._steps_of(self.lengths_N.max()))

    @cached_property
    def ragged(self) -> bool:
        """Whether sequences differ in their number of steps, once prepared."""
        return bool((self._steps_of(self.lengths_N) != self.steps).any())

    def _steps_of(self, lengths: Tensor) -> Tensor:
        return lengths if self.preparation is None else self.preparation.steps_of(lengths)

    @property
    def input_size(self) -> int:
        return self.preparation.input_size if self.preparation else self.x_SI.shape[1]

    @property
    def fits(self) -> bool:
        """Whether the whole set, prepared, is small enough to keep in memory."""
        return int(self._steps_of(self.lengths_N).sum()) * self.input_size * 4 <= RESIDENT

    @cached_property
    def whole_NTI(self) -> Tensor | None:
        """x_SI viewed as (N, T, I), if all sequences have T rows of it and start at multiples of T."""
        t = self._longest
        if (self.lengths_N != t).any() or self.x_SI.shape[0] % t or (self.starts_N % t).any():
            return None
        return self.x_SI.view(-1, t, self.x_SI.shape[1])

    @cached_property
    def row_N(self) -> Tensor:
        """The rows of the sequences in `whole_NTI`."""
        return self.starts_N // self._longest

    @cached_property
    def _longest(self) -> int:
        """The number of rows of x_SI of the longest sequence."""
        return int(self.lengths_N.max())

    @cached_property
    def _device_row_N(self) -> Tensor | None:
        """row_N on the device of x_SI, if batches can be indexed there without any other work."""
        if self.whole_NTI is None or self.preparation is not None:
            return None
        if self.device is not None and self.device.type != self.x_SI.device.type:
            return None
        return self.row_N.to(self.x_SI.device)

    def at_hand(self, batches: list[Tensor]) -> list[Tensor]:
        """The indices of batches, moved to the device if `batch` can index there, otherwise unchanged.

        One transfer for all of them: each transfer makes the CPU wait for the work queued on the device.
        """
        import torch

        if self._device_row_N is None or self._device_row_N.device.type == "cpu":
            return batches
        order = torch.cat(batches).to(self._device_row_N.device)
        return list(torch.split(order, [len(batch) for batch in batches]))

    @property
    def ids_N(self) -> Array:
        """The id of each sequence: text, or a number from 0 if the data have no ids."""
        return self._numbers_N if self.ids is None else self.ids(self._numbers_N)

    @property
    def recordings_N(self) -> Array | None:
        """The id of the recording that each sequence is a window of; None if they are no windows."""
        return None if self.origins is None else self.origins(self._numbers_N)

    @property
    def _numbers_N(self) -> Array:
        import numpy as np

        return np.arange(len(self)) if self.number_N is None else self.number_N.numpy()

    def subset(self, indices: Tensor) -> SequenceDataset:
        """The sequences at `indices`, in that order; the steps are shared, not copied."""
        return replace(
            self,
            number_N=indices if self.number_N is None else self.number_N[indices],
            starts_N=self.starts_N[indices],
            lengths_N=self.lengths_N[indices],
            y_N=self.y_N[indices.to(self.y_N.device)],
        )

    def refuse_changed(self) -> None:
        """Raises DataError if a mapped file has changed; takes about a microsecond."""
        for file in self.files:
            file.refuse_changed()

    def in_memory(self) -> SequenceDataset:
        """This data set with its steps copied to memory if they are mapped. Raises DataError if a file has
        changed."""
        if not self.files:
            return self
        times_S = None if self.times_S is None else self.times_S.clone()
        copied = replace(self, x_SI=self.x_SI.clone(), times_S=times_S, files=())
        self.refuse_changed()
        return copied

    def to(self, device: torch.device) -> SequenceDataset:
        """This data set on a device: moved as a whole if it is prepared or fits, otherwise batch by batch."""
        if self.preparation is not None and device.type != "cpu" and self.fits:
            return self.prepared().to(device)
        if self.preparation is not None:
            return replace(self, y_N=self.y_N.to(device), device=device)
        return replace(self, x_SI=self.x_SI.to(device), y_N=self.y_N.to(device), device=device)

    def prepared(self) -> SequenceDataset:
        """This data set with all steps prepared once, sequences stored back to back.

        Raises DataError if a mapped file has changed meanwhile.
        """
        import torch

        steps_N = self._steps_of(self.lengths_N)
        starts_N = steps_N.cumsum(0) - steps_N
        x_SI = torch.empty(int(steps_N.sum()), self.input_size)
        order_N = self._by_length()
        for first, last in chunks((self.lengths_N[order_N] * self.input_size).numpy()):
            indices_B = order_N[first:last]
            x_BTI = self.batch(indices_B).x_BTI
            if self.ragged:
                t_T = torch.arange(x_BTI.shape[1])
                valid_BT = t_T < steps_N[indices_B].unsqueeze(-1)
                x_SI[(starts_N[indices_B].unsqueeze(-1) + t_T)[valid_BT]] = x_BTI[valid_BT]
            else:
                x_SI.view(-1, *x_BTI.shape[1:])[first:last] = x_BTI
        self.refuse_changed()
        return replace(
            self,
            x_SI=x_SI,
            starts_N=starts_N,
            lengths_N=steps_N,
            times_S=None,
            preparation=None,
            files=(),
        )

    def _by_length(self) -> Tensor:
        """All indices; if lengths differ, the shortest first, so that batches need little padding."""
        import torch

        return self.lengths_N.argsort(stable=True) if self.ragged else torch.arange(len(self))

    def batch(self, indices_B: Tensor) -> Batch:
        """The sequences at `indices_B` (on the CPU, or as returned by `at_hand`), padded to the longest.

        Raises DataError if a mapped file has changed: reading one that was cut short would kill the process.
        """
        self.refuse_changed()
        if self.whole_NTI is not None and self._device_row_N is not None:
            indices_B = indices_B.to(self._device_row_N.device)
            return Batch(
                self.whole_NTI.index_select(0, self._device_row_N[indices_B]), self.y_N[indices_B], None
            )
        lengths_B = self.lengths_N[indices_B]
        if self.whole_NTI is not None:
            x = self.whole_NTI.index_select(0, self.row_N[indices_B].to(self.x_SI.device))
        else:
            x = self._slice(indices_B, self.x_SI)
        times = None if self.times_S is None else self._slice(indices_B, self.times_S)
        if self.preparation is not None:
            x = self.preparation(x, lengths_B, times)
            lengths_B = self.preparation.steps_of(lengths_B)
        target = self.device or x.device
        whole = not self.ragged or bool((lengths_B == lengths_B[0]).all())
        y_B = self.y_N[indices_B.to(self.y_N.device)]
        return Batch(x.to(target), y_B, None if whole else lengths_B.to(target))

    def _slice(self, indices_B: Tensor, values_S: Tensor) -> Tensor:
        """Slices (B, T, …) from (S, …), repeating the last step of a sequence after its end."""
        import torch

        starts_B, lengths_B = self.starts_N[indices_B], self.lengths_N[indices_B]
        t_T = torch.arange(int(lengths_B.max()))
        steps_BT = starts_B.unsqueeze(-1) + torch.minimum(t_T, lengths_B.unsqueeze(-1) - 1)
        return values_S[steps_BT.to(values_S.device)]

    def in_turn(self, batches: list[Tensor]) -> Generator[Tensor]:
        """These batches, one after another. Of mapped files, a batch is read while the one before it is
        computed, and nothing else is read: training and evaluation both go through a file at random."""
        with paging.at_random(*map(_memory, self._mapped)):
            for indices_B, next_B in zip([None, *batches], [*batches, None], strict=True):
                if next_B is not None:
                    self._begin_to_read(next_B)
                if indices_B is not None:
                    yield indices_B

    @property
    def _mapped(self) -> list[Tensor]:
        """The tensors that are mapped files."""
        return [values for values in (self.x_SI, self.times_S) if values is not None and self.files]

    def _begin_to_read(self, indices_B: Tensor) -> None:
        if not self._mapped:
            return
        places = list(zip(self.starts_N[indices_B].tolist(), self.lengths_N[indices_B].tolist(), strict=True))
        for values_S in self._mapped:
            first, step = values_S.data_ptr(), values_S.stride(0) * values_S.element_size()
            for start, length in places:
                paging.fetch(first + start * step, length * step)

    def evaluation_order(self, batch_size: int) -> list[Tensor]:
        """The indices of all sequences in batches, in order or, if lengths differ, by length.

        The last batch may be smaller.
        """
        import torch

        return list(torch.split(self._by_length(), batch_size))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All sequences in batches, in the order of `evaluation_order`."""
        for indices_B in self.at_hand(self.evaluation_order(batch_size)):
            yield self.batch(indices_B)


def padded_dataset(
    x_NTI: Tensor, y_N: Tensor, classes: tuple[str, ...], lengths_N: Tensor | None = None
) -> SequenceDataset:
    """A data set of padded sequences (N, T, I), ready for a model; without lengths all have T steps.

    Raises ValueError if shapes or lengths do not match.
    """
    import torch

    if x_NTI.ndim != 3:
        raise ValueError(f"x must have shape (N, T, I), got {tuple(x_NTI.shape)}.")
    n, steps, size = x_NTI.shape
    if y_N.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one label per sequence, got {tuple(y_N.shape)}.")
    if lengths_N is None:
        lengths_N = torch.full((n,), steps)
    if not ((lengths_N >= 1) & (lengths_N <= steps)).all():
        raise ValueError(f"lengths must be between 1 and the number of steps, {steps}.")
    return SequenceDataset(x_NTI.reshape(n * steps, size), torch.arange(n) * steps, lengths_N, y_N, classes)


def _memory(values: Tensor) -> paging.Range:
    return values.data_ptr(), values.nbytes
