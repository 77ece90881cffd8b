"""One step of a classifier as an ONNX graph.  Shapes: B batch, C channels as read, S numbers in a state."""

from __future__ import annotations

from typing import Any

import torch

from rnnclf.data.preparation import Preparation
from rnnclf.export.graph import FLOAT, Graph, model_of, value
from rnnclf.export.preparing import as_read, type_of_x
from rnnclf.export.step import ClassifierStep
from rnnclf.export.tracing import Function, traced
from rnnclf.export.whole import Answers
from rnnclf.model import SequenceClassifier


def step_model(model: SequenceClassifier, preparation: Preparation | None, answers: Answers) -> Any:
    """The ONNX model: x (B, C), state (B, S), `elapsed` (B) if the preparation uses times → probabilities and
    logits (B, K), the state after the step (B, S). Zeros are the state before the first step.

    Raises ConfigError for a classifier that cannot answer step by step, or that torch cannot trace.
    """
    step = ClassifierStep(model, preparation).eval()
    examples = (torch.zeros(2, step.channels, dtype=step.dtype), torch.ones(2), torch.zeros(2, step.width))
    g = Graph()
    [piece] = traced([Function(step, examples)])
    timed = preparation is not None and preparation.fills_gaps and preparation.timed
    if not timed and any(piece.inputs[1] in node.input for node in piece.nodes):
        elapsed = g("Expand", g.number(1), g("Shape", "x", start=0, end=1))
    else:
        elapsed = "elapsed"
    logits, after = g.insert(piece, ["x", elapsed, "state"])
    outputs = answers.write(g, logits)
    g.called("state_after", after)
    inputs = [value("x", type_of_x(preparation), ["batch", step.channels], as_read(preparation))]
    if timed:
        inputs.append(value("elapsed", FLOAT, ["batch"], "time since the step before"))
    meaning = "zeros before the first step, then state_after of the step before"
    inputs.append(value("state", FLOAT, ["batch", step.width], meaning))
    outputs.append(value("state_after", FLOAT, ["batch", step.width]))
    return model_of(g.built("rnnclf_step", inputs, outputs))
