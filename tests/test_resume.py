"""A run that is killed and resumed ends as one that was not: bit for bit, times left out."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore

from benchmarks.reliability.kill import differences
from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.data import DATASETS
from rnnclf.data.synthetic import Waves, make
from rnnclf.errors import CheckpointError, ConfigError, DataError, DivergedError, OutputError
from rnnclf.hydra_app import load_config
from rnnclf.system.signals import defer_signals, exit_on_sigterm
from rnnclf.training import divergence, loop
from rnnclf.training.divergence import SPIKE_BATCHES, USUAL_BATCHES, Losses
from rnnclf.training.state import BatchProgress
from rnnclf.workflows import saving
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import RunFacts, Watcher, train
from tests import repeating
from tests.conftest import ROOT

# 6 batches of 50 an epoch, 5 of them whole
DIGITS = "dataset=digits dataset.validation=30 dataset.test=1500 hidden=4 batch_size=50 epochs=3 threads=1"


class Kill(BaseException):
    """What no code catches, as it could not catch SIGKILL."""


@dataclass
class Witness(Watcher):
    """Sees what a run does, and kills it at a batch."""

    kill_at: int = 0
    """Counted from 1 in this life; 0: never."""
    batches: list[BatchProgress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def started(self, facts: RunFacts) -> None:
        self.notes += facts.notes

    def batch(self, progress: BatchProgress) -> None:
        self.batches.append(progress)
        if len(self.batches) == self.kill_at:
            raise Kill

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@functools.cache
def own_data() -> Path:
    """A table of ragged sequences with gaps."""
    path = Path(tempfile.mkdtemp()) / "waves.csv"
    make(path, Waves(sequences=90, channels=2, length=12, missing=0.05))
    return path


def config_of(words: str) -> Any:
    base = DIGITS if "dataset=" not in words else "hidden=4 batch_size=10 epochs=3 threads=1"
    return load_config([*base.split(), *words.replace("OWN", str(own_data())).split()])


@functools.cache
def in_peace(words: str) -> RunFolder:
    """A run that nobody disturbs."""
    folder = RunFolder(Path(tempfile.mkdtemp()))
    train(config_of(words), folder)
    return folder


def killed(words: str, batches: int, path: Path) -> RunFolder:
    """A run that is killed after so many batches."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    with pytest.raises(Kill):
        train(config_of(words), folder, Witness(batches))
    return folder


def of_peace(words: str, path: Path) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(Path(shutil.copytree(in_peace(words).path, path)))


def assert_as_in_peace(folder: RunFolder, words: str) -> None:
    assert differences(folder.path, in_peace(words).path) == []
    assert folder.read_status()["state"] == "done"


def content(folder: RunFolder) -> dict[str, bytes]:
    """Every file but the log."""
    files = [path for path in folder.path.rglob("*") if path.is_file() and path != folder.log]
    return {str(path): path.read_bytes() for path in files}


# Bit for bit

CASES = {
    "dropout": "layers=2 dropout=0.4 schedule=onecycle checkpoint.every=2steps",
    "zoneout": "cell=lstm zoneout=0.3 optimizer=sgd schedule=cosine schedule.warmup=0.2 clip=0.1",
    "momentum": "cell=gru optimizer=rmsprop optimizer.momentum=0.5 schedule=constant checkpoint.every=4steps",
    "balanced": "cell=cfc recurrent_dropout=0.3 optimizer=adamw sampling=balanced class_weights=balanced"
    " checkpoint.every=1steps",
    "tutorial": "protocol=tutorial clip=null checkpoint.every=3steps",
    "augmented": "cell=mingru layers=2 norm=batch augment=image checkpoint.every=5steps",
    "bidirectional": "cell=lem bidirectional=true layers=2 dropout=0.2 variational=true readout=attention",
    "ragged": "dataset=table dataset.path=OWN dataset.missing=mask dropout=0.2 focal=2"
    " checkpoint.every=2steps",
    "series": "dataset=table dataset.path=OWN dataset.missing=interpolate cell=fastgrnn augment=series",
    "diagnosed": "diagnose=true checkpoint.every=4steps",
}


