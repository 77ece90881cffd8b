"""A classifier that sees one step at a time answers as it does for all steps so far."""

from __future__ import annotations

import pytest
import torch

from rnnclf.errors import ConfigError
from rnnclf.export.prepared_step import needs_float64
from rnnclf.export.step import ClassifierStep, refuse_names
from tests.export.exporting import (
    CURVES,
    LENGTHS,
    as_read,
    classifier,
    preparation,
    since_before,
    with_gaps,
)


def assert_answers_on_the_way(model, prepared, x_BTC, lengths_B, times_BT, done_BT=None, fed_BTC=None):
    """Compares each answer with the whole pass over the steps so far; of `fed_BTC`, which has steps that are
    none, done_BT says how many count."""
    step = ClassifierStep(model, prepared)
    state = torch.zeros(len(x_BTC), step.width)
    fed = x_BTC if fed_BTC is None else fed_BTC
    elapsed = torch.ones(fed.shape[:2]) if fed_BTC is not None else since_before(times_BT)
    for t in range(fed.shape[1]):
        logits, state = step(fed[:, t].to(step.dtype), elapsed[:, t], state)
        done_B = torch.full((len(x_BTC),), t + 1) if done_BT is None else done_BT[:, t]
        going = (done_B > 0) & (done_B <= LENGTHS) & (t < lengths_B)
        if going.any():
            so_far = done_B[going]
            x = prepared(x_BTC[going], so_far, times_BT[going])
            wanted = model(x, prepared.steps_of(so_far))
            torch.testing.assert_close(logits[going], wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("readout", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize(("missing", "patch"), [("error", 1), ("mask", 1), ("error", 3), ("mask", 2)])
@pytest.mark.parametrize("curves", [(), CURVES])
def test_each_answer_is_the_one_for_the_steps_so_far(missing, patch, readout, curves):
    prepared = preparation(missing, patch=patch, timed=True, curve_C=curves)
    stack = {"layers": 2, "norm": "batch", "residual": True, "zoneout": 0.2, "readout_layers": "all"}
    model = classifier("lstm", prepared.input_size, readout=readout, **stack)
    x_BTC, times_BT = as_read(missing)
    with torch.no_grad():
        assert_answers_on_the_way(model, prepared, x_BTC, LENGTHS, times_BT)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_step_that_is_dropped_changes_neither_answer_nor_state(patch):
    prepared = preparation("drop", patch=patch)
    model = classifier("gru", prepared.input_size, readout="mean")
    x_BTC, times_BT = as_read("drop")
    fed_BTC, lengths_B = with_gaps(x_BTC)
    done_BT = (~fed_BTC.isnan().any(-1)).cumsum(1)
    with torch.no_grad():
        assert_answers_on_the_way(model, prepared, x_BTC, lengths_B, times_BT, done_BT, fed_BTC)


def test_zeros_are_the_start_also_of_a_cell_that_starts_elsewhere():
    model = classifier("slstm", 2, readout="max")
    step, x_BTI = ClassifierStep(model), torch.randn(3, 1, 2)
    assert step.start.isinf().any()
    with torch.no_grad():
        logits, _ = step(x_BTI[:, 0], torch.ones(3), torch.zeros(3, step.width))
        torch.testing.assert_close(logits, model(x_BTI))


def test_large_shifts_are_subtracted_in_float64():
    far = preparation(shift_C=(1e6, 0.0), scale_C=(1.0, 1.0))
    assert needs_float64(far)
    assert not needs_float64(preparation(shift_C=(15.0, 0.0), scale_C=(1.0, 1.0)))
    model = classifier("gru", 2)
    step = ClassifierStep(model, far)
    x_BTC = torch.randn(2, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        logits, _ = step(
            x_BTC[:, 0] + torch.tensor([1e6, 0.0]).double(), torch.ones(2), torch.zeros(2, step.width)
        )
        torch.testing.assert_close(logits, model(x_BTC.float()), rtol=1e-5, atol=1e-5)


def test_channels_of_names_are_refused_by_their_names():
    prepared = preparation(vocabulary_C=(None, ("red", "blue")))
    with pytest.raises(ConfigError, match=r"channels of names \(v\), which cannot be exported yet"):
        refuse_names(prepared)


@pytest.mark.parametrize(
    ("stack", "missing", "words"),
    [({"bidirectional": True}, "error", "train with bidirectional=false"),
     ({}, "interpolate", "train with dataset.missing=mask")],
)  # fmt: skip
def test_what_cannot_answer_step_by_step_is_refused_with_a_way_out(stack, missing, words):
    prepared = preparation(missing)
    with pytest.raises(ConfigError, match=words):
        ClassifierStep(classifier("gru", prepared.input_size, **stack), prepared)


@pytest.mark.parametrize("cell", ["lstm", "lem", "lru"])
@pytest.mark.parametrize("stack", [{"readout": "mean"}, {"layers": 2, "zoneout": 0.2}])
def test_many_steps_at_once_by_an_engine_give_what_single_steps_give(cell, stack):
    if cell == "lru" and "zoneout" in stack:
        pytest.skip("lru has no zoneout")
    model = classifier(cell, 2, **stack)
    step, by_engine, x_TC = ClassifierStep(model), ClassifierStep(model), torch.randn(45, 2)
    by_engine.use_engines()
    with torch.inference_mode():
        memories, logits = [one.beginning() for one in (step, by_engine)], []
        for one, memory in zip((step, by_engine), memories, strict=True):
            first, memory = one.advance_all(x_TC[:25], torch.ones(25), memory)
            rest, memory = one.advance_all(x_TC[25:], torch.ones(20), memory)
            logits.append(torch.cat((first, rest)))
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-5, atol=2e-5)
