"""A training step of a plain classifier as one call of machine code (rnnclf/engine/compiled/kernels.py).

The compiled engine leaves a step to autograd, which sees a layer as one operation: around it are a dozen
others, each with a call of torch, some memory and one core that waits. Here the cores take their parts of a
batch from the sequences as they were read to the gradients of all weights, and meet twice.

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
    Needs,
    Sizes,
    addresses,
    back,
    empty,
    rows_at,
)
from rnnclf.engine.fused_steps import SHARED
from rnnclf.engine.parts import rows_of_parts
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import cell_modules
from rnnclf.training.recipe import CrossEntropy

THREAD = "rnnclf-step"
"""The name of each thread beside the first."""

SCORED_AT_ONCE = 150
"""Sequences: few enough that the caches hold all their steps in time. Measured."""


class CompiledSteps:
    """The steps of a classifier, up to the gradients, on the batches of an epoch. To be closed.

    model, data: such that `is_eligible` holds. longest: the norm that gradients are clipped to.
    learns: whether to compute gradients; otherwise a step ends with the loss and leaves the weights'
    gradients alone.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        data: SequenceDataset,
        longest: float | None = None,
        learns: bool = True,
    ) -> None:
        self.model, self.loss, self.data, self.learns = model, loss, data, learns
        self.longest = math.inf if longest is None else float(longest)
        self._step: _Step | None = None

    def __call__(self, indices_B: Tensor) -> tuple[float, float, int]:
        """The loss of the sequences at these places, the norm of its gradients, which are left beside the
        weights, and the number of right answers."""
        if self._step is None or len(self._step.chosen_B) != len(indices_B):
            self.close()
            self._step = _Step(self.model, self.loss, self.data, len(indices_B), self.learns)
        return self._step(indices_B, self.longest)

    @property
    def logits_BK(self) -> Tensor:
        """The logits of the last batch, where nothing is learned: otherwise they are overwritten."""
        assert self._step is not None
        assert not self.learns
        return self._step.logits()

    def close(self) -> None:
        if self._step is not None:
            self._step.close()
            self._step = None


class CompiledScoring(CompiledSteps):
    """The forward pass and the cross-entropy of whole batches.

    model, data: such that `is_eligible` holds.
    """

    def __init__(self, model: SequenceClassifier, data: SequenceDataset) -> None:
        super().__init__(model, CrossEntropy.plain(len(data.classes)), data, learns=False)

    def __enter__(self) -> CompiledScoring:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def batches(self) -> list[Tensor]:
        """The places of all sequences, in order, in batches."""
        return list(torch.split(torch.arange(len(self.data)), SCORED_AT_ONCE))

    def __call__(self, indices_B: Tensor) -> tuple[float, int]:  # type: ignore[override]
        """The mean loss of the sequences at these places, and the number of correct predictions."""
        loss, _, right = super().__call__(indices_B)
        return loss, right


class _Weights(NamedTuple):
    """The weights of a layer or the head: how they become matrices, and how the gradients of the first of
    these become theirs."""

    there: Layout
    home: Layout
    weights: list[Tensor]

    @classmethod
    def of_layer(cls, module: CellModule, lowest: bool) -> _Weights:
        kind, p = _kind_of(module), module.weights()
        home, there = kind.layouts(Sizes.of(p))[0], kind.layout_of_layer(Sizes.of(p), lowest)
        return cls(there, home, [getattr(p, name) for name in there.parameters])

    @classmethod
    def of_head(cls, head: nn.Linear) -> _Weights:
        """The head is a layer whose inputs are the last states, with a one before them."""
        (classes, hidden), itemsize = head.weight.shape, head.weight.itemsize
        sizes = Sizes(hidden, classes, kernels.whole(classes, itemsize), itemsize)
        names = ("input_weight", "bias")
        blocks = [Block(0, 0, names[1], 0), Block(1, 0, names[0], 0)]
        ahead = {"ahead": Matrix(1 + hidden, sizes.wide, blocks, kernels.lanes(itemsize) - 1)}
        inward = {"back": back(sizes, names[0], hidden, (0,))}
        there = Layout(sizes, ahead | inward, names)
        return cls(there, Layout(sizes, ahead, names), [head.weight, head.bias])


class _PackedWeights:
    """All weights packed out for products, and what becomes their gradients.

    matrices: of each layer, then of the head. gradients_W: those of all weights, one behind the other.
    sums_QM: those of all matrices of each part of a batch, one behind the other; sums: of each part those of
    each layer, then of the head.
    """

    def __init__(self, of_all: Sequence[_Weights], parts: int) -> None:
        weights = [weight for one in of_all for weight in one.weights]
        self.dtype = NUMBERS[weights[0].dtype]
        self.gradients_W = torch.empty(sum(weight.numel() for weight in weights), dtype=weights[0].dtype)
        cut = torch.split(self.gradients_W, [weight.numel() for weight in weights])
        self.gradients = [piece.view_as(weight) for piece, weight in zip(cut, weights, strict=True)]
        self.weights = weights
        self.matrices = [tuple(one.there.places(self.dtype)) for one in of_all]
        shapes = [one.home.shapes_of_sums for one in of_all]
        self.sums_QM = empty([parts, sum(rows * row for some in shapes for rows, row in some)], self.dtype)
        self.sums = [_cut(sums_M, shapes) for sums_M in self.sums_QM]
        first = [sums_GK for of_one in self.sums[0] for sums_GK in of_one]
        self.for_code = whole_step.PackedWeights(
            pack_N9=_joined([(one.there.pack_N9, len(one.weights), len(one.there.sizes)) for one in of_all]),
            parameters=addresses(weights),
            matrices_M3=np.concatenate(
                [one.there.matrices_at(some) for one, some in zip(of_all, self.matrices, strict=True)]
            ),
            unpack_N9=_joined(
                [(one.home.unpack_N9, len(one.weights), len(one.home.sizes)) for one in of_all]
            ),
            gradients=addresses(self.gradients),
            sums_M2=rows_at(first),
        )


