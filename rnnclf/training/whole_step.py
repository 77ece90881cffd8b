"""Whole training steps: from the sequences of a batch to the gradients in one call of machine code.

With an engine alone, a step is run by autograd, to which a layer is one operation. Around it are a dozen others, each
of which costs a call into torch, allocates memory and leaves cores idle. Here each core computes a part of the batch,
from the raw sequences to the gradients of all weights, and the cores wait for each other only twice. See
rnnclf/engine/machine/driver.py.

Shapes: N sequences, B batch, T time, I inputs, H hidden, K classes, Q parts, W numbers in all weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnclf.data import SequenceDataset
from rnnclf.engine.machine import driver_tables as tables
from rnnclf.engine.machine.driver import Driver, driver
from rnnclf.engine.machine.driver_tables import address_of, stored
from rnnclf.engine.machine.driver_threads import ALL_ARRIVALS, ARRIVED, COUNTERS, LAST_JOB, POSTED
from rnnclf.engine.machine.emit import vector_bytes
from rnnclf.engine.machine.code import NUMBERS, aligned_zeros
from rnnclf.engine.machine.layer import LayerWeights
from rnnclf.engine.machine.part import RunMemory, Size, Wants, connected, readouts, reads_gradients_above
from rnnclf.engine.parts import rows_of_parts
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import cell_modules
from rnnclf.training.recipe import CrossEntropy

THREAD = "rnnclf-step"
"""The name of the worker threads."""

SCORED_AT_ONCE = 150
"""Sequences per batch of `scoring_batches`: few enough for all their time steps to stay in the caches.
Measured."""


class WholeSteps:
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
        if self._step is None or self._step.batch != len(indices_B):
            self.close()
            with torch.inference_mode(False):
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


def scoring_steps(model: SequenceClassifier, data: SequenceDataset) -> WholeSteps:
    """Steps that end with the loss, for evaluation; to be closed.

    model, data: such that `is_eligible` holds.
    """
    return WholeSteps(model, CrossEntropy.plain(len(data.classes)), data, needs_gradients=False)


def scoring_batches(data: SequenceDataset) -> tuple[Tensor, ...]:
    """The indices of all sequences, in order, in batches of a size that suits `scoring_steps`."""
    return torch.split(torch.arange(len(data)), SCORED_AT_ONCE)


class _Step:
    """Steps on batches of one size. The first part of a batch is computed by the calling thread, each other one by a
    worker thread, which waits for batches in machine code."""

    def __init__(
        self,
        model: SequenceClassifier,
        loss: CrossEntropy,
        data: SequenceDataset,
        batch: int,
        needs_gradients: bool,
    ) -> None:
        self.batch, self.needs_gradients = batch, needs_gradients
        self.classes = len(loss.weight_K)
        self.layers = [[LayerWeights(module)] for module in cell_modules(model)]
        head = _Head(model.head)
        work = 2 * batch * sum(w.numel() for layer in self.layers for run in layer for w in run.prepared)
        rows = rows_of_parts(batch, work)
        self.gradients = _Gradients(self.layers, head, len(rows))
        self.numbers = _Numbers(batch, len(rows))
        shared = _Shared(self.layers, head, loss, data, self.numbers, len(rows), needs_gradients)
        self.parts = [
            _Part(self.layers, model.stack.readout, shared, self.gradients, self.numbers, number, share, data.steps)
            for number, share in enumerate(rows)
        ]
        self.reduction = self.gradients.reduction(self.numbers, needs_gradients)
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

    def __call__(self, indices_B: Tensor, max_norm: float) -> tuple[float, float, int]:
        numbers = self.numbers
        numbers.chosen_B[:] = indices_B.numpy()
        numbers.max_norm[0] = max_norm
        prepared = [[run.refresh() for run in layer] for layer in self.layers]
        self.driver.lead(self.parts[0].address, address_of(self.reduction))
        if self.failure is not None:
            raise self.failure
        loss, correct = numbers.totals_Q2[0].tolist()
        if self.needs_gradients and math.isfinite(loss):  # otherwise the previous gradients stay
            self.gradients.finish(prepared, self.driver, numbers)
        return loss, float(numbers.norm[0]), int(correct)

    def logits(self) -> Tensor:
        """A copy of the logits of all parts, (B, K)."""
        return torch.cat([torch.from_numpy(part.z_NK[:, : self.classes]) for part in self.parts])

    def _stop(self) -> None:
        """Stops the workers, and releases any thread that waits for another."""
        self.numbers.counters[ARRIVED // 8] += ALL_ARRIVALS
        self.numbers.counters[POSTED // 8] += LAST_JOB

    def close(self) -> None:
        self._stop()
        for thread in self.threads:
            thread.join()


class _Numbers:
    """Small arrays that Python and the driver share."""

    def __init__(self, batch: int, parts: int) -> None:
        self.counters = np.zeros(COUNTERS, np.int64)
        self.chosen_B = np.zeros(batch, np.int64)
        self.totals_Q2 = np.zeros((parts, 2))
        self.max_norm, self.norm = np.zeros(1), np.zeros(1)


class _Head:
    """The linear head: its weights, packed for products with features and with the gradients of logits."""

    def __init__(self, head: nn.Linear) -> None:
        self.head, self.dtype = head, NUMBERS[head.weight.dtype]
        self.classes, self.features = head.weight.shape
        lanes = vector_bytes() // self.dtype.itemsize
        self.columns, self.wide = (-(-n // lanes) * lanes for n in (self.classes, self.features))
        self.forward = aligned_zeros([self.features * self.columns], self.dtype)
        self.backward = aligned_zeros([self.classes * self.wide], self.dtype)

    def packs(self) -> list[list[int]]:
        weight, size = self.head.weight, self.dtype.itemsize
        row = self.features * size
        return [
            [weight.data_ptr(), size, row, self.features, self.classes, address_of(self.forward), self.features,
             self.columns, 0, 0],
            [weight.data_ptr(), row, size, self.classes, self.features, address_of(self.backward), self.classes,
             self.wide, 0, 0],
        ]  # fmt: skip


class _Gradients:
    """The gradients of all weights, and the sums that they are made of.

    sums_QM: of each part the sums of each run of a layer, then of the head's weight and bias.
    gradients_W: the gradients of all weights, one after the other.
    """

    def __init__(self, layers: Sequence[Sequence[LayerWeights]], head: _Head, parts: int) -> None:
        self.runs, self.head = [run for layer in layers for run in layer], head
        plans = [run.layer.code.plan for run in self.runs]
        lengths = [plan.sums + plan.lanes for plan in plans]
        ends = np.cumsum([*lengths, head.features * head.columns, head.columns]).tolist()
        self.slices = [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.sums_QM = aligned_zeros([parts, ends[-1]], head.dtype)
        self.weights = [[weight for weight, _ in run.trained] for run in self.runs]
        self.weights.append([head.head.weight, head.head.bias])
        flat = [weight for some in self.weights for weight in some]
        self.gradients_W = torch.zeros(sum(weight.numel() for weight in flat), dtype=flat[0].dtype)
        parts_W = iter(torch.split(self.gradients_W, [weight.numel() for weight in flat]))
        self.gradients = [[next(parts_W).view_as(weight) for weight in some] for some in self.weights]
        self.is_complete = not any(run.needs_torch for run in self.runs)
        self.is_set = False

    def of_part(self, part: int) -> list[Any]:
        """The sums of a part: of each run, of the head's weight, of its bias."""
        return [self.sums_QM[part, some] for some in self.slices]

    def reduction(self, numbers: _Numbers, learns: bool) -> Any:
        """The table that says what becomes of the results of all parts."""
        sums, moves = self.of_part(0), []
        for run, own, gradients in zip(self.runs, sums, self.gradients, strict=False):
            if run.layer.trains and not run.needs_torch:
                moves += run.moves(own, gradients)
        moves += self._moves_of_head(*sums[-2:])
        self.moves = stored(moves)
        return stored([
            tables.Reduction(
                totals=address_of(numbers.totals_Q2),
                parts=len(self.sums_QM),
                learns=learns,
                sums=address_of(self.sums_QM),
                sums_part=self.sums_QM.strides[0],
                moves=address_of(self.moves),
                move_count=len(moves),
                gradients=self.gradients_W.data_ptr(),
                gradients_length=self.gradients_W.nbytes,
                is_complete=self.is_complete,
                max_norm=address_of(numbers.max_norm),
                norm=address_of(numbers.norm),
            )
        ])  # fmt: skip

    def _moves_of_head(self, weight_sums: Any, bias_sums: Any) -> list[tables.Move]:
        head, (weight, bias), size = self.head, self.gradients[-1], self.head.dtype.itemsize
        row = head.features * size
        return [
            tables.Move(address_of(weight_sums), size, head.columns * size, head.classes, head.features,
                        weight.data_ptr(), row, size),
            tables.Move(address_of(bias_sums), 0, size, 1, head.classes, bias.data_ptr(), 0, size),
        ]  # fmt: skip

    def finish(self, prepared: Sequence[Sequence[Any]], compiled: Driver, numbers: _Numbers) -> None:
        """After a batch: has torch compute its share of the gradients, and stores all in `grad` of the weights."""
        there = [[True] * len(some) for some in self.weights]
        if not self.is_complete:
            flat = [own for layer in prepared for own in layer]
            for n, (run, own) in enumerate(zip(self.runs, flat, strict=True)):
                if run.needs_torch:
                    there[n] = run.differentiate(self.of_part(0)[n], own, self.gradients[n])
            compiled.clip(
                self.gradients_W.data_ptr(), self.gradients_W.nbytes, address_of(numbers.max_norm),
                address_of(numbers.norm),
            )  # fmt: skip
        if not self.is_set:
            for some, gradients, known in zip(self.weights, self.gradients, there, strict=True):
                for weight, gradient, is_there in zip(some, gradients, known, strict=True):
                    weight.grad = gradient if is_there else None
            self.is_set = True


