"""match_parameters: the hidden size that makes a model of the wanted size."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.config import Config
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.sizing import LARGEST, hidden_for, parse_count
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.settling import sized


@pytest.mark.parametrize(
    ("word", "count"),
    [
        (30000, 30000),
        ("30000", 30000),
        ("30k", 30000),
        ("1.5M", 1_500_000),
        ("2K", 2000),
        ("0.5k", 500),
        (3e4, 30000),
    ],
)
def test_a_count_is_a_number_with_or_without_a_suffix(word, count):
    assert parse_count(word) == count


@pytest.mark.parametrize(
    "word", ["", "k", "many", "-3", 0, "0k", "1e5", "30 k", "3kk", "1,000", float("nan")]
)
def test_what_is_no_count_is_refused(word):
    with pytest.raises(ConfigError, match="match_parameters must be a number such as 30000, 30k or"):
        parse_count(word)


@given(a=st.integers(0, 9), b=st.integers(1, 50), c=st.integers(0, 99), wanted=st.integers(100, 10**9),
       multiple=st.integers(1, 7))  # fmt: skip
def test_no_other_hidden_size_is_nearer(a, b, c, wanted, multiple):
    def count(hidden):
        return a * hidden**2 + b * hidden + c

    largest = LARGEST // multiple * multiple
    if not count(multiple) <= wanted <= count(largest):
        with pytest.raises(ConfigError, match=f"match_parameters={wanted} is too (small|large)"):
            hidden_for(wanted, count, multiple)
        return
    hidden = hidden_for(wanted, count, multiple)
    assert hidden % multiple == 0
    distance = abs(count(hidden) - wanted)
    for other in (hidden - multiple, hidden + multiple):
        assert other < 1 or distance <= abs(count(other) - wanted)


@cache
def matching() -> Config:
    return load_config(["match_parameters=30k"])


@pytest.mark.parametrize("name", CELLS.names())
def test_every_cell_meets_a_number_of_parameters(name):
    config = sized(replace(matching(), cell=CELLS[name]()), 8, 10)

    def distance(hidden):
        with torch.device("meta"):
            other = replace(config, cell=replace(config.cell, hidden_size=hidden))
            return abs(build_model(other, 8, 10).parameter_count() - 30_000)

    assert config.hidden == config.cell.hidden_size
    assert distance(config.hidden) <= min(distance(config.hidden - 1), distance(config.hidden + 1))
    assert distance(config.hidden) < 0.02 * 30_000


def test_heads_and_layers_are_respected():
    words = ["cell=slstm", "cell.heads=4", "layers=2", "bidirectional=true", "match_parameters=100k"]
    matched = sized(load_config(words), 8, 10)  # 150, the usual number of units, is no multiple of 4
    assert matched.hidden % 4 == 0
    with torch.device("meta"):
        assert build_model(matched, 8, 10).parameter_count() == pytest.approx(100_000, rel=0.1)


@pytest.mark.long
def test_a_run_is_as_large_as_it_was_asked_to_be_and_eval_builds_the_same(cli, only_run):
    done = cli(
        "train", "cell=gru", "match_parameters=3k", "dataset=digits", "epochs=1", "threads=1", "--json"
    )
    results = json.loads(done.stdout)
    assert results["parameters"] == pytest.approx(3000, rel=0.03)
    assert results["hidden"] != 150
    evaluated = json.loads(cli("eval", only_run(), "--json").stdout)
    assert evaluated[0]["hidden"] == results["hidden"]
    assert evaluated[0]["correct"] == results["test"]["correct"]


@pytest.mark.slow
@pytest.mark.long
def test_two_sizes_at_once_are_refused(cli):
    done = cli("train", "match_parameters=3k", "hidden=20", "dataset=digits")
    assert done.exit_code == 2
    assert done.stderr.strip() == "error: match_parameters chooses hidden: leave out hidden."
    done = cli("train", "-m", "match_parameters=3k", "hidden=20,30", "dataset=digits")
    assert done.exit_code == 2
    assert "no job was started" in done.stderr


def test_a_number_out_of_reach_is_refused_in_words(cli):
    done = cli("train", "match_parameters=20", "dataset=digits")
    assert done.exit_code == 2
    assert "with hidden=1, the minimum for this cell, the model has 30 parameters" in done.stderr
