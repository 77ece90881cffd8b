"""A training step of a plain classifier as one call of machine code (rnnclf/cells/machine_code.py).

The compiled engine leaves a step to autograd, which sees a layer as one operation: around it are a dozen
others, each with a call of torch, some memory and one core that waits. Here the cores take their parts of a
batch from the sequences as they were read to the gradients of all weights, and meet twice.

Shapes: N sequences, B batch, T time, I inputs, H hidden, C classes, Q parts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnclf.cells import machine_code
from rnnclf.cells.base import GatedCell
from rnnclf.cells.compiled import (
    NUMBERS,
    Block,
    Compiled,
    Layout,
    Matrix,
    Sizes,
    addresses,
    back,
    empty,
    rows_at,
)
from rnnclf.cells.fused import SHARED
from rnnclf.cells.module import CellModule
from rnnclf.data import SequenceDataset
from rnnclf.engine import rows_of_parts
from rnnclf.model import SequenceClassifier
from rnnclf.plain import Loss, cell_module

THREAD = "rnnclf-step"
"""The name of each thread beside the first."""

SCORED_AT_ONCE = 150
"""Sequences: few enough that the caches hold all their steps in time. Measured."""


class CompiledSteps:
    """The steps of a classifier, up to the gradients, on the batches of an epoch. To be closed.

    model, data: such that `suits` holds. longest: what the gradients are shortened to. learns: whether there
    are any; else a step goes as far as the loss, and leaves the weights' gradients alone.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        loss: Loss,
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
    def taken_B(self) -> Tensor:
        """The classes that the sequences of the last batch were taken for, until the next."""
        assert self._step is not None
        return torch.from_numpy(self._step.taken_B)

    def close(self) -> None:
        if self._step is not None:
            self._step.close()
            self._step = None


def score(model: SequenceClassifier, data: SequenceDataset) -> tuple[Tensor, Tensor]:
    """The classes that all sequences are taken for, (N,), and the sum of the losses of each batch of them,
    cross-entropies.

    model, data: such that `suits` holds.
    """
    steps = CompiledSteps(model, Loss((1.0,) * len(data.classes), 0.0), data, learns=False)
    taken, losses = [], []
    try:
        for indices_B in torch.split(torch.arange(len(data)), SCORED_AT_ONCE):
            loss, _, _ = steps(indices_B)
            taken.append(steps.taken_B.clone())
            losses.append(loss * len(indices_B))
    finally:
        steps.close()
    return torch.cat(taken), torch.tensor(losses, dtype=torch.float64)


class _Laid:
    """Some weights laid out for products, and what becomes their gradients.

    there, home: how the weights become matrices; how the gradients of the first of these become those of the
    weights.
    """

    def __init__(self, there: Layout, home: Layout, weights: Sequence[Tensor], parts: int) -> None:
        self.dtype = dtype = NUMBERS[weights[0].dtype]
        self.weights = weights
        self.gradients = [torch.empty_like(weight) for weight in weights]
        self.matrices = tuple(there.places(dtype))
        self.sums = tuple(home.sums(dtype, parts))
        first = [of_parts[0] for of_parts in self.sums]
        self.for_code = machine_code.Laid(
            there.rows_N9, addresses(weights), there.matrices_at(self.matrices),
            home.home_N9, addresses(self.gradients), rows_at(first),
        )  # fmt: skip

    @classmethod
    def of_layer(cls, module: CellModule, parts: int) -> _Laid:
        assert isinstance(module.cell, GatedCell)
        kind, p = module.cell.compiled_steps(), module.weights()
        assert issubclass(kind, Compiled)
        home, there = kind.layouts(Sizes.of(p))
        return cls(there, home, [getattr(p, name) for name in there.parameters], parts)

    @classmethod
    def of_head(cls, head: nn.Linear, parts: int) -> _Laid:
        """The head is a layer whose inputs are the last states, with a one before them."""
        (classes, hidden), itemsize = head.weight.shape, head.weight.itemsize
        sizes = Sizes(hidden, classes, machine_code.whole(classes, itemsize), itemsize)
        names = ("input_weight", "bias")
        blocks = [Block(0, 0, names[1], 0), Block(1, 0, names[0], 0)]
        ahead = {"ahead": Matrix(1 + hidden, sizes.wide, blocks, machine_code.lanes(itemsize) - 1)}
        inward = {"back": back(sizes, names[0], hidden, (0,))}
        there = Layout(sizes, ahead | inward, names)
        return cls(there, Layout(sizes, ahead, names), [head.weight, head.bias], parts)


