"""Claim: the exported file answers as the classifier, for every cell. Inputs × 1000 find what is translated
with too few digits."""

from __future__ import annotations

import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.conformance.cells import made
from rnnclf.export.step_file import step_model
from rnnclf.export.whole import Answers, whole_model
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.export.exporting import CLASSES, assert_equal_logits, logits_of, needs_onnx

needs_onnx()
pytestmark = pytest.mark.slow

SIZES = ((1, 1), (3, 2), (3, 7), (1, 100))
BOTH_WAYS = {"layers": 2, "bidirectional": True, "norm": "batch", "residual": True, "readout": "attention"}


def model_of(name, **stack):
    torch.manual_seed(0)
    model = SequenceClassifier(made(CELLS[name]), 4, len(CLASSES), Stack(**stack)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return model


def sequences(batch, steps, scale):
    draw = torch.Generator().manual_seed(steps)
    x_BTI = torch.randn(batch, steps, 4, generator=draw) * scale
    lengths_B = torch.randint(1, steps + 1, (batch,), generator=draw)
    lengths_B[0] = steps
    x_BTI[torch.arange(steps) >= lengths_B.unsqueeze(-1)] = float("nan")
    return x_BTI, lengths_B


@pytest.mark.parametrize("stack", [{}, {**BOTH_WAYS, "readout_layers": "all"}], ids=["last", "stack"])
@pytest.mark.parametrize("name", CELLS.names())
def test_the_file_answers_as_the_classifier(name, stack):
    model = model_of(name, **stack)
    proto = whole_model(model, None, Answers(CLASSES))
    # a stack adds up what its layers round; irnn's states reach 1e5
    tolerance = CELLS[name].export_tolerance * (3 if stack else 1)
    for scale in (1, 30, 1000):
        for batch, steps in SIZES:
            x_BTI, lengths_B = sequences(batch, steps, scale)
            wanted = model(x_BTI, lengths_B)
            if not wanted.isfinite().all():  # two layers of mamba exceed float32 where inputs are 1000
                continue
            for runtime in ("onnxruntime", "reference") if scale != 30 and steps < 100 else ("onnxruntime",):
                found = logits_of(proto, {"x": x_BTI, "lengths": lengths_B}, runtime)
                assert_equal_logits(found, wanted, tolerance)


@pytest.mark.parametrize("name", CELLS.names())
def test_the_step_file_answers_as_the_classifier(name):
    import numpy as np
    import onnxruntime

    model = model_of(name, layers=2, readout="mean", norm="layer", residual=True)
    session = onnxruntime.InferenceSession(step_model(model, None, Answers(CLASSES)).SerializeToString())
    x_BTI = torch.randn(3, 20, 4)
    state = np.zeros((3, session.get_inputs()[-1].shape[1]), np.float32)
    for t in range(x_BTI.shape[1]):
        feed = {"x": x_BTI[:, t].numpy(), "state": state}
        logits, state = session.run(["logits", "state_after"], feed)
        assert_equal_logits(logits, model(x_BTI[:, : t + 1]), CELLS[name].export_tolerance)
