"""The temperature of a trained model: where it is fitted, stored, applied and shown."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from rnnclf import RNNClassifier, checkpoint, load
from rnnclf.console.evaluation import _overview, _sets
from rnnclf.console.screen import short
from rnnclf.console.training import _summary as training_summary
from rnnclf.errors import CheckpointError
from rnnclf.hydra_app.compose import load_config
from rnnclf.training.evaluation import evaluate_model
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.loading import load_model
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sureness import SureWords, sureness_of
from rnnclf.workflows.train import Data, Watcher, train
from tests.workflows.killed_runs import Kill

WORDS = (
    "dataset=digits dataset.validation=150 dataset.test=600 hidden=16 batch_size=30 threads=1"
    " epochs=9 patience=2 average=ema optimizer.lr=0.01 schedule=constant"
)
"""A run that is unsure of itself, with averaged weights, and with a patience that ends it early."""


def config_of(words=""):
    return load_config([*WORDS.split(), *words.split()])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return train(config_of(), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def raw(report):
    """The evaluations of its best model as it was before there were temperatures."""
    model, data = load_model(report.folder.best, []).model, Data.of(config_of(), Watcher())
    return {name: evaluate_model(model, data.parts[name]) for name in ("train", "validation", "test")}


def headed(path, **changes):
    """A checkpoint with other values in its header; None takes one out."""
    saved = checkpoint.load(path)
    header = {key: value for key, value in {**saved.header, **changes}.items() if value is not None}
    header.pop("format")
    other = path.with_name("other.safetensors")
    checkpoint.save(other, header, saved.tensors)
    return other


def test_the_temperature_is_that_of_the_best_model_on_validation(report, raw):
    found, before = checkpoint.load(report.folder.best).calibration, raw["validation"]
    n = np.arange(150)
    target_NK = np.full((150, 10), 1 / 152 / 9)
    target_NK[n, before.y_N] = 151 / 152

    def loss(temperature):
        return -(target_NK * log_softmax(before.logits_NK.astype(float) / temperature, axis=1)).sum()

    expected = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9}).x
    assert found.temperature == pytest.approx(expected, rel=2e-4)
    assert abs(np.log(found.temperature)) > 0.1
    assert (found.sequences, len(found.scores)) == (150, 150)
    p_N = softmax(before.logits_NK.astype(float) / found.temperature, axis=1)[n, before.y_N]
    np.testing.assert_allclose(found.scores, np.sort(1 - p_N), atol=2e-6)
    assert report.results["calibration"] == found.summary()
    last = checkpoint.load(report.folder.last)  # the state of a training that could go on
    assert (last.calibration, last.temperature) == (None, 1.0)


def test_probabilities_are_calibrated_and_accuracies_are_what_they_were(report, raw):
    temperature = checkpoint.load(report.folder.best).temperature
    table = pl.read_parquet(report.folder.predictions)
    for split, before in raw.items():
        found = report.results[split]
        calibrated = dataclasses.replace(before, temperature=temperature)
        assert found["correct"] == before.score.correct
        assert found["loss"] == pytest.approx(calibrated.score.loss, rel=1e-6)
        assert found["loss"] < before.score.loss
        if split != "train":
            assert found["calibration_error"] == calibrated.metrics["calibration_error"]
            rows = table.filter(pl.col("split") == split)
            assert rows["predicted"].to_list() == [str(k) for k in before.predicted_N]
            shares_NK = rows.select(pl.col("^probability_.*$")).to_numpy()
            expected_NK = softmax(before.logits_NK.astype(float) / temperature, axis=1)
            np.testing.assert_allclose(shares_NK, expected_NK, rtol=1e-9)
    shown = str(training_summary(report).renderables[-1])
    assert f"probabilities at temperature {temperature:g}, fitted on 150 validation sequences (" in shown


def test_eval_shows_reliability_and_the_sets_that_were_asked_for(cli, report, raw):
    done = cli("eval", report.folder.path, "sets=0.9", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert {key: found[key] for key in report.results["test"]} == report.results["test"]
    saved = checkpoint.load(report.folder.best).calibration
    assert found["temperature"] == saved.temperature
    assert sum(row["sequences"] for row in found["reliability"]) == 600
    p_NK = softmax(raw["test"].logits_NK.astype(float) / saved.temperature, axis=1)
    set_NK = 1 - p_NK <= saved.scores[int(np.ceil(151 * 0.9)) - 1]
    right_N, single_N = set_NK[np.arange(600), raw["test"].y_N], set_NK.sum(axis=1) == 1
    expected = {"covered": right_N.sum(), "classes": set_NK.sum(), "single": single_N.sum()}
    expected["single_correct"] = (right_N & single_N).sum()
    assert {key: found["sets"][key] for key in expected} == expected
    (shown,) = report.folder.path.glob("eval/*/accuracy.txt")
    text = " ".join(shown.read_text().split())
    assert "probability of mean the predicted class sequences probability right" in text
    share, size = expected["covered"] / 600, expected["classes"] / 600
    sentence = f"{expected['covered']} of 600 contain the true class ({share:.2%}"[:-1]
    assert f"sets of 90 %: {sentence} %), with {size:.2f} classes on average;" in text
    assert "decided how large" not in text


def test_the_sets_of_validation_itself_are_said_to_be_its_own(report):
    (found,) = evaluate(report.folder.path, ["split=validation", "sets=0.95"])
    assert found.sets.covered == np.ceil(151 * 0.95)
    assert found.calibration.coverage(found.sets.limit) == found.sets.covered / 150
    assert _sets(found, named=False).endswith("; these are the sequences that decided how large the sets are")
    assert _sets(found, named=True).startswith(f"{short(report.folder.path)}: sets of 95 %: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["sets=0.999"],
            "sets=0.999 needs at least 999 validation sequences, but the model was trained with 150.",
        ),
        (["sets=95"], "sets must be a share between 0 and 1 such as 0.95, got 95."),
        (["sets=much"], "sets must be a share between 0 and 1 such as 0.95, got much."),
    ],
)
def test_sets_that_cannot_be_made_are_refused(cli, report, words, message):
    done = cli("eval", report.folder.path, *words)
    assert done.exit_code == 2
    assert done.stderr == f"error: {message}\n"


def test_an_older_checkpoint_has_probabilities_as_its_model_gives_them(cli, report, raw):
    older = headed(report.folder.best, calibration=None)
    (found,) = evaluate(older)
    assert (found.evaluation.temperature, found.calibration) == (1.0, None)
    assert found.evaluation.score.loss == raw["test"].score.loss
    done = cli("eval", older, "sets=0.9")
    assert done.exit_code == 2
    assert "has no calibration" in done.stderr
    assert all(
        "probabilities" not in str(part) for part in _overview([found], runs=False, width=100).renderables
    )


def test_a_damaged_calibration_is_refused(report):
    good = checkpoint.load(report.folder.best).header["calibration"]
    for damage in (7, {}, {**good, "temperature": -1}, {**good, "scores": ["x"]}):
        with pytest.raises(CheckpointError, match="its header has no valid 'calibration'"):
            checkpoint.load(headed(report.folder.best, calibration=damage))


def test_inspect_says_the_temperature_without_the_scores(cli, report):
    text = cli("inspect", report.folder.best).stdout
    found = checkpoint.load(report.folder.best).calibration
    assert f"temperature {found.temperature:g}, fitted on 150 validation sequences" in " ".join(text.split())
    assert str(found.scores[0]) not in text


def killed(*_):
    raise Kill


@pytest.mark.long
@pytest.mark.parametrize("moment", ["calibrate", "_write_results"])
def test_killed_around_it_and_resumed_a_run_ends_the_same(report, tmp_path, monkeypatch, moment):
    monkeypatch.setattr(f"rnnclf.workflows.train.{moment}", killed)
    with pytest.raises(Kill):
        train(config_of(), tmp_path / "run")
    monkeypatch.undo()
    again = resume_run(RunFolder(tmp_path / "run"))
    assert again.folder.best.read_bytes() == report.folder.best.read_bytes()
    for key in ("train", "validation", "test", "calibration"):
        assert again.results[key] == report.results[key]


@pytest.mark.long
def test_with_a_final_fit_the_calibration_is_that_of_the_first_and_sets_are_approximate(report, tmp_path):
    fitted = train(config_of("final_fit=true"), tmp_path / "run")
    first, found = (checkpoint.load(each.folder.best) for each in (report, fitted))
    assert found.calibration == first.calibration
    assert fitted.results["validation"] == report.results["validation"]
    assert "150 validation sequences before the final fit (" in str(training_summary(fitted).renderables[-1])
    (scored,) = evaluate(fitted.folder.path)
    assert scored.evaluation.temperature == first.temperature
    assert scored.evaluation.score.loss == pytest.approx(fitted.results["test"]["loss"])
    (scored,) = evaluate(fitted.folder.path, ["sets=0.9"])
    assert scored.sets.limit == first.limit_of_sets(0.9, "sets=0.9")
    assert _sets(scored, named=False).endswith(
        "; the share is approximate: it was measured with the model before the final fit"
    )
    sure = sureness_of(SureWords(sets=0.9), [load_model(found.path, [])], whole_recordings=False)
    assert sure.notes[0].startswith("The sets of 90 % are approximate: on the 150 validation sequences, ")


def test_python_gives_the_same_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = rng.normal(size=(120, 6, 2)) + 3 * y[:, None, None]
    model = RNNClassifier(hidden=6, epochs=3, batch_size=20, threads=1, optimizer__lr=0.01).fit(x, y)
    model.save(tmp_path / "model.safetensors")
    temperature = checkpoint.load(tmp_path / "model.safetensors").temperature
    assert temperature != 1
    for each in (model, load(tmp_path / "model.safetensors")):
        logits_NK = each._logits(x).astype(float)
        np.testing.assert_allclose(each.predict_proba(x), softmax(logits_NK / temperature, axis=1), rtol=1e-9)
        assert (each.predict(x).astype(int) == logits_NK.argmax(axis=1)).all()
