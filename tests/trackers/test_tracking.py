"""Trackers hold what epochs.csv holds, once each, and decide nothing about a run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.completion import complete
from rnnclf.trackers import TRACKERS
from rnnclf.workflows import mirrored
from rnnclf.workflows.mirrored import Attempts
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.tracking import (
    Mirror,
    flat,
    reason_of,
    taken,
    track,
    track_jobs,
    trackers_of,
    viewers_of,
)
from tests.cli_runs import SMALL
from tests.trackers.stand_ins import told, write_epochs, write_stand_ins
from tests.workflows.finished_runs import finished_run
from tests.workflows.finished_sweeps import Done, finished_sweep

SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT", "TRACKIO_PROJECT")
REAL = (pytest.mark.slow, pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def own_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for those of which no real one is used, and no settings of the machine's."""
    place = tmp_path / "site"
    place.mkdir()
    write_stand_ins(place)
    monkeypatch.syspath_prepend(str(place))
    for name in [name for name in sys.modules if name.split(".")[0] in ("wandb", "trackio")]:
        monkeypatch.delitem(sys.modules, name)
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)


@pytest.fixture(params=["tensorboard", pytest.param("mlflow", marks=REAL), "wandb", "trackio"])
def tracker(request: pytest.FixtureRequest) -> str:
    if request.param == "mlflow":
        pytest.importorskip("mlflow")
    return str(request.param)


def a_run(path: Path, epochs: int = 9, **facts: Any) -> RunFolder:
    run = RunFolder(finished_run(path, [True] * 10, predictions=False, started=1.7e9, **facts))
    write_epochs(run, epochs)
    return run


def test_a_run_that_is_killed_twice_is_there_once(tracker):
    run = a_run(Path("run"))
    for epochs in (9, 21):
        write_epochs(run, epochs)
        Mirror(run, tracker).catch_up()  # and no end
    write_epochs(run, 39)
    last = Mirror(run, tracker)
    last.catch_up()
    write_epochs(run, 40)
    last.catch_up()
    last.end()
    assert told(tracker, run, "validation_accuracy") == [(epoch, epoch / 64) for epoch in range(1, 41)]
    losses = dict(told(tracker, run, "validation_loss"))
    assert math.isnan(losses.pop(2))
    assert losses == pytest.approx({epoch: 1 / epoch for epoch in range(1, 41) if epoch != 2})


def test_an_epoch_of_another_length_is_still_one_epoch(tracker):
    """A run that is killed between two checkpoints repeats epochs: all is the same but the seconds."""
    run = a_run(Path("run"), 4)
    Mirror(run, tracker).catch_up()
    run.epochs.write_text(run.epochs.read_text().replace(",1.0\n", ",1.5\n"))
    Mirror(run, tracker).end()
    assert [epoch for epoch, _ in told(tracker, run, "seconds")] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_the_results_are_told_once_and_those_of_a_longer_run_with_its_epochs(name):
    run = a_run(Path("run"), 3)
    for _ in range(2):
        Mirror(run, name).end()
    assert told(name, run, "result/test_accuracy") == [(3, 1.0)]


def test_a_run_that_was_interrupted_gets_no_results():
    run = a_run(Path("run"), 3)
    run.status.write_text(json.dumps({**json.loads(run.status.read_text()), "state": "interrupted"}))
    Mirror(run, "trackio").end()
    assert told("trackio", run, "result/test_accuracy") == []
    assert len(told("trackio", run, "train_loss")) == 3


def test_the_times_are_those_of_the_run(tracker):
    if tracker != "tensorboard":
        pytest.skip("read back from the event files only")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Mirror(a_run(Path("run"), 3), tracker).end()
    events = EventAccumulator("run")
    events.Reload()
    times = [event.wall_time - 1.7e9 for event in events.Scalars("train_loss")]
    assert times == [0.25, 0.75, 1.5]  # of epochs of 0.25, 0.5 and 0.75 s


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tracker=tensorbord", "No tracker named 'tensorbord'. Did you mean 'tensorboard'? Known: "),
        ("tracker=mlflow,wandb", "tracker takes one name, got 'mlflow,wandb': "),
        ("tracker=", "'tracker=' has no value: write tracker="),
        ("tracker=wandb tracker=trackio", "tracker is given twice: leave one out."),
    ],
)
def test_a_word_that_names_no_tracker_is_refused_before_anything_starts(cli, word, message):
    done = cli("train", *word.split(), "dataset=digits")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert not Path("outputs").exists()


def test_a_tracker_that_is_not_installed_is_told_before_the_run(cli, monkeypatch):
    monkeypatch.setattr("rnnclf.trackers.base.find_spec", lambda name: None)
    done = cli("train", "tracker=mlflow", "dataset=digits")
    assert done.stderr == "error: tracker=mlflow is not installed: pip install 'rnnclf[mlflow]'.\n"
    assert done.exit_code == 2
    assert not Path("outputs").exists()