def _joined(layouts: Sequence[tuple[Any, int, int]]) -> Any:
    """Layouts, each with its number of parameters and of matrices, as one, in which these are counted on."""
    joined, parameters, matrices = [], 0, 0
    for pack_N9, more_parameters, more_matrices in layouts:
        shifted_N9 = pack_N9.copy()
        shifted_N9[:, 0] += parameters
        shifted_N9[:, 6] += matrices
        joined.append(shifted_N9)
        parameters, matrices = parameters + more_parameters, matrices + more_matrices
    return np.concatenate(joined)


def _cut(sums_M: Any, shapes: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[Any, ...]]:
    """Matrices of these shapes, one behind the other in a row."""
    cut, begin = [], 0
    for some in shapes:
        matrices = []
        for rows, row in some:
            matrices.append(sums_M[begin : begin + rows * row].reshape(rows, row))
            begin += rows * row
        cut.append(tuple(matrices))
    return cut


class _Step:
    """The step on batches of one size. The parts of a batch are those of the compiled engine; each but the
    first has a thread of its own that waits for batches in machine code."""

    def __init__(
        self, model: SequenceClassifier, loss: CrossEntropy, data: SequenceDataset, batch: int, learns: bool
    ) -> None:
        modules = cell_modules(model)
        work = 2 * batch * sum(getattr(module, name).numel() for module in modules for name in SHARED)
        rows = rows_of_parts(batch, work)
        layers = [_Weights.of_layer(module, n == 0) for n, module in enumerate(modules)]
        packed = _PackedWeights([*layers, _Weights.of_head(model.head)], len(rows))
        self.chosen_B = np.zeros(batch, np.int64)
        self.found_Q2 = np.zeros((len(rows), 2))
        self.packed, self.beside = packed, not learns
        self.shared = whole_step.Shared(
            counters=np.zeros(workers.COUNTERS, np.int64),
            size=len(rows),
            learns=learns,
            data=_for_code(data, self.chosen_B, NUMBERS[model.head.weight.dtype]),
            packed=packed.for_code,
            weights=tuple(packed.matrices[:-1]),
            head=whole_step.Head(
                ahead=packed.matrices[-1][0],
                back=packed.matrices[-1][1],
                weight_C=np.array(loss.weight_K),
                smoothing=float(loss.smoothing),
            ),
        )
        parts = [
            whole_step.Part(
                number=number,
                first=share.start,
                layers=_layers(modules, packed.sums[number], share.stop - share.start, data.steps, learns),
                z_NC=empty([share.stop - share.start, len(packed.sums[number][-1][0])], packed.dtype),
                head_sums=packed.sums[number][-1][0],
                sums_M=packed.sums_QM[number],
                found=self.found_Q2[number],
            )
            for number, share in enumerate(rows)
        ]
        self.result = whole_step.Result(
            packed.sums_QM, self.found_Q2, packed.gradients_W.numpy(), np.zeros(8)
        )
        self.first, self.z_QNC = parts[0], [part.z_NC for part in parts]
        self.classes = len(loss.weight_K)
        self.failure: BaseException | None = None
        self.threads = [
            threading.Thread(target=self._serve, name=THREAD, args=[part], daemon=True) for part in parts[1:]
        ]
        for thread in self.threads:
            thread.start()

    def _serve(self, part: Any) -> None:
        torch.set_flush_denormal(True)  # of this thread alone
        try:
            whole_step.work_on_part(self.shared, part, self.result, 0.0, False)
        except BaseException as error:
            self.failure = error
            workers.stop_workers(self.shared.counters)

    def __call__(self, indices_B: Tensor, longest: float) -> tuple[float, float, int]:
        self.chosen_B[:] = indices_B.numpy()
        norm = whole_step.work_on_part(self.shared, self.first, self.result, longest, True)
        if self.failure is not None:
            raise self.failure
        loss, right = self.found_Q2[0].tolist()
        if not self.beside and math.isfinite(loss):  # with a lost loss, those of the step before stay
            self._put_gradients_beside_weights()
        return loss, norm, int(right)

    def _put_gradients_beside_weights(self) -> None:
        for weight, gradient in zip(self.packed.weights, self.packed.gradients, strict=True):
            weight.grad = gradient
        self.beside = True

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
    modules: Sequence[CellModule], sums: Sequence[Any], sequences: int, steps: int, learns: bool
) -> tuple[Any, ...]:
    """What each layer has to do of a part of a batch, and the memory for it."""
    layers = []
    for n, module in enumerate(modules):
        kind, p = _kind_of(module), module.weights()
        sizes, dtype, needs = Sizes.of(p), NUMBERS[p.bias.dtype], Needs(learns, learns and n > 0)
        place = kind.place(module.cell, sizes, steps, sequences, dtype, needs)
        outputs = [steps, sequences, sizes.wide] if n + 1 < len(modules) else [0, 0, 0]
        columns, dy_TBH = kind.columns_to_inputs(sizes), empty(outputs, dtype)
        layers.append(whole_step.Layer(place, columns, sums[n], dy_TBH))
    return tuple(layers)


def _for_code(data: SequenceDataset, chosen_B: Any, dtype: Any) -> Any:
    """The data as machine code takes them: what needs no preparation is shifted by 0 and divided by 1."""
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
