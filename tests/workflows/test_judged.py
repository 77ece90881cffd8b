"""What is read back from the predictions of a run equals what the evaluation said."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rnnclf.calibration import reliability
from rnnclf.metrics import Evaluation
from rnnclf.workflows import predictions
from rnnclf.workflows.judged import Judged, judged
from rnnclf.workflows.predictions import write_predictions

CLASSES = ("a", "split", "", "=c")  # one is called like a column


@pytest.fixture(scope="module")
def found() -> Evaluation:
    random = np.random.RandomState(0)
    y_N = random.randint(0, 3, 200)  # the last class never occurs, but is predicted
    logits_NK = random.standard_normal((200, 4)) + 1.5 * np.eye(4)[y_N]
    return Evaluation(CLASSES, y_N, logits_NK.astype(np.float32), np.arange(1000, 1200), temperature=1.3)


@pytest.fixture
def read(found, tmp_path) -> Judged:
    other = Evaluation(CLASSES, found.y_N[:50], -found.logits_NK[:50], np.arange(50))
    write_predictions(tmp_path / "p.parquet", {"validation": other, "test": found})
    read = judged(tmp_path / "p.parquet", "test", 5)
    assert isinstance(read, Judged)
    return read


def test_confusions_classes_and_reliability_are_those_of_the_evaluation(found, read):
    assert read.classes == CLASSES
    assert read.counts == [list(row) for row in found.counts]
    assert read.by_class() == found.by_class()
    for mine, theirs in zip(read.reliability, reliability(found), strict=True):
        assert vars(mine) == pytest.approx(vars(theirs))
    assert (read.total, read.mistakes) == (200, 200 - found.score.correct)


def test_mistakes_are_the_most_confident_ones_with_their_place_in_the_split(found, read):
    wrong_n = np.flatnonzero(found.predicted_N != found.y_N)
    order = wrong_n[np.argsort(-found.confidence_N[wrong_n], kind="stable")][:5]
    assert [each.row for each in read.wrong] == order.tolist()
    assert [each.id for each in read.wrong] == (1000 + order).tolist()
    for each, n in zip(read.wrong, order, strict=True):
        assert each.probability == pytest.approx(found.confidence_N[n])
        assert each.probability_of_label == pytest.approx(found.probabilities_of(found.y_N[n])[n])


def test_of_many_classes_only_what_is_saved_is_told(found, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "MANY_CLASSES", 3)
    write_predictions(tmp_path / "p.parquet", {"test": found})
    read = judged(tmp_path / "p.parquet", "test", 2)
    assert read.classes == tuple(sorted(CLASSES))
    assert read.mistakes == 200 - found.score.correct
    assert read.wrong[0].probability_of_label is None


FOREIGN = {"split": ["test"], "id": [1], "label": ["a"], "predicted": ["b"]}


@pytest.mark.parametrize(
    "columns",
    [
        {"split": ["test"]},
        {**FOREIGN, "probability_a": ["no number"]},
        {**FOREIGN, "probability_a": [0.5]},  # none for class b
        {**FOREIGN, "label": [None], "probability_b": [0.5]},
    ],
)
def test_tables_from_elsewhere_are_refused(columns, tmp_path):
    pl.DataFrame(columns).write_parquet(tmp_path / "p.parquet")
    assert judged(tmp_path / "p.parquet", "test", 1) == "p.parquet cannot be read"


def test_what_is_missing_or_damaged_is_told(tmp_path, found):
    assert judged(tmp_path / "p.parquet", "test", 1) == "p.parquet is missing"
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no more")
    assert judged(tmp_path / "p.parquet", "test", 1) == "p.parquet cannot be read"
    write_predictions(tmp_path / "p.parquet", {"validation": found})
    assert judged(tmp_path / "p.parquet", "test", 1) == "there are no predictions for the test split"