def test_the_word_is_no_part_of_the_configuration():
    assert taken(["a=1", "tracker=wandb", "-m"]) == (["a=1", "-m"], "wandb")
    assert taken(["tracker=none", "tracked=1"]) == (["tracked=1"], None)
    with pytest.raises(ConfigError, match="'tracker=wandb' follows a run: only rnnclf train, resume and"):
        load_config(["tracker=wandb"])


def test_tab_offers_the_trackers():
    assert complete(["cell=lstm"], "track") == ["tracker=", *(f"tracker={name}" for name in TRACKERS)]
    assert complete(["tracker=mlflow"], "hidd") == ["hidden=", "hidden=150"]


def test_what_was_chosen_for_a_sweep_follows_all_of_its_jobs(tmp_path):
    sweep = finished_sweep(tmp_path / "grid", Done(["seed=0"], 0.9, 0.9), Done(["seed=1"], 0.8, 0.8))
    track_jobs(sweep, "wandb")
    run = RunFolder(sweep / "1")
    assert trackers_of(run.path) == ["wandb"]
    write_epochs(run, 2)
    Mirror(run, "wandb").end()
    (file,) = run.path.glob("wandb/*/run.json")
    found, group = json.loads(file.read_text()), json.loads((sweep / "tracker.json").read_text())["id"]
    assert (found["group"], found["id"], found["mode"]) == (group, f"{group}-1", "offline")
    assert found["config"]["seed"] == 1
    assert found["summary"]["result/test_accuracy"] == 0.8


def test_an_offline_run_of_wandb_takes_the_place_of_the_earlier_ones():
    run = a_run(Path("run"))
    for _ in range(3):
        Mirror(run, "wandb").catch_up()
    assert len(list(run.path.glob("wandb/*"))) == 1


def test_the_configuration_has_the_keys_of_the_command_line():
    plain = {"cell": {"name": "gru", "hidden_size": 8, "zoneout": 0.1}, "hidden": 8, "plugins": ["a", "b"]}
    plain["checkpoint"] = {"every": "epoch"}
    assert flat(plain) == {
        **{"cell": "gru", "cell.zoneout": 0.1, "hidden": 8, "plugins": "a, b"},
        "checkpoint.every": "epoch",
    }


def test_where_a_run_is_kept_is_remembered_without_the_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@example.org/x")
    place = TRACKERS["mlflow"].where({})
    assert place == {"uri": "https://example.org/x", "project": "rnnclf"}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert TRACKERS["mlflow"].where(place) == place  # in another shell
    assert TRACKERS["mlflow"].viewer("run", place, False) == "https://example.org/x"
    assert reason_of(ConnectionError("\nno way to https://me:secret@a/b.\n")) == "no way to https://a/b"
    assert len(reason_of(ConnectionError("x" * 1000))) < 200


