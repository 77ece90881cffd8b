"""A search tries points, ends what is not worth more epochs, and trains the best with other seeds."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from benchmarks.reliability.kill import differences
from rnnclf.errors import CheckpointError, DivergedError
from rnnclf.system.claims import claimed
from rnnclf.workflows.jobs import JobsWatcher
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.search import training
from rnnclf.workflows.search.command import tune
from rnnclf.workflows.search.outcome import Outcome
from rnnclf.workflows.search.record import read_search
from rnnclf.workflows.sweep_folder import jobs_of
from tests.workflows.sweeps import SLOW, command, shell

RATES = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
DATA = ("dataset=digits", "dataset.validation=60", "dataset.test=1500", "threads=1", "cell=basic")
SMALL = ("tune", *DATA, "epochs=2", "hidden=range(4,9)", RATES, "hydra.sweep.dir=found", "sampler=random")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def _searched(tmp_path_factory):
    """The folder of a search of three trials."""
    folder = tmp_path_factory.mktemp("search")
    words = [word for word in SMALL if not word.startswith("hydra.")]
    assert tune([*words[1:], "trials=3", "seeds=0", f"hydra.sweep.dir={folder / 'found'}"], JobsWatcher())
    return folder / "found"


@pytest.fixture
def found(_searched):
    """A search of three trials, in the current folder."""
    shutil.copytree(_searched, "found")
    return outcome()


def outcome() -> Outcome:
    return Outcome.of(Path("found"), read_search(Path("found")))


def points() -> list[dict[str, object]]:
    return [one.trial.point for one in outcome().seen]


def test_the_best_trial_is_that_with_the_best_validation_accuracy(found):
    assert [one.trial.state for one in found.seen] == ["done"] * 3
    accuracies = [one.run.read_results()["validation"]["accuracy"] for one in found.seen]
    assert [one.accuracy for one in found.seen] == accuracies
    assert found.best.accuracy == max(accuracies)
    assert found.ranked[0] is found.best
    for one in found.seen:
        status = one.run.read_status()
        assert status["configuration"]["hidden"] == one.trial.point["hidden"]
        assert status["configuration"]["optimizer"]["lr"] == one.trial.point["optimizer.lr"]


def test_the_first_trial_is_what_one_would_have_trained_without_a_search(found):
    assert found.seen[0].trial.point == {"hidden": 8, "optimizer.lr": 0.002}, "hidden=150 is out of the range"


@pytest.mark.long
def test_a_search_goes_on_with_the_points_that_it_would_have_tried(found, cli):
    before = points()
    assert cli("resume", "found", "trials=5").exit_code == 0
    longer = points()
    assert longer[:3] == before
    cli(*SMALL[:-2], "sampler=random", "hydra.sweep.dir=other", "trials=5", "seeds=0")
    other = Outcome.of(Path("other"), read_search(Path("other")))
    assert [one.trial.point for one in other.seen] == longer
    assert differences(Path("found/4"), Path("other/4")) == []


@pytest.mark.long
def test_the_trials_that_are_done_are_averaged(found, cli):
    chosen = found.ensemble
    assert {member.checkpoint.parent for member in chosen.members} <= {one.run.path for one in found.seen}
    done = cli("eval", chosen.path, "--json")
    (row,) = json.loads(done.stdout)
    assert row["accuracy"] == chosen.scores["test"]["accuracy"]


def test_what_was_found_is_written_and_shown(found, cli):
    plain = json.loads(Path("found/found.json").read_text())
    assert (plain["trials"], plain["done"], plain["best"]["trial"]) == (3, 3, found.best.trial.number)
    assert plain["best"]["validation_accuracy"] == found.best.accuracy
    assert len(Path("found/trials.csv").read_text().splitlines()) == 4
    done = cli("resume", "found", "--json")
    assert json.loads(done.stdout) == {"folder": "found", **plain}
    for text in ("3 trials: 3 done", "which settings matter: needs at least 10 trials", found.command):
        assert text in done.stderr


@pytest.mark.long
def test_the_line_that_is_shown_trains_the_best_trial(found, cli):
    words = found.command.removeprefix("rnnclf ").split()
    assert cli(*words, "hydra.run.dir=again").exit_code == 0
    assert differences(Path("again"), found.best.run.path) == []


@pytest.mark.long
def test_the_best_is_trained_with_other_seeds(found, cli):
    cli("resume", "found", "seeds=2")
    runs = jobs_of(outcome().winner)
    assert [run.read_results()["seed"] for run in runs] == [1, 2]
    assert {run.read_status()["configuration"]["hidden"] for run in runs} == {
        found.best.trial.point["hidden"]
    }
    assert outcome().repeated.done
    done = cli("work", "found")
    assert "the best with 2 other seeds: validation" in done.stdout
    done = cli("resume", "found", "seeds=3")
    assert "the best with 3 other seeds: validation" in done.stdout
    assert [run.read_results()["seed"] for run in jobs_of(outcome().winner)] == [1, 2, 3]


def test_an_interrupted_trial_is_taken_up_before_a_new_one(found, cli):
    run = found.seen[1].run
    status = {**run.read_status(), "state": "interrupted", "error": "stopped by SIGTERM"}
    run.status.write_text(json.dumps(status))
    cli("resume", "found", "trials=3")
    assert run.read_status()["state"] == "done"
    assert len(outcome().seen) == 3


def test_a_trial_of_another_worker_is_left_to_it(found, cli):
    run = found.seen[1].run
    run.status.write_text(json.dumps({**run.read_status(), "state": "running"}))
    with claimed(run.path):
        done = cli("resume", "found", "seeds=2")
    assert "1 job is with others" in done.stdout
    assert not outcome().winner.exists(), "the best is not known yet"


@SLOW
def test_a_folder_without_a_record_is_the_place_of_the_next_trial(found, cli):
    """A worker was killed between making the folder and writing into it."""
    Path("found/3").mkdir()
    cli("resume", "found", "trials=4")
    assert Path("found/3/results.json").exists()
    Path("found/4").mkdir()
    Path("found/4/notes.txt").touch()
    done = cli("resume", "found", "trials=5")
    assert done.exit_code == 2
    assert "found/4/notes.txt is in the place of a trial: move found/4 away." in done.stderr


def test_a_trial_that_fails_is_told_once_and_counted_as_the_worst(found, cli, monkeypatch):
    def diverge(*_: object, **__: object) -> None:
        raise DivergedError("The loss became nan.")

    monkeypatch.setattr(training, "resume_run", diverge)
    run = found.seen[2].run
    run.status.write_text(json.dumps({**run.read_status(), "state": "waiting"}))
    done = cli("resume", "found")
    assert (done.exit_code, outcome().seen[2].trial.state) == (0, "failed")
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "The loss became nan" in line]
    assert line in done.stderr
    assert line.startswith("error: #2 ")
    assert line.endswith(f": The loss became nan (log in {run.log})")


def test_a_search_whose_first_trials_all_fail_ends(cli):
    rows = [f"{n},{'' if (n, step) == (7, 0) else n % 5},{'ab'[n % 2]}" for n in range(60) for step in (0, 1)]
    Path("my.csv").write_text("\n".join(["id,x,label", *rows, ""]))
    words = [word for word in SMALL if not word.startswith("dataset")]
    done = cli(*words, "my.csv", "recipe=plain", "dataset.missing=error", "trials=20", "seeds=0")
    assert done.exit_code == 1
    assert [one.trial.state for one in outcome().seen] == ["failed"] * 3
    assert "all trials failed, the first: " in done.stdout
    assert "missing" in outcome().seen[0].reason


@pytest.mark.long
def test_a_point_whose_words_do_not_go_together_is_a_failed_trial(cli):
    """The ends of the range are multiples of four, as the cell wants, but not all that is between them."""
    words = [word for word in SMALL if not word.startswith(("cell=", "hidden="))]
    done = cli(*words, "cell=rglru", "cell.gate_blocks=4", "hidden=range(4,9)", "trials=5", "seeds=0")
    assert done.exit_code == 0
    failed = [one for one in outcome().seen if one.trial.state == "failed"]
    assert failed
    told = done.stderr.splitlines()
    assert sorted(line.split()[1] for line in told) == sorted(f"#{one.trial.number}" for one in failed)
    assert all("must be a multiple of 4" in one.reason for one in failed)
    assert all(one.trial.point["hidden"] % 4 for one in failed)


@pytest.mark.long
def test_the_budget_is_the_time_of_all_trials(cli, monkeypatch):
    monkeypatch.setattr(training, "PERIOD", 0.0)
    words = [word for word in SMALL if not word.startswith("epochs")]
    done = cli(*words, "epochs=100000", "budget=1s", "seeds=0")
    assert done.exit_code == 1, "not one trial is done"
    (only,) = outcome().seen
    assert (outcome().state_of(only), only.reason) == ("stopped", "the budget of 1.0 s is used up")
    assert 1 <= only.seconds < 100
    assert only.run.last.exists(), "it can be taken up again"
    assert cli("resume", "found").exit_code == 1
    assert len(outcome().seen) == 1


@pytest.mark.long
@pytest.mark.parametrize("rule", ["halving", pytest.param("median", marks=SLOW)])
def test_a_trial_that_is_worse_than_the_others_is_ended_and_can_be_finished(cli, rule):
    words = [word for word in SMALL if not word.startswith("epochs")]
    cli(*words, "epochs=4", "trials=8", "seeds=0", f"prune={rule}")
    now = outcome()
    pruned = [one for one in now.seen if one.trial.state == "pruned"]
    assert pruned
    assert now.count("done") >= 1
    for one in pruned:
        assert one.reason.startswith("pruned: ")
        assert 2 <= len(one.trial.curve) < 4
    one = pruned[0]
    assert cli("resume", one.run.path).exit_code == 0
    assert len(one.run.epochs.read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trials=0"], "trials must be a whole number of at least 1, got '0'"),
        (["budget=soon"], "budget must be a time such as 30s, 10m or 1h, got 'soon'"),
        (["sampler=best"], "sampler must be one of tpe, gp, random, got 'best'"),
        (["prune=all"], "prune must be one of none, halving, median, got 'all'"),
        (["seeds=-1"], "seeds must be a whole number of at least 0, got '-1'"),
        (["folds=3"], "repeats one configuration"),
        (["epochs=2,3"], "epochs cannot be searched"),
        (["hidden=range(0,9,8)"], "hidden must be at least 1"),
        (["dataset.path=nowhere.csv", "dataset=table"], "nowhere.csv does not exist"),
        (["cell=basik"], "basik"),
        (["budgte=20s"], "Did you mean 'budget'?"),
        (["trails=20"], "Did you mean 'trials'?"),
        (["epoch=20"], "Did you mean 'epochs'?"),
        (["optimizer.momentum=interval(0,1)"], "momentum"),
    ],
)  # fmt: skip
def test_a_wrong_word_starts_nothing(cli, words, sentence):
    keys = {word.partition("=")[0] for word in words}
    kept = [word for word in SMALL if word.partition("=")[0] not in keys]
    done = cli(*kept, *words)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("found").exists()


def test_without_optuna_it_is_told_how_to_install_it(cli, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    done = cli(*SMALL)
    assert (done.exit_code, "pip install 'rnnclf[tune]'" in done.stderr) == (2, True)
    assert not Path("found").exists()


def test_a_search_cannot_be_changed_into_another(found, cli):
    done = cli("resume", "found", "hidden=4,5")
    assert (done.exit_code, done.stderr) == (
        2, "error: 'hidden=4,5' cannot be changed in a search: only trials, budget and seeds can.\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"space": {}}, {"space": {"hidden": {"kind": "no"}}}, {"words": 3}, {"sampler": "x"}, {"seed": "0"},
     {"budget": "x"}, {"start": {"a": 1}}],
)  # fmt: skip
def test_a_damaged_record_is_refused(found, cli, change):
    path = Path("found/search.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    done = cli("resume", "found")
    assert done.exit_code == 2, done.stdout
    assert done.stderr.count("\n") == 1


def test_a_trial_of_another_search_is_refused(found):
    run = found.seen[0].run
    run.status.write_text(json.dumps({"state": "done", "point": {"layers": 2}}))
    with pytest.raises(CheckpointError, match="A point of this search has the keys"):
        outcome()


# In processes of their own

LARGER = ("tune", *DATA, "epochs=18", RATES, "hidden=range(4,17,4)", "cell.nonlinearity=tanh,relu",
          "trials=10", "seeds=2", "checkpoint.every=3steps", "hydra.sweep.dir=found")  # fmt: skip


def started(*words: str | Path) -> subprocess.Popen[bytes]:
    with open("log", "a") as log:
        return subprocess.Popen(command(*words), stdout=log, stderr=log, start_new_session=True)


@SLOW
@pytest.mark.timeout(900)
def test_killed_again_and_again_it_ends_as_a_search_in_peace(tmp_path):
    assert shell(*LARGER[:-1], "hydra.sweep.dir=peace").returncode == 0
    draw, kills = random.Random(0), 0
    process = started(*LARGER)
    while process.poll() is None:
        time.sleep(draw.uniform(3, 9))
        if process.poll() is None and kills < 6 and Path("found/search.json").exists():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            process = started("resume", "found")
    assert kills >= 3
    there = Outcome.of(Path("peace"), read_search(Path("peace")))
    here = outcome()
    assert [(one.trial.point, one.trial.state, one.trial.curve) for one in here.seen] == [
        (one.trial.point, one.trial.state, one.trial.curve) for one in there.seen
    ]
    for mine, theirs in zip(here.seen, there.seen, strict=True):
        if mine.trial.state == "done":
            assert differences(mine.run.path, theirs.run.path) == []
    for mine, theirs in zip(jobs_of(here.winner), jobs_of(there.winner), strict=True):
        assert differences(mine.path, theirs.path) == []


@SLOW
@pytest.mark.timeout(900)
def test_two_workers_share_a_search_and_one_may_die(tmp_path):
    first = started(*LARGER)
    while not Path("found/search.json").exists():
        time.sleep(0.1)
    second = started("work", "found", "--jobs", "2")
    time.sleep(10)
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    assert first.wait(timeout=600) == 0
    now = outcome()
    assert len(now.seen) == 10
    assert {one.trial.state for one in now.seen} <= {"done", "pruned"}
    assert len({json.dumps(one.trial.point) for one in now.seen}) == 10
    assert len(now.repeated.done) == 2


def test_seconds_of_runs_that_run_count(found):
    run = found.seen[0].run
    assert isinstance(run, RunFolder)
    run.status.write_text(json.dumps({**run.read_status(), "seconds": 0.0}))
    with open(run.epochs) as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert outcome().seen[0].seconds == pytest.approx(sum(seconds))
