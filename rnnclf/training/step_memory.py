"""The memory and the tables of whole training steps: what all parts of a batch share, and what each has of
its own.

Shapes: N sequences of the data set or of a part, S steps of the data set, I inputs, T time, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rnnclf.engine.machine.code import aligned_zeros
from rnnclf.engine.machine.driver import tables
from rnnclf.engine.machine.driver.layer import LayerWeights
from rnnclf.engine.machine.driver.part import (
    Piece,
    RunMemory,
    Size,
    WantedGradients,
    connected,
    readouts,
    reads_gradients_above,
)
from rnnclf.engine.machine.driver.tables import address_of, stored
from rnnclf.training.recipe import CrossEntropy
from rnnclf.training.step_dropout import Dropout
from rnnclf.training.step_gradients import Gradients, Head, SharedArrays
from rnnclf.training.step_source import Source


class Shared:
    """What all parts share, and the table that describes it."""

    def __init__(
        self,
        layers: Sequence[Sequence[LayerWeights]],
        head: Head,
        loss: CrossEntropy,
        source: Source,
        arrays: SharedArrays,
        parts: int,
        learns: bool,
    ) -> None:
        self.head, self.learns = head, learns
        size = head.dtype.itemsize
        self.x_SI, self.y_N, self.starts_N = source.x_SI, source.y_N, source.starts_N  # kept alive
        self.shift_I, self.scale_I = (np.array(some, head.dtype) for some in (source.shift_I, source.scale_I))
        self.weight_K, self.smoothing = np.array(loss.weight_K, np.float64), np.array([float(loss.smoothing)])
        packs = [pack for layer in layers for run in layer for pack in run.packs()] + head.packs()
        self.packs = np.array(packs, np.int64)
        self.table = stored([
            tables.Shared(
                counters=address_of(arrays.counters),
                parts=parts,
                learns=learns,
                x=self.x_SI.data_ptr(),
                x_is_bytes=self.x_SI.dtype == torch.uint8,
                x_t=self.x_SI.stride(0) * self.x_SI.itemsize,
                starts=self.starts_N.data_ptr(),
                labels=self.y_N.data_ptr(),
                chosen=address_of(arrays.chosen_B),
                batch=len(arrays.chosen_B),
                inputs=len(self.shift_I),
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


class Setting(NamedTuple):
    """What the parts of a batch are made from."""

    layers: Sequence[Sequence[LayerWeights]]
    readout: str
    source: Source
    shared: Shared
    gradients: Gradients
    arrays: SharedArrays
    dropout: Dropout


class Part:
    """One part of a batch, the sequences at `share`: its memory, and the tables that describe it."""

    def __init__(self, setting: Setting, number: int, share: slice) -> None:
        shared, source, head = setting.shared, setting.source, setting.shared.head
        rows, steps, arrays = share.stop - share.start, source.steps, setting.arrays
        self.lengths_N, self.running_T = np.full(rows, steps), np.full(steps, rows)
        factors, of_features = setting.dropout.pieces(share.start), setting.dropout.of_features
        *sums, head_sums, bias_sums = setting.gradients.of_part(number)
        trains = (n for n, layer in enumerate(setting.layers) if layer[0].layer.trains)
        first_trained = next(trains, len(setting.layers))
        size = Size(steps, rows, shared.learns)
        self.runs = _runs(setting, size, self.running_T, sums, first_trained, factors)
        self.features, self.d_features = (aligned_zeros([rows, head.wide], head.dtype) for _ in range(2))
        self.z_NK = aligned_zeros([rows, head.columns], head.dtype)
        spans = [span for layer in self.runs for run in layer for span in run.spans(source.ragged)]
        spans += [tables.Span(address_of(some), some.nbytes) for some in (head_sums, bias_sums)]
        spans = spans if shared.learns else []
        runs, self.zeros = stored(connected(self.runs, first_trained, factors)), stored(spans)
        reads = stored(readouts(self.runs[-1], setting.readout, self.features, self.d_features))
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
                factors=0 if of_features is None else of_features[share.start :].data_ptr(),
                factors_row=0 if of_features is None else of_features.stride(0) * of_features.itemsize,
                z=address_of(self.z_NK),
                zeros=address_of(self.zeros),
                zero_count=len(spans),
                head_sums=address_of(head_sums),
                bias_sums=address_of(bias_sums),
                totals=address_of(arrays.totals_Q2[number]),
                job=0,
            )
        ])  # fmt: skip
        self.address = address_of(self.table)

    def set_lengths(self, lengths_N: Any, steps: int) -> None:
        """lengths_N: the number of steps of each sequence of the part, the longest first. steps: that of the
        longest one of the batch."""
        self.lengths_N[:] = lengths_N
        self.running_T[:steps] = len(lengths_N) - np.searchsorted(
            lengths_N[::-1], np.arange(steps), side="right"
        )
        self.table[0, tables.Part._fields.index("steps")] = steps
        for layer in self.runs:
            for run in layer:
                run.set_steps(steps)


def _runs(
    setting: Setting,
    size: Size,
    running_T: Any,
    sums: Sequence[Any],
    first_trained: int,
    factors: Sequence[Piece | None],
) -> list[list[RunMemory]]:
    """The memory of all layers, lowest first. It is made from the top: a layer may read gradients from
    above."""
    found: list[list[RunMemory]] = []
    of_run = iter(reversed(sums))
    for level in reversed(range(len(setting.layers))):
        above, factors_above = (found[0], factors[level + 1]) if found else ([], None)
        runs: list[RunMemory] = []
        for weights in reversed(setting.layers[level]):
            shared = reads_gradients_above(weights, above, factors_above)
            wants = WantedGradients(
                inputs=size.learns and level > first_trained,
                outputs=not shared if above else setting.readout != "last",
            )
            runs.insert(0, RunMemory(weights, size, running_T, next(of_run), wants))
        found.insert(0, runs)
    return found
