"""Whole training steps: from the sequences of a batch to the gradients in one call of machine code.

With an engine alone, a step is run by autograd, to which a layer is one operation. Around it are a dozen
others, each of which costs a call into torch, allocates memory and leaves cores idle. Here each core computes
a part of the batch, from the raw sequences to the gradients of all weights, and the cores wait for each other
only twice. See rnnclf/engine/machine/driver/driver.py.

Shapes: N sequences, B batch, T time, I inputs, H hidden, K classes, Q parts, W numbers in all weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf.data import SequenceDataset
from rnnclf.data.dataset import Batch
from rnnclf.engine.machine.driver.driver import Driver, driver
from rnnclf.engine.machine.driver.layer import LayerWeights
from rnnclf.engine.machine.driver.tables import address_of
from rnnclf.engine.machine.driver.threads import ALL_ARRIVALS, ARRIVED, LAST_JOB, POSTED
from rnnclf.engine.parts import Worth, rows_of_parts
from rnnclf.model import RecurrentLayer, SequenceClassifier
from rnnclf.training.eligibility import modules_of_layers
from rnnclf.training.recipe import CrossEntropy
from rnnclf.training.step_dropout import Dropout
from rnnclf.training.step_gradients import Gradients, Head, SharedArrays
from rnnclf.training.step_memory import Part, Setting, Shared
from rnnclf.training.step_source import Source, source_of

WORTH = Worth(4, 1_000_000)
"""Parts cost little here, since their threads wait in machine code. Measured."""

THREAD = "rnnclf-step"
"""The name of the worker threads."""

SCORED_AT_ONCE = 150
"""Sequences per batch of `scoring_batches`: few enough for all their time steps to stay in the caches.
Measured."""
STEPS_AT_ONCE = 2**18
"""Time steps of all these sequences: a limit on memory."""


class WholeSteps:
    """Runs training steps of a classifier, up to the gradients. Has worker threads: call `close` at the end.

    model, data: such that `is_eligible` holds. max_norm: the norm to which gradients are clipped.
    needs_gradients: whether to compute gradients; otherwise a step ends with the loss and leaves the
    gradients of the weights alone. change: what is done to each batch first, such as augmentation.
    keeps_lengths: whether that leaves the number of steps of all sequences as it is.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        data: SequenceDataset,
        max_norm: float | None = None,
        needs_gradients: bool = True,
        change: Callable[[Batch], Batch] | None = None,
        keeps_lengths: bool = False,
    ) -> None:
        self.model, self.loss, self.data, self.needs_gradients = model, loss, data, needs_gradients
        drops = needs_gradients and model.stack.input_dropout > 0
        keeps_lengths = keeps_lengths or change is None
        self.source = source_of(data, _with_dropout(model, change) if drops else change, keeps_lengths)
        self.max_norm = math.inf if max_norm is None else float(max_norm)
        self._step: _Step | None = None

    def __call__(self, indices_B: Tensor) -> tuple[float, float, int]:
        """Runs a step on the sequences with these indices. Returns the loss, the norm of the gradients, which
        are stored in `grad` of the weights, and the number of correct predictions.

        Raises DataError if a mapped file of the data has changed.
        """
        self.data.refuse_changed()
        chosen_B, lengths_B = self.source.read(indices_B)
        size = len(chosen_B), self.source.steps
        if self._step is None or self._step.size != size:
            self.close()
            with torch.inference_mode(False):
                self._step = _Step(self.model, self.loss, self.source, len(chosen_B), self.needs_gradients)
        return self._step(chosen_B, lengths_B, self.max_norm)

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


def _with_dropout(
    model: SequenceClassifier, change: Callable[[Batch], Batch] | None
) -> Callable[[Batch], Batch]:
    """The change of a batch, and then the dropout of the inputs of the lowest layer."""
    layer = model.layers[0]
    assert isinstance(layer, RecurrentLayer)

    def changed(batch: Batch) -> Batch:
        batch = batch if change is None else change(batch)
        return batch._replace(x_BTI=layer.dropped(batch.x_BTI.transpose(0, 1)).transpose(0, 1))

    return changed


def scoring_steps(model: SequenceClassifier, data: SequenceDataset) -> WholeSteps:
    """Steps that end with the loss, for evaluation; to be closed.

    model, data: such that `is_eligible` holds.
    """
    return WholeSteps(model, CrossEntropy.plain(len(data.classes)), data, needs_gradients=False)


