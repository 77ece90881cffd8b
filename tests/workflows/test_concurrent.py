"""Processes at once: they share nothing, and of two that want one folder one works."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rnnclf.workflows import ledger
from rnnclf.workflows.evaluate import evaluate_all
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep import rank_sweep
from rnnclf.workflows.sweep_folder import jobs_of
from tests.workflows.sweeps import SLOW, SMALL, command, files_of, mortal, shell, started, wait_for


@SLOW
def test_eight_runs_started_at_once_share_nothing(tmp_path):
    processes = [
        subprocess.Popen(command("train", *SMALL, f"seed={seed}"), stdout=subprocess.DEVNULL)
        for seed in range(8)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * 8
    results = list((tmp_path / "outputs").glob("*/*/results.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in results) == list(range(8))


def test_of_eight_processes_at_once_each_gets_folders_of_its_own(tmp_path):
    script = (
        "import os; from pathlib import Path; from rnnclf.files import claim_folder\n"
        "[os.fork() for _ in range(3)]\n"  # 2^3 processes
        "os.write(1, ''.join(f'{claim_folder(Path())}\\n' for _ in range(25)).encode())\n"
        "try:\n"
        "    while True: os.wait()\n"
        "except ChildProcessError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    claimed = done.stdout.split()
    assert len(claimed) == len(set(claimed)) == 8 * 25


@pytest.mark.long
def test_what_another_process_works_on_is_left_to_it(cli, two_jobs):
    sweep = two_jobs
    for run in jobs_of(sweep):
        status = json.loads(run.status.read_text())
        run.status.write_text(json.dumps({**status, "state": "running"}))
    assert [row.state for row in rank_sweep(sweep).rows] == ["lost", "lost"]
    assert [row.error for row in rank_sweep(sweep).rows] == ["its process ended without reporting"] * 2
    with RunFolder(sweep / "0").locked():
        assert [row.state for row in rank_sweep(sweep).rows] == ["running", "lost"]
        assert [run.path.name for run in ledger.unfinished(sweep)] == ["1"]


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_of_two_that_resume_one_folder_the_second_is_told(cli, two_jobs, kind):
    folder = two_jobs if kind == "sweep" else two_jobs / "0"
    (two_jobs / "0" / "results.json").unlink()
    before = files_of(folder)
    with RunFolder(folder).locked():
        second = cli("resume", folder)
    assert (second.exit_code, second.stderr) == (2, f"error: {folder} is being trained by another process.\n")
    assert files_of(folder) == before


@SLOW
def test_of_two_processes_that_resume_one_run_one_works(tmp_path):
    mortal()
    own = ("plugins=[my_cells]", "cell=mortal", "cell.end=kill", "hydra.run.dir=run")
    assert shell("train", *own, *SMALL).returncode == -signal.SIGKILL
    both = (
        [started(("resume", "run", "epochs=40")) for _ in range(2)] if Path("deadly").unlink() is None else []
    )
    ends = sorted((process.wait(timeout=60), process.communicate()[1]) for process in both)
    assert ends == [(0, ""), (2, "error: run is being trained by another process.\n")]
    assert RunFolder(tmp_path / "run").read_results()["epochs"] == 40


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_may_be_read_while_it_is_written(tmp_path):
    """Its checkpoints, its records and its table: never a torn one."""
    process = started(
        ("train", "-m", "hydra.sweep.dir=sweep", *SMALL[:2], "epochs=60", "threads=1", "seed=0,1")
    )
    sweep, seen, looks = tmp_path / "sweep", set(), 0
    try:
        wait_for(lambda: (sweep / "0" / "best.safetensors").exists())
        while process.poll() is None:
            for result in evaluate_all([sweep], ["threads=1"])[0]:  # not every job has a checkpoint yet
                seen.add((result.config.seed, result.epoch))
            for run in jobs_of(sweep):
                assert run.read_status()["state"] in ("waiting", "running", "done")
            rank_sweep(sweep)
            looks += 1
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert looks >= 3
    assert len(seen) >= 3  # it changed under our eyes