class _Shared:
    """What all parts share, and the table that describes it."""

    def __init__(
        self,
        layers: Sequence[Sequence[LayerWeights]],
        head: _Head,
        loss: CrossEntropy,
        data: SequenceDataset,
        numbers: _Numbers,
        parts: int,
        learns: bool,
    ) -> None:
        self.head, self.learns = head, learns
        size, preparation, inputs = head.dtype.itemsize, data.preparation, data.input_size
        self.x_SI, self.y_N, self.starts_N = data.x_SI, data.y_N, data.starts_N
        self.lengths_N = data.lengths_N.numpy()
        self.shift_I = np.array(preparation.shift_C if preparation else [0.0] * inputs, head.dtype)
        self.scale_I = np.array(preparation.scale_C if preparation else [1.0] * inputs, head.dtype)
        self.weight_K, self.smoothing = np.array(loss.weight_K, np.float64), np.array([float(loss.smoothing)])
        packs = [pack for layer in layers for run in layer for pack in run.packs()] + head.packs()
        self.packs = np.array(packs, np.int64)
        self.table = stored([
            tables.Shared(
                counters=address_of(numbers.counters),
                parts=parts,
                learns=learns,
                x=self.x_SI.data_ptr(),
                x_is_bytes=self.x_SI.dtype == torch.uint8,
                x_t=self.x_SI.stride(0) * self.x_SI.itemsize,
                starts=self.starts_N.data_ptr(),
                labels=self.y_N.data_ptr(),
                chosen=address_of(numbers.chosen_B),
                batch=len(numbers.chosen_B),
                inputs=inputs,
                shift=address_of(self.shift_I),
                scale=address_of(self.scale_I),
                packs=address_of(self.packs),
                pack_count=len(packs),
                classes=head.classes,
                features=head.features,
                features_row=head.wide * size,
                head=address_of(head.forward),
                head_backward=address_of(head.backward),
                bias=head.head.bias.data_ptr(),
                z_row=head.columns * size,
                class_weights=address_of(self.weight_K),
                smoothing=address_of(self.smoothing),
            )
        ])  # fmt: skip


