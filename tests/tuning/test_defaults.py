"""What is searched without a word about it: points that compose, for every cell and optimizer."""

from __future__ import annotations

from functools import cache

import pytest

from rnnclf.cells import CELLS
from rnnclf.hydra_app import load_config
from rnnclf.optim import OPTIMIZERS
from rnnclf.tuning.defaults import MOST, OF_CELLS, default_space, starting_point
from rnnclf.tuning.proposing import propose
from rnnclf.tuning.space import Choice, Real, Whole, edge_points, point_from_plain, words


@cache
def composed(*typed):
    return load_config(["dataset=digits", *typed]).to_plain()


def changed(typed, point):
    return load_config(["dataset=digits", *typed, *words(point)]).to_plain()


@pytest.mark.long
@pytest.mark.parametrize("cell", CELLS.names())
def test_each_point_of_the_default_space_of_a_cell_composes(cell):
    typed = (f"cell={cell}",)
    space = default_space(composed(*typed), ["cell"])
    assert 4 <= len(space) <= MOST
    points = [*edge_points(space), propose(space, [], "random", 0)]
    for point in points:
        plain = changed(typed, point)
        assert plain["hidden"] == plain["cell"]["hidden_size"] == point["hidden"]
        assert plain["optimizer"]["lr"] == point["optimizer.lr"]


@pytest.mark.parametrize("cell", CELLS.names())
def test_the_defaults_of_a_cell_are_among_what_is_searched(cell):
    plain = CELLS[cell]().__dict__ | {"name": cell}
    for key, dimension in OF_CELLS.get(cell, {}).items():
        assert plain[key.removeprefix("cell.")] in dimension, key


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_the_usual_rate_of_an_optimizer_is_among_those_searched(optimizer):
    plain = composed(f"optimizer={optimizer}")
    space = default_space(plain, ["optimizer"])
    assert plain["optimizer"]["lr"] in space["optimizer.lr"]
    assert space["optimizer.lr"].high == pytest.approx(100 * space["optimizer.lr"].low)
    assert ("optimizer.weight_decay" in space) == (optimizer == "adamw")


def test_keys_that_the_user_named_are_left_to_the_user():
    plain = composed("cell=lstm")
    everything = default_space(plain)
    for key in everything:
        assert key not in default_space(plain, [key])
        assert key not in default_space(plain, searched={key: Whole(1, 2)})
    assert "hidden" not in default_space(plain, ["cell.hidden_size"])
    assert "hidden" not in default_space(plain, ["match_parameters"])
    assert default_space(plain, [*everything]) == {}


def test_the_dimensions_of_the_user_count_too():
    plain = composed("cell=cornn")
    own = {"clip": Real(0.1, 10.0), "label_smoothing": Real(0.0, 0.2)}
    assert len(default_space(plain)) == MOST
    assert list(default_space(plain, searched=own)) == list(default_space(plain))[: MOST - 2]
    assert default_space(plain, searched={str(n): Whole(0, 1) for n in range(MOST + 1)}) == {}


def test_what_is_searched_fits_all_cells_and_optimizers_that_are():
    searched = {"cell": Choice(("cornn", "slstm")), "optimizer": Choice(("adam", "sgd"))}
    space = default_space(composed("cell=cornn"), searched=searched)
    assert not [key for key in space if key.startswith("cell.")]
    assert space["optimizer.lr"] == Real(1e-4, 0.5, log=True)


@pytest.mark.parametrize(
    ("cell", "sizes"),
    [
        (("cell=slstm", "cell.heads=3", "hidden=150"), Whole(18, 255, step=3)),
        (("cell=slstm", "cell.heads=300", "hidden=300"), Whole(300, 600, step=300)),
        (("cell=rglru", "cell.gate_blocks=4", "hidden=64"), Whole(16, 256, step=4)),
        (("cell=lstm",), Whole(16, 256, log=True)),
    ],
)
def test_hidden_is_a_multiple_of_what_the_cell_needs(cell, sizes):
    assert default_space(composed(*cell))["hidden"] == sizes


def test_epochs_are_never_searched_nor_the_batch_where_they_follow_from_it():
    assert "batch_size" in default_space(composed())
    space = default_space(composed("updates=400"))
    assert "batch_size" not in space
    assert not {"epochs", "updates", "seed"} & {*space}


def test_of_a_trained_model_only_the_training_is_searched():
    plain = composed("cell=cornn") | {"init": "outputs/first"}
    assert {*default_space(plain)} == {"optimizer.lr", "dropout", "batch_size"}


@pytest.mark.parametrize("typed", [(), ("cell=esn",), ("cell=slstm", "hidden=64"), ("optimizer=adamw",)])
def test_a_search_begins_with_the_settings_one_would_have_used_without_it(typed):
    plain = composed(*typed)
    space = default_space(plain)
    point = starting_point(space, plain)
    assert point_from_plain(point, space) == point
    assert changed(typed, point) == plain


@pytest.mark.parametrize(
    ("key", "dimension", "nearest"),
    [
        ("hidden", Whole(8, 128, step=8), 128),
        ("hidden", Whole(8, 208, step=100), 108),
        ("optimizer.lr", Real(0.01, 0.1), 0.01),
        ("cell", Choice(("gru", "basic")), "basic"),
        ("hidden", Choice(("64", "150")), "150"),
        ("clip", Choice(("null", "1.0")), "1.0"),
        ("match_parameters", Choice(("10k", "null")), "null"),
        ("bidirectional", Choice(("true", "false")), "false"),
        ("readout", Choice(("'mean'", "'last'")), "'last'"),
    ],
)
def test_the_start_is_the_point_nearest_to_a_configuration(key, dimension, nearest):
    assert starting_point({key: dimension}, composed()) == {key: nearest}


@pytest.mark.parametrize(
    ("key", "dimension"),
    [("cell", Choice(("gru", "lstm"))), ("hidden", Choice(("64", "many"))), ("readout", Real(0.0, 1.0))],
)
def test_a_configuration_that_is_not_near_any_point_starts_no_search(key, dimension):
    assert starting_point({key: dimension}, composed()) is None
