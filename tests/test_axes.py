"""axes=both: a second tower of layers reads sequences across their steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.data.grid import Grid, grid_of
from rnnclf.data.layout import PictureLayout
from rnnclf.data.preparation import Preparation
from rnnclf.errors import ConfigError, DataError
from rnnclf.export.step import ClassifierStep
from rnnclf.hydra_app import load_config
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.classifiers import (
    BATCH,
    CLASSES,
    HIDDEN,
    INPUT,
    STEPS,
    assert_engines_agree,
    classifier,
    random_input,
)

EVERYTHING = {"layers": 2, "bidirectional": True, "norm": "layer", "residual": True, "readout": "attention"}


# The classifier


def restated(weights, x_TI):
    """The last state of a layer of basic cells."""
    h_H = np.zeros(HIDDEN)
    for x_I in x_TI:
        z_H = weights["input_weight"] @ x_I + weights["recurrent_weight"] @ h_H + weights["bias"]
        h_H = np.tanh(z_H)
    return h_H


def test_two_towers_of_basic_cells_restated():
    model, x_BTI = classifier("basic", axes="both"), random_input()
    towers = [
        {name: w.detach().numpy() for name, w in layers[0].directions["forward_cell"].named_parameters()}
        for layers in (model.layers, model.across_layers)
    ]
    head, bias = (w.detach().numpy() for w in (model.head.weight, model.head.bias))
    for x_TI, logits_K in zip(x_BTI.numpy(), model(x_BTI).detach().numpy(), strict=True):
        seen = np.concatenate([restated(towers[0], x_TI), restated(towers[1], x_TI.T)])
        np.testing.assert_allclose(logits_K, head @ seen + bias, rtol=0, atol=1e-12)


def with_towers_swapped(model, **options):
    """The model that reads across what this one reads along, and the other way round."""
    grid = Grid(INPUT, STEPS)
    stack = Stack(axes="both", engine="loop", **options)
    cell = model.layers[0].directions["forward_cell"].cell
    swapped = SequenceClassifier(cell, STEPS, CLASSES, stack, grid=grid).to(model.head.weight.dtype)
    weights = {}
    for name, weight in model.state_dict().items():
        other = name.removeprefix("across_") if name.startswith("across_") else f"across_{name}"
        weights[name if name.startswith("head") else other] = weight
        if name in ("head.weight", "head_norm.norm.weight", "head_norm.norm.bias"):
            weights[name] = torch.cat(weight.chunk(2, dim=-1)[::-1], dim=-1)
    swapped.load_state_dict(weights)
    return swapped.eval()


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", CELLS.names())
def test_the_transposed_sequence_is_the_same_to_swapped_towers(name, options):
    model = classifier(name, axes="both", engine="loop", **options).eval()
    swapped, x_BTI = with_towers_swapped(model, **options), random_input()
    torch.testing.assert_close(swapped(x_BTI.transpose(1, 2)), model(x_BTI), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["basic", "gru", "mingru", "s4d"])  # one of each kind of engine
def test_all_engines_agree_along_both_axes(name):
    def made(engine):
        return classifier(name, axes="both", engine=engine, readout="mean", layers=2)

    assert_engines_agree(name, made, random_input())


def test_gradients_of_both_towers_are_those_of_differences():
    options = {"layers": 2, "bidirectional": True, "readout": "attention"}
    model = classifier("gru", axes="both", engine="loop", **options)
    weights = dict(model.named_parameters())
    names = [name for name in weights if "input_weight" in name or name == "head.weight"]

    def loss(x_BTI, *values):
        return (
            torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x_BTI,)).square().sum()
        )

    inputs = [weights[name].detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, (random_input()[:2].requires_grad_(), *inputs), fast_mode=True)


@pytest.mark.parametrize("name", CELLS.names())
def test_the_layers_that_read_the_steps_are_drawn_as_without_the_others(name):
    models = []
    for axes in ("steps", "both"):
        torch.manual_seed(0)
        cell, stack = CELLS[name](hidden_size=HIDDEN), Stack(axes=axes, readout="attention", layers=2)
        models.append(SequenceClassifier(cell, INPUT, CLASSES, stack, grid=Grid(STEPS, INPUT)).state_dict())
    for key in models[0]:
        if not key.startswith("head"):
            assert torch.equal(models[0][key], models[1][key]), key


def test_parameters_are_those_of_both_towers():
    model = classifier("gru", axes="both", bidirectional=True)
    cell = CELLS["gru"](hidden_size=HIDDEN)
    towers = sum(eval(cell.formula, {}, {**vars(cell), "n": n, "h": HIDDEN}) for n in (INPUT, STEPS))
    assert model.parameter_count() == 2 * towers + 4 * HIDDEN * CLASSES + CLASSES


def test_dropout_acts_in_both_towers():
    model, x_BTI = classifier("basic", axes="both", layers=2, dropout=0.5), random_input()
    for layers in (model.layers, model.across_layers):
        seen = []
        layers[1]._unrolled = lambda module, x_TBI, plan, seen=seen: seen.append(x_TBI) or x_TBI[-1]
        model.train()(x_BTI)
        assert (seen[-1] == 0).any()


# What a column is


def test_a_picture_in_rows_read_across_is_the_picture_in_columns():
    rows, columns = (PictureLayout(4, 6, 3, sequence) for sequence in ("rows", "columns"))
    x_BCHW = torch.randn(2, 3, 4, 6)
    grid = grid_of("both", 4, plain(18), rows)
    assert grid == Grid(4, 6, values=3)
    across_TBI = grid.across(rows.sequences(x_BCHW).transpose(0, 1))
    assert torch.equal(across_TBI.transpose(0, 1), columns.sequences(x_BCHW))


def plain(channels, **more):
    names = tuple(map(str, range(channels)))
    usual = {"missing": "error", "shift_C": (0.0,) * channels, "scale_C": (1.0,) * channels}
    return Preparation(channels=names, **{**usual, **more})


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("missing", ["error", "mask", "interpolate"])
def test_a_column_is_all_that_is_known_of_a_channel(missing, patch):
    prepared, lengths_B = plain(4, missing=missing, patch=patch), torch.full((2,), 6)
    x_BTC = torch.randn(2, 6, 4)
    grid = grid_of("both", int(prepared.steps_of(6)), prepared, None)
    assert (grid.input_size, grid.columns) == (prepared.input_size, 4)

    def columns_of(x_BTC):
        return grid.across(prepared(x_BTC, lengths_B, None).transpose(0, 1))

    changed = x_BTC.clone()
    changed[:, :, 2] += 1
    if missing == "mask":
        changed[:, 4:, 2] = torch.nan
    before, after = columns_of(x_BTC), columns_of(changed)
    assert before.shape == (4, 2, grid.column_size)
    assert [torch.equal(*both) for both in zip(before, after, strict=True)] == [True, True, False, True]


# What cannot be


@pytest.mark.parametrize(
    ("steps", "prepared", "message"),
    [
        (None, plain(2), "all must have the same number of steps, and these differ"),
        (6, plain(2, missing="drop"), "dataset.missing=drop leaves out those that miss a value"),
        (6, plain(2, vocabulary_C=(None, ("a", "b"))), "channel '1' holds names"),
    ],
)
def test_data_without_columns_are_refused(steps, prepared, message):
    with pytest.raises(ConfigError, match=message):
        grid_of("both", steps, prepared, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=digits", "dataset.sequence=pixels"], "it needs dataset.sequence=rows, got pixels"),
        (["dataset=digits", "dataset.sequence=patches"], "it needs dataset.sequence=rows, got patches"),
        (["dataset=digits", "augment=series", "augment.crop=0.9"], "use augment.crop=1"),
    ],
)
def test_words_that_do_not_go_with_both_axes_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load_config([*words, "axes=both"])
    load_config(words)


def test_sequences_of_another_length_are_refused():
    model = classifier("basic", axes="both")
    with pytest.raises(DataError, match=rf"sequences of {STEPS} steps, and can read no others; got 4 steps"):
        model(random_input(4))
    x_BTI = random_input()
    with pytest.raises(DataError, match="got 2 steps"):
        model(x_BTI, torch.tensor([STEPS, 2, STEPS, 3]))
    assert torch.equal(model(x_BTI, torch.full((BATCH,), STEPS)), model(x_BTI))


def test_a_classifier_without_a_grid_or_with_names_is_refused():
    cell = CELLS["basic"](hidden_size=HIDDEN)
    with pytest.raises(ConfigError, match="axes=both needs sequences of numbers"):
        SequenceClassifier(cell, INPUT, CLASSES, Stack(axes="both"))


def test_step_by_step_it_cannot_answer():
    with pytest.raises(ConfigError, match="cannot answer step by step: train with axes=steps"):
        ClassifierStep(classifier("gru", axes="both").eval())


def test_a_frozen_classifier_keeps_both_towers():
    model, x_BTI = classifier("gru", axes="both", norm="batch", layers=2, dropout=0.5), random_input()
    model.freeze()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()(x_BTI).sum().backward()
    trained = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert trained
    assert all(name.startswith("head") for name in trained)
    after = model.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in before if not n.startswith("head"))


def test_the_grid_must_be_that_of_the_features():
    cell = CELLS["basic"](hidden_size=HIDDEN)
    with pytest.raises(ValueError, match="The grid has 4 features per step, the model 3"):
        SequenceClassifier(
            cell, INPUT, CLASSES, Stack(axes="both"), grid=replace(Grid(STEPS, INPUT), columns=4)
        )
