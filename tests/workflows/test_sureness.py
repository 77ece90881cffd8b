"""What `rnnclf predict` says where a model is not sure: sets of classes, and abstaining."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from rnnclf.calibration import Calibration, sequences_for
from rnnclf.checkpoint import Checkpoint
from rnnclf.errors import ConfigError
from rnnclf.workflows.answers import Layout, Text, table_at
from rnnclf.workflows.sureness import Sureness, SureWords, sureness_of

CLASSES = ("calm", "hasty", "quick")
SHARES = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.4, 0.3, 0.3], [np.nan, np.nan, np.nan]])
IDS = np.arange(4)


def frame(sure: Sureness, **layout) -> pl.DataFrame:
    return Layout(CLASSES, sure=sure, **layout).frame(IDS, SHARES, SHARES)


def test_a_set_names_the_likely_classes_from_the_most_probable_on():
    found = frame(Sureness(set_limit=0.65))  # classes with a probability of at least 0.35
    assert found.columns == ["id", "class", "probability", "set", "p_calm", "p_hasty", "p_quick"]
    assert found["set"].to_list() == [["hasty"], ["calm", "quick"], ["calm"], None]
    assert frame(Sureness(set_limit=0.45))["set"].to_list() == [["hasty"], [], [], None]


def test_abstaining_leaves_the_class_empty_where_the_set_does_not_have_one():
    found = frame(Sureness(abstain_limit=0.65), chosen=("class", "abstain"))
    assert found.rows() == [("hasty", False), (None, True), ("calm", False), (None, None)]
    found = frame(Sureness(abstain_limit=0.45), chosen=("class", "abstain"))  # empty sets
    assert found.rows() == [("hasty", False), (None, True), (None, True), (None, None)]


def test_a_least_probability_marks_answers_and_keeps_their_class():
    found = frame(Sureness(min_probability=0.5), chosen=("class", "abstain"))
    assert found.rows() == [("hasty", False), ("calm", False), ("calm", True), (None, None)]


def test_every_form_holds_the_same_sets(tmp_path):
    sure = Sureness(set_limit=0.65)
    text = Layout(CLASSES, chosen=("set",), sure=sure, as_text=True).frame(IDS, SHARES, None)
    assert Text(".csv")(text) == b"set\nhasty\ncalm|quick\ncalm\n\n"
    lists = frame(sure, chosen=("id", "set"))
    lines = Text(".jsonl")(lists).splitlines()
    assert [json.loads(line)["set"] for line in lines] == lists["set"].to_list()
    with table_at(tmp_path / "a.parquet") as write:
        write(lists)
    assert pl.read_parquet(tmp_path / "a.parquet").equals(lists)


def model(sequences: int) -> SimpleNamespace:
    """One whose validation split has so many sequences, with scores that are spread evenly."""
    scores = tuple(round(n / sequences, 6) for n in range(sequences))
    header = {"calibration": Calibration(1.0, sequences, 0.1, 0.1, scores).to_plain()}
    saved = Checkpoint(Path("run/best.safetensors"), header, {})
    settings = SimpleNamespace(final_fit=False)
    return SimpleNamespace(checkpoint=saved, config=settings, limit_of_sets=saved.limit_of_sets)


def test_what_sets_covered_on_validation_is_said_once():
    found = sureness_of(SureWords(0.9, 0.9), [model(100)], whole_recordings=False)
    assert found.set_limit == found.abstain_limit == 0.9  # the 91st of 100, by (100 + 1) * 0.9
    assert found.notes == (
        "On the 100 validation sequences, 91.00 % of the sets of 90 % contain the true class; on data unlike"
        " these it may be fewer.",
    )
    assert sureness_of(SureWords(min_probability=0.9), [model(1)] * 2, True).notes == ()


@pytest.mark.parametrize(
    ("words", "models", "message"),
    [
        ({"sets": 0.95}, [18], "--sets 0.95 needs at least 19 validation sequences, but the model was"),
        ({"abstain": 0.999}, [100], "--abstain 0.999 needs at least 999 validation sequences"),
        ({"sets": 0.9}, [99, 99], "--sets needs a single model: how often the sets of an average are right"),
    ],
)
def test_sets_of_which_nothing_is_known_are_refused(words, models, message):
    with pytest.raises(ConfigError, match=message):
        sureness_of(SureWords(**words), [model(n) for n in models], whole_recordings=False)
    assert sequences_for(0.95) == 19


def test_sets_of_whole_recordings_are_refused():
    with pytest.raises(ConfigError, match="--abstain is for windows, of which validation tells"):
        sureness_of(SureWords(abstain=0.9), [model(99)], whole_recordings=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sets": 95.0}, "--sets must be a share between 0 and 1 such as 0.95, got 95."),
        ({"abstain": float("nan")}, "--abstain must be a share between 0 and 1 such as 0.95, got nan."),
        ({"min_probability": 1.5}, "--min-probability must be a probability above 0 such as 0.9, got 1.5."),
        ({"abstain": 0.9, "min_probability": 0.9}, "--abstain and --min-probability do not go together"),
    ],
)
def test_words_without_a_meaning_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        SureWords(**words)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match=r"The class 'a\|b' contains \|, which separates the classes"):
        Layout(("a|b", "c"), sure=Sureness(set_limit=0.5), as_text=True)
    assert Layout(("a|b", "c"), sure=Sureness(set_limit=0.5)).names[3] == "set"
    with pytest.raises(ConfigError, match="--top names classes where --abstain names none"):
        Layout(CLASSES, top=2, sure=Sureness(abstain_limit=0.5))