@pytest.mark.long
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_killed_twice_and_resumed_it_ends_as_in_peace(words, tmp_path):
    folder = killed(words, 5, tmp_path / "run")
    with pytest.raises(Kill):
        resume_run(folder, watch=Witness(7))
    assert resume_run(folder) is not None
    assert_as_in_peace(folder, words)
    if "diagnose" in words:
        assert folder.diagnosis.read_bytes() == in_peace(words).diagnosis.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("batches", range(1, 19))
@pytest.mark.parametrize(
    "words", [words for name, words in CASES.items() if name not in ("ragged", "series")]
)
def test_killed_at_any_batch_it_ends_as_in_peace(words, batches, tmp_path):
    if "tutorial" in words and batches > 15:
        return
    folder = killed(words, batches, tmp_path / "run")
    resume_run(folder)
    assert_as_in_peace(folder, words)


@pytest.mark.long
@pytest.mark.parametrize(
    ("every", "batches", "first"),
    [("epoch", 11, (2, 50)), ("2steps", 5, (1, 250)), ("2steps", 11, (2, 250)), ("5 steps", 11, (2, 250))],
)
def test_it_goes_on_from_the_last_checkpoint_not_from_the_start(every, batches, first, tmp_path):
    witness = Witness()
    config = replace(config_of(""), checkpoint=replace(config_of("").checkpoint, every=every))
    with pytest.raises(Kill):
        train(config, RunFolder(tmp_path), Witness(batches))
    resume_run(RunFolder(tmp_path), watch=witness)
    assert (witness.batches[0].epoch, witness.batches[0].seen) == first
    epoch, batch = first[0] - (first[1] == 50), first[1] // 50 - 1
    place = f"in epoch {first[0]} after batch {batch}" if batch else f"after epoch {epoch}"
    assert witness.notes[0] == f"Going on {place}."


@pytest.mark.long
def test_killed_before_the_first_checkpoint_it_begins_anew(tmp_path):
    words = CASES["zoneout"]
    folder = killed(words, 3, tmp_path / "run")
    assert not folder.last.exists()
    resume_run(folder)
    assert_as_in_peace(folder, words)


@pytest.mark.long
def test_killed_while_the_data_are_read_it_begins_anew(tmp_path, monkeypatch):
    def kill(*args: Any, **options: Any) -> None:
        raise Kill

    with monkeypatch.context() as patched:
        patched.setattr("rnnclf.workflows.train.build_model", kill)
        with pytest.raises(Kill):
            train(config_of(""), RunFolder(tmp_path))
    resume_run(RunFolder(tmp_path))
    assert_as_in_peace(RunFolder(tmp_path), "")


