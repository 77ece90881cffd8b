"""Starts that fail before any training leave no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnclf.workflows import train as workflow
from rnnclf.workflows.runs import RunFolder
from tests.cli_runs import SMALL


@pytest.mark.parametrize(
    "when", ["the data are read", pytest.param("the words are read", marks=pytest.mark.long)]
)
def test_ctrl_c_before_training_leaves_no_folder(cli, monkeypatch, when):
    def stop(*_):
        assert list(Path("outputs").glob("*/*"))
        raise KeyboardInterrupt

    owner, name = (workflow.Data, "of") if when == "the data are read" else (workflow, "train")
    monkeypatch.setattr(owner, name, stop)
    done = cli("train", *SMALL)
    assert (done.exit_code, done.stderr.strip()) == (130, "stopped by Ctrl-C")
    assert list(Path().iterdir()) == [Path("outputs")] or not Path("outputs").exists()
    assert not list(Path().glob("outputs/*"))


@pytest.mark.long
def test_a_run_that_a_scheduler_ends_before_training_can_be_resumed(cli, monkeypatch):
    def stop(*_):
        raise SystemExit(143)

    monkeypatch.setattr(workflow.Data, "of", stop)
    assert cli("train", *SMALL, "hydra.run.dir=run").exit_code == 143
    assert RunFolder(Path("run")).state() == "interrupted"


@pytest.mark.long
def test_a_sweep_with_a_path_that_does_not_exist_does_not_start(cli):
    done = cli("train", "-m", "dataset=table,digits", "dataset.path=no.csv")
    assert done.exit_code == 2
    assert "no.csv does not exist (in the job " in done.stderr
    assert "no job was started" in done.stderr
    assert not list(Path().glob("outputs/*"))
