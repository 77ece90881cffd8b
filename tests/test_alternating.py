"""axes=alternating: layers read the columns and the rows of a grid alternately."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.data.grid import Grid, grid_of
from rnnclf.data.layout import PictureLayout
from rnnclf.diagnosis import measure
from rnnclf.errors import ConfigError
from rnnclf.export.step import ClassifierStep
from rnnclf.hydra_app import load_config
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.classifiers import BATCH, CLASSES, HIDDEN, assert_engines_agree, classifier, features_of
from tests.test_axes import plain

ROWS, COLUMNS, COLOURS = 6, 3, 2
GRIDS = {
    "rows": Grid(ROWS, COLUMNS, COLOURS),
    "pixels": Grid(ROWS * COLUMNS, COLUMNS, COLOURS, one_by_one=True),
}
each_grid = pytest.mark.parametrize("kind", GRIDS)
EVERYTHING = {
    "layers": 3,
    "bidirectional": True,
    "norm": "layer",
    "residual": True,
    "readout": "attention",
    "readout_layers": "all",
}


def alternating(name="basic", kind="pixels", **options):
    """A classifier of pictures, in float64."""
    torch.manual_seed(0)
    stack = Stack(axes="alternating", **{"layers": 2, "readout": "max", "engine": "loop", **options})
    grid = GRIDS[kind]
    model = SequenceClassifier(CELLS[name](hidden_size=HIDDEN), grid.input_size, CLASSES, stack, grid=grid)
    return model.double()


def pictures(batch=BATCH):
    return torch.randn(batch, COLOURS, ROWS, COLUMNS, dtype=torch.float64)


def sequences(x_BCHW, kind="pixels"):
    return PictureLayout(ROWS, COLUMNS, COLOURS, kind).sequences(x_BCHW)


# The classifier


def scanned(weights, lines_LTI):
    """The states of a layer of basic cells that reads each line from its start."""
    states = np.zeros((*lines_LTI.shape[:2], HIDDEN))
    for line, x_TI in enumerate(lines_LTI):
        h_H = np.zeros(HIDDEN)
        for t, x_I in enumerate(x_TI):
            h_H = np.tanh(weights["input_weight"] @ x_I + weights["recurrent_weight"] @ h_H + weights["bias"])
            states[line, t] = h_H
    return states


def both_ways(layer, lines_LTI):
    """The states of a layer in both directions at each step, (L, T, 2 H)."""
    forward, backward = (
        {name: w.detach().numpy() for name, w in layer.directions[f"{way}_cell"].named_parameters()}
        for way in ("forward", "backward")
    )
    from_the_end = scanned(backward, lines_LTI[:, ::-1])[:, ::-1]
    return np.concatenate([scanned(forward, lines_LTI), from_the_end], axis=-1)


@each_grid
def test_three_layers_of_basic_cells_restated(kind):
    model, x_BCHW = alternating(kind=kind, layers=3, bidirectional=True), pictures()
    found_BD = features_of(model, sequences(x_BCHW, kind)).detach().numpy()
    for x_HWC, features_D in zip(x_BCHW.permute(0, 2, 3, 1).numpy(), found_BD, strict=True):
        columns_WHD = both_ways(model.layers[0], x_HWC.transpose(1, 0, 2))
        rows_HWD = both_ways(model.layers[1], columns_WHD.transpose(1, 0, 2))
        columns_WHD = both_ways(model.layers[2], rows_HWD.transpose(1, 0, 2))
        np.testing.assert_allclose(features_D, columns_WHD.max((0, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS.names())
def test_rows_and_pixels_are_the_same_to_every_cell(name):
    x_BCHW, found = pictures(), []
    for kind in GRIDS:
        model = alternating(name, kind, **EVERYTHING).eval()
        found.append(model(sequences(x_BCHW, kind)))
    assert found[0].std() > 0
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS.names())
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(name):
    model, x_BCHW = alternating(name, **EVERYTHING).eval(), pictures()
    alone = torch.cat([model(sequences(x_CHW[None])) for x_CHW in x_BCHW])
    torch.testing.assert_close(model(sequences(x_BCHW)), alone, rtol=0, atol=1e-9)


def test_the_second_layer_sees_the_whole_picture():
    model, x_BCHW = alternating(bidirectional=True, readout="mean"), pictures(1).requires_grad_()
    seen = []
    model.layers[1].register_forward_hook(lambda layer, args, outputs: seen.append(outputs[0]))
    model(sequences(x_BCHW))
    seen[0][-1, ROWS - 1].sum().backward()  # the last place of the bottom row, read forward
    assert (x_BCHW.grad != 0).all()


@pytest.mark.parametrize("name", ["basic", "gru", "mingru", "s4d"])  # one of each kind of engine
def test_all_engines_agree(name):
    def made(engine):
        return alternating(name, bidirectional=True, engine=engine)

    assert_engines_agree(name, made, sequences(pictures()))


def test_parameters_are_those_of_places():
    model = alternating("gru", bidirectional=True)
    cell = CELLS["gru"](hidden_size=HIDDEN)
    layers = sum(eval(cell.formula, {}, {**vars(cell), "n": n, "h": HIDDEN}) for n in (COLOURS, 2 * HIDDEN))
    assert model.parameter_count() == 2 * layers + 2 * HIDDEN * CLASSES + CLASSES


def test_gradients_of_the_diagnosis_are_means_over_pictures():
    x_BTI, y_B = sequences(pictures()), torch.arange(BATCH) % CLASSES

    def gradients(x_BTI, y_B):
        figures = measure(alternating("gru", bidirectional=True), x_BTI, y_B, None, functional.cross_entropy)
        return {(f.layer, f.direction, f.step): f.value for f in figures if f.quantity == "gradient"}

    alone = [gradients(x_BTI[b : b + 1], y_B[b : b + 1]) for b in range(BATCH)]
    together = gradients(x_BTI, y_B)
    assert {step for layer, _, step in together if layer == 1} == set(range(1, ROWS + 1))
    assert {step for layer, _, step in together if layer == 2} == set(range(1, COLUMNS + 1))
    for key, value in together.items():
        assert value == pytest.approx(np.mean([each[key] for each in alone]), rel=1e-6), key


# What a place is


def test_patches_are_the_squares_of_a_picture():
    layout = PictureLayout(4, 6, 3, "patches", 2)
    grid = grid_of("alternating", 6, plain(12), layout)
    assert grid == Grid(6, 3, 12, one_by_one=True)
    assert (grid.rows, grid.columns, grid.place_size) == (2, 3, 12)
    x_BCHW = torch.randn(2, 3, 4, 6)
    places_RPBF = grid.places(layout.sequences(x_BCHW).transpose(0, 1))
    square_BHWC = x_BCHW.permute(0, 2, 3, 1)[:, 2:4, 4:6]
    assert torch.equal(places_RPBF[1, 2], square_BHWC.flatten(1))


def test_a_place_of_a_series_is_all_that_is_known_of_a_channel_at_a_step():
    prepared, x_BTC = plain(4, missing="mask"), torch.randn(2, 6, 4)
    x_BTC[:, 5, 2] = torch.nan
    grid = grid_of("alternating", 6, prepared, None)
    places = grid.places(prepared(x_BTC, torch.full((2,), 6), None).transpose(0, 1))
    assert places.shape == (6, 4, 2, 3)
    assert torch.equal(places[4, 2, :, 0], x_BTC[:, 4, 2])
    assert places[:, :, 0, 1].tolist() == [[1, 1, float(t != 5), 1] for t in range(6)]


# What cannot be

LAYERS = ["axes=alternating", "layers=2", "readout=max", "dataset=digits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["readout=last"], "use readout=max, mean or attention"),
        (["layers=1"], "use layers=2 or more"),
        (["dataset.sequence=pixels", "dataset.permutation=bitrev"], "dataset.permutation=bitrev leaves none"),
        (["augment=series", "augment.crop=0.9"], "use augment.crop=1"),
    ],
)
def test_words_that_do_not_go_with_alternating_axes_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load_config([*LAYERS, *words])


@pytest.mark.parametrize("words", [[], ["dataset.sequence=pixels"], ["dataset.sequence=patches"]])
def test_rows_pixels_and_patches_can_be_read(words):
    assert load_config([*LAYERS, *words]).axes == "alternating"


def test_step_by_step_it_cannot_answer():
    with pytest.raises(ConfigError, match="axes=alternating also reads a sequence across its steps"):
        ClassifierStep(classifier("gru", axes="alternating", layers=2, readout="max").eval())


def test_it_needs_a_grid_of_its_features():
    grid = replace(GRIDS["pixels"], values=3)
    with pytest.raises(ValueError, match="The grid has 3 features per step, the model 2"):
        SequenceClassifier(CELLS["gru"](hidden_size=3), 2, 2, alternating().stack, grid=grid)
    with pytest.raises(ConfigError, match="axes=alternating needs sequences of numbers"):
        SequenceClassifier(CELLS["gru"](hidden_size=3), 2, 2, alternating().stack)
