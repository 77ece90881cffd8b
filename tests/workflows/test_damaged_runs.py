"""A run with a damaged or missing file is resumed from what is whole, or refused in words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from rnnclf import checkpoint
from rnnclf.errors import CheckpointError, DataError, OutputError
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
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
    own_data,
)

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

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
    with pytest.raises(CheckpointError, match=r"These are not the data that .* was trained on"):
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
        with pytest.raises(CheckpointError, match="cannot be resumed from"):
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


def test_errors_of_a_run_are_those_of_the_command(cli, tmp_path):
    done = cli("resume", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "nowhere does not exist" in done.stderr
