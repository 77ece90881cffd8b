"""Compiled training steps: a whole step is one call of machine code (rnnclf/engine/compiled/whole_step.py).

With the compiled engine alone, a step is run by autograd, to which a layer is one operation. Around it are a
dozen others, each of which costs a call into torch, allocates memory and leaves cores idle. Here each core
computes a part of the batch, from the raw sequences to the gradients of all weights, and the cores
synchronise only twice.

Shapes: N sequences, B batch, T time, I inputs, H hidden, C classes, Q parts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rnnclf.cells.base import GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine.compiled import kernels, whole_step, workers
from rnnclf.engine.compiled.layout import (
    NUMBERS,
    Block,
    Compiled,
    Layout,
    Matrix,
    NeededGradients,
    Sizes,
    addresses,
    backward_matrix,
    empty,
    strided,
)
from rnnclf.engine.fused_steps import SHARED
from rnnclf.engine.parts import rows_of_parts
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import cell_modules
from rnnclf.training.recipe import CrossEntropy

THREAD = "rnnclf-step"
"""The name of the worker threads."""

SCORED_AT_ONCE = 150
"""Sequences per batch of `scoring_batches`: few enough for all their time steps to stay in the caches.
Measured."""


class CompiledSteps:
    """Runs training steps of a classifier, up to the gradients. Has worker threads: call `close` at the end.

    model, data: such that `is_eligible` holds. max_norm: the norm to which gradients are clipped.
    needs_gradients: whether to compute gradients; otherwise a step ends with the loss and leaves the
    gradients of the weights alone.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        data: SequenceDataset,
        max_norm: float | None = None,
        needs_gradients: bool = True,
    ) -> None:
        self.model, self.loss, self.data, self.needs_gradients = model, loss, data, needs_gradients
        self.max_norm = math.inf if max_norm is None else float(max_norm)
        self._step: _Step | None = None

    def __call__(self, indices_B: Tensor) -> tuple[float, float, int]:
        """Runs a step on the sequences with these indices. Returns the loss, the norm of the gradients, which
        are stored in `grad` of the weights, and the number of correct predictions.

        Raises DataError if a mapped file of the data has changed.
        """
        self.data.refuse_changed()
        if self._step is None or len(self._step.chosen_B) != len(indices_B):
            self.close()
            self._step = _Step(self.model, self.loss, self.data, len(indices_B), self.needs_gradients)
        return self._step(indices_B, self.max_norm)

    @property
    def logits_BK(self) -> Tensor:
        """The logits of the last batch, without `needs_gradients`: gradients overwrite them."""
        assert self._step is not None
        assert not self.needs_gradients
        return self._step.logits()

    def close(self) -> None:
        if self._step is not None:
            self._step.close()
            self._step = None


def compiled_scoring(model: SequenceClassifier, data: SequenceDataset) -> CompiledSteps:
    """Steps that end with the loss, for evaluation; to be closed.

    model, data: such that `is_eligible` holds.
    """
    return CompiledSteps(model, CrossEntropy.plain(len(data.classes)), data, needs_gradients=False)


def scoring_batches(data: SequenceDataset) -> tuple[Tensor, ...]:
    """The indices of all sequences, in order, in batches of a size that suits `compiled_scoring`."""
    return torch.split(torch.arange(len(data)), SCORED_AT_ONCE)


class _Weights(NamedTuple):
    """The weights of a layer or of the head, and how they are packed.

    layout: all packed matrices. trained_layout: its first matrices, whose gradients are unpacked into those
    of the weights; the others are copies for the backward pass.
    """

    layout: Layout
    trained_layout: Layout
    weights: list[Tensor]

    @classmethod
    def of_layer(cls, module: CellModule, lowest: bool) -> _Weights:
        kind, p = _kind_of(module), module.weights()
        layout, trained_layout = kind.layout_of_layer(Sizes.of(p), lowest), kind.layouts(Sizes.of(p))[0]
        return cls(layout, trained_layout, [getattr(p, name) for name in layout.parameters])

    @classmethod
    def of_head(cls, head: nn.Linear) -> _Weights:
        """The head is a layer whose inputs are a one and the last states."""
        (classes, hidden), itemsize = head.weight.shape, head.weight.itemsize
        sizes = Sizes(hidden, classes, kernels.whole(classes, itemsize), itemsize)
        names = ("input_weight", "bias")
        blocks = [Block(0, 0, names[1], 0), Block(1, 0, names[0], 0)]
        forward = {"forward": Matrix(1 + hidden, sizes.wide, blocks, kernels.lanes(itemsize) - 1)}
        backward = {"backward": backward_matrix(sizes, names[0], hidden, (0,))}
        layout = Layout(sizes, forward | backward, names)
        return cls(layout, Layout(sizes, forward, names), [head.weight, head.bias])


