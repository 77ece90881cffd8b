"""predictions.parquet: every sequence of validation and test, and nothing that contradicts the results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from rnnclf.errors import OutputError
from rnnclf.metrics import METRICS, Evaluation
from rnnclf.workflows import predictions
from rnnclf.workflows.predictions import write_predictions
from tests.conftest import Cli

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

TABLE = "id,time,x,label\n" + "\n".join(
    f"patient-{n:02},{t},{(n % 2) * t + n / 100},{'up' if n % 2 else 'flat'}"
    for n in range(40)
    for t in range(5)
)


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> Path:
    (tmp_path / "my.csv").write_text(TABLE)
    words = ["dataset=table", "dataset.path=my.csv", "hidden=4", "epochs=2", "threads=1", "hydra.run.dir=run"]
    done = cli("train", *words)
    assert done.exit_code == 0, done.output
    return tmp_path / "run"


def columns(frame: pl.DataFrame, split: str) -> tuple[list[str], np.ndarray]:
    part = frame.filter(pl.col("split") == split)
    return part["label"].to_list(), part.select(pl.col("^probability_.*$")).to_numpy()


def test_each_sequence_of_validation_and_test_is_there_by_its_own_id(run: Path):
    frame, results = (
        pl.read_parquet(run / "predictions.parquet"),
        json.loads((run / "results.json").read_text()),
    )
    assert frame.columns == ["split", "id", "label", "predicted", "probability_flat", "probability_up"]
    assert dict(frame["split"].value_counts().iter_rows()) == {
        name: results[name]["total"] for name in ("validation", "test")
    }
    for id_, label in frame.select("id", "label").iter_rows():
        assert label == ("up" if int(id_.removeprefix("patient-")) % 2 else "flat")
    assert frame["id"].is_unique().all()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_results_follow_from_the_predictions(run: Path, split: str):
    frame, results = (
        pl.read_parquet(run / "predictions.parquet"),
        json.loads((run / "results.json").read_text()),
    )
    part = frame.filter(pl.col("split") == split)
    labels, shares = columns(frame, split)
    assert part.filter(pl.col("label") == pl.col("predicted")).height == results[split]["correct"]
    assert shares.sum(axis=1) == pytest.approx(1)
    assert [("flat", "up")[k] for k in shares.argmax(axis=1)] == part["predicted"].to_list()
    found = results[split]
    assert found["loss"] == pytest.approx(log_loss(labels, shares, labels=["flat", "up"]))
    assert found["auroc"] == pytest.approx(roc_auc_score([label == "up" for label in labels], shares[:, 1]))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, part["predicted"], average="macro"))
    assert found["commonest_rate"] == max(labels.count("up"), labels.count("flat")) / len(labels)
    assert {metric.key for metric in METRICS} < found.keys()


def test_an_evaluation_repeats_them_bit_for_bit(cli: Cli, run: Path):
    done = cli("eval", run, "--json")
    assert done.exit_code == 0, done.output
    (folder,) = (run / "eval").iterdir()
    expected = pl.read_parquet(run / "predictions.parquet").filter(pl.col("split") == "test")
    assert pl.read_parquet(folder / "predictions.parquet").equals(expected)
    results = json.loads((run / "results.json").read_text())["test"]
    (found,) = json.loads(done.stdout)
    assert {key: found[key] for key in results} == results


def test_pandas_opens_them_as_they_are(run: Path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert list(pandas.read_parquet(run / "predictions.parquet")["split"].unique()) == ["validation", "test"]


def evaluation(sequences: int, ids: np.ndarray | None = None) -> Evaluation:
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(size=(sequences, 3)).astype(np.float32)
    ids_N = np.arange(sequences) if ids is None else ids
    return Evaluation(("a", 'b, "c"', "é"), rng.integers(0, 3, sequences), logits_NK, ids_N)


def test_many_are_written_in_pieces_and_stay_in_order(tmp_path, monkeypatch):
    found = evaluation(50)
    write_predictions(tmp_path / "whole.parquet", {"test": found})
    monkeypatch.setattr(predictions, "CHUNK", 21)
    write_predictions(tmp_path / "pieces.parquet", {"test": found})
    whole = pl.read_parquet(tmp_path / "whole.parquet")
    assert whole["id"].to_list() == list(range(50))
    assert pl.read_parquet(tmp_path / "pieces.parquet").equals(whole)
    assert whole.columns[-3:] == ["probability_a", 'probability_b, "c"', "probability_é"]


def test_a_folder_that_is_not_there_is_told_in_words(tmp_path):
    with pytest.raises(OutputError, match="Cannot write"):
        write_predictions(tmp_path / "none" / "predictions.parquet", {"test": evaluation(5)})
    assert list(tmp_path.iterdir()) == []


def test_of_many_classes_only_the_probability_of_the_predicted_one_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "MANY_CLASSES", 2)
    found = evaluation(50)
    write_predictions(tmp_path / "many.parquet", {"test": found})
    many = pl.read_parquet(tmp_path / "many.parquet")
    assert many.columns == ["split", "id", "label", "predicted", "probability"]
    logits_NK = found.logits_NK.astype(np.float64)
    expected_N = (np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(many["probability"], expected_N, rtol=1e-6)
