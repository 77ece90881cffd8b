"""patience and max_time: when training ends before its last epoch, what it leaves, and that it is said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from rnnclf import RNNClassifier, checkpoint
from rnnclf.durations import Duration, parse_patience, parse_time
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.metrics import Score
from rnnclf.training.loop import EpochResult
from rnnclf.workflows import saving
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.saving import History
from rnnclf.workflows.stopping import out_of_patience
from rnnclf.workflows.train import train
from tests.conftest import rows_without_times
from tests.workflows.killed_runs import Witness, assert_as_in_peace, config_of, in_peace, killed

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

OVERFITTED = "epochs=12 optimizer.lr=0.3 schedule=constant hidden=6 batch_size=50 patience=2"
"""Training that gets worse soon."""


@pytest.fixture(scope="module")
def base():
    return load_config(["dataset=digits", "epochs=100", "batch_size=50", "schedule=constant"])


# Patience


def stopped_at(config, scores, sequences=250):
    """The epoch after which training with these validation scores ends, and the best one until then."""
    history = History()
    for epoch, (correct, loss) in enumerate(scores, start=1):
        score = Score(correct, 100, loss)
        history.add(EpochResult(epoch, score, score, 0.1, 1.0), {}, config.select)
        if out_of_patience(config, epoch, history.best.epoch, sequences):
            return epoch, history.best.epoch
    return None, history.best.epoch


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(50, 1.0)] * 9, (4, 1)),  # the same score is no better
        ([(50, 1.0), (40, 0.5), (49, 0.1), (49, 0.1)], (4, 1)),  # a lower loss does not make up for accuracy
        ([(50, 1.0), (50, 0.9), (50, 0.95), (50, 0.9), (50, 0.9)], (5, 2)),  # but decides where it is equal
        ([(50, 1.0), (40, 1.0), (40, 1.0), (51, 9.0), *[(50, 1.0)] * 3], (7, 4)),  # at the last moment
        ([(50 + n, 1.0) for n in range(40)], (None, 40)),
        ([(50, float("nan")), (50, 2.0), (50, float("nan")), (50, 2.0), (50, 3.0)], (5, 2)),
        ([(50, 1.0)] * 3, (None, 1)),
    ],
)
def test_patience_by_hand(base, scores, expected):
    for patience in (3, "3", "3 epochs", "15 updates", "11 steps"):  # 5 steps an epoch
        assert stopped_at(replace(base, patience=patience), scores) == expected, patience


def test_the_last_epoch_is_no_early_end_and_without_patience_there_is_none(base):
    scores = [(50, 1.0)] * 4
    assert stopped_at(replace(base, patience=3, epochs=4), scores) == (None, 1)
    assert stopped_at(base, [(50, 1.0)] * 99) == (None, 1)


def test_steps_are_those_of_the_protocol(base):
    tutorial = replace(base, protocol="tutorial", patience="4 steps")  # of two whole batches and a part
    assert stopped_at(tutorial, [(50, 1.0)] * 9, sequences=149) == (3, 1)
    assert stopped_at(replace(base, patience="4 steps"), [(50, 1.0)] * 9, sequences=149) == (3, 1)
    assert stopped_at(replace(base, patience="6 steps"), [(50, 1.0)] * 9, sequences=149) == (3, 1)
    assert stopped_at(replace(tutorial, patience="6 steps"), [(50, 1.0)] * 9, sequences=149) == (4, 1)


@pytest.fixture(scope="module")
def overfitted():
    folder = in_peace(OVERFITTED)
    return folder, json.loads(folder.results.read_text())


def test_a_run_out_of_patience_ends_with_its_best_epoch_and_says_why(overfitted):
    folder, results = overfitted
    best, last = results["best_epoch"], results["epochs"]
    assert last == best + 2 < 12
    since = f"the validation score has not improved since epoch {best} (patience=2)."
    assert results["stopped"] == f"Stopped at epoch {last} of 12: {since}"
    assert folder.read_status()["state"] == "done"
    assert checkpoint.read_header(folder.best)["epoch"] == best
    rows = rows_without_times(folder.epochs)
    longer = in_peace(OVERFITTED.replace(" patience=2", ""))
    longer_rows = rows_without_times(longer.epochs)
    assert rows == longer_rows[:last]  # what it trained is what it would have trained without patience


@pytest.mark.long
@pytest.mark.parametrize("where", ["middle", "last"])
def test_killed_and_resumed_it_ends_at_the_same_epoch(overfitted, where, tmp_path):
    batches = 6 * overfitted[1]["epochs"] - (0 if where == "last" else 8)
    folder = killed(OVERFITTED, batches, tmp_path / "run")
    assert resume_run(folder) is not None
    assert_as_in_peace(folder, OVERFITTED)
    assert overfitted[1]["stopped"] in folder.log.read_text()


def test_killed_after_its_last_epoch_it_trains_no_other(overfitted, tmp_path, monkeypatch):
    class Kill(BaseException):
        pass

    def kill(*_):
        raise Kill

    with monkeypatch.context() as patched:
        patched.setattr("rnnclf.workflows.train._write_results", kill)
        with pytest.raises(Kill):
            train(config_of(OVERFITTED), tmp_path / "run")
    witness = Witness()
    resume_run(RunFolder(tmp_path / "run"), watch=witness)
    assert witness.batches == []
    assert_as_in_peace(RunFolder(tmp_path / "run"), OVERFITTED)


def test_more_epochs_do_not_prolong_a_stopped_run(overfitted):
    folder, results = overfitted
    message = (
        rf"^epochs=50 does not prolong a run that was stopped early\. Stopped at epoch {results['epochs']} "
    )
    with pytest.raises(ConfigError, match=message):
        resume_run(folder, epochs=50)
    assert resume_run(folder) is None


# Time


@pytest.fixture
def ticking(monkeypatch):
    """Lets a second of training pass at each look at the clock."""

    def tick(words, path, seconds=1.0):
        looks = iter(range(10**6))
        monkeypatch.setattr(saving.Saver, "seconds", property(lambda saver: seconds * next(looks)))
        return train(config_of(words), path)

    return tick


def test_out_of_time_an_epoch_is_cut_short_and_counts(ticking, tmp_path):
    report = ticking("max_time=20s epochs=9 checkpoint.every=1h schedule=cosine", tmp_path)
    stopped = "Stopped at epoch 4 of 9: max_time=20s has passed. schedule=cosine is laid out for 9 epochs:"
    assert report.results["stopped"].startswith(f"{stopped} epochs=4 takes about as long")
    assert report.results["epochs"] == 4
    totals = saving.history_of(checkpoint.load(report.folder.last)).results
    assert [result.train.total for result in totals][:3] == [267, 267, 267]
    assert 0 < totals[3].train.total < 267
    assert report.folder.read_status()["state"] == "done"


def test_one_step_is_always_made(ticking, tmp_path):
    report = ticking("max_time=1s schedule=constant", tmp_path, seconds=100)
    assert report.results["stopped"] == "Stopped at epoch 1 of 3: max_time=1s has passed."
    rows = report.folder.epochs.read_text().splitlines()
    assert len(rows) == 2


def test_a_final_fit_has_half_of_the_time(ticking, tmp_path):
    words = "final_fit=true epochs=9 select=last schedule=constant checkpoint.every=1h"
    report = ticking(f"{words} max_time=40s", tmp_path)
    assert "half of max_time=40s has passed, the rest is for the final fit." in report.results["stopped"]
    assert report.results["epochs"] == 4


def test_time_before_a_resume_counts(tmp_path):
    folder = killed("max_time=1h", 9, tmp_path / "run")
    saved = checkpoint.load(folder.last)
    header = {key: value for key, value in saved.header.items() if key not in ("format", "rnnclf")}
    checkpoint.save(folder.last, {**header, "seconds": 3600.5}, saved.tensors)
    report = resume_run(folder)
    assert report.results["stopped"].startswith("Stopped at epoch 2 of 3: max_time=1h has passed.")
    assert resume_run(folder) is None


@pytest.mark.long
def test_time_that_does_not_run_out_changes_nothing():
    plain, limited = in_peace(""), in_peace("max_time=1h")
    one, other = (checkpoint.load(run.best).model_tensors() for run in (plain, limited))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert limited.read_results()["stopped"] == ""


# Words


@pytest.mark.parametrize("word", [0, -1, "0", "often", "5m", "2.5", "1e3", "20 batches", "", "500 s"])
def test_patience_refuses_what_is_no_number_of_epochs_or_steps(word):
    with pytest.raises(ConfigError, match=r"^patience must be a number of epochs such as 20, or .*, got '"):
        parse_patience(word)


def test_patience_and_time_are_read():
    assert (
        parse_patience(20) == parse_patience("20 epochs") == parse_patience("20epoch") == Duration(epochs=20)
    )
    assert parse_patience("500 updates") == parse_patience("500steps") == Duration(steps=500)
    assert [parse_time(word) for word in ("30s", "10m", "1h", "90 m")] == [30, 600, 3600, 5400]
    for word in ("600", "10", "1:30", "10min", "5 epochs", "20 steps", "0s", "1.5h"):
        with pytest.raises(
            ConfigError, match=rf"^max_time must be a time such as 30s, 10m or 1h, got '{word}'"
        ):
            parse_time(word)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["patience=true"], "patience must be a number of epochs such as 20, or of training steps"),
        (["patience=1.5"], "patience must be a number of epochs such as 20, or of training steps"),
        (["patience=soon"], "such as '500 updates', got 'soon'."),
        (["max_time=600"], "max_time must be a time such as 30s, 10m or 1h, got '600'."),
        (["patience=3", "select=last"], "which select=last does not keep: use select=best."),
        (["early_stopping=3"], "No key named 'early_stopping'. Did you mean 'patience'?"),
        (["average.decay=0.9"], "average=none has no option 'decay'."),
    ],
)
def test_a_wrong_word_is_refused_in_words(words, message):
    with pytest.raises(ConfigError) as caught:
        load_config(words)
    assert message in str(caught.value)


def test_patience_wins_over_the_last_epoch_of_the_recipe(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("id,time,x,label\n")
    config = load_config([f"dataset={path}", "patience=500 updates"])
    assert (config.recipe, config.select, config.patience) == ("auto", "best", "500 updates")
    assert load_config([f"dataset={path}", "patience=null"]).select == "last"


# Python


def test_python_stops_early_too():
    x, y = torch.randn(60, 5, 2).numpy(), [0, 1] * 30
    words = {"hidden": 3, "epochs": 40, "batch_size": 10, "threads": 1, "optimizer__lr": 0.5}
    model = RNNClassifier(**words, patience=2).fit(x, y)
    assert 3 <= len(model.history_) < 40
    assert f"Stopped at epoch {len(model.history_)} of 40" in model.notes_[-1]
    assert RNNClassifier(**words, average="ema", average__decay=0.5).fit(x, y).config_.average.decay == 0.5
