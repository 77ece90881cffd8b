"""What our experiments are expected to reach is what was measured, and what they still reach."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import asdict

import pytest
import yaml

from rnnclf.expectation import Expectation, from_plain
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.experiments import NO_SETTINGS, expected_in
from rnnclf.metrics import wilson_interval
from tests.conftest import REAL, ROOT, needs_mnist

FILES = {path.stem: path for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))}
RECIPES = runpy.run_path(str(ROOT / "benchmarks" / "recipes" / "expected.py"))
LINES = RECIPES["read"]()
QUICK = 600  # seconds

LINE = {"row": "better", "words": "experiment=better", "validation": 0.99, "seconds": 80.0, "epochs": 3}


@pytest.mark.parametrize("name", FILES)
def test_the_figures_of_each_experiment_are_complete(name):
    found = expected_in(FILES[name])
    assert len({entry.words for entry in found}) == len(found)
    for entry in found:
        assert entry.hardware
        assert entry.commit


@pytest.mark.parametrize("name", FILES)
def test_the_figures_of_each_experiment_are_those_of_its_runs(name):
    claimed = expected_in(FILES[name])
    measured = RECIPES["figures"](name, LINES)
    if not claimed and not measured:
        pytest.skip(f"nobody has measured experiment={name}")
    if elsewhere := {entry.source for entry in claimed if entry.source}:
        assert (name, elsewhere) == ("tutorial", {"benchmarks/tutorial/epochs.csv"})
        measured = [RECIPES["of_tutorial"]()]
    assert claimed == from_plain(measured or None)


def test_the_words_that_were_measured_are_those_of_the_experiment_today():
    for row, words in {(line["row"], line["words"]) for line in LINES if line["row"] in FILES}:
        typed = [word for word in words.split() if word.partition("=")[0] not in NO_SETTINGS]
        ours = [f"experiment={row}", *RECIPES["words_beside"](row, words).split()]
        assert load_config(typed).digest() == load_config(ours).digest()


def test_the_printed_figures_are_those_of_the_last_line_of_each_seed():
    lines = [
        {**LINE, "seed": 0, "test": 0.1, "commit": "0000000"},
        {**LINE, "seed": 0, "test": 0.98, "commit": "1234567", "words": "threads=1 experiment=better"},
        {
            **LINE,
            "seed": 1,
            "test": 0.99,
            "seconds": 100.0,
            "commit": "1234567",
            "words": "hidden=9 layers=3",
        },
        {**LINE, "seed": 2, "test": 0.97, "seconds": 300.4, "commit": "12e4567"},
        {**LINE, "seed": 0, "test": 0.5, "words": "experiment=better cell=lem", "commit": "1234567"},
        {**LINE, "seed": 0, "test": 0.2, "row": "other", "commit": "1234567"},
    ]
    text = RECIPES["block"](RECIPES["figures"]("better", lines))
    plain, lem = from_plain(yaml.safe_load(text)["expected"])
    on = RECIPES["HARDWARE"]
    assert plain == Expectation(0.98, 0.01, 3, 100, hardware=on, commit="1234567, 12e4567")
    assert lem == Expectation(0.5, None, 1, 80, hardware=on, commit="1234567", words="cell=lem")


def test_what_is_printed_can_be_pasted_into_a_file(tmp_path):
    file = tmp_path / "own.yaml"
    entry = RECIPES["of_tutorial"]()
    file.write_text(f"# @package _global_\nhidden: 3\n{RECIPES['block']([entry])}")
    assert [asdict(found) for found in expected_in(file)] == [asdict(Expectation(**entry))]


def quick() -> list[tuple[str, Expectation]]:
    every = [(name, entry) for name, path in FILES.items() for entry in expected_in(path)]
    return [(name, entry) for name, entry in every if entry.seconds < QUICK]


def is_of_mnist(name: str) -> bool:
    return load_config([f"experiment={name}"]).dataset.name == "mnist"


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize(("name", "entry"), quick(), ids=lambda value: getattr(value, "words", value))
def test_an_experiment_reaches_what_is_expected_of_it(cli, only_run, name, entry):
    if not is_of_mnist(name):
        pytest.skip("only the files of MNIST are here")
    words = [f"experiment={name}", *entry.words.split(), f"dataset.root={REAL}", "seed=17"]
    done = cli("train", *words)
    assert done.exit_code == 0, done.output
    assert "expected" in done.output
    test = json.loads((only_run() / "results.json").read_text())["test"]
    low, high = entry.bounds(test["total"])
    by_chance = wilson_interval(round(entry.accuracy * test["total"]), test["total"])
    assert min(low, by_chance[0]) <= test["accuracy"] <= max(high, by_chance[1])


@pytest.mark.parametrize("words", [["experiment", "tutorial"], ["tutorial"], ["experiment=tutorial"]])
def test_an_experiment_is_shown_with_its_settings_and_its_figures(cli, words):
    shown = cli("show", *words).stdout
    assert "protocol: tutorial" in shown
    assert "expected:" not in shown  # as they stand in the file
    (figures,) = expected_in(FILES["tutorial"])
    assert re.search(rf"{figures.share} +1 +7 min +{figures.hardware}; commit {figures.commit}", shown)


@pytest.mark.parametrize(
    ("width", "with_figures", "without"),
    [
        (80, r"experiment=tutorial .*\n 97.84 %, 7 min ", r"experiment=scifar .*\n – "),
        (120, r"experiment=tutorial .* 97.84 % +7 min", r"experiment=scifar .* – +\n"),
    ],
)
def test_experiments_are_listed_with_accuracy_and_cost(cli, monkeypatch, width, with_figures, without):
    monkeypatch.setenv("COLUMNS", str(width))
    listed = cli("list", "experiments").stdout
    assert re.search(with_figures, listed)
    assert re.search(without, listed)


def test_the_figures_are_there_for_programs(cli):
    every = json.loads(cli("list", "experiments", "--json").stdout)
    listed = {found["name"]: found["expected"] for found in every}
    shown = json.loads(cli("show", "tutorial", "--json").stdout)["expected"]
    assert shown == listed["tutorial"] == [asdict(entry) for entry in expected_in(FILES["tutorial"])]
    assert listed["scifar"] == []
