"""Graphs of whole sequences, without what torch traces: ONNX's own operators take the place of the cell."""

from __future__ import annotations

import pytest
import torch

from rnnclf.data.grid import Grid, grid_of
from rnnclf.export.graph import IR, OPSET
from rnnclf.export.whole import Answers, whole_model
from tests.export.exporting import (
    CLASSES,
    CURVES,
    LENGTHS,
    as_read,
    assert_equal_logits,
    classifier,
    logits_of,
    needs_onnx,
    preparation,
    since_before,
    with_gaps,
)

needs_onnx()


def built(model, prepared=None, **options):
    return whole_model(model, prepared, Answers(CLASSES), own_operators=True, **options)


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


STACKS = [
    ("basic", {"readout": "last"}),
    ("irnn", {"readout": "mean", "layers": 2, "norm": "layer"}),
    ("lstm", {"readout": "attention", "layers": 2, "bidirectional": True, "norm": "batch", "residual": True}),
    ("gru", {"readout": "max", "layers": 2, "bidirectional": True, "readout_layers": "all"}),
    ("gru", {"readout": "last", "layers": 2, "bidirectional": True, "readout_layers": "all"}),
]


@pytest.mark.parametrize(("cell", "stack"), STACKS)
def test_a_stack_around_the_operators_answers_as_the_classifier(cell, stack):
    model = classifier(cell, 2, **stack)
    x_BTC, _ = as_read("error")
    found = logits_of(built(model), {"x": x_BTC, "lengths": LENGTHS})
    assert_equal_logits(found, model(x_BTC.nan_to_num(), LENGTHS))


def test_sequences_of_one_length_need_no_lengths():
    model = classifier("gru", 2, bidirectional=True)
    proto = built(model, ragged=False)
    x_BTC = torch.randn(3, 6, 2)
    assert [port.name for port in proto.graph.input] == ["x"]
    assert_equal_logits(logits_of(proto, {"x": x_BTC}), model(x_BTC))


@pytest.mark.parametrize("preparing", [("error", 1), ("mask", 1), ("interpolate", 3)])
@pytest.mark.parametrize(("cell", "stack"), STACKS)
def test_both_axes_are_in_the_graph(cell, stack, preparing):
    missing, patch = preparing
    prepared, lengths_B = preparation(missing, patch=patch), torch.full_like(LENGTHS, 7)
    grid = grid_of("both", int(prepared.steps_of(7)), prepared, None)
    model = classifier(cell, prepared.input_size, grid=grid, axes="both", **stack)
    x_BTC, _ = as_read(missing)
    x_BTC = x_BTC.nan_to_num() if missing == "error" else x_BTC
    proto = built(model, prepared, ragged=False)
    assert_equal_logits(logits_of(proto, {"x": x_BTC}), model(prepared(x_BTC, lengths_B, None)))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(("cell", "stack"), [each for each in STACKS if each[1]["readout"] != "last"])
def test_alternating_axes_are_in_the_graph(cell, stack, one_by_one):
    grid = Grid(12, 4, 2, one_by_one=True) if one_by_one else Grid(3, 4, 2)
    model = classifier(cell, grid.input_size, grid=grid, axes="alternating", **stack)
    x_BTI = torch.randn(3, grid.steps, grid.input_size)
    assert_equal_logits(logits_of(built(model, ragged=False), {"x": x_BTI}), model(x_BTI))


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("missing", ["error", "mask", "interpolate", "drop"])
@pytest.mark.parametrize("curves", [(), CURVES])
def test_the_preparation_is_in_the_graph(missing, patch, timed, curves):
    prepared = preparation(missing, patch=patch, timed=timed, curve_C=curves)
    model = classifier("gru", prepared.input_size, bidirectional=True)
    x_BTC, times_BT = as_read(missing)
    wanted = model(prepared(x_BTC, LENGTHS, times_BT if timed else None), prepared.steps_of(LENGTHS))
    proto = built(model, prepared)
    x, lengths = with_gaps(x_BTC) if missing == "drop" else (x_BTC, LENGTHS)
    feed = {"x": x, "lengths": lengths, "elapsed": since_before(times_BT)}
    assert ("elapsed" in {port.name for port in proto.graph.input}) == (timed and prepared.fills_gaps)
    assert_equal_logits(logits_of(proto, feed), wanted)


def test_a_sequence_without_one_complete_step_has_no_answer():
    prepared = preparation("drop")
    model = classifier("gru", 2)
    x = torch.tensor([[[1.0, float("nan")]] * 3, [[1.0, 2.0]] * 3])
    found = torch.from_numpy(logits_of(built(model, prepared), {"x": x, "lengths": [3, 3]}))
    assert found.isnan().any(1).tolist() == [True, False]


def test_values_far_from_0_are_taken_in_float64():
    prepared = preparation(shift_C=(1e6, 0.0), scale_C=(1.0, 1.0))
    model = classifier("gru", 2)
    x_BTC = torch.randn(4, 7, 2, dtype=torch.float64)
    proto = built(model, prepared)
    found = logits_of(proto, {"x": x_BTC + torch.tensor([1e6, 0.0]).double(), "lengths": LENGTHS})
    assert_equal_logits(found, model(x_BTC.float(), LENGTHS))


def test_a_file_is_of_the_versions_that_runtimes_know_and_uses_no_final_state():
    proto = built(classifier("lstm", 2, bidirectional=True, layers=2), preparation("interpolate"))
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", OPSET)]
    assert proto.ir_version == IR
    for node in nodes(proto.graph):
        if node.op_type in ("LSTM", "GRU", "RNN"):
            assert len(node.output) == 1  # Y, the outputs of all steps


def test_no_name_inside_a_body_is_also_outside():
    proto = built(classifier("gru", 6), preparation("mask"))
    outer = {name for node in proto.graph.node for name in node.output}
    outer |= {port.name for port in proto.graph.input} | {weight.name for weight in proto.graph.initializer}
    bodies = [a.g for node in proto.graph.node for a in node.attribute if a.HasField("g")]
    assert bodies
    for body in bodies:
        inner = {name for node in body.node for name in node.output} | {port.name for port in body.input}
        assert not outer & inner


def test_temperature_changes_probabilities_and_not_logits():
    import numpy as np
    import onnxruntime

    model, x = classifier("gru", 2), np.ones((1, 4, 2), np.float32)
    found = {}
    for temperature in (1.0, 2.0):
        answers = Answers(CLASSES, temperature, labels=True)
        proto = whole_model(model, None, answers, ragged=False, own_operators=True)
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        found[temperature] = session.run(["logits", "probabilities", "label"], {"x": x})
    assert (found[1.0][0] == found[2.0][0]).all()
    for temperature, (logits, probabilities, label) in found.items():
        wanted = torch.from_numpy(logits / temperature).softmax(-1).numpy()
        np.testing.assert_allclose(probabilities, wanted, rtol=1e-6)
        assert label.tolist() == [CLASSES[logits[0].argmax()]]