def test_a_connection_that_failed_is_named_whatever_the_libraries_make_of_it():
    for cause, words in (
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError("timed out"), "it does not answer"),
    ):
        error = RuntimeError("HTTPConnectionPool(host='a'): Max retries exceeded with url: /api")
        error.__cause__ = ValueError("in between")
        error.__cause__.__context__ = cause
        assert reason_of(error) == f"no connection to its server ({words})"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that takes nothing."""
    monkeypatch.setattr(TRACKERS["wandb"], "send", _refuse)


def _refuse(self: object, epochs: object) -> None:
    raise ConnectionError("the server is on fire\nline two")


def test_a_broken_tracker_is_told_once_and_tried_seldom(broken, monkeypatch):
    run, notes, clock = a_run(Path("run")), [], [0.0]
    monkeypatch.setattr(mirrored.time, "monotonic", lambda: clock[0])
    attempts = Attempts(Mirror(run, "wandb"), notes.append)
    attempts.begin()
    tries = []

    def connect(self: Mirror, real: Callable[[Mirror], None] = Mirror.connect) -> None:
        tries.append(clock[0])
        clock[0] += 1
        real(self)

    monkeypatch.setattr(Mirror, "connect", connect)
    attempts.mirror.forget()
    for _ in range(200):
        attempts.catch_up()
        clock[0] += 1
    attempts.end()
    assert tries == [0.0, 101.0, 202.0]  # the last one at the end
    (note,) = notes
    assert note == (
        "tracker=wandb failed, and the run goes on without it: the server is on fire. To send what is missing"
        " afterwards: rnnclf track run tracker=wandb"
    )
    assert viewers_of(run.path) == []


def test_a_tracker_that_got_everything_later_can_be_looked_at(monkeypatch):
    run = a_run(Path("run"))
    attempts = Attempts(Mirror(run, "wandb"), [].append)
    with monkeypatch.context() as patch:
        patch.setattr(TRACKERS["wandb"], "send", _refuse)
        attempts.begin()
        attempts.end()
    assert viewers_of(run.path) == []
    track([run.path], ["tracker=wandb"])
    assert len(viewers_of(run.path)) == 1


def test_a_tracker_that_comes_back_gets_everything_and_this_is_said(monkeypatch):
    notes: list[str] = []
    attempts = Attempts(Mirror(a_run(Path("run")), "wandb"), notes.append)
    with monkeypatch.context() as patch:
        patch.setattr(TRACKERS["wandb"], "send", _refuse)
        attempts.begin()
        attempts.catch_up()
    attempts.end()
    assert [note.split(":")[0] for note in notes] == [
        "tracker=wandb failed, and the run goes on without it",
        "tracker=wandb can be reached again, and nothing is missing in it",
    ]


def test_track_sends_what_is_there(cli, tmp_path):
    sweep = finished_sweep(tmp_path / "grid", Done(["seed=0"], 0.9, 0.9), Done(["seed=1"], 0.8, 0.8))
    for job in "01":
        write_epochs(RunFolder(sweep / job), 2)
    a_run(Path("run"), 3)
    done = cli("track", "run", "grid", "tracker=trackio", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)  # and nothing that trackio prints
    assert [Path(run["folder"]).name for run in found["runs"]] == ["run", "0", "1"]
    assert [run["epochs"] for run in found["runs"]] == [3, 2, 2]
    assert "trackio has 3 epochs of run\n" in done.stderr
    assert "see it in the tracker: trackio show --project rnnclf\n" in done.stderr


def test_track_says_what_it_cannot_send(cli, broken):
    a_run(Path("run"))
    Path("empty").mkdir()
    (RunFolder(Path("young")).path).mkdir()
    RunFolder(Path("young")).status.write_text('{"state": "running"}')
    for words, message in {
        "run": "Say which tracker: tracker=tensorboard, mlflow, wandb, trackio.",
        "run tracker=trackio a=3": "'a=3' is no word of rnnclf track: it takes only tracker=NAME.",
        "nowhere tracker=trackio": "nowhere does not exist: give a run folder or a sweep folder.",
        "empty tracker=trackio": "empty is not a run folder: it has no status.json.",
        "young tracker=trackio": "young has nothing to send yet: its first epoch was not completed.",
        "run tracker=wandb": "tracker=wandb failed for run: the server is on fire.",
        "tracker=wandb": "Give the folder of a run or a sweep to send.",
    }.items():
        done = cli("track", *words.split())
        assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
    with RunFolder(Path("run")).locked():
        done = cli("track", "run", "tracker=trackio")
    assert done.stderr == "error: run is being trained by another process.\n"


@pytest.mark.parametrize("text", ['{"id": "../../x", "trackers": {"nope": {}, "wandb": 3}}', "[]", "{", ""])
def test_a_record_that_is_not_ours_is_ignored(text):
    run = a_run(Path("run"), 2)
    run.tracker.write_text(text)
    assert trackers_of(run.path) == []
    Mirror(run, "wandb").end()
    assert json.loads(run.tracker.read_text())["id"].startswith("run-")


@pytest.mark.long
def test_a_tracker_decides_nothing_whether_it_works_or_not(cli, broken):
    results = {}
    for name in ("none", "tensorboard", "wandb"):
        done = cli("train", *SMALL, f"tracker={name}", f"hydra.run.dir={name}", "--json")
        assert done.exit_code == 0
        assert done.stderr.count("tracker=wandb failed") == (name == "wandb")
        assert done.stderr.count("see it in the tracker: ") == (name == "tensorboard")
        results[name] = json.loads(done.stdout)
    assert results["none"]["test"] == results["tensorboard"]["test"] == results["wandb"]["test"]
    digests = {RunFolder(Path(name)).read_status()["config"] for name in results}
    assert len(digests) == 1
    steps = [step for step, _ in told("tensorboard", RunFolder(Path("tensorboard")), "train_loss")]
    assert steps == [1, 2]
    done = cli("resume", "tensorboard", "epochs=3")  # which is tracked on
    assert done.exit_code == 0
    steps = [step for step, _ in told("tensorboard", RunFolder(Path("tensorboard")), "train_loss")]
    assert steps == [1, 2, 3]


@pytest.mark.long
def test_a_sweep_is_a_group(cli):
    done = cli("train", "-m", "seed=1", *SMALL, "tracker=wandb", "hydra.sweep.dir=sweep")
    assert done.exit_code == 0
    (file,) = Path("sweep", "0").glob("wandb/offline-run-*/run.json")
    found = json.loads(file.read_text())
    assert found["group"] == json.loads(Path("sweep", "tracker.json").read_text())["id"]
    assert (found["exit"], len(found["rows"]), found["config"]["seed"]) == (0, 2, 1)
    assert done.stdout.endswith("see it in the tracker: wandb sync sweep/*/wandb/offline-run-*\n")
