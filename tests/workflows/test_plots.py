"""The pictures of a run: when they are drawn, and that they change nothing else."""

from __future__ import annotations

import csv
import json

import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.workflows import plots
from rnnclf.workflows.runs import PLOTS, RunFolder
from tests.cli_runs import SMALL


@pytest.mark.parametrize(
    ("word", "seconds", "drawn"),
    [("auto", 29, False), ("auto", 31, True), ("true", 1, True), ("false", 100, False)],
)
def test_short_runs_are_not_held_up(word, seconds, drawn, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(plots, "_charts", lambda run, results: found.append(run) or [])
    monkeypatch.setattr(plots, "find_spec", lambda name: object())
    assert plots.save_plots(RunFolder(tmp_path), word, {"total_seconds": seconds}) == ""
    assert bool(found) == drawn


def test_without_the_packages_one_sentence_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    said = plots.save_plots(RunFolder(tmp_path), "true", {"total_seconds": 1})
    assert "pip install 'rnnclf[report]'" in said
    assert plots.save_plots(RunFolder(tmp_path), "auto", {"total_seconds": 1}) == ""
    assert not [*tmp_path.iterdir()]


@pytest.mark.long
def test_damaged_rows_of_epochs_are_left_out(tmp_path):
    pytest.importorskip("altair")
    (tmp_path / "epochs.csv").write_text(
        "epoch,train_accuracy,validation_accuracy,train_loss\n1,0.5,nan,1e999\nx,0.5,0.5,1\n3,0.75,'=1,2\n"
    )
    first, second = plots.epochs_of(RunFolder(tmp_path))
    assert (first.number, first.accuracy, first.loss) == (1, {"training": 0.5}, {})
    assert (second.number, second.accuracy, second.loss) == (3, {"training": 0.75}, {"training": 2.0})


def test_a_run_whose_pictures_cannot_be_drawn_is_done_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: object())
    (tmp_path / "plots").write_text("in the way")
    said = plots.save_plots(RunFolder(tmp_path), "true", {"total_seconds": 1})
    assert said.startswith("the pictures of the run could not be drawn: Cannot create the folder")


@pytest.mark.long
def test_pictures_add_files_and_change_nothing_else(cli, tmp_path, monkeypatch):
    pytest.importorskip("vl_convert")
    results, epochs = [], []
    for word in ("true", "missing"):
        if word == "missing":
            monkeypatch.setattr(plots, "find_spec", lambda name: None)
        done = cli("train", *SMALL, "plots=true", f"hydra.run.dir={word}", "--json")
        assert done.exit_code == 0, done.output
        assert done.stderr.count("pip install 'rnnclf[report]'") == (word == "missing")
        found = json.loads(done.stdout)
        results.append(
            {key: value for key, value in found.items() if "seconds" not in key and key != "folder"}
        )
        with open(tmp_path / word / "epochs.csv", encoding="utf-8", newline="") as file:
            epochs.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert results[0] == results[1]
    assert epochs[0] == epochs[1]
    there = {path.name for path in (tmp_path / "true" / "plots").iterdir()}
    assert there == {f"{name}.{suffix}" for name in PLOTS for suffix in ("svg", "png")}
    assert all(path in RunFolder(tmp_path / "true").files for path in (tmp_path / "true" / "plots").iterdir())
    assert (tmp_path / "true" / "plots" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "missing" / "plots").exists()


def test_other_words_are_refused():
    with pytest.raises(ConfigError, match="plots must be auto, true or false"):
        load_config(["plots=yes"])
