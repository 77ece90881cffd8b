"""`rnnclf inspect` says what a checkpoint, a run and a sweep are, damaged ones too."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from rnnclf import checkpoint
from tests.imports import command, modules_after
from tests.terminals import lines_of

# inspect


def test_a_checkpoint_says_what_it_is(cli, best):
    done = cli("inspect", best)
    assert done.exit_code == 0, done.output
    found = dict(line.split(maxsplit=1) for line in lines_of(done.stdout)[1:] if " " in line)
    assert found["model"].startswith("gru, hidden=4")
    assert "head" not in found
    assert found["classes"] == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert found["checksum"].startswith("ok, SHA-256")
    assert re.match(r"\d+\.\d\d % \(\d+ of 180; 95 % ", found["validation"])


def test_inspect_counts_as_training_did(cli, run, best):
    answer = json.loads(cli("inspect", best, "--json").stdout)
    recorded = json.loads((run / "results.json").read_text())
    assert answer["kind"] == "checkpoint"
    assert answer["parameters"] == recorded["parameters"]
    assert answer["epoch"] == recorded["best_epoch"]
    scores = answer["metrics"]["validation"]
    with open(
        run / "epochs.csv"
    ) as file:  # the loss of the epoch; in results.json probabilities are calibrated
        epoch = list(csv.DictReader(file))[answer["epoch"] - 1]
    assert scores.pop("loss") == pytest.approx(float(epoch["validation_loss"]))
    for name, value in scores.items():
        assert value == pytest.approx(recorded["validation"][name]), name
    assert (answer["resumable"], answer["error"]) == (False, None)


def test_a_damaged_checkpoint_is_described_and_named(cli, best):
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    done = cli("inspect", best)
    assert done.exit_code == 2
    assert "does not match: the file is damaged" in done.stdout
    assert done.stderr == f"error: {best} is damaged: its content does not match its checksum.\n"


def test_a_run_says_what_became_of_it(cli, run):
    done = cli("inspect", run)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].endswith("run, done")
    assert re.search(r"epochs +1 of 1", done.stdout)
    assert re.search(r"last.safetensors +1 .* ok +yes", done.stdout)
    assert "resume it" not in done.stdout
    answer = json.loads(cli("inspect", run, "--json").stdout)
    assert answer["results"] == json.loads((run / "results.json").read_text())
    assert [Path(c["path"]).name for c in answer["checkpoints"]] == ["best.safetensors", "last.safetensors"]


def test_a_run_that_was_cut_off_can_be_gone_on_with(cli, run):
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running"}))
    done = cli("inspect", run)
    assert done.stdout.splitlines()[0].endswith("run, lost")
    assert "resume it: rnnclf resume run" in done.stdout


def test_a_run_with_a_damaged_checkpoint_shows_the_others(cli, run):
    (run / "last.safetensors").write_bytes((run / "last.safetensors").read_bytes()[:-5])
    done = cli("inspect", run)
    assert done.exit_code == 2
    assert re.search(r"best.safetensors +1 .* ok", done.stdout)
    assert re.search(r"last.safetensors .* damaged", done.stdout)
    assert "last.safetensors is damaged: its header claims" in done.stderr


def test_a_sweep_lists_its_jobs(cli, ground):
    done = cli("inspect", ground.sweep)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].endswith("sweep of 1 jobs: 1 done")
    assert json.loads(cli("inspect", ground.sweep, "--json").stdout)["states"] == {"done": 1}


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere", "nowhere does not exist"), ("empty", "empty is not a run folder")]
)
def test_what_is_nothing_is_refused(cli, tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    done = cli("inspect", path)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_inspect_fits_a_terminal(cli, terminal, run, ground):
    for path in (run, run / "last.safetensors", ground.sweep):
        assert max(map(len, lines_of(cli("inspect", path).stdout))) <= terminal


def test_inspect_does_without_torch(run):
    loaded = modules_after(command(["inspect", str(run)], exit_code=0))
    assert not loaded & {"torch", "hydra", "omegaconf", "numpy"}


def test_a_checkpoint_without_torch_is_the_one_with_it(run):
    described = checkpoint.describe(run / "last.safetensors")
    loaded = checkpoint.load(run / "last.safetensors")
    assert described.header == loaded.header
    assert {name: shape for name, (_, shape) in described.shapes.items()} == {
        name: tuple(tensor.shape) for name, tensor in loaded.tensors.items()
    }
