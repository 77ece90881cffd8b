"""Folds: a cross-validation is one result, in which each sequence counts once."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest

from rnnclf.data.synthetic import Waves, make
from rnnclf.metrics import wilson_interval
from rnnclf.workflows.sweep import rank_sweep
from tests.workflows.finished_sweeps import Done, finished_sweep
from tests.workflows.test_seeds import shown


def fold(number: int, test: list[int], validation: list[int], *words: str, accuracy: float = 0.5) -> Done:
    words = ("dataset.folds=3", f"dataset.fold={number}", *words)
    return Done(words, accuracy, accuracy, ids={"test": test, "validation": validation})


def test_the_folds_of_a_configuration_are_one_result(tmp_path):
    """Of the sequences 0 to 8, five are even, and so classified correctly."""
    jobs = [
        fold(number, [number, number + 3, number + 6], [40, 42], word)
        for word in ("cell=gru", "cell=lstm")
        for number in range(3)
    ]
    ranking = rank_sweep(finished_sweep(tmp_path / "sweep", *jobs))
    first = ranking.candidates[0]
    assert first.pooled_split == "test"
    assert (first.pooled[0].correct, first.pooled[0].total) == (5, 9)
    assert first.interval95 == wilson_interval(5, 9)
    table = pl.read_parquet(tmp_path / "sweep" / "out_of_fold.parquet")
    assert table.columns == [
        *("configuration", "seed", "fold", "id", "label", "predicted", "probability_a", "probability_b"),
    ]
    for name in ("cell=gru", "cell=lstm"):
        one = table.filter(pl.col("configuration") == name)
        assert sorted(one["id"]) == list(range(9))
        assert one["fold"].to_list() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    text = shown(ranking)
    assert "55.56 ± 0.00 %" in text
    assert "over common folds" in text


def test_where_the_data_have_a_test_split_the_folds_are_the_validation_split(tmp_path):
    jobs = [fold(number, [20, 21, 22], [number, number + 3]) for number in range(3)]
    ranking = rank_sweep(finished_sweep(tmp_path / "sweep", *jobs))
    (first,) = ranking.candidates
    assert (first.pooled_split, first.pooled[0].total, first.accuracy) == ("validation", 6, 0.5)
    assert "the folds are the validation split" in shown(ranking)


def test_a_fold_that_is_missing_is_told_and_not_ranked(tmp_path):
    jobs = [
        *(fold(number, [number], [40], "cell=gru", accuracy=0.9) for number in range(2)),
        *(fold(number, [number], [40], "cell=lstm") for number in range(3)),
    ]
    sweep = finished_sweep(tmp_path / "sweep", *jobs)
    ranking = rank_sweep(sweep)
    assert [(c.words[1], c.rank) for c in ranking.candidates] == [("cell=lstm", 1), ("cell=gru", None)]
    assert {*pl.read_parquet(sweep / "out_of_fold.parquet")["configuration"]} == {"cell=lstm"}


def test_folds_with_sequences_in_common_are_not_pooled(tmp_path):
    jobs = [fold(number, [number, 7], [40]) for number in range(3)]
    sweep = finished_sweep(tmp_path / "sweep", *jobs)
    assert "The folds with seed 0 cannot be taken together" in shown(rank_sweep(sweep))
    assert not (sweep / "out_of_fold.parquet").exists()


def test_a_damaged_file_of_predictions_is_told(tmp_path):
    sweep = finished_sweep(tmp_path / "sweep", *(fold(number, [number], [40]) for number in range(3)))
    (sweep / "1" / "predictions.parquet").write_bytes(b"PAR1 or not")
    assert "The folds with seed 0 cannot be taken together" in shown(rank_sweep(sweep))


def test_each_seed_is_a_cross_validation_of_its_own(tmp_path):
    jobs = [
        fold(number, [number, 10 + number + seed], [40], f"seed={seed}")
        for seed in range(3)
        for number in range(3)
    ]
    (first,) = rank_sweep(finished_sweep(tmp_path / "sweep", *jobs)).candidates
    assert [pooled.correct for pooled in first.pooled] == [4, 3, 4]
    assert first.accuracy == pytest.approx(11 / 18)
    assert "3 × 3" in shown(rank_sweep(tmp_path / "sweep"))


@pytest.mark.long
def test_folds_of_a_file_predict_each_of_its_sequences_once(cli, tmp_path):
    make(Path("my.csv"), Waves(sequences=30, length=10))
    small = (
        "recipe=plain",
        "hidden=2",
        "epochs=1",
        "threads=1",
        "engine=loop",
        "dataset.missing=mask",
        "hydra/launcher=basic",
    )
    done = cli("train", "my.csv", "folds=2", *small, "hydra.sweep.dir=sweep")
    assert done.exit_code == 0, done.output
    table = pl.read_parquet("sweep/out_of_fold.parquet")
    assert len(table) == table["id"].n_unique() == 30
    right = int((table["label"] == table["predicted"]).sum())
    with open("sweep/sweep.csv") as file:
        (line,) = csv.DictReader(file)
    assert float(line["test_accuracy"]) == pytest.approx(right / 30)
    assert [float(line["test_low"]), float(line["test_high"])] == pytest.approx(wilson_interval(right, 30))
    assert f"{100 * right / 30:.2f} ±" in cli("eval", "sweep").stdout