OWN_CELL = '''
from dataclasses import dataclass

from rnnclf.cells import GatedCell


@dataclass
class Plain(GatedCell):
    """A cell of one's own."""

    name: str = "plain_own"
    gates = ("h",)

    def step(self, p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''


def test_own_cells_are_found_again_by_the_plugins_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_cells.py").write_text(OWN_CELL)
    with monkeypatch.context() as patched:  # a process that knows the cell
        patched.setattr(CELLS, "_entries", dict(CELLS.items()))
        folder = killed("cell=plain_own plugins=[plain_cells]", 11, tmp_path / "run")
    del sys.modules["plain_cells"]
    monkeypatch.setattr(CELLS, "_entries", dict(CELLS.items()))
    assert "plain_own" not in CELLS.names()
    report = resume_run(folder)
    assert report is not None
    assert (report.results["cell"], report.results["epochs"]) == ("plain_own", 3)
    del sys.modules["plain_cells"]


# When checkpoints are written


def saved_places(monkeypatch: pytest.MonkeyPatch, words: str, path: Path) -> list[tuple[int, int]]:
    """Epochs and batches at each writing of `last`."""
    places = []

    def note(path: Path, header: dict[str, Any], *rest: Any, **options: Any) -> None:
        if path.name == "last.safetensors":
            places.append((header["training"]["epoch"], header["training"]["so_far"]["batches"]))
        save(path, header, *rest, **options)

    save = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", note)
        train(config_of(words), RunFolder(path))
    return places


@pytest.mark.parametrize(
    ("every", "places"),
    [
        ("epoch", [(1, 0), (2, 0), (3, 0)]),
        ("4steps", [(0, 4), (1, 2), (1, 6), (2, 4), (3, 0)]),
        ("1000", [(3, 0)]),
        ("1h", [(3, 0)]),
    ],
)
def test_checkpoints_are_written_as_often_as_is_asked(every, places, monkeypatch, tmp_path):
    assert saved_places(monkeypatch, f"checkpoint.every={every}", tmp_path) == places
    left = [(tmp_path / name).read_bytes() for name in ("best.safetensors", "epochs.csv")]
    assert len(left[1].splitlines()) == 4


def test_checkpoints_are_written_in_time(monkeypatch, tmp_path):
    now, looks = time.monotonic(), itertools.count(step=6)  # a look every batch and every epoch
    monkeypatch.setattr(saving.time, "monotonic", lambda: now + next(looks))
    places = saved_places(monkeypatch, "checkpoint.every=30s", tmp_path)
    assert len(places) in (3, 4)  # of 6 · 21 seconds, and at the end
    assert [batches for _, batches in places[:-1]] != [0] * (len(places) - 1)


@pytest.mark.long
def test_how_often_changes_nothing_of_the_outcome():
    for every in ("2steps", "1000"):
        other = in_peace(f"checkpoint.every={every}")
        assert set(differences(other.path, in_peace("").path)) == {"best.safetensors", "last.safetensors"}
        (same, weights), (_, wanted) = (
            (run, checkpoint.load(run.best).model_tensors()) for run in (other, in_peace(""))
        )
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted), same


@pytest.mark.parametrize("every", ["epoch", "30s", "5m", "1h", "200", "200 steps", "200steps", "1 step"])
def test_every_takes_times_and_steps(every):
    config = load_config([f"checkpoint.every={every}"])
    numbers = {"30s": 30, "5m": 300, "1h": 3600}
    interval = config.checkpoint.interval()
    assert interval.seconds == numbers.get(every)
    assert interval.steps == (None if every == "epoch" or every in numbers else int(every.split("s")[0]))


@pytest.mark.parametrize(
    "every", ["often", "0", "0s", "-3s", "1.5s", "30 seconds", "s", "epochs", "1e3", "٣s"]
)
def test_every_refuses_the_rest(every):
    with pytest.raises(ConfigError, match=r"checkpoint.every must be epoch, a time such as 30s") as caught:
        load_config([f"checkpoint.every='{every}'"])
    assert f"got '{every}'" in str(caught.value)


# Finished runs, longer runs


def test_a_finished_run_is_left_as_it_is(tmp_path):
    folder = of_peace("", tmp_path / "run")
    before = content(folder)
    assert resume_run(folder) is None
    assert resume_run(folder, epochs=3) is None
    assert content(folder) == before


@pytest.mark.long
def test_a_longer_run_is_that_of_so_many_epochs_from_the_start(tmp_path):
    short, long = "schedule=constant layers=2 dropout=0.3", "schedule=constant layers=2 dropout=0.3 epochs=5"
    folder, witness = of_peace(short, tmp_path / "run"), Witness()
    report = resume_run(folder, epochs=5, watch=witness)
    assert set(differences(folder.path, in_peace(long).path)) <= {
        "best.safetensors",  # its header has the number of epochs of its time
        "last.safetensors",
        "results.json",
    }
    for one in ("best", "last"):
        ours, theirs = (checkpoint.load(getattr(run, one)).tensors for run in (folder, in_peace(long)))
        weights = [name for name in theirs if not name.startswith("epochs")]
        assert all(torch.equal(ours[name], theirs[name]) for name in weights)
    extended = [{"at": 3, "from": 3, "to": 5}]
    assert report.results["extended"] == folder.read_status()["extended"] == extended
    assert checkpoint.read_header(folder.last)["config"]["epochs"] == 5
    assert not [note for note in witness.notes if "schedule" in note]


def test_a_longer_run_resumes_as_such_and_says_what_becomes_of_its_schedule(tmp_path):
    one, other = (of_peace("", tmp_path / name) for name in ("one", "other"))
    witness = Witness()
    resume_run(one, epochs=6, watch=witness)
    assert [note for note in witness.notes if "schedule=onecycle depends on the number of epochs" in note]
    with pytest.raises(Kill):
        resume_run(other, epochs=6, watch=Witness(1))
    assert other.read_status()["state"] == "interrupted"
    resume_run(other)
    assert differences(other.path, one.path) == []
    assert other.read_results()["extended"] == [{"at": 3, "from": 3, "to": 6}]


def test_fewer_epochs_than_there_are_is_refused_and_nothing_lost(tmp_path):
    folder = of_peace("", tmp_path / "run")
    before = content(folder)
    with pytest.raises(ConfigError, match=r"epochs must be at least 3: so many have begun already. Got 2"):
        resume_run(folder, epochs=2)
    assert content(folder) == before


# What a kill, a bad disk or a hand may have left


def broken(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    words, witness = CASES["dropout"], Witness()
    folder = killed(words, 11, tmp_path / "run")
    broken(folder.last)
    with pytest.raises(Kill):
        resume_run(folder, watch=(witness := Witness(1)))
    (note,) = [note for note in witness.notes if "damaged" in note]
    assert str(folder.last) in note
    assert str(folder.previous) in note
    assert (witness.batches[0].epoch, witness.batches[0].seen) == (2, 3 * 50)  # two batches earlier
    assert folder.damaged.exists()
    resume_run(folder)
    assert_as_in_peace(folder, words)


def test_between_the_two_renames_of_a_checkpoint_nothing_is_lost(tmp_path):
    words = CASES["dropout"]
    folder = killed(words, 11, tmp_path / "run")
    folder.last.unlink()
    resume_run(folder)
    assert_as_in_peace(folder, words)


def test_without_a_whole_checkpoint_it_is_said_and_nothing_touched(tmp_path):
    folder = killed(CASES["dropout"], 11, tmp_path / "run")
    for path in (folder.last, folder.previous):
        broken(path)
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"previous.safetensors is damaged"):
        resume_run(folder)
    assert content(folder) == before


@pytest.mark.long
@pytest.mark.parametrize("damage", ["missing", "of another epoch", "damaged"])
def test_best_and_epochs_are_made_again_from_last(damage, tmp_path):
    folder = killed("", 17, tmp_path / "run")
    wanted = folder.best.read_bytes(), folder.epochs.read_bytes()
    for path in (folder.best, folder.epochs):
        if damage == "missing":
            path.unlink()
        elif damage == "damaged":
            broken(path)
        else:
            shutil.copy(in_peace("epochs=9").path / path.name, path)
    with pytest.raises(Kill):
        resume_run(folder, watch=Witness(1))
    assert (folder.best.read_bytes(), folder.epochs.read_bytes()) == wanted
    resume_run(folder)
    assert_as_in_peace(folder, "")


@pytest.mark.long
def test_a_run_whose_last_checkpoint_is_older_than_its_best_epoch_ends_as_in_peace(tmp_path):
    words = "checkpoint.every=8steps schedule=constant"
    folder = killed(words, 15, tmp_path / "run")  # after two epochs, with a checkpoint in the second
    assert checkpoint.read_header(folder.best)["epoch"] == 2
    assert checkpoint.read_header(folder.last)["epoch"] == 1
    resume_run(folder)
    assert_as_in_peace(folder, words)


def test_results_are_made_again_where_they_are_missing(tmp_path):
    folder = of_peace("", tmp_path / "run")
    folder.results.unlink()
    assert resume_run(folder) is not None
    assert_as_in_peace(folder, "")


@pytest.mark.long
def test_other_data_are_refused_and_the_records_left_as_they_were(tmp_path):
    table = Path(shutil.copy(own_data(), tmp_path / "mine.csv"))
    words = f"dataset=table dataset.path={table} dataset.missing=mask"
    folder = killed(words, 11, tmp_path / "run")
    before = content(folder)
    text = table.read_text()
    table.write_text(text.replace(re.search(r"\d\.\d+", text)[0], "0.125", 1))
    with pytest.raises(CheckpointError, match=r"The data are not those that .* was trained on"):
        resume_run(folder)
    table.unlink()
    with pytest.raises(DataError):
        resume_run(folder)
    assert content(folder) == before


@pytest.mark.long
def test_a_strange_state_is_refused_in_words(tmp_path):
    folder = killed("checkpoint.every=2steps on_divergence=rollback", 5, tmp_path / "run")
    saved = checkpoint.load(folder.last)
    state = saved.header["training"]
    states: list[Any] = [
        None,
        [],
        {},
        {**state, "epoch": -1},
        {**state, "epoch": 2},
        {**state, "so_far": {**state["so_far"], "batches": "4"}},
        {**state, "so_far": {**state["so_far"], "seen": 0}},
        {**state, "so_far": {**state["so_far"], "more": 0}},
        {**state, "rollbacks": [{}]},
        {**state, "high_losses": 1.5},
        {**state, "safe": None},
        {**state, "safe": {}},
        {**state, "safe": {**state["safe"], "epoch": -1}},
    ]
    tensors: list[dict[str, Any]] = [
        {"random.cpu": None},
        {"random.cpu": torch.zeros(3)},
        {"random.epoch": None},
        {"epochs": torch.zeros(2, 2)},
        {"epochs": torch.zeros(7)},
        {"losses": None},
        {"optimizer.exp_avg.head.bias": torch.zeros(3)},
        {"optimizer.exp_avg.nobody": torch.zeros(3)},
        {"safe.model.head.bias": torch.zeros(2)},
        {"safe.random.cpu": None},
    ]
    headers = [{**saved.header, "training": state} for state in states]
    headers += [{**saved.header, "best_epoch": 3}, {**saved.header, "extended": [1]}]
    headers += [{**saved.header, "seconds": 10**400}, {**saved.header, "best_epoch": 10**400}]
    cases = [(header, saved.tensors) for header in headers]
    for changes in tensors:
        mixed = {name: tensor for name, tensor in (saved.tensors | changes).items() if tensor is not None}
        cases.append((saved.header, mixed))
    folder.previous.unlink()
    for header, content_ in cases:
        checkpoint.save(folder.last, header, content_)
        with pytest.raises(CheckpointError, match="does not say how to go on"):
            resume_run(folder)


@pytest.mark.parametrize("kind", ["nothing", "a file", "an empty folder", "a folder of others"])
def test_what_is_no_run_is_told(kind, tmp_path):
    path = tmp_path / "it"
    if kind == "a file":
        path.write_text("")
    elif kind != "nothing":
        path.mkdir()
    if kind == "a folder of others":
        (path / "status.json").write_text("{}")
    with pytest.raises(CheckpointError, match=str(path)):
        resume_run(RunFolder(path))


def test_other_circumstances_are_said(tmp_path):
    folder = killed("", 11, tmp_path / "run")
    provenance = json.loads(folder.provenance.read_text())
    provenance["threads"], provenance["versions"]["torch"] = 7, "1.0"
    folder.provenance.write_text(json.dumps(provenance))
    with pytest.raises(Kill):
        resume_run(folder, watch=(witness := Witness(1)))
    (note,) = [note for note in witness.notes if "last digits" in note]
    assert "threads 1 instead of 7" in note
    assert f"torch {version('torch')} instead of 1.0" in note
    resume_run(folder, watch=(witness := Witness()))
    assert not [note for note in witness.notes if "last digits" in note]  # than the process before
    assert len(json.loads(folder.provenance.read_text())["resumed"]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_log_that_cannot_be_written_stops_nothing_and_says_nothing(tmp_path, capsys):
    folder = killed("", 11, tmp_path / "run")
    folder.log.unlink(missing_ok=True)
    folder.log.symlink_to("/dev/full")
    resume_run(folder)
    assert capsys.readouterr() == ("", "")
    assert_as_in_peace(folder, "")


# One process a folder


@pytest.mark.long
def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    folder = killed("", 11, tmp_path / "run")
    before = content(folder)
    script = (
        "import sys; from pathlib import Path; from rnnclf.workflows.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert folder.busy()
        for work in (lambda: resume_run(folder), lambda: train(config_of(""), folder)):
            with pytest.raises(OutputError, match="is being trained by another process"):
                work()
        assert content(folder) == before
        other.kill()
    assert not folder.busy()
    resume_run(folder)
    assert_as_in_peace(folder, "")


def test_the_folder_is_held_as_long_as_it_is_trained_in(tmp_path):
    held = []

    class Look(Witness):
        def batch(self, progress: BatchProgress) -> None:
            held.append(RunFolder(tmp_path).busy())

    train(config_of(""), RunFolder(tmp_path), Look())
    assert held == [True] * 18
    assert not RunFolder(tmp_path).busy()


# Signals


@pytest.fixture
def own_signals():
    """Ctrl-C and SIGTERM as in a command, whatever the tests were started by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_sigterm():
        yield
    signal.signal(signal.SIGINT, before)


class Signalled(Witness):
    """Is sent signals at the 9th batch, in the middle of the second epoch."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def batch(self, progress: BatchProgress) -> None:
        super().batch(progress)
        if len(self.batches) == 9:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "end", "reason"),
    [
        (signal.SIGINT, KeyboardInterrupt, "stopped by Ctrl-C"),
        (signal.SIGTERM, SystemExit, "stopped by SIGTERM"),
    ],
)
def test_a_signal_saves_first(number, end, reason, own_signals, tmp_path):
    folder, witness = RunFolder(tmp_path), Signalled(number)
    with pytest.raises(end) as caught:
        train(config_of(CASES["zoneout"]), folder, witness)
    assert end is KeyboardInterrupt or caught.value.code == 143
    state = checkpoint.read_header(folder.last)["training"]
    assert (state["epoch"], state["so_far"]["batches"]) == (1, 3)
    status = folder.read_status()
    assert (status["state"], status["error"]) == ("interrupted", reason)
    assert witness.notes == [f"Saved in epoch 2 after batch 3. Go on with: rnnclf resume {tmp_path}"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume_run(folder)
    assert_as_in_peace(folder, CASES["zoneout"])


def test_a_second_ctrl_c_stops_at_once(own_signals, tmp_path):
    folder, witness = RunFolder(tmp_path), Signalled(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(""), folder, witness)
    assert checkpoint.read_header(folder.last)["training"]["so_far"]["batches"] == 0
    assert folder.read_status()["state"] == "interrupted"
    resume_run(folder)
    assert_as_in_peace(folder, "")


@pytest.mark.long
def test_a_signal_while_the_splits_are_scored_ends_the_run_and_loses_nothing(
    own_signals, monkeypatch, tmp_path
):
    folder, witness = RunFolder(tmp_path), Witness()

    def evaluate(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return loop.evaluate_model(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("rnnclf.workflows.train.evaluate_model", evaluate)
        with pytest.raises(KeyboardInterrupt):
            train(config_of(""), folder, witness)
    assert folder.read_status()["state"] == "interrupted"
    assert witness.notes == [f"Saved after epoch 3. Go on with: rnnclf resume {tmp_path}"]
    before = folder.last.read_bytes()
    resume_run(folder, watch=(witness := Witness()))
    assert (witness.batches, folder.last.read_bytes()) == ([], before)
    assert_as_in_peace(folder, "")


def as_machine_code_tells_of(end: BaseException) -> SystemError:
    """Python makes this of what is raised in the middle of a function of Numba's."""
    inner, outer = SystemError("returned a result with an exception set"), SystemError("once more")
    inner.__cause__, outer.__cause__ = end, inner
    return outer


@pytest.mark.parametrize(
    ("end", "reason"), [(KeyboardInterrupt(), "stopped by Ctrl-C"), (SystemExit(143), "stopped by SIGTERM")]
)
def test_a_signal_in_the_middle_of_machine_code_is_no_failure(end, reason, tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(type(end)), folder.locked(), folder.tracked({}):
        raise as_machine_code_tells_of(end)
    assert (folder.read_status()["state"], folder.read_status()["error"]) == ("interrupted", reason)


def test_an_error_of_the_system_itself_is_one(tmp_path):
    with pytest.raises(SystemError), RunFolder(tmp_path).tracked({}):
        raise as_machine_code_tells_of(ValueError())
    assert RunFolder(tmp_path).read_status()["state"] == "failed"


def test_ctrl_c_in_the_middle_of_machine_code_ends_a_command_as_anywhere(cli, monkeypatch, tmp_path):
    def inspect(path: Path) -> Any:
        raise as_machine_code_tells_of(KeyboardInterrupt())

    monkeypatch.setattr("rnnclf.workflows.inspect.inspect", inspect)
    done = cli("inspect", tmp_path)
    assert (done.exit_code, done.stderr.strip()) == (130, "stopped by Ctrl-C")


def test_a_signal_that_comes_when_nobody_looks_any_more_is_not_swallowed(own_signals):
    with pytest.raises(KeyboardInterrupt), defer_signals():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_somebody_else_handles_are_left_alone(own_signals):
    seen = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with defer_signals() as waiting:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (seen, waiting.signal) == ([signal.SIGTERM], None)


@pytest.mark.long
def test_a_run_in_a_thread_of_its_own_ends_as_any_other(tmp_path):
    errors = []

    def work() -> None:
        try:
            train(config_of(""), RunFolder(tmp_path))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert_as_in_peace(RunFolder(tmp_path), "")


# Guards


@pytest.mark.parametrize("level", [0.01, 0.7, 5.0])
def test_a_spike_is_many_high_losses_in_a_row(level):
    ignorance, losses = math.log(10), Losses()
    high = 5.1 * max(level, ignorance)
    assert not any(losses.spiked(level, ignorance) for _ in range(USUAL_BATCHES))
    for _ in range(3):  # hard batches between others are none
        assert not any(losses.spiked(high, ignorance) for _ in range(SPIKE_BATCHES - 1))
        assert not losses.spiked(level, ignorance)
    spikes = [losses.spiked(high, ignorance) for _ in range(SPIKE_BATCHES)]
    assert spikes == [False] * (SPIKE_BATCHES - 1) + [True]


def test_losses_that_are_high_from_the_start_or_well_below_ignorance_are_no_spike():
    losses = Losses()
    assert not any(losses.spiked(100.0, math.log(10)) for _ in range(300))
    losses = Losses([1e-6] * USUAL_BATCHES)
    assert not any(losses.spiked(2.0, math.log(10)) for _ in range(50))


# Relu and a rate far too high: gradients explode in the first epoch, and no longer at a part of it.
WILD = "hidden=20 cell.nonlinearity=relu optimizer=sgd clip=null optimizer.lr=100 on_divergence=rollback"


def gradient_of_one() -> str:
    """A pattern of what names a weight by its gradient; which of them is the largest differs by machine."""
    names = [name for name, _ in build_model(config_of(WILD), 8, 10).named_parameters()]
    return rf"gradient.* of ({'|'.join(map(re.escape, names))})(, of norm \S+)?"


@pytest.mark.long
def test_rolled_back_it_goes_on_with_half_the_rate_and_says_so(tmp_path):
    folder, witness = RunFolder(tmp_path), Witness()
    report = train(config_of(WILD), folder, witness)
    rollbacks = report.results["rollbacks"]
    assert rollbacks == folder.read_status()["rollbacks"]
    assert 1 < len(rollbacks) == len(witness.notes)
    assert [rollback["factor"] for rollback in rollbacks] == [0.5 / 2**n for n in range(len(rollbacks))]
    assert {rollback["epoch"] for rollback in rollbacks} == {1}
    left = rollbacks[-1]["factor"]
    pattern = (
        r"The .* became (inf|nan) in epoch 1, at batch \d of 6: .*" + gradient_of_one() + rf"\. "
        rf"Back to the start of epoch 1, with {left:g} of the learning rate\."
    )
    assert re.fullmatch(pattern, witness.notes[-1])
    factor = config_of(WILD).schedule.factor(5, 18)
    rows = folder.epochs.read_text().splitlines()
    assert float(rows[1].split(",")[5]) == pytest.approx(100 * left * factor)


@pytest.mark.long
@pytest.mark.parametrize("batches", [2, 5, 8, 11, 14])
@pytest.mark.parametrize("every", ["epoch", "1steps"])
def test_killed_before_or_after_a_rollback_it_ends_as_in_peace(every, batches, tmp_path):
    wild = WILD.replace("hidden=20", "hidden=6").replace("lr=100", "lr=1000")
    words = f"{wild} layers=2 dropout=0.2 checkpoint.every={every}"
    folder = killed(words, batches, tmp_path / "run")
    resume_run(folder)
    assert folder.read_results()["rollbacks"]
    assert_as_in_peace(folder, words)


def test_after_too_many_rollbacks_it_stops(tmp_path):
    words = "optimizer=sgd optimizer.lr=1e300 on_divergence=rollback clip=null"
    with pytest.raises(DivergedError, match=r"halved 5 times already\) or clipped gradients \(clip=1\)\."):
        train(config_of(words), RunFolder(tmp_path))
    status = RunFolder(tmp_path).read_status()
    assert status["state"] == "failed"
    assert len(status["rollbacks"]) == 5


@pytest.mark.long
def test_an_epoch_that_ends_where_no_step_can_be_made_is_rolled_back_too(tmp_path, monkeypatch):
    """The gradients explode at the first batch of the second epoch: what is wrong is the first."""
    words = "schedule=constant on_divergence=rollback"

    def differentiate(run: Any, *rest: Any) -> Any:
        if run.epoch == 1 and run.so_far.batches == 0 and run.rate_factor == 1:
            raise divergence.Divergence("The gradients explode")
        return real(run, *rest)

    (tmp_path / "half").mkdir()
    half = train(config_of("schedule=constant optimizer.lr=0.001"), RunFolder(tmp_path / "half"))
    real = loop.differentiate
    monkeypatch.setattr(loop, "differentiate", differentiate)
    report = train(config_of(words), RunFolder(tmp_path))
    assert [(one["epoch"], one["batch"], one["factor"]) for one in report.results["rollbacks"]] == [
        (2, 1, 0.5)
    ]
    assert report.scores == half.scores


def test_a_spike_stops_the_run_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "SPIKE_FACTOR", 0.0)
    with pytest.raises(
        DivergedError, match=r"The loss rose to .* and stayed high in epoch 8, at batch 12 of 14"
    ):
        train(config_of("epochs=20 batch_size=20"), RunFolder(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize(
    "words", ["cell=basic", "cell=lstm optimizer=sgd", "cell=irnn clip=null", "cell=gru"]
)
def test_ordinary_runs_raise_no_alarm(words, tmp_path):
    config = config_of(f"{words} epochs=15 hidden=30 batch_size=10 optimizer.lr=0.02")
    report = train(config, RunFolder(tmp_path))
    assert report.results["rollbacks"] == []


def test_the_weight_behind_it_is_named(tmp_path):
    with pytest.raises(DivergedError) as caught:
        train(config_of(WILD.replace("rollback", "stop")), RunFolder(tmp_path))
    assert re.search(gradient_of_one() + r"\. Try", str(caught.value))
    assert str(caught.value).endswith(
        "Try a smaller learning rate (optimizer.lr is 100), clipped gradients (clip=1) or"
        " on_divergence=rollback."
    )


# Real processes


@pytest.mark.long
def test_every_cell_and_kind_of_data_gives_the_same_in_another_process(tmp_path, monkeypatch):
    """Another seed of hashes, other addresses: what depends on them would differ."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    command = [sys.executable, "-m", "tests.repeating", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    there, here = json.loads(done.stdout), repeating.outcomes(tmp_path / "data")
    assert there == here
    assert there.keys() == {f"cell={name}" for name in CELLS.names()} | {
        f"dataset={name}" for name in DATASETS.names()
    }
    assert len(set(there.values())) == len(there) - 1  # one cell is that of all kinds of data


@pytest.mark.long
def test_twenty_kills_lose_nothing():
    command = [sys.executable, str(ROOT / "benchmarks" / "reliability" / "kill.py"), "lstm", "--kills", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^2\d kills survived, nothing lost", done.stdout, re.MULTILINE)


def test_errors_of_a_run_are_those_of_the_command(cli, tmp_path):
    done = cli("resume", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "nowhere does not exist" in done.stderr
