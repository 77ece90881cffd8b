"""Sweeps whose jobs run in other processes: every job ends as it should, and one table tells of all."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SMALL = ("dataset=digits", "hidden=8", "epochs=1", "threads=1")

OWN_CELL = '''
from dataclasses import dataclass

from rnnclf.cells import GatedCell


@dataclass
class Mine(GatedCell):
    """A cell of one's own."""

    name: str = "mine"
    gates = ("h",)

    def step(self, p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''

SLOW = pytest.mark.slow


class Sweep:
    """A sweep that was run in a process of its own, in the folder `where`."""

    def __init__(self, where: Path, launcher: str, *words: str) -> None:
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
        command = [
            sys.executable,
            "-m",
            "rnnclf",
            "train",
            "-m",
            f"hydra/launcher={launcher}",
            *words,
            *SMALL,
        ]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=300)
        self.exit_code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        (self.folder,) = (where / "outputs").glob("*/*")  # one sweep, one folder

    def states(self) -> dict[str, str]:
        """What became of each job, by its number, as its own folder tells."""
        paths = self.folder.glob("*/status.json")
        return {path.parent.name: json.loads(path.read_text())["state"] for path in paths}

    def table(self, name: str = "sweep.csv") -> list[dict[str, str]]:
        with open(self.folder / name) as file:
            return list(csv.DictReader(file))

    def lines_of_jobs(self) -> str:
        """What the jobs said: joblib's to the sweep's own stdout, submitit's to a file for each job."""
        logs = sorted(self.folder.glob(".submitit/*/*_log.out"))
        return "".join([self.stdout, *(path.read_text() for path in logs)])


@pytest.mark.parametrize(
    "launcher", [pytest.param("joblib", marks=SLOW), pytest.param("submitit_local", marks=SLOW)]
)
def test_all_jobs_of_a_parallel_sweep_end_in_one_ranked_table(tmp_path, launcher):
    sweep = Sweep(tmp_path, launcher, "cell=basic,lstm")
    assert sweep.exit_code == 0, sweep.stderr
    assert sweep.states() == {"0": "done", "1": "done"}
    assert sweep.stdout.count("2 of 2 jobs done, ranked") == 1
    rows = sweep.table()
    assert [row["rank"] for row in rows] == ["1", "2"]
    first, second = (float(row["validation_accuracy"]) for row in rows)
    assert first >= second
    for job in (0, 1):
        said = re.findall(rf"^#{job} (epoch 1/1: train|test accuracy)", sweep.lines_of_jobs(), re.MULTILINE)
        assert said == ["epoch 1/1: train", "test accuracy"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=SLOW)])
def test_a_job_that_fails_leaves_the_others_of_a_parallel_sweep_finished(tmp_path, launcher):
    """With a cell of one's own, which every worker process has to find for itself."""
    (tmp_path / "my_cells.py").write_text(OWN_CELL)
    words = ("plugins=[my_cells]", "cell=mine", "optimizer.lr=1e300,0.002,0.001")
    sweep = Sweep(tmp_path, launcher, *words)
    assert sweep.exit_code == 1, sweep.stderr
    assert sweep.states() == {"0": "failed", "1": "done", "2": "done"}
    assert sweep.stdout.count("2 of 3 jobs done, ranked") == 1
    assert re.search(
        r"^#0 optimizer\.lr=1e\+300: failed: The loss became nan in epoch 1", sweep.stdout, re.MULTILINE
    )
    assert "Traceback" not in sweep.stdout + sweep.stderr
    first, *_ = jobs = sweep.table("runs.csv")
    assert (first["job"], first["state"]) == ("0", "failed")
    assert "The loss became nan in epoch 1" in first["error"]
    assert {row["job"] for row in jobs} == {"0", "1", "2"}


@SLOW
def test_seeds_run_side_by_side_and_equal_single_runs(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

    def train(*words: str) -> str:
        command = [sys.executable, "-m", "rnnclf", "train", *SMALL, "device=cpu", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout

    assert ("2 jobs, in parallel" in train("seeds=2", "hydra.sweep.dir=sweep")) == ((os.cpu_count() or 1) > 1)
    train("seed=1", "hydra.run.dir=alone")
    one, other = (tmp_path / name / "best.safetensors" for name in ("sweep/1", "alone"))
    assert load_file(one).keys() == load_file(other).keys()
    assert all(load_file(other)[name].equal(weights) for name, weights in load_file(one).items())
