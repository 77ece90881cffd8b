"""Windows of long recordings from the command line: made, checked, trained on, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rnnclf import checkpoint, load
from rnnclf.data.synthetic import LongWaves, make
from rnnclf.data.table import Table
from rnnclf.hydra_app import load_config
from rnnclf.workflows.data import check
from rnnclf.workflows.evaluate import Evaluated, evaluate
from rnnclf.workflows.train import train

FAST = ["hidden=4", "epochs=1", "threads=1", "recipe=plain"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Six recordings whose labels change, twelve with one label each, and a run on the windows of each."""
    base = tmp_path_factory.mktemp("windows")
    make(base / "long.csv", LongWaves(hours=0.05, recordings=6, rate=10))
    n, t = np.repeat(np.arange(12), 50), np.tile(np.arange(50), 12)
    x = np.random.default_rng(0).normal(size=len(n)) + n % 2
    label = np.where(n % 2, "run", "walk")
    pl.DataFrame({"id": n, "time": t, "x": x, "label": label}).write_csv(base / "short.csv")
    for name, words in (("long", ["dataset.window=2s", "dataset.step=1s"]), ("short", ["dataset.window=10"])):
        config = load_config(["dataset=table", f"dataset.path={base}/{name}.csv", *words, *FAST])
        train(config, base / f"run_{name}")
    return base


def results(place: Path, name: str) -> dict:
    return json.loads((place / f"run_{name}" / "results.json").read_text())


def predictions(place: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(place / f"run_{name}" / "predictions.parquet")


def score(place: Path, name: str, *words: str) -> Evaluated:
    (found,) = evaluate(place / f"run_{name}", words)
    return found


def test_recordings_have_scores_beside_those_of_windows(place):
    (found,) = (
        predictions(place, "long")
        .filter(split="test")
        .select(
            pl.col("recording").n_unique().alias("count"),
            (pl.col("label") == pl.col("predicted")).mean().alias("share"),
        )
        .to_dicts()
    )
    scored = results(place, "long")["test"]
    assert scored["recordings"]["count"] == found["count"]
    assert scored["recordings"]["accuracy"]["mean"] == pytest.approx(found["share"])  # all are equally long
    assert scored["accuracy"] == pytest.approx(found["share"])


def test_recordings_with_one_label_are_classified_as_a_whole(place):
    rows = predictions(place, "short").filter(split="test")
    mean = rows.group_by("recording").agg(pl.col("label").first(), pl.col("^probability_.*$").mean())
    right = mean.filter(
        (pl.col("probability_run") > pl.col("probability_walk")) == (pl.col("label") == "run")
    )
    scored = results(place, "short")["test"]["recordings"]
    assert scored["by_probability"]["correct"] == len(right)
    assert scored["by_probability"]["total"] == scored["by_votes"]["total"] == len(mean) == scored["count"]
    assert len(rows) == 5 * len(mean)


def test_predictions_name_the_recording_and_the_first_step(place):
    rows = predictions(place, "long")
    assert rows.columns[:3] == ["split", "id", "recording"]
    assert (rows["id"].str.split(":").list.first() == rows["recording"]).all()
    assert rows.group_by("recording").agg(pl.col("split").n_unique())["split"].unique().to_list() == [1]
    first = rows["id"].str.split(":").list.last().cast(int)
    assert (first % 10 == 0).all()


def test_a_model_works_on_the_windows_that_it_was_trained_on_alone(place, cli):
    assert checkpoint.load(place / "run_long" / "best.safetensors").header["reading"] == {"window": "2s"}
    refused = cli("eval", place / "run_long", "dataset.window=1s")
    assert refused.exit_code == 2
    assert "dataset.window=2s: it cannot be evaluated with dataset.window=1s" in refused.stderr
    again = score(place, "long")
    assert again.recorded_correct == again.evaluation.score.correct
    denser = score(place, "long", "dataset.step=0.5s", "split=all")
    assert denser.to_dict()["recordings"]["count"] == 6
    assert denser.evaluation.score.total == 6 * 357


@pytest.mark.long
def test_an_evaluation_shows_the_recordings(place, cli):
    shown = cli("eval", place / "run_short").stdout
    for words in ("recordings, by mean probability", "recordings, by votes", "judge by the recordings"):
        assert words in shown
    shown = cli("eval", place / "run_long", "dataset.step=7", "split=all").stdout
    assert "their mean accuracy" in shown
    assert "not counting windows that overlap with those" in " ".join(shown.split())


@pytest.mark.long
def test_a_check_counts_windows_and_proposes_to_train_on_them(place, tmp_path):
    found = check([str(place / "long.csv"), "dataset.window=2s", "dataset.step=1s"])
    assert (found.sequences, found.steps, found.groups) == (1074, (20, 20, 20), 6)
    assert found.obstacle is None
    assert "dataset.window=2s" in found.line
    alone = tmp_path / "alone.csv"
    pl.read_csv(place / "long.csv").filter(recording=0).write_csv(alone)
    found = check([str(alone), "dataset.window=2s"])
    assert "set dataset.block=" in found.obstacle
    block = found.obstacle.split("dataset.block=")[1].split()[0]
    assert check([str(alone), "dataset.window=2s", f"dataset.block={block}"]).obstacle is None


def test_windows_can_be_loaded_in_python(place):
    splits = Table(path=str(place / "long.csv"), window=40).load()
    assert splits.train.steps == 40
    assert {*splits.test.recordings_N}.isdisjoint(splits.train.recordings_N)


def test_a_model_of_windows_classifies_sequences_in_python(place):
    assert load(place / "run_long").predict(np.zeros((3, 20, 3))).shape == (3,)


def test_long_recordings_are_the_same_in_every_table_format(tmp_path):
    waves = LongWaves(hours=0.01, recordings=2, rate=10, channels=1, missing=0.1)
    for name in ("a.csv", "a.tsv", "a.parquet"):
        make(tmp_path / name, waves)
    tables = [pl.read_csv("a.csv"), pl.read_csv("a.tsv", separator="\t"), pl.read_parquet("a.parquet")]
    for table in tables:
        assert table["label"].to_list() == tables[0]["label"].to_list()
        assert np.allclose(table["x0"].to_numpy(), tables[0]["x0"].to_numpy(), atol=1e-4, equal_nan=True)
        assert table["recording"].value_counts()["count"].to_list() == [360, 360]


def test_data_make_writes_long_recordings_and_says_how_to_look_at_them(cli, tmp_path):
    done = cli("data", "make", "long.csv", "--hours", 0.01, "--rate", 10)
    assert done.exit_code == 0
    assert "rnnclf data check long.csv dataset.window=2.5s dataset.block=10min" in done.stdout
    assert len(pl.read_csv("long.csv")) == 360
    refused = cli("data", "make", "long.npz", "--hours", 1)
    assert refused.exit_code == 2
    assert "recordings with a label in each row are written to .csv, .tsv, .parquet" in refused.stderr
    assert not (tmp_path / "long.npz").exists()
