"""A run that is killed and resumed ends as one that was not: bit for bit, times left out."""

from __future__ import annotations

import copy
import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore

from benchmarks.reliability.kill import differences
from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.config import Checkpointing
from rnnclf.data import DATASETS
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.workflows import saving
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests import repeating
from tests.conftest import ROOT
from tests.workflows.killed_runs import (
    CASES,
    Kill,
    Witness,
    assert_as_in_peace,
    config_of,
    content,
    in_peace,
    killed,
    of_peace,
)

DAILY = ("dropout", "zoneout", "tutorial", "ragged", "averaged")


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=() if name in DAILY else pytest.mark.slow)
        for name, words in CASES.items()
    ],
)
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
    assert witness.notes[0] == f"Resuming {place}."


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


@pytest.mark.long
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


@pytest.mark.long
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
    numbers = {"30s": 30, "5m": 300, "1h": 3600}
    interval = Checkpointing(every=every).interval()
    assert interval.seconds == numbers.get(every)
    assert interval.steps == (None if every == "epoch" or every in numbers else int(every.split("s")[0]))


@pytest.mark.parametrize(
    "every", ["often", "0", "0s", "-3s", "1.5s", "30 seconds", "s", "epochs", "1e3", "٣s"]
)
def test_every_refuses_the_rest(every):
    with pytest.raises(ConfigError, match=r"checkpoint.every must be epoch, a time such as 30s") as caught:
        Checkpointing(every=every)
    assert f"got '{every}'" in str(caught.value)


def test_every_is_read_and_checked_on_the_command_line():
    assert load_config(["checkpoint.every=200 steps"]).checkpoint.interval().steps == 200
    with pytest.raises(ConfigError, match=r"checkpoint.every must be epoch, .*, got 'often'"):
        load_config(["checkpoint.every=often"])


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


@pytest.mark.long
def test_a_longer_run_says_what_becomes_of_its_average(tmp_path):
    for average, said in (("swa", True), ("ema", False)):
        folder, witness = of_peace(f"average={average} schedule=constant", tmp_path / average), Witness()
        resume_run(folder, epochs=4, watch=witness)
        note = "average=swa begins after a share of all epochs: from here on, all are 4"
        assert any(found.startswith(note) for found in witness.notes) == said


def test_fewer_epochs_than_there_are_is_refused_and_nothing_lost(tmp_path):
    folder = of_peace("", tmp_path / "run")
    before = content(folder)
    with pytest.raises(
        ConfigError, match=r"epochs must be at least 3: that many have already started. Got 2"
    ):
        resume_run(folder, epochs=2)
    assert content(folder) == before


# Real processes


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 20])
def test_kills_lose_nothing(kills):
    script = str(ROOT / "benchmarks" / "reliability" / "kill.py")
    command = [sys.executable, script, "lstm", "--kills", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    # so many at least: how many the last run survives before its end depends on how fast the machine is
    survived = re.search(r"^(\d+) kills survived, nothing lost", done.stdout, re.MULTILINE)
    assert survived
    assert int(survived[1]) >= kills
