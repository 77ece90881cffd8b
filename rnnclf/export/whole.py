"""A classifier of whole sequences as one ONNX graph, in which time is a Scan around the step of each cell.

Shapes: B batch, T time, C channels as read, I features, Z what a cell's `inputs` makes of them, H hidden, K
classes. torch traces only the functions of a cell, which are small; the rest is written node by node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnclf.cells.module import CellModule, Weights
from rnnclf.data.preparation import Preparation
from rnnclf.export.graph import BOOL, FLOAT, INT32, INT64, STRING, Graph, Piece, Shape, model_of, value
from rnnclf.export.operators import Operator, own_operator
from rnnclf.export.preparing import (
    as_read,
    blanked,
    places,
    prepared,
    read_across,
    sequences_of,
    type_of_x,
)
from rnnclf.export.step import CellInputs, CellStep, as_real, blend_of
from rnnclf.export.tracing import Function, traced
from rnnclf.model import Norm, RecurrentLayer, SequenceClassifier, Tower


@dataclass(frozen=True)
class Answers:
    """What a file answers with besides its logits: probabilities, softmax(logits / temperature), and the
    names of classes."""

    classes: tuple[str, ...]
    temperature: float = 1.0
    labels: bool = False

    def write(self, g: Graph, logits: str) -> list[Any]:
        """Adds the outputs to a graph, and returns their descriptions."""
        g.called("logits", logits)
        scaled = g("Div", "logits", g.constant(self.temperature, np.float32, "temperature"))
        g.called("probabilities", g("Softmax", scaled, axis=-1))
        row: Shape = ["batch", len(self.classes)]
        outputs = [value("probabilities", FLOAT, row), value("logits", FLOAT, row)]
        if self.labels:
            names = g.constant(np.array(self.classes, dtype=object))
            g.called("label", g("Gather", names, g("ArgMax", "logits", axis=-1, keepdims=0)))
            outputs.append(value("label", STRING, ["batch"], "the most likely class"))
        return outputs


def whole_model(
    model: SequenceClassifier,
    preparation: Preparation | None,
    answers: Answers,
    *,
    ragged: bool = True,
    own_operators: bool = False,
) -> Any:
    """The ONNX model: x (B, T, C), `lengths` (B) if ragged, `elapsed` (B, T) if the preparation uses times →
    probabilities and logits (B, K).

    own_operators: lstm, gru and basic by ONNX's own operators instead of a Scan. Raises ConfigError for a
    cell that torch cannot trace.
    """
    return _Whole(model.eval(), own_operators).built(preparation, answers, ragged)


class _Whole:
    """Writes the graph of one classifier."""

    def __init__(self, model: SequenceClassifier, own_operators: bool) -> None:
        self.g, self.model, self.stack = Graph(), model, model.stack
        self.operators: dict[CellModule, Operator] = {}
        self.pieces: dict[CellModule, tuple[Piece, Piece]] = {}
        modules = [module for module in model.modules() if isinstance(module, CellModule)]
        if own_operators and not self.stack.zoneout:
            self.operators = {
                module: made for module in modules if (made := own_operator(module)) is not None
            }
        self.steps = {m: CellStep(m, blend_of(self.stack)) for m in modules if m not in self.operators}
        functions = [f for module, step in self.steps.items() for f in functions_of(module, step)]
        pieces = iter(traced(functions) if functions else [])
        self.pieces = {module: (next(pieces), next(pieces)) for module in self.steps}

    def built(self, preparation: Preparation | None, answers: Answers, ragged: bool) -> Any:
        g, model = self.g, self.model
        sequences = sequences_of(g, ragged)
        if preparation is not None:
            sequences = prepared(g, sequences, preparation)
        self.sequences = blanked(g, sequences)
        features = self.features()
        joined = features[0] if len(features) == 1 else g("Concat", *features, axis=-1)
        head = model.head
        logits = g(
            "Gemm", self.normed(model.head_norm, joined), g.weight(head.weight), g.weight(head.bias), transB=1
        )
        if sequences.empty:  # to which there is no answer; operators would pass over a NaN
            logits = g("Where", g("Unsqueeze", sequences.empty, g.axes(1)), g.number(np.nan), logits)
        outputs = answers.write(g, logits)
        channels = len(preparation.channels) if preparation else model.input_size
        inputs = [value("x", type_of_x(preparation), ["batch", "time", channels], as_read(preparation))]
        if ragged:
            inputs.append(value("lengths", INT64, ["batch"], "number of steps of each sequence, at least 1"))
        if preparation is not None and preparation.fills_gaps and preparation.timed:
            inputs.append(value("elapsed", FLOAT, ["batch", "time"], "time since the step before"))
        return model_of(g.built("rnnclf", inputs, outputs))

    # layers

    def features(self) -> list[str]:
        """The results of the readouts of all towers, (B, H) for each direction of each layer that is read."""
        along, *across = self.model.towers
        if self.stack.axes == "alternating":
            return self.features_of_places(along)
        features = self.features_of(along)
        for tower in across:
            assert self.model.grid is not None
            self.sequences = read_across(self.g, self.sequences, self.model.grid)
            features += self.features_of(tower)
        return features

    def features_of(self, tower: Tower) -> list[str]:
        """The results of the readouts of one tower."""
        x = self.sequences.x
        features: list[str] = []
        for index, layer in enumerate(tower.layers):
            assert isinstance(layer, RecurrentLayer)
            top = index == len(tower.layers) - 1
            every = not top or self.stack.readout != "last"
            outputs = self.layer_outputs(layer, x, every)
            if top or self.stack.readout_layers == "all":
                features += [
                    self.read(tower.readouts[len(features) + i], y, every) for i, y in enumerate(outputs)
                ]
            if not top:
                x = self.concatenated(outputs)
        return features

    def features_of_places(self, tower: Tower) -> list[str]:
        """The results of the readouts of a tower whose layers read columns and rows alternately."""
        g, grid, pictures = self.g, self.model.grid, self.sequences
        assert grid is not None
        x = places(g, pictures, grid)
        rows, columns = grid.rows, grid.columns
        features: list[str] = []
        for index, layer in enumerate(tower.layers):
            assert isinstance(layer, RecurrentLayer)
            beside = g("Reshape", x, g.axes(rows, -1, layer.input_size))
            batch = g("Shape", beside, start=1, end=2)
            self.sequences = replace(pictures, batch=batch).of_steps(g, beside, rows)
            outputs = self.layer_outputs(layer, beside, True)
            top = index == len(tower.layers) - 1
            if not top:
                joined = g("Reshape", self.concatenated(outputs), g.axes(rows, columns, -1, layer.width))
                x = g("Transpose", joined, perm=[1, 0, 2, 3])
            if top or self.stack.readout_layers == "all":
                for y in outputs:
                    y = g("Reshape", y, g.axes(rows * columns, -1, layer.width // len(outputs)))
                    self.sequences = pictures.of_steps(g, y, rows * columns)
                    features.append(self.read(tower.readouts[len(features)], y, True))
            rows, columns = columns, rows
        return features

    def concatenated(self, outputs: list[str]) -> str:
        """The outputs of all directions, step by step in forward time."""
        if len(outputs) == 1:
            return outputs[0]
        return self.g("Concat", outputs[0], self.turned(outputs[1]), axis=-1)

    def layer_outputs(self, layer: RecurrentLayer, x: str, every: bool) -> list[str]:
        """The outputs of each direction (T, B, H), in the order in which it runs through time, or without
        `every` the last ones (B, H)."""
        g, outputs = self.g, []
        seen = x if layer.first else self.normed(layer.norm, x)
        for part, (name, module) in enumerate(layer.directions.items()):
            assert isinstance(module, CellModule)
            orient = self.turned if name == "backward_cell" else _unchanged
            y = self.unrolled(module, orient(seen), every)
            if self.stack.residual and not layer.first:
                width = module.cell.hidden_size
                own = orient(g("Slice", x, g.axes(part * width), g.axes((part + 1) * width), g.axes(-1)))
                y = g("Add", y, own if every else self.last_of(own))
            outputs.append(y)
        return outputs

    def turned(self, x: str) -> str:
        """The steps of each sequence back to front; its padding stays behind them."""
        return self.g("ReverseSequence", x, self.sequences.lengths, batch_axis=1, time_axis=0)

    def last_of(self, y: str) -> str:
        """The last step of each sequence, (B, …): the first one when it is turned."""
        g = self.g
        return g("Squeeze", g("Slice", self.turned(y), g.axes(0), g.axes(1), g.axes(0)), g.axes(0))

    def normed(self, norm: Norm, x: str) -> str:
        g, n = self.g, norm.norm
        if isinstance(n, nn.LayerNorm):
            return g("LayerNormalization", x, g.weight(n.weight), g.weight(n.bias), axis=-1, epsilon=n.eps)
        if isinstance(n, nn.BatchNorm1d):
            assert n.running_var is not None
            assert n.running_mean is not None
            scale = n.weight / (n.running_var + n.eps).sqrt()
            return g("Add", g("Mul", x, g.weight(scale)), g.weight(n.bias - n.running_mean * scale))
        return x

    # one cell along time

    def unrolled(self, module: CellModule, x: str, every: bool) -> str:
        if module in self.steps:
            return self.scanned(module, x, every)
        g, operator = self.g, self.operators[module]
        lengths = g("Cast", self.sequences.lengths, to=INT32)
        weights = [g.constant(weight, np.float32) for weight in operator.weights]
        size = module.cell.hidden_size
        y = g(operator.name, x, *weights, lengths, hidden_size=size, **operator.attributes)
        y = g("Squeeze", y, g.axes(1))
        # not the operator's final state: OpenVINO 2026.4 returns wrong ones where lengths differ
        return y if every else self.last_of(y)

    def scanned(self, module: CellModule, x: str, every: bool) -> str:
        """A Scan whose body is the step of the cell.

        Nobody sees what a cell makes of padding, so states go on through it; the last output alone is held.
        """
        g, (inputs, step) = self.g, self.pieces[module]
        [z] = g.insert(inputs, [x])
        state = as_real(self.steps[module].like)
        start = [self.start_of(part) for part in state]
        body = Graph(f"{g.name('step')}/")
        names = [f"state_{i}" for i in range(len(state))]
        y, *after = body.insert(step, ["z", *names])
        taken: list[tuple[str, int, Shape]] = [("z", FLOAT, ["batch", _width(module)])]
        shapes = [list(part.shape[1:]) for part in state]
        scanned = [z]
        if not every:
            if self.sequences.ragged:
                taken.append(("valid", BOOL, ["batch", 1]))
                scanned.append(g("Unsqueeze", self.sequences.valid_TB(g), g.axes(2)))
                y = body("Where", "valid", y, "last")
            start.append(self.start_of(torch.zeros(1, module.cell.hidden_size)))
            names, after, shapes = [*names, "last"], [*after, y], [*shapes, [module.cell.hidden_size]]
        results = [(f"{name}_next", shape) for name, shape in zip(names, shapes, strict=True)]
        values = list(after)
        if every:
            results.append(("y", [module.cell.hidden_size]))
            values.append(y)
        for (name, _), result in zip(results, values, strict=True):
            body.called(name, result)
        graph = body.built(
            "step",
            [
                *(value(n, FLOAT, ["batch", *s]) for n, s in zip(names, shapes, strict=True)),
                *(value(*t) for t in taken),
            ],
            [value(name, FLOAT, ["batch", *shape]) for name, shape in results],
        )
        return g.several("Scan", len(results), *start, *scanned, body=graph, num_scan_inputs=len(scanned))[-1]

    def start_of(self, part: Tensor) -> str:
        """One row of a state, for each sequence of the batch."""
        return self.g("Expand", self.g.weight(part), self.sequences.of_batch(self.g, *part.shape[1:]))

    # readouts

    def read(self, weights: nn.Module, y: str, every: bool) -> str:
        g, kind = self.g, self.stack.readout
        if kind == "last":
            return self.last_of(y) if every else y
        if kind == "max":
            return g("ReduceMax", self.filled(y, -np.inf), g.axes(0), keepdims=0)
        if kind == "mean":
            count = g("Unsqueeze", g("Cast", self.sequences.lengths, to=FLOAT), g.axes(1))
            return g("Div", g("ReduceSum", self.filled(y, 0), g.axes(0), keepdims=0), count)
        assert isinstance(weights, Weights)
        p = weights.weights()
        hidden = g("Tanh", g("Add", g("MatMul", y, g.weight(p.weight.t())), g.weight(p.bias)))
        score = g("MatMul", hidden, g.weight(p.vector.unsqueeze(-1)))
        share = g("Softmax", self.filled(score, -np.inf), axis=0)
        return g("ReduceSum", g("Mul", share, self.filled(y, 0)), g.axes(0), keepdims=0)

    def filled(self, y: str, number: float) -> str:
        """y (T, B, …) with this number after the end of each sequence."""
        if not self.sequences.ragged:
            return y
        valid = self.g("Unsqueeze", self.sequences.valid_TB(self.g), self.g.axes(2))
        return self.g("Where", valid, y, self.g.number(number))


def functions_of(module: CellModule, step: CellStep) -> list[Function]:
    """The two functions of a cell that torch traces, with examples of their arguments."""
    inputs, x = CellInputs(module), torch.zeros(2, module.input_size)
    state = as_real(module.cell.initial_state(x))
    with torch.no_grad():
        z = inputs(x)
    return [Function(inputs, (torch.zeros(3, 2, module.input_size),), (0, 1)), Function(step, (z, *state))]


def _width(module: CellModule) -> int:
    """Z, the width of what `inputs` makes."""
    with torch.no_grad():
        return int(module.cell.inputs(module.prepared(), torch.zeros(1, module.input_size)).shape[-1])


def _unchanged(x: str) -> str:
    return x