class _Part:
    """One part of a batch: its memory, and the tables that describe it."""

    def __init__(
        self,
        layers: Sequence[Sequence[LayerWeights]],
        readout: str,
        shared: _Shared,
        gradients: _Gradients,
        numbers: _Numbers,
        number: int,
        share: slice,
        steps: int,
    ) -> None:
        head, rows = shared.head, share.stop - share.start
        size = Size(steps, rows, shared.learns)
        self.lengths_N, self.running_T = np.full(rows, steps), np.full(steps, rows)
        *sums, head_sums, bias_sums = gradients.of_part(number)
        first_trained = next((n for n, layer in enumerate(layers) if layer[0].layer.trains), len(layers))
        self.runs = _runs(layers, readout, size, self.running_T, sums, first_trained)
        self.features, self.d_features = (aligned_zeros([rows, head.wide], head.dtype) for _ in range(2))
        self.z_NK = aligned_zeros([rows, head.columns], head.dtype)
        spans = [span for layer in self.runs for run in layer for span in run.spans(ragged=False)]
        spans += [tables.Span(address_of(some), some.nbytes) for some in (head_sums, bias_sums)]
        runs, self.zeros = stored(connected(self.runs, first_trained)), stored(spans)
        reads = stored(readouts(self.runs[-1], readout, self.features, self.d_features))
        x = self.runs[0][0].x_pieces()[0]
        self.keep = runs, reads, shared
        self.table = stored([
            tables.Part(
                shared=address_of(shared.table),
                number=number,
                first=share.start,
                rows=rows,
                steps=steps,
                lengths=address_of(self.lengths_N),
                running=address_of(self.running_T),
                x=x.address,
                x_t=x.t,
                x_row=x.row,
                runs=address_of(runs),
                run_count=len(runs),
                readouts=address_of(reads),
                readout_count=len(reads),
                features=address_of(self.features),
                d_features=address_of(self.d_features),
                z=address_of(self.z_NK),
                zeros=address_of(self.zeros),
                zero_count=len(spans),
                head_sums=address_of(head_sums),
                bias_sums=address_of(bias_sums),
                totals=address_of(numbers.totals_Q2[number]),
                job=0,
            )
        ])  # fmt: skip
        self.address = address_of(self.table)


def _runs(
    layers: Sequence[Sequence[LayerWeights]],
    readout: str,
    size: Size,
    running_T: Any,
    sums: Sequence[Any],
    first_trained: int,
) -> list[list[RunMemory]]:
    """The memory of all layers, lowest first. It is made from the top: a layer may read gradients from above."""
    found: list[list[RunMemory]] = []
    of_run = iter(reversed(sums))
    for level in reversed(range(len(layers))):
        above = found[0] if found else []
        runs = []
        for weights in reversed(layers[level]):
            outputs = readout != "last" if not above else not reads_gradients_above(weights, above)
            wants = Wants(inputs=level > first_trained, outputs=outputs)
            runs.insert(0, RunMemory(weights, size, running_T, next(of_run), wants))
        found.insert(0, runs)
    return found


