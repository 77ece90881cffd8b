"""The preparation of data as ONNX nodes: from values as read to the features of a model.

Shapes: B batch, T time, C channels as read, F features of a channel, P steps in a patch, I features of the
model. Graphs have time first, as the model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnnclf.data.grid import Grid
from rnnclf.data.preparation import Preparation
from rnnclf.data.quantiles import Curve, Pieces
from rnnclf.export.graph import BOOL, DOUBLE, FLOAT, INT64, Graph, Shape, value
from rnnclf.export.prepared_step import needs_float64


@dataclass(frozen=True)
class Sequences:
    """The names of a batch of sequences in a graph: x (T, B, …), lengths (B), and as vectors of one number
    the largest length and the size of the batch.

    ragged: whether lengths differ. empty: whether a sequence has no step at all, (B); '' if none can.
    """

    x: str
    lengths: str
    steps: str
    batch: str
    ragged: bool
    empty: str = ""

    def of_batch(self, g: Graph, *row: int) -> str:
        """The shape (B, *row)."""
        return g("Concat", self.batch, g.axes(*row), axis=0)

    def of_steps(self, g: Graph, x: str, steps: int) -> Sequences:
        """As many other sequences x (T, B, …), which all have so many steps."""
        lengths = g("Expand", g.axes(steps), self.batch)
        return replace(self, x=x, lengths=lengths, steps=g.axes(steps), ragged=False)

    def valid_TB(self, g: Graph) -> str:
        """Whether a step belongs to its sequence."""
        return g("Less", _numbers_T1(g, self.steps), self.lengths)


def sequences_of(g: Graph, ragged: bool) -> Sequences:
    """The sequences in the inputs `x` (B, T, C) and, if they are ragged, `lengths` (B)."""
    batch, steps = (g("Shape", "x", start=axis, end=axis + 1) for axis in (0, 1))
    lengths = "lengths" if ragged else g("Expand", steps, batch)
    return Sequences(g("Transpose", "x", perm=[1, 0, 2]), lengths, steps, batch, ragged)


def prepared(g: Graph, sequences: Sequences, preparation: Preparation) -> Sequences:
    """The sequences as the model takes them; `elapsed` (B, T) is an input if gaps are filled by time."""
    sequences = replace(sequences, x=_normalised(g, sequences.x, preparation))
    if preparation.missing == "drop":
        sequences = _without_gaps(g, sequences)
    elif preparation.missing == "mask":
        sequences = replace(sequences, x=_masked(g, sequences, preparation))
    elif preparation.missing == "interpolate":
        sequences = replace(sequences, x=_interpolated(g, sequences, preparation))
    if preparation.patch > 1:
        sequences = _in_patches(g, sequences, preparation)
    return sequences


def blanked(g: Graph, sequences: Sequences) -> Sequences:
    """The sequences with zeros after their ends: padding may hold anything, NaN too."""
    if not sequences.ragged:
        return sequences
    valid_TB1 = g("Unsqueeze", sequences.valid_TB(g), g.axes(2))
    return replace(sequences, x=g("Where", valid_TB1, sequences.x, g.number(0)))


def read_across(g: Graph, sequences: Sequences, grid: Grid) -> Sequences:
    """The sequences, which are not ragged, read across (P, B, D), as `Grid.across` does."""
    columns = g("Transpose", places(g, sequences, grid), perm=[1, 2, 0, 3])
    return sequences.of_steps(g, g("Reshape", columns, g.axes(0, 0, grid.column_size)), grid.columns)


def places(g: Graph, sequences: Sequences, grid: Grid) -> str:
    """The sequences, which are not ragged, by row and column (R, P, B, F), as `Grid.places` does."""
    if grid.one_by_one:
        return g("Reshape", sequences.x, g.axes(grid.rows, grid.columns, -1, grid.place_size))
    sizes = g.axes(grid.rows, -1, grid.kinds, grid.columns, grid.values)
    by_column = g("Transpose", g("Reshape", sequences.x, sizes), perm=[0, 3, 1, 2, 4])
    return g("Reshape", by_column, g.axes(0, 0, 0, grid.place_size))


def type_of_x(preparation: Preparation | None) -> int:
    """The ONNX type in which a file takes its values."""
    return DOUBLE if preparation is not None and needs_float64(preparation) else FLOAT


def as_read(preparation: Preparation | None) -> str:
    """What the values of `x` are, in words."""
    gaps = preparation is not None and preparation.missing != "error"
    return "values as read; NaN where one is missing" if gaps else "values as read"


def _numbers_T1(g: Graph, steps: str) -> str:
    """0 to T - 1, as (T, 1)."""
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    return g("Unsqueeze", g("Range", zero, g("Squeeze", steps), one), g.axes(1))


def _normalised(g: Graph, x: str, preparation: Preparation) -> str:
    kind = np.float64 if needs_float64(preparation) else np.float32
    if any(preparation.shift_C):
        x = g("Sub", x, g.constant(preparation.shift_C, kind))
    if any(scale != 1 for scale in preparation.scale_C):
        x = g("Div", x, g.constant(preparation.scale_C, kind))
    x = g("Cast", x, to=FLOAT) if kind is np.float64 else x
    return _along(g, x, preparation.curve_C) if preparation.curve_C else x


def _along(g: Graph, x_TBC: str, curves: Sequence[Curve]) -> str:
    """The values on the curves of their channels, see rnnclf.data.quantiles."""
    pieces = Pieces(*(part.astype(np.float32) for part in Pieces.of(curves)))
    below = g("Min", g("Sub", x_TBC, g.constant(pieces.low_C, np.float32)), g.number(0))
    above = g("Max", g("Sub", x_TBC, g.constant(pieces.high_C, np.float32)), g.number(0))
    y = g("Mul", g("Add", below, above), g.constant(pieces.slope_C, np.float32))
    y = g("Add", y, g.constant(pieces.level_C, np.float32))
    for start_C, width_C, rise_C in zip(pieces.start_KC, pieces.width_KC, pieces.rise_KC, strict=True):
        share = g("Sub", x_TBC, g.constant(start_C, np.float32))
        share = g("Clip", g("Div", share, g.constant(width_C, np.float32)), g.number(0), g.number(1))
        y = g("Add", y, g("Mul", share, g.constant(rise_C, np.float32)))
    return g("Where", g("IsNaN", x_TBC), x_TBC, y)  # clipping removes NaN


def _without_gaps(g: Graph, sequences: Sequences) -> Sequences:
    """Each sequence without the steps that miss a value, which go behind its end.

    One that has no complete step at all keeps one, and is called empty.
    """
    gaps_TBC = g("Cast", g("IsNaN", sequences.x), to=INT64)
    complete_TB = g("Equal", g("ReduceMax", gaps_TBC, g.axes(2), keepdims=0), g.constant(0, np.int64))
    complete_TB = g("And", complete_TB, sequences.valid_TB(g))
    later_T1 = g("Neg", _numbers_T1(g, sequences.steps))
    rank_TB = g("Where", complete_TB, g("Add", later_T1, sequences.steps), later_T1)  # above 0: complete
    order_TB = g.several("TopK", 2, rank_TB, sequences.steps, axis=0)[1]
    counted = g("ReduceSum", g("Cast", complete_TB, to=INT64), g.axes(0), keepdims=0)
    lengths = g("Max", counted, g.constant(1, np.int64))
    empty = g("Equal", counted, g.constant(0, np.int64))
    x = _reordered(g, sequences.x, order_TB)
    return replace(sequences, x=x, lengths=lengths, ragged=True, empty=empty)


def _reordered(g: Graph, x_TBC: str, steps_TB: str) -> str:
    """The steps with these numbers, in that order."""
    index = g("Unsqueeze", steps_TB, g.axes(2))
    channels = g("Shape", x_TBC, start=2, end=3)
    shape = g("Concat", g("Shape", steps_TB), channels, axis=0)
    return g("GatherElements", x_TBC, g("Expand", index, shape), axis=0)


def _elapsed_TB1(g: Graph, sequences: Sequences, preparation: Preparation) -> str:
    """Time since the step before; 0 for the first step."""
    if preparation.timed:
        elapsed_TB = g("Transpose", "elapsed", perm=[1, 0])
    else:
        elapsed_TB = g("Expand", g.number(1), g("Concat", sequences.steps, sequences.batch, axis=0))
    first_T1 = g("Equal", _numbers_T1(g, sequences.steps), g.constant(0, np.int64))
    return g("Unsqueeze", g("Where", first_T1, g.number(0), elapsed_TB), g.axes(2))


def _there_TBC(g: Graph, sequences: Sequences) -> str:
    there = g("Not", g("IsNaN", sequences.x))
    return g("And", there, g("Unsqueeze", sequences.valid_TB(g), g.axes(2))) if sequences.ragged else there


def _masked(g: Graph, sequences: Sequences, preparation: Preparation) -> str:
    """Values, whether they are there, log(1 + time since they were): (T, B, 3 C)."""
    there_TBC = _there_TBC(g, sequences)
    x_TBC = g("Where", there_TBC, sequences.x, g.number(0))
    since_TBC = _since_seen(g, sequences, there_TBC, _elapsed_TB1(g, sequences, preparation), preparation)
    since_TBC = g("Log", g("Add", g.number(1), g("Div", since_TBC, g.number(preparation.interval))))
    return g("Concat", x_TBC, g("Cast", there_TBC, to=FLOAT), since_TBC, axis=-1)


def _since_seen(g: Graph, sequences: Sequences, there: str, elapsed: str, preparation: Preparation) -> str:
    """Time since each channel was seen, or since the start: a running sum that falls to 0 at each value."""
    channels, body = len(preparation.channels), Graph(f"{g.name('since')}/")
    later = body("Add", "since", "elapsed_step")
    since = body("Where", "there", body.number(0), later)
    body.called("since_next", since)
    body.called("since_out", since)
    row: Shape = ["batch", channels]
    graph = body.built(
        "since_seen",
        [value("since", FLOAT, row), value("there", BOOL, row), value("elapsed_step", FLOAT, ["batch", 1])],
        [value("since_next", FLOAT, row), value("since_out", FLOAT, row)],
    )
    zeros = g("Expand", g.number(0), sequences.of_batch(g, channels))
    return g.several("Scan", 2, zeros, there, elapsed, body=graph, num_scan_inputs=2)[1]


def _interpolated(g: Graph, sequences: Sequences, preparation: Preparation) -> str:
    """Gaps filled by lines between their neighbours, by the nearest value at the ends, by 0 where a channel
    has no value at all."""
    there = _there_TBC(g, sequences)
    x = g("Where", there, sequences.x, g.number(0))
    elapsed = _elapsed_TB1(g, sequences, preparation)
    until_next = g(
        "Concat",
        g("Slice", elapsed, g.axes(1), g.axes(2**62), g.axes(0)),
        g("Slice", elapsed, g.axes(0), g.axes(1), g.axes(0)),
        axis=0,
    )
    channels = len(preparation.channels)
    before, since, seen = _nearest(g, sequences, (x, there, elapsed), channels, backward=False)
    after, until, to_come = _nearest(g, sequences, (x, there, until_next), channels, backward=True)
    gap = g("Add", since, until)
    share = g("Div", since, g("Where", g("Greater", gap, g.number(0)), gap, g.number(1)))
    between = g("Add", before, g("Mul", share, g("Sub", after, before)))
    return g("Where", seen, g("Where", to_come, between, before), g("Where", to_come, after, g.number(0)))


def _nearest(
    g: Graph, sequences: Sequences, inputs: tuple[str, str, str], channels: int, backward: bool
) -> list[str]:
    """The nearest value so far (or, backward, to come) of each channel, the time between, whether there is
    one."""
    body = Graph(f"{g.name('nearest')}/")
    results = {
        "value": body("Where", "there", "x_step", "value"),
        "since": body("Where", "there", body.number(0), body("Add", "since", "elapsed_step")),
        "seen": body("Or", "there", "seen"),
    }
    for end in ("next", "out"):
        for name, result in results.items():
            body.called(f"{name}_{end}", result)
    row: Shape = ["batch", channels]
    kinds = {"value": FLOAT, "since": FLOAT, "seen": BOOL}
    taken: list[tuple[str, int, Shape]] = [("x_step", FLOAT, row), ("there", BOOL, row)]
    taken.append(("elapsed_step", FLOAT, ["batch", 1]))
    graph = body.built(
        "nearest",
        [*(value(name, kind, row) for name, kind in kinds.items()), *(value(*each) for each in taken)],
        [value(f"{name}_{end}", kind, row) for end in ("next", "out") for name, kind in kinds.items()],
    )
    zeros = g("Expand", g.number(0), sequences.of_batch(g, channels))
    start = [zeros, zeros, g("Cast", zeros, to=BOOL)]
    way: dict[str, Any] = dict.fromkeys(
        ("scan_input_directions", "scan_output_directions"), [int(backward)] * 3
    )
    return g.several("Scan", 6, *start, *inputs, body=graph, num_scan_inputs=3, **way)[3:]


def _in_patches(g: Graph, sequences: Sequences, preparation: Preparation) -> Sequences:
    """P neighbouring steps side by side; the last step of a sequence is repeated to fill its last patch."""
    patch, channels = preparation.patch, len(preparation.channels)
    size, less = g.axes(patch), g.axes(patch - 1)
    patches = g("Div", g("Add", sequences.steps, less), size)
    last_B = g("Sub", sequences.lengths, g.constant(1, np.int64))
    steps_TB = g("Min", _numbers_T1(g, g("Mul", patches, size)), last_B)
    filled = _reordered(g, sequences.x, steps_TB)
    features = preparation.input_size // (patch * channels)
    shape = g("Concat", patches, size, sequences.batch, g.axes(features, channels), axis=0)
    side_by_side = g("Transpose", g("Reshape", filled, shape), perm=[0, 2, 3, 1, 4])  # (T / P, B, F, P, C)
    return replace(
        sequences,
        x=g("Reshape", side_by_side, g.axes(0, 0, preparation.input_size)),
        lengths=g("Div", g("Add", sequences.lengths, less), size),
        steps=patches,
    )