class _PackedWeights:
    """All weights, packed for products, and the memory for their gradients.

    matrices: the packed matrices of each layer, then of the head. gradients_W: the gradients of all weights,
    concatenated. sums_QM: for each part of a batch, the gradients of all matrices, concatenated. sums: views
    of these, for each part those of each layer, then of the head.
    """

    def __init__(self, layers: Sequence[_Weights], parts: int) -> None:
        weights = [weight for layer in layers for weight in layer.weights]
        self.dtype = NUMBERS[weights[0].dtype]
        self.gradients_W = torch.empty(sum(weight.numel() for weight in weights), dtype=weights[0].dtype)
        slices = torch.split(self.gradients_W, [weight.numel() for weight in weights])
        self.gradients = [part.view_as(weight) for part, weight in zip(slices, weights, strict=True)]
        self.weights = weights
        self.matrices = [tuple(layer.layout.allocate(self.dtype)) for layer in layers]
        shapes = [layer.trained_layout.shapes_of_sums for layer in layers]
        length = sum(rows * row for of_layer in shapes for rows, row in of_layer)
        self.sums_QM = empty([parts, length], self.dtype)
        self.sums = [_split(sums_M, shapes) for sums_M in self.sums_QM]
        first = [sums_GK for of_layer in self.sums[0] for sums_GK in of_layer]
        self.arguments = whole_step.PackedWeights(
            pack_N9=_joined(
                [(layer.layout.pack_N9, len(layer.weights), len(layer.layout.sizes)) for layer in layers]
            ),
            parameters=addresses(weights),
            matrices_M3=np.concatenate(
                [layer.layout.described(some) for layer, some in zip(layers, self.matrices, strict=True)]
            ),
            unpack_N9=_joined(
                [
                    (layer.trained_layout.unpack_N9, len(layer.weights), len(layer.trained_layout.sizes))
                    for layer in layers
                ]
            ),
            gradients=addresses(self.gradients),
            sums_M2=strided(first),
        )


def _joined(layouts: Sequence[tuple[Any, int, int]]) -> Any:
    """Concatenates layouts, each given with its numbers of parameters and of matrices, and renumbers both."""
    joined, parameters, matrices = [], 0, 0
    for pack_N9, more_parameters, more_matrices in layouts:
        shifted_N9 = pack_N9.copy()
        shifted_N9[:, 0] += parameters
        shifted_N9[:, 6] += matrices
        joined.append(shifted_N9)
        parameters, matrices = parameters + more_parameters, matrices + more_matrices
    return np.concatenate(joined)


def _split(sums_M: Any, shapes: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[Any, ...]]:
    """Views of matrices with these shapes, which are stored one after the other."""
    views, begin = [], 0
    for of_layer in shapes:
        matrices = []
        for rows, row in of_layer:
            matrices.append(sums_M[begin : begin + rows * row].reshape(rows, row))
            begin += rows * row
        views.append(tuple(matrices))
    return views


