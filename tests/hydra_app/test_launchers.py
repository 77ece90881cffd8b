"""Sweeps whose jobs run in other processes: every job ends as it should, and one table tells of all."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from safetensors.torch import load_file

from benchmarks.reliability.kill import differences
from rnnclf.hydra_app.compose import composing
from rnnclf.hydra_app.setup import register
from rnnclf.workflows.runs import RunFolder

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

# What Slurm and submitit do to a job, without either: it runs in a process group of its own, with submitit's
# handlers. After some epochs the group gets the signal {name}, and the job starts again.
REQUEUEING = """
import os, signal, sys, time
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict


def requeue(number, frame):
    with open("requeued", "a") as file:
        file.write(".")
    sys.exit(-1)


class Requeueing(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        os.environ["SUBMITIT_EXECUTOR"] = "slurm"
        for number, words in enumerate(job_overrides):
            interrupted = self.turn(list(words), number, interrupt=True)
            code = self.turn(list(words), number, interrupt=False)
            Path(f"codes{{number}}").write_text(f"{{interrupted}} {{code}}")
        return []

    def turn(self, words, number, interrupt):
        if child := os.fork():
            rows = Path(self.config.hydra.sweep.dir, str(number), "epochs.csv")
            while interrupt and not (rows.exists() and rows.read_text().count(os.linesep) > 3):
                time.sleep(0.02)
            if interrupt:
                os.killpg(child, signal.{name})
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        signal.signal(signal.SIGUSR2, requeue)
        code = 0
        try:
            config = self.context.config_loader.load_sweep_config(self.config, words)
            with open_dict(config):
                config.hydra.job.update(id=str(number), num=number)
            run_job(
                hydra_context=self.context, task_function=self.task, config=config,
                job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
            )
        except SystemExit as end:
            code = end.code % 256
        finally:
            os._exit(code)


node = {{"_target_": "hydra_plugins.requeueing.Requeueing"}}
ConfigStore.instance().store(group="hydra/launcher", name="requeueing", node=node)
"""

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


def test_the_launcher_for_slurm_is_submitits_with_limits_for_runs_that_can_be_resumed():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    register([])
    words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=30"]
    with composing():
        loader = GlobalHydra.instance().config_loader()
        launcher = loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN).hydra.launcher
    assert launcher._target_.endswith(".SlurmLauncher")
    assert (launcher.partition, launcher.timeout_min) == ("gpu", 30)
    assert launcher.max_num_timeout > 100  # submitit's own 0 makes the first time limit the end of a job
    assert 0 < launcher.signal_delay_s < 60 * 30


@SLOW
@pytest.mark.parametrize(
    ("name", "requeued", "exit_code"), [("SIGUSR2", ".", 255), ("SIGTERM", "", 128 + signal.SIGTERM)]
)
def test_a_job_that_is_put_back_into_the_queue_goes_on_with_the_same_bits(
    tmp_path, name, requeued, exit_code
):
    plugin = tmp_path / "hydra_plugins" / "requeueing.py"
    plugin.parent.mkdir()
    plugin.write_text(REQUEUEING.format(name=name))
    words = (*SMALL[:2], "threads=1", "epochs=30", "device=cpu", "engine=loop")

    def train(*more: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "rnnclf", "train", *words, *more],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    train("-m", "seed=3", "hydra/launcher=requeueing", "hydra.sweep.dir=sweep")
    train("seed=3", "hydra.run.dir=alone")
    assert (tmp_path / "codes0").read_text() == f"{exit_code} 0"
    assert "".join(path.read_text() for path in tmp_path.glob("requeued")) == requeued
    assert RunFolder(tmp_path / "sweep" / "0").read_status()["resumed"] == 1
    assert differences(tmp_path / "sweep" / "0", tmp_path / "alone") == []
