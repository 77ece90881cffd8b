"""The recipes: what chooses them never sees the test split, and docs/recipes.md says what was measured."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from benchmarks.recipes import choose, measure, page
from rnnclf import load_config
from rnnclf.hydra_app.experiments import expected_in
from rnnclf.workflows.train import Data, Watcher
from tests.conftest import ROOT

DIGITS = "dataset=digits dataset.validation=200 epochs=2 hidden=8"


@pytest.mark.long
def test_a_candidate_is_trained_and_compared_without_the_test_split(monkeypatch, tmp_path, capsys):
    sealed = []
    without_test = choose.without_test
    monkeypatch.setattr(choose, "without_test", lambda data: sealed.append(without_test(data)) or sealed[-1])
    monkeypatch.setattr(choose, "CANDIDATES", tmp_path / "candidates.jsonl")
    line = choose.measured(DIGITS, seed=3)
    assert (line["epochs"], line["seed"], line["words"]) == (2, 3, DIGITS)
    assert 0 < line["validation"] <= line["best"] <= 1
    assert not {"test", "test_accuracy"} & line.keys()
    (data,) = sealed
    for test in (data.splits.test, data.parts["test"]):
        with pytest.raises(AssertionError, match="The test split was opened"):
            len(test.y_N)
    choose.CANDIDATES.write_text(json.dumps(line) + "\n")
    choose.run([DIGITS], [3], jobs=1)  # it is there: nothing is trained
    assert len(choose.lines()) == 1


@pytest.mark.long
def test_a_candidate_is_trained_as_the_command_trains_it(cli, only_run):
    results = choose.curve([*DIGITS.split(), "dropout=0.2"], seed=5)
    words = [*DIGITS.split(), "dropout=0.2", "seed=5", "threads=1"]
    assert cli("train", *words).exit_code == 0
    (last,) = (only_run() / "epochs.csv").read_text().splitlines()[-1:]
    loss, accuracy = map(float, last.split(",")[3:5])
    assert results[-1].validation.loss == pytest.approx(loss, rel=1e-9)
    assert results[-1].validation.accuracy == accuracy


def test_the_sealed_split_is_the_only_one_that_is_sealed():
    config = load_config(["dataset=digits", "threads=1"])
    data = choose.without_test(Data.of(config, Watcher()))
    assert len(data.parts["train"]) > len(data.parts["validation"]) > 0


@pytest.mark.parametrize("row", measure.ROWS)
def test_every_row_is_a_command_that_can_be_run(row):
    config = load_config(measure.ROWS[row].split())
    assert config.dataset.name == "mnist"
    assert config.protocol == "standard"  # the test split is scored once


def test_every_row_changes_something():
    digests = Counter(load_config(words.split()).digest() for words in measure.ROWS.values())
    assert max(digests.values()) == 1


def test_the_page_says_what_the_raw_figures_say():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page.page(text) == text
    tables = set(re.findall(r"<!-- (\w+) -->", text)) - {"end"}
    assert {"together", "candidates"} <= tables <= page.TABLES.keys()


def test_the_readme_says_what_the_experiment_expects():
    (found,) = expected_in(ROOT / "conf" / "experiment" / "better.yaml")
    assert f"{found.share} over {found.runs}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_run_was_measured_twice():
    runs = Counter((line["row"], line["words"], line["seed"]) for line in measure.lines())
    assert not [run for run, times in runs.items() if times > 1]