class _Step:
    """The step on batches of one size. The parts of a batch are those of the compiled engine; each but the
    first has a thread of its own that waits for batches in machine code."""

    def __init__(
        self, model: SequenceClassifier, loss: Loss, data: SequenceDataset, batch: int, learns: bool
    ) -> None:
        module = cell_module(model)
        work = 2 * batch * sum(getattr(module, name).numel() for name in SHARED)
        rows = rows_of_parts(batch, work)
        layer, head = _Laid.of_layer(module, len(rows)), _Laid.of_head(model.head, len(rows))
        self.chosen_B, self.taken_B = np.zeros((2, batch), np.int64)
        self.found_Q2 = np.zeros((len(rows), 2))
        gradients = [*layer.gradients, *head.gradients]
        if learns:
            for weight, gradient in zip((*layer.weights, *head.weights), gradients, strict=True):
                weight.grad = gradient
        self.crew = machine_code.Crew(
            board=np.zeros(machine_code.BOARD, np.int64),
            size=len(rows),
            learns=learns,
            data=_for_code(data, self.chosen_B, NUMBERS[model.head.weight.dtype]),
            laid=(layer.for_code, head.for_code),
            weights=layer.matrices,
            head=machine_code.Head(
                ahead=head.matrices[0],
                back=head.matrices[1],
                weight_C=np.array(loss.weight_C),
                smoothing=float(loss.smoothing),
            ),
        )
        parts = [
            _part(number, share, module, layer, head, data.steps, self.taken_B[share], self.found_Q2[number])
            for number, share in enumerate(rows)
        ]
        flat = tuple(gradient.view(-1).numpy() for gradient in gradients)
        self.result = machine_code.Result(layer.sums, head.sums[0], self.found_Q2, flat)
        self.first = parts[0]
        self.failure: BaseException | None = None
        self.threads = [
            threading.Thread(target=self._serve, name=THREAD, args=[part], daemon=True) for part in parts[1:]
        ]
        for thread in self.threads:
            thread.start()

    def _serve(self, part: Any) -> None:
        torch.set_flush_denormal(True)  # of this thread alone
        try:
            machine_code.take_part(self.crew, part, self.result, 0.0, False)
        except BaseException as error:
            self.failure = error
            machine_code.dismiss(self.crew.board)

    def __call__(self, indices_B: Tensor, longest: float) -> tuple[float, float, int]:
        self.chosen_B[:] = indices_B.numpy()
        norm = machine_code.take_part(self.crew, self.first, self.result, longest, True)
        if self.failure is not None:
            raise self.failure
        return float(self.found_Q2[0, 0]), norm, int(self.found_Q2[0, 1])

    def close(self) -> None:
        machine_code.dismiss(self.crew.board)
        for thread in self.threads:
            thread.join()


def _part(
    number: int,
    share: slice,
    module: CellModule,
    layer: _Laid,
    head: _Laid,
    steps: int,
    taken_N: Any,
    found_2: Any,
) -> Any:
    """A part of a batch, and all the memory it takes."""
    assert isinstance(module.cell, GatedCell)
    kind, n = module.cell.compiled_steps(), share.stop - share.start
    assert issubclass(kind, Compiled)
    return machine_code.Part(
        number=number,
        first=share.start,
        place=kind.place(module.cell, Sizes.of(module.weights()), steps, n, layer.dtype),
        z_NC=empty([n, head.sums[0].shape[1]], layer.dtype),
        sums=tuple(sums_QGK[number] for sums_QGK in layer.sums),
        head_sums=head.sums[0][number],
        taken_N=taken_N,
        found=found_2,
    )


def _for_code(data: SequenceDataset, chosen_B: Any, dtype: Any) -> Any:
    """The data as machine code takes them: what needs no preparation is shifted by 0 and divided by 1."""
    assert data.whole_NTI is not None
    inputs, preparation, x_RTI = data.input_size, data.preparation, data.whole_NTI.numpy()
    none = {kind: np.empty((0, 0, 0), kind) for kind in (np.uint8, np.float32)}
    return machine_code.Sequences(
        bytes_RTI=x_RTI if x_RTI.dtype == np.uint8 else none[np.uint8],
        floats_RTI=x_RTI if x_RTI.dtype == np.float32 else none[np.float32],
        row_N=data.row_N.numpy(),
        y_N=data.y_N.numpy(),
        shift_I=np.array(preparation.shift_C if preparation else [0.0] * inputs, dtype),
        scale_I=np.array(preparation.scale_C if preparation else [1.0] * inputs, dtype),
        chosen_B=chosen_B,
    )
