"""Dimensions of a search: their bounds, how their values are typed, and how they are kept in a file."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.hydra_app.grammar import read
from rnnclf.tuning.space import (
    DIGITS,
    Choice,
    Real,
    Whole,
    as_typed,
    described,
    edge_points,
    from_plain,
    point_from_plain,
    size_of,
    to_plain,
    word,
    words,
)

SPACE = {
    "optimizer.lr": Real(1e-4, 0.1, log=True),
    "dropout": Real(0.0, 0.5),
    "hidden": Whole(8, 128, step=8),
    "layers": Whole(1, 4),
    "cell": Choice(("lstm", "gru", "mingru")),
}
POINT = {"optimizer.lr": 1e-4, "dropout": 0.25, "hidden": 64, "layers": 2, "cell": "gru"}

reals = st.floats(-1e300, 1e300, allow_subnormal=False)


@given(reals)
def test_a_real_number_is_read_back_exactly_from_its_word(value):
    found = read(as_typed(value))
    assert isinstance(found, float)
    assert found == value


@pytest.mark.parametrize(
    ("value", "typed"),
    [(1e-4, "1e-4"), (0.002, "2e-3"), (0.05, "0.05"), (0.1234, "0.1234"), (2.0, "2.0"), (1.5e-7, "1.5e-7"),
     (-0.0001, "-1e-4"), (0.0, "0.0"), (1e22, "1e22"), (64, "64"), ("null", "null")],
)  # fmt: skip
def test_values_are_typed_as_short_as_they_can_be(value, typed):
    assert as_typed(value) == typed


def test_a_point_gives_a_word_for_each_key():
    assert words(POINT) == ["optimizer.lr=1e-4", "dropout=0.25", "hidden=64", "layers=2", "cell=gru"]
    assert word("cell.chrono", "null") == "cell.chrono=null"


@given(reals, reals, st.floats(0, 1))
def test_a_rounded_number_is_near_and_within_the_bounds(a, b, share):
    assume(a < b and math.isfinite(b - a))
    dimension = Real(a, b)
    value = min(max(a + share * (b - a), a), b)
    rounded = dimension.rounded(value)
    assert rounded in dimension
    assert abs(rounded - value) <= 10 ** (1 - DIGITS) * (b - a)
    assert dimension.rounded(rounded) == rounded


@pytest.mark.parametrize(
    ("dimension", "value", "rounded"),
    [
        (Real(1e-4, 0.1, log=True), 0.00123456, 0.001235),
        (Real(0.0, 0.5), 0.123456, 0.1235),
        (Real(0.99990, 0.99999), 0.999912345678, 0.99991235),  # digits that all values share say nothing
        (Real(0.0, 1.0), 0.0, 0.0),
        (Real(0.12344, 0.5), 0.123441, 0.12344),  # not below the lower bound
    ],
)
def test_a_sampled_number_has_as_many_digits_as_its_interval_needs(dimension, value, rounded):
    assert dimension.rounded(value) == rounded


@pytest.mark.parametrize(
    ("dimension", "sentence"),
    [
        (Real(1e-4, 0.1, log=True), "key from 1e-4 to 0.1, log"),
        (Real(0.0, 0.5), "key from 0.0 to 0.5"),
        (Whole(8, 128, step=8), "key from 8 to 128 in steps of 8"),
        (Whole(8, 128, log=True), "key from 8 to 128, log"),
        (Choice(("tanh", "relu")), "key one of tanh, relu"),
    ],
)
def test_a_dimension_is_described_in_one_line(dimension, sentence):
    assert described("key", dimension) == sentence


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(("tanh",)), "at least two different values, got tanh"),
        (lambda: Choice(("tanh", "tanh")), "at least two different values"),
        (lambda: Real(0.5, 0.1), "not from 0.5 to 0.1"),
        (lambda: Real(0.1, 0.1), "not from 0.1 to 0.1"),
        (lambda: Real(0.0, math.inf), "not from 0.0 to inf"),
        (lambda: Real(0.0, 1.0, log=True), "begins above 0, not at 0.0"),
        (lambda: Whole(0, 8, log=True), "begins above 0, not at 0"),
        (lambda: Whole(8, 127, step=8), "Steps of 8 do not lead from 8 to 127"),
        (lambda: Whole(8, 128, step=0), "Steps of 0"),
        (lambda: Whole(8, 128, step=8, log=True), "no step, got 8"),
    ],
)
def test_a_dimension_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_number_of_points_is_known_where_there_is_one():
    assert size_of(SPACE) is None
    assert size_of({key: SPACE[key] for key in ("hidden", "layers", "cell")}) == 16 * 4 * 3
    assert size_of({}) == 1


@pytest.mark.parametrize("key", ["hidden", "layers", "cell"])
def test_the_values_of_a_dimension_are_numbered_from_one_bound_to_the_other(key):
    dimension = SPACE[key]
    values = [dimension.value(number) for number in range(dimension.size)]
    assert len({*values}) == len(values)
    assert (values[0], values[-1]) == (dimension.edges[0], dimension.edges[-1])
    assert all(value in dimension for value in values)


def test_each_bound_and_each_choice_occurs_among_the_edge_points():
    points = edge_points(SPACE)
    assert len(points) == 3
    for key, dimension in SPACE.items():
        assert {point[key] for point in points} == {*dimension.edges}


def test_a_space_survives_its_file():
    again = from_plain(json.loads(json.dumps(to_plain(SPACE))))
    assert again == SPACE
    assert list(again) == list(SPACE)
    assert from_plain({"dropout": {"kind": "real", "low": 0, "high": 1, "log": False}}) == {
        "dropout": Real(0, 1)
    }


@pytest.mark.parametrize(
    "part",
    [
        None,
        "hidden",
        [],
        {},
        {"kind": "normal", "low": 0, "high": 1},
        {"kind": ["real"]},
        {"kind": "real", "low": 0.0},
        {"kind": "real", "low": 0.0, "high": 1.0, "log": 1},
        {"kind": "real", "low": "0", "high": 1.0, "log": False},
        {"kind": "real", "low": 1.0, "high": 0.0, "log": False},
        {"kind": "real", "low": 0.0, "high": float("nan"), "log": False},
        {"kind": "whole", "low": 0, "high": 1.5, "step": 1, "log": False},
        {"kind": "whole", "low": False, "high": True, "step": 1, "log": False},
        {"kind": "whole", "low": 0, "high": 8, "step": 3, "log": False},
        {"kind": "whole", "low": 0, "high": 8, "step": 1, "log": False, "more": 1},
        {"kind": "choice", "values": ["a"]},
        {"kind": "choice", "values": "ab"},
        {"kind": "choice", "values": [["a"], ["b"]]},
        {"kind": "choice", "values": 3},
    ],
)
def test_a_damaged_space_is_refused_in_one_sentence(part):
    with pytest.raises(CheckpointError, match=r"^hidden has no range that can be searched: "):
        from_plain({"hidden": part})


def test_a_space_that_is_no_mapping_is_refused():
    with pytest.raises(CheckpointError, match="mapping of keys"):
        from_plain([])


def test_a_point_survives_its_file():
    again = point_from_plain(json.loads(json.dumps(POINT)), SPACE)
    assert again == POINT
    one = point_from_plain({**POINT, "dropout": 0}, SPACE)
    assert isinstance(one["dropout"], float)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "has the keys optimizer.lr, dropout, hidden, layers, cell, got"),
        ({"hidden": 8}, "has the keys"),
        ({**POINT, "hidden": 12}, "hidden is searched from 8 to 128 in steps of 8, got 12"),
        ({**POINT, "layers": True}, "layers is searched from 1 to 4, got True"),
        ({**POINT, "layers": 2.0}, "layers is searched"),
        ({**POINT, "dropout": "0.1"}, "dropout is searched"),
        ({**POINT, "dropout": float("nan")}, "dropout is searched"),
        ({**POINT, "cell": "basic"}, "cell is searched one of lstm, gru, mingru, got 'basic'"),
        ({**POINT, "cell": []}, "cell is searched"),
    ],
)
def test_what_is_no_point_of_the_space_is_refused(plain, message):
    with pytest.raises(CheckpointError, match=message):
        point_from_plain(plain, SPACE)
