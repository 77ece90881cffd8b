"""A run that breaks in the middle says so: at once, in its results, and wherever these are shown."""

from __future__ import annotations

import csv
import math

import pytest
from sklearn.datasets import load_digits

from rnnclf import RNNClassifier
from rnnclf.console.inspect import show_inspection
from rnnclf.console.training import show_report
from rnnclf.hydra_app import load_config
from rnnclf.metrics import Score
from rnnclf.training import breaks
from rnnclf.workflows import fitting
from rnnclf.workflows.inspect import inspect
from rnnclf.workflows.report_words import training_doubts
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.workflows.killed_runs import Witness, config_of


@pytest.fixture
def breaking(monkeypatch):
    """Each second epoch begins a break."""
    monkeypatch.setattr(breaks, "_is_lost", lambda before, now: before is not now)
    monkeypatch.setattr(breaks, "VALIDATION_Z", -math.inf)


def test_a_break_is_told_at_once_and_wherever_results_are_shown(tmp_path, breaking, capsys, caplog):
    folder, witness = RunFolder(tmp_path / "run"), Witness()
    report = train(config_of("diagnose=true"), folder, witness)
    found = report.results["breaks"]
    assert found[0]["epoch"] == 2
    (note, *_) = [note for note in witness.notes if note.startswith("Training broke in epoch 2")]
    assert note in caplog.messages  # what train.log gets
    words = found[0]["words"]
    assert "that was kept" in words
    assert "that was kept" not in note
    assert training_doubts(folder.read_results()) == [one["words"] for one in found]
    assert report.diagnosis is not None
    assert words in report.diagnosis.words
    show_report(report, None, parallel=True)
    assert words in capsys.readouterr().out
    show_inspection(inspect(folder.path))
    assert words in " ".join(capsys.readouterr().out.split())


MIRRORED = (
    "dataset=digits epochs=8 batch_size=20 threads=1 augment=image augment.flip=1"
    " augment.shift=0 augment.rotate=0 augment.scale=0 augment.shear=0"
)


def test_a_network_that_has_only_seen_mirrored_pictures_is_told_so(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    report = train(load_config(MIRRORED.split()), folder, Witness())
    found = report.results["shortfall"]
    assert found["kept"] == report.scores["train"].accuracy
    assert found["in_training"] - found["kept"] > 0.1
    assert training_doubts(folder.read_results()) == [found["words"]]
    show_report(report, None, parallel=True)
    assert found["words"] in capsys.readouterr().out
    show_inspection(inspect(folder.path))
    assert found["words"] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", ["average=ema", "sampling=balanced", "final_fit=true"])
def test_scores_of_other_weights_or_sequences_are_not_compared(tmp_path, words):
    report = train(load_config([*MIRRORED.split(), words]), RunFolder(tmp_path / "run"), Witness())
    assert report.results["shortfall"] is None


@pytest.mark.parametrize("final_fit", [False, True])
def test_the_estimator_notes_a_shortfall_of_the_weights_that_it_keeps(monkeypatch, final_fit):
    scored = []

    def worse(model, data):
        scored.append(len(data))
        return Score(correct=0, total=len(data), loss=9.0)

    monkeypatch.setattr(fitting, "score_model", worse)
    digits = load_digits()
    model = RNNClassifier(hidden=32, epochs=10, batch_size=20, seed=0, final_fit=final_fit)
    model.fit(digits.images[:600] / 16, digits.target[:600])
    assert scored == [510], "the training split alone"
    told = [note for note in model.notes_ if note.startswith("The network classifies 0.00 % of the training")]
    assert len(told) == (0 if final_fit else 1)


def test_each_epoch_is_recorded_with_its_gradient_norms(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(config_of("clip=1e-6"), folder, Witness())
    with open(folder.epochs) as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["gradient_norm", "largest_gradient_norm", "clipped"]
    for row in rows:
        assert 0 < float(row["gradient_norm"]) <= float(row["largest_gradient_norm"])
        assert float(row["clipped"]) == 1.0


@pytest.mark.parametrize("of_unknown_origin", [None, 3, {}, [3], [{}], [{"words": 3}], [None]])
def test_results_without_breaks_say_nothing_of_them(of_unknown_origin):
    assert training_doubts({"breaks": of_unknown_origin}) == []
    assert training_doubts({}) == []
