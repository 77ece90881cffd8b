"""The figures in the file of an experiment: they belong to its words, and change no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.experiments import expectation_of, expected_in, without_expected
from rnnclf.workflows.catalog import list_choices

SETTINGS = "# @package _global_\n# Mine.\ndefaults:\n  - override /dataset: digits\nhidden: 4\nepochs: 1\n"
FIGURES = """expected:
  - {accuracy: 0.1, sd: 0.3, seeds: 3, seconds: 2}
  # and with another cell
  - words: cell=gru layers=2
    accuracy: 0.9999
    seeds: 1
    seconds: 2
"""
WITHIN = "expected 10.00 ± 30.00 % (3 seeds; 0.00 – 100.00): within that range"
BELOW = "expected 99.99 % (1 seed; 98.94 – 100.00): below that range"


@pytest.fixture
def own(tmp_path) -> Path:
    """The file of an experiment of one's own, for `-cd mine experiment=own`."""
    file = tmp_path / "mine" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(SETTINGS + FIGURES)
    (file.parent / "child.yaml").write_text(
        "# @package _global_\ndefaults:\n  - own\n  - _self_\nhidden: 5\n"
    )
    return file


def record(folder: Path) -> Path:
    """What Hydra writes about the folders that it searched."""
    sources = [{"path": "hydra.conf", "schema": "pkg"}, {"path": str(folder), "schema": "file"}]
    file = folder / "hydra.yaml"
    file.write_text(json.dumps({"hydra": {"runtime": {"config_sources": sources}}}))
    return file


@pytest.mark.parametrize(
    ("words", "accuracy"),
    [
        (["experiment=own"], 0.1),
        (["experiment=own", "seed=3", "threads=1", "device=cpu", "name=x", "hydra.run.dir=here"], 0.1),
        (["layers=2", "experiment='own'", "cell=gru", "seed=1"], 0.9999),
        (["experiment=own", "cell=gru"], None),
        (["experiment=own", "epochs=1"], None),
        (["experiment=child"], None),
        (["experiment=nowhere"], None),
        (["experiment=null"], None),
        (["dataset=digits"], None),
        ([], None),
    ],
)
def test_the_figures_are_those_of_exactly_these_words(own, words, accuracy):
    found = expectation_of(words, record(own.parent.parent))
    assert (found.accuracy if found else None) == accuracy


def test_our_own_experiments_need_no_record(tmp_path):
    assert expectation_of(["experiment=tutorial"], tmp_path / "none.yaml") == expected_of("tutorial")[0]
    assert expectation_of(["experiment=tutorial"]) == expected_of("tutorial")[0]


def expected_of(name: str) -> list:
    (found,) = [choice.expected for choice in list_choices("experiment") if choice.name == name]
    return list(found)


@pytest.mark.parametrize("rest", ["", "seed: 1\n", "# a remark\nseed: 1\n"])
@pytest.mark.parametrize("figures", [FIGURES, "expected: [{accuracy: 1, seeds: 1, seconds: 2}]\n",
                                     "expected:\n- accuracy: 1\n  seeds: 1\n  seconds: 2\n"])  # fmt: skip
def test_the_settings_are_shown_without_the_figures(figures, rest):
    assert without_expected(f"{SETTINGS}{figures}{rest}") == f"{SETTINGS}{rest}".removesuffix("\n")


def test_figures_change_no_configuration(monkeypatch, own):
    with_figures = load_config(["experiment=tutorial"])
    assert not hasattr(with_figures, "expected")
    assert "expected" not in with_figures.to_plain()
    plain = ["cell=basic", "optimizer=adam", "schedule=constant", "dataset=mnist", "hidden=150", "epochs=100"]
    plain += ["cell.input_init=tensorflow1", "cell.recurrent_init=tensorflow1", "optimizer.lr=0.001"]
    plain += ["batch_size=150", "clip=null", "protocol=tutorial"]
    assert with_figures.digest() == load_config(plain).digest()


@pytest.mark.parametrize("text", ["expected: [", "expected: 3\n", "{"])
def test_a_file_that_cannot_be_read_is_named(own, text):
    own.write_text(text)
    with pytest.raises(ConfigError, match=str(own)):
        expected_in(own)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["expected=3"], "expected is not a setting: it holds the figures in the file of an experiment."),
        (["+expected=[]"], "expected is not a setting: it holds the figures in the file of an experiment."),
        (["~expected"], "expected is not a setting: it holds the figures in the file of an experiment."),
    ],
)
def test_figures_cannot_be_typed(cli, words, message):
    done = cli("train", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


@pytest.mark.long
def test_malformed_figures_of_ones_own_are_refused_before_anything_starts(cli, own, tmp_path):
    own.write_text(f"{SETTINGS}expected: [{{accuracy: 98.9, seeds: 1, seconds: 2}}]\n")
    for words in ((), ("-m", "seed=0,1")):
        done = cli("train", "-cd", "mine", "experiment=own", *words)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: expected.accuracy must be at least 0 and at most 1, got 98.9")
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.long
def test_an_unknown_key_in_a_file_of_ones_own_is_refused_as_before(cli, own):
    own.write_text(f"{SETTINGS}hiden: 3\n")
    done = cli("train", "-cd", "mine", "experiment=own")
    assert (done.exit_code, done.stderr) == (2, "error: No key named 'hiden'. Did you mean 'hidden'?\n")


@pytest.mark.long
def test_a_run_of_ones_own_experiment_says_whether_it_is_as_expected(cli, own, only_run):
    done = cli("train", "-cd", "mine", "experiment=own", "seed=1")
    assert done.exit_code == 0
    assert WITHIN in done.output.splitlines()
    resumed = cli("resume", only_run(), "epochs=2")  # no longer the experiment
    assert resumed.exit_code == 0
    assert "expected" not in resumed.output


@pytest.mark.long
@pytest.mark.parametrize("words", [["experiment=own", "lr=0.1"], ["experiment=child"], ["dataset=digits"]])
def test_a_run_with_other_settings_is_not_judged(cli, own, words):
    words = ["optimizer.lr=0.1" if word == "lr=0.1" else word for word in words]
    done = cli("train", "-cd", "mine", *words, "epochs=1")
    assert done.exit_code == 0
    assert "expected" not in done.output


@pytest.mark.long
@pytest.mark.usefixtures("terminal")
def test_the_closing_panel_says_plainly_that_a_run_is_not_as_expected(cli, own):
    done = cli("train", "-cd", "mine", "experiment=own", "cell=gru", "layers=2")
    assert done.exit_code == 0
    assert BELOW in done.output


@pytest.mark.long
def test_a_grid_over_experiments_with_and_without_figures_trains(cli, own, tmp_path):
    done = cli("train", "-cd", "mine", "-m", "experiment=own,child", "epochs=1")
    assert done.exit_code == 0
    sweep = next((tmp_path / "outputs").glob("*/*"))
    results = [json.loads((sweep / str(n) / "results.json").read_text()) for n in (0, 1)]
    assert [found["hidden"] for found in results] == [4, 5]


@pytest.mark.long
def test_the_composed_configuration_shows_the_figures(cli, own):
    done = cli("train", "-cd", "mine", "experiment=own", "--cfg", "job")
    assert done.exit_code == 0
    assert "expected:\n- accuracy: 0.1\n" in done.stdout
    assert "expected" not in cli("train", "dataset=digits", "--cfg", "job").stdout