class _Step:
    """Steps on batches of one size. A batch is divided as in the compiled engine; the first part is computed
    by the calling thread, each other one by a worker thread, which waits for batches in machine code."""

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        data: SequenceDataset,
        batch: int,
        needs_gradients: bool,
    ) -> None:
        modules = cell_modules(model)
        work = 2 * batch * sum(getattr(module, name).numel() for module in modules for name in SHARED)
        rows = rows_of_parts(batch, work)
        layers = [_Weights.of_layer(module, n == 0) for n, module in enumerate(modules)]
        packed = _PackedWeights([*layers, _Weights.of_head(model.head)], len(rows))
        self.chosen_B = np.zeros(batch, np.int64)
        self.totals_Q2 = np.zeros((len(rows), 2))
        self.packed, self.gradients_set = packed, not needs_gradients
        self.shared = whole_step.Shared(
            counters=np.zeros(workers.COUNTERS, np.int64),
            parts=len(rows),
            needs_gradients=needs_gradients,
            data=_sequences(data, self.chosen_B, NUMBERS[model.head.weight.dtype]),
            packed=packed.arguments,
            weights=tuple(packed.matrices[:-1]),
            head=whole_step.Head(
                forward=packed.matrices[-1][0],
                backward=packed.matrices[-1][1],
                weight_C=np.array(loss.weight_K),
                smoothing=float(loss.smoothing),
            ),
        )
        parts = [
            whole_step.Part(
                number=number,
                first=share.start,
                layers=_layers(
                    modules, packed.sums[number], share.stop - share.start, data.steps, needs_gradients
                ),
                z_NC=empty([share.stop - share.start, len(packed.sums[number][-1][0])], packed.dtype),
                head_sums=packed.sums[number][-1][0],
                sums_M=packed.sums_QM[number],
                totals=self.totals_Q2[number],
            )
            for number, share in enumerate(rows)
        ]
        self.result = whole_step.Result(
            packed.sums_QM, self.totals_Q2, packed.gradients_W.numpy(), np.zeros(8)
        )
        self.first, self.z_QNC = parts[0], [part.z_NC for part in parts]
        self.classes = len(loss.weight_K)
        self.failure: BaseException | None = None
        self.threads = [
            threading.Thread(target=self._run_worker, name=THREAD, args=[part], daemon=True)
            for part in parts[1:]
        ]
        for thread in self.threads:
            thread.start()

    def _run_worker(self, part: Any) -> None:
        torch.set_flush_denormal(True)  # a setting of each thread
        try:
            whole_step.work_on_part(self.shared, part, self.result, 0.0, False)
        except BaseException as error:
            self.failure = error
            workers.stop_workers(self.shared.counters)

    def __call__(self, indices_B: Tensor, max_norm: float) -> tuple[float, float, int]:
        self.chosen_B[:] = indices_B.numpy()
        norm = whole_step.work_on_part(self.shared, self.first, self.result, max_norm, True)
        if self.failure is not None:
            raise self.failure
        loss, correct = self.totals_Q2[0].tolist()
        if not self.gradients_set and math.isfinite(loss):  # otherwise the previous gradients stay
            self._set_gradients()
        return loss, norm, int(correct)

    def _set_gradients(self) -> None:
        for weight, gradient in zip(self.packed.weights, self.packed.gradients, strict=True):
            weight.grad = gradient
        self.gradients_set = True

    def logits(self) -> Tensor:
        """A copy of the logits of all parts, (B, K)."""
        return torch.cat([torch.from_numpy(z_NC[:, : self.classes]) for z_NC in self.z_QNC])

    def close(self) -> None:
        workers.stop_workers(self.shared.counters)
        for thread in self.threads:
            thread.join()


def _kind_of(module: CellModule) -> type[Compiled]:
    assert isinstance(module.cell, GatedCell)
    kind = module.cell.compiled_steps()
    assert issubclass(kind, Compiled)
    return kind


def _layers(
    modules: Sequence[CellModule], sums: Sequence[Any], sequences: int, steps: int, needs_gradients: bool
) -> tuple[Any, ...]:
    """The layers of a part of a batch, with the memory for their results."""
    layers = []
    for n, module in enumerate(modules):
        kind, p = _kind_of(module), module.weights()
        sizes, dtype = Sizes.of(p), NUMBERS[p.bias.dtype]
        needed = NeededGradients(weights=needs_gradients, inputs=needs_gradients and n > 0)
        buffers = kind.buffers(module.cell, sizes, steps, sequences, dtype, needed)
        outputs = [steps, sequences, sizes.wide] if n + 1 < len(modules) else [0, 0, 0]
        columns, dy_TBH = kind.columns_to_inputs(sizes), empty(outputs, dtype)
        layers.append(whole_step.Layer(buffers, columns, sums[n], dy_TBH))
    return tuple(layers)


def _sequences(data: SequenceDataset, chosen_B: Any, dtype: Any) -> Any:
    """The data for the machine code. Without preparation, inputs are shifted by 0 and divided by 1."""
    assert data.whole_NTI is not None
    inputs, preparation, x_RTI = data.input_size, data.preparation, data.whole_NTI.numpy()
    none = {kind: np.empty((0, 0, 0), kind) for kind in (np.uint8, np.float32)}
    return whole_step.Sequences(
        bytes_RTI=x_RTI if x_RTI.dtype == np.uint8 else none[np.uint8],
        floats_RTI=x_RTI if x_RTI.dtype == np.float32 else none[np.float32],
        row_N=data.row_N.numpy(),
        y_N=data.y_N.numpy(),
        shift_I=np.array(preparation.shift_C if preparation else [0.0] * inputs, dtype),
        scale_I=np.array(preparation.scale_C if preparation else [1.0] * inputs, dtype),
        chosen_B=chosen_B,
    )
