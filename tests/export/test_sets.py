"""Sets of classes by exported files: as large as those of the run, or as their own probabilities need."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from typer.testing import CliRunner

from rnnclf import checkpoint
from rnnclf.calibration import Calibration
from rnnclf.cli import app
from rnnclf.data.synthetic import Waves, make
from rnnclf.errors import RnnclfError
from rnnclf.workflows.exported import load_file
from tests.conftest import logging_restored
from tests.export.exporting import needs_onnx

needs_onnx()
pytestmark = pytest.mark.long

SURE = (("--sets", "0.9"), ("--abstain", "0.9"), ("--sets", "0.8", "--min-probability", "0.5"))
FILES = {"model": (), "step": ("step=true",), "int8": ("int8=true",), "step8": ("step=true", "int8=true")}


def done(*words: object):
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a run, its exported files, the data of the run and new ones."""
    folder = tmp_path_factory.mktemp("sets")
    make(folder / "old.csv", Waves(200, 2, 10, missing=0))
    make(folder / "new.csv", Waves(60, 2, 10, missing=0, seed=1))
    words = ("cell=gru", "hidden=8", "epochs=4", "threads=1", "final_fit=false")
    with logging_restored(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        done("train", folder / "old.csv", *words, f"hydra.run.dir={folder / 'run'}")
        for name, options in FILES.items():
            done("export", folder / "run", *options, "-o", folder / f"{name}.onnx")
    return folder


def answers(model: Path, *words: str) -> tuple[pl.DataFrame, list[str]]:
    """The table of new data, and what is said of sets."""
    found = done("predict", model, model.parent / "new.csv", *words)
    said = [line for line in found.stderr.splitlines() if "validation sequences" in line]
    return pl.read_csv(io.StringIO(found.stdout)), said


@pytest.mark.parametrize("name", ["model", "step"])
@pytest.mark.parametrize("words", SURE)
def test_a_file_is_as_sure_as_its_run(place, name, words):
    (wanted, said), (found, also) = answers(place / "run", *words), answers(place / f"{name}.onnx", *words)
    assert said == also
    assert len(said) == 1
    sure = [column for column in ("id", "class", "set", "abstain") if column in wanted.columns]
    assert found.select(sure).equals(wanted.select(sure))


@pytest.mark.parametrize("name", ["int8", "step8"])
def test_a_file_of_8_bits_answers_the_validation_sequences_itself(place, name):
    loaded = load_file(place / f"{name}.onnx", data=place / "new.csv")
    run = checkpoint.load(place / "run/best.safetensors").calibration
    assert loaded.checkpoint.calibration.sequences == run.sequences == 30
    assert loaded.checkpoint.calibration.temperature == run.temperature
    assert loaded.checkpoint.calibration.scores != run.scores
    scored = done("eval", place / f"{name}.onnx", place / "old.csv", "split=validation", "sets=0.9", "--json")
    [found] = json.loads(scored.stdout)
    assert found["sets"]["covered"] == np.ceil(31 * 0.9)  # as split conformal prediction has it
    _, said = answers(place / f"{name}.onnx", "--sets", "0.9")
    assert said[0].startswith("On the 30 validation sequences, 93.33 % of the sets of 90 % contain")


def changed(place: Path, target: Path, name: str = "model", **facts: object) -> Path:
    """A copy of a file with other metadata; `...` takes an entry away."""
    model = onnx.load(place / f"{name}.onnx")
    kept = {entry.key: json.loads(entry.value) for entry in model.metadata_props} | facts
    del model.metadata_props[:]
    for key, value in kept.items():
        if value is not ...:
            model.metadata_props.add(key=key, value=json.dumps(value))
    target.write_bytes(model.SerializeToString())
    return target


NO_SCORES = Calibration(1.0, 30, 0.1, 0.1).to_plain()
NO_SCORES.pop("temperature")


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        (
            "model",
            {"calibration": ...},
            "does not hold the scores of validation, as files of this",
        ),
        ("model", {"calibration": None}, "needs a model whose training has ended, with a version of rnnclf"),
        ("int8", {"calibration": NO_SCORES}, "was exported without validation sequences that are"),
        ("model", {"calibration": NO_SCORES, "final_fit": True}, "which earlier versions did not keep with"),
        (
            "int8",
            {"calibration": NO_SCORES, "final_fit": True},
            "measure them again. Train with final_fit=false.",
        ),
        ("model", {"calibration": [0.1]}, "damaged: its metadata have no valid 'calibration'."),
        (
            "model",
            {"calibration": {"scores": [2.0]}},
            "damaged: its metadata have no valid 'calibration'.",
        ),
    ],
)
def test_sets_of_which_a_file_knows_nothing_are_refused_in_a_sentence(place, tmp_path, name, facts, message):
    file = changed(place, tmp_path / "model.onnx", name, **facts)
    for words in (
        ["predict", file, place / "new.csv", "--sets", "0.9"],
        ["eval", file, place / "old.csv", "sets=0.9"],
    ):
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert (found.exit_code, found.stdout, found.stderr.count("\n")) == (2, "", 1), found.output
        assert message in found.stderr


def test_a_level_is_refused_as_for_the_run(place):
    said = []
    for model in (place / "run", place / "model.onnx"):
        words = ["predict", model, place / "new.csv", "--sets", "0.99"]
        found = CliRunner().invoke(app, [str(word) for word in words])
        said.append((found.exit_code, found.stderr))
    assert said[0] == said[1]
    assert said[0] == (
        2,
        "error: --sets 0.99 needs at least 99 validation sequences, but the model was trained with 30.\n",
    )


def test_int8_without_the_data_says_that_sets_will_be_refused(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (place / "old.csv").rename(place / "away.csv")
    try:
        found = done("export", place / "run", "int8=true", "-o", tmp_path / "model.onnx")
    finally:
        (place / "away.csv").rename(place / "old.csv")
    assert "sets=, --sets and --abstain will be refused." in re.sub(r"\s+", " ", found.stdout)
    loaded = load_file(tmp_path / "model.onnx", data=place / "new.csv")
    with pytest.raises(RnnclfError, match="Export it where the data are"):
        loaded.limit_of_sets(0.9, "--sets")


def test_after_a_final_fit_the_sets_of_a_file_are_approximate_and_those_of_8_bits_refused(place, tmp_path):
    words = ("hidden=4", "epochs=1", "threads=1", "final_fit=true", f"hydra.run.dir={tmp_path / 'run'}")
    done("train", place / "old.csv", *words)
    for name, options in {"model": (), "int8": ("int8=true",)}.items():
        said = done("export", tmp_path / "run", *options, "-o", tmp_path / f"{name}.onnx").stdout
        assert ("that are new to the model" in re.sub(r"\s+", " ", said)) == (name == "int8")
    found = [
        done("predict", tmp_path / name, place / "new.csv", "--sets", "0.9") for name in ("run", "model.onnx")
    ]
    assert [each.stderr.count("The sets of 90 % are approximate: ") for each in found] == [1, 1]
    with pytest.raises(RnnclfError, match=r"Train with final_fit=false\."):
        load_file(tmp_path / "int8.onnx", data=place / "new.csv").limit_of_sets(0.9, "--sets")