def scoring_batches(data: SequenceDataset) -> list[Tensor]:
    """The indices of all sequences in batches that suit `scoring_steps`: in order or, if lengths differ, by
    length."""
    return data.evaluation_order(max(min(SCORED_AT_ONCE, STEPS_AT_ONCE // data.steps), 1))


class _Step:
    """Steps on batches of one size. The first part of a batch is computed by the calling thread, each other
    one by a worker thread, which waits for batches in machine code."""

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        source: Source,
        batch: int,
        needs_gradients: bool,
    ) -> None:
        self.size, self.needs_gradients = (batch, source.steps), needs_gradients
        self.classes = len(loss.weight_K)
        self.layers = [[LayerWeights(module) for module in layer] for layer in modules_of_layers(model)]
        head = Head(model.head)
        work = 2 * batch * sum(w.numel() for layer in self.layers for run in layer for w in run.prepared)
        rows = rows_of_parts(batch, work * source.steps, WORTH)
        self.gradients = Gradients(self.layers, head, len(rows))
        self.arrays = SharedArrays(batch, len(rows))
        shared = Shared(self.layers, head, loss, source, self.arrays, len(rows), needs_gradients)
        self.dropout = Dropout(model, batch, source.steps)
        setting = Setting(
            layers=self.layers,
            readout=model.stack.readout,
            source=source,
            shared=shared,
            gradients=self.gradients,
            arrays=self.arrays,
            dropout=self.dropout,
        )
        self.parts = [Part(setting, number, share) for number, share in enumerate(rows)]
        self.order_B: Any = None
        self.reduction = self.gradients.reduction(self.arrays, needs_gradients)
        self.keep = shared, head
        self.driver: Driver = driver(head.dtype.itemsize == 8)
        self.failure: BaseException | None = None
        self.threads = [
            threading.Thread(target=self._serve, name=THREAD, args=[part.address], daemon=True)
            for part in self.parts[1:]
        ]
        for thread in self.threads:
            thread.start()

    def _serve(self, part: int) -> None:
        torch.set_flush_denormal(True)  # a setting of each thread
        try:
            self.driver.serve(part)
        except BaseException as error:
            self.failure = error
            self._stop()

    def __call__(self, chosen_B: Any, lengths_B: Any, max_norm: float) -> tuple[float, float, int]:
        arrays = self.arrays
        steps = self._choose(chosen_B, lengths_B)
        arrays.max_norm[0] = max_norm
        prepared = []
        for layer, factors in zip(self.layers, self.dropout.of_layers, strict=True):
            self.dropout.draw(factors, self.order_B, steps)  # in the order of the general way
            prepared.append([run.refresh() for run in layer])
        self.dropout.draw(self.dropout.of_features, self.order_B)
        self.driver.lead(self.parts[0].address, address_of(self.reduction))
        if self.failure is not None:
            raise self.failure
        loss, correct = arrays.totals_Q2[0].tolist()
        if self.needs_gradients and math.isfinite(loss):  # otherwise the previous gradients stay
            self.gradients.finish(prepared, self.driver, arrays)
        return loss, float(arrays.norm[0]), int(correct)

    def _choose(self, chosen_B: Any, lengths_B: Any) -> int | None:
        """Tells the driver which sequences are in the batch, and returns the number of steps of the longest
        one, None for that of all. If lengths differ, each part gets a share of the
        long ones, and has its longest first: at each step, those that still run are then the first ones."""
        if lengths_B is None:
            self.arrays.chosen_B[:] = chosen_B
            return None
        longest_first_B = np.argsort(-lengths_B, kind="stable")
        parts = [longest_first_B[part :: len(self.parts)] for part in range(len(self.parts))]
        self.order_B = np.concatenate(parts)
        self.arrays.chosen_B[:] = chosen_B[self.order_B]
        steps = int(lengths_B[longest_first_B[0]])
        for part, own in zip(self.parts, parts, strict=True):
            part.set_lengths(lengths_B[own], steps)
        return steps

    def logits(self) -> Tensor:
        """A copy of the logits of all parts, (B, K), in the order of the indices."""
        logits_BK = torch.cat([torch.from_numpy(part.z_NK[:, : self.classes]) for part in self.parts])
        return logits_BK if self.order_B is None else logits_BK[torch.from_numpy(self.order_B.argsort())]

    def _stop(self) -> None:
        """Stops the workers, and releases any thread that waits for another."""
        self.arrays.counters[ARRIVED // 8] += ALL_ARRIVALS
        self.arrays.counters[POSTED // 8] += LAST_JOB

    def close(self) -> None:
        self._stop()
        for thread in self.threads:
            thread.join()
