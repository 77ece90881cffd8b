"""A recorded step is the plain one, bit for bit."""

import math
from dataclasses import replace

import pytest
import torch

from rnnclf.errors import ConfigError
from rnnclf.optim import SGD, Adam, AdamW, Constant
from rnnclf.training import cuda_graph
from rnnclf.training.state import Training
from tests.training.small import (
    assert_equal,
    broken_at,
    classifier,
    looking,
    outcome,
    recipe,
    sequences,
    trained,
)

# A recorded step


class Halving(Constant):
    """Rates that float32 holds exactly, another one at each step."""

    def factor(self, step, total):
        return 2.0 ** -(step % 3)


def recording(monkeypatch):
    """Has steps recorded on a CPU: what a graph does to memory, Python does. Returns how often that was."""
    made = []

    def warm_up(step):
        for _ in range(cuda_graph.WARM_UP):
            step()

    def capture(step):
        result = torch.full((3,), math.nan)  # recording computes nothing
        made.append("recorded")

        def replay():
            made.append("replayed")
            result.copy_(step())

        return replay, result

    monkeypatch.setattr(cuda_graph, "_warm_up", warm_up)
    monkeypatch.setattr(cuda_graph, "_capture", capture)
    looking(7, monkeypatch)
    return made


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [Adam(lr=2**-7), AdamW(lr=2**-7), SGD(lr=2**-4)])
@pytest.mark.parametrize(
    "options", [{"engine": "fused"}, {"name": "gru", "layers": 2, "dropout": 0.3, "norm": "batch"}]
)
def test_recorded_steps_equal_plain_ones_bit_for_bit(optimizer, options, monkeypatch):
    data = sequences(90)
    plain = recipe(optimizer=optimizer, schedule=Halving(), clip=0.5)
    expected = outcome(plain, data, options)
    made = recording(monkeypatch)
    assert_equal(outcome(replace(plain, graph=True), data, options), expected)
    assert made == ["recorded"] + ["replayed"] * 3 * 11  # the last batch of an epoch is smaller


def test_after_going_back_a_step_is_recorded_anew(monkeypatch):
    data = broken_at(17)
    plain = recipe(optimizer=SGD(lr=2**-4), schedule=Halving(), on_divergence="rollback")
    expected = outcome(plain, data, {"engine": "fused"})
    made = recording(monkeypatch)
    assert_equal(outcome(replace(plain, graph=True), data, {"engine": "fused"}), expected)
    assert made.count("recorded") > 5


def test_batches_of_several_lengths_or_another_length_are_made_as_usual(monkeypatch):
    data = sequences(90, ragged=True)
    plain = recipe(schedule=Halving(), optimizer=Adam(lr=2**-7))
    layer_norm = {"norm": "layer"}  # with which no step is a whole step in machine code
    expected = outcome(plain, data, layer_norm)
    made = recording(monkeypatch)
    shapes = []
    real = cuda_graph.CapturedStep.__call__

    def note(step, batch):
        shapes.append((batch.lengths_B, batch.x_BTI.shape))
        return real(step, batch)

    monkeypatch.setattr(cuda_graph.CapturedStep, "__call__", note)
    assert_equal(outcome(replace(plain, graph=True), data, layer_norm), expected)
    assert 1 < len(shapes) < 33
    assert len(set(shapes)) == made.count("recorded") == 1
    assert shapes[0][0] is None


def test_what_cannot_be_recorded_is_said(monkeypatch):
    recording(monkeypatch)

    def capture(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graph, "_capture", capture)
    with pytest.raises(ConfigError, match=r"use graph=false. \(operation not permitted .* capturing\)"):
        trained(Training(classifier(), recipe(graph=True)))
