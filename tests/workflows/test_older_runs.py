"""Run folders of version 0.1, written before results had more metrics than accuracy and loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import ROOT, Cli

OLDER = ROOT / "tests" / "fixtures" / "version_0_1"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A copy of the folders `done` and `interrupted`: one run, and the same stopped in its second epoch."""
    return Path(shutil.copytree(OLDER, tmp_path / "older"))


def test_an_older_run_is_evaluated_to_its_own_score(cli: Cli, older: Path):
    recorded = json.loads((older / "done" / "results.json").read_text())
    (found,) = json.loads(cli("eval", older / "done", "--json").stdout)
    assert (found["correct"], found["total"]) == (recorded["test"]["correct"], recorded["test"]["total"])
    assert found["recorded_correct"] == found["correct"]
    assert found["loss"] == pytest.approx(recorded["test"]["loss"], rel=1e-5)


@pytest.mark.parametrize(("name", "state"), [("done", "done"), ("interrupted", "interrupted")])
def test_an_older_run_is_inspected(cli: Cli, older: Path, name: str, state: str):
    done = cli("inspect", older / name, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["kind"], found["state"], found["error"]) == ("run", state, None)
    assert [one["resumable"] for one in found["checkpoints"]] == [False, True, True]
    assert cli("inspect", older / name).exit_code == 0


def test_an_older_run_goes_on_and_ends_as_it_would_have_ended(cli: Cli, older: Path):
    done = cli("resume", older / "interrupted", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    expected = json.loads((older / "done" / "results.json").read_text())
    assert found["epochs"] == 4
    for split in ("train", "validation", "test"):
        assert found[split]["correct"] == expected[split]["correct"]
    assert (older / "interrupted" / "epochs.csv").read_text().count("\n") == 5
    assert not (older / "interrupted" / "previous.safetensors").exists()
    assert set(pl.read_parquet(older / "interrupted" / "predictions.parquet")["split"]) == {
        "validation",
        "test",
    }


def test_an_older_run_trains_longer(cli: Cli, older: Path):
    done = cli("resume", older / "done", "epochs=5", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["epochs"] == 5
