"""Sweeps as ledgers: whatever ends a job or a sweep, `rnnclf resume` does the rest, and only that."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.hydra_app.compose import parsed
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.saving import Saver
from rnnclf.workflows.sweep_folder import jobs_of
from tests.workflows.sweeps import SLOW, SMALL, files_of, mortal, shell, started, states, wait_for

SPLITS = ("train", "validation", "test")
LAUNCHERS = ("basic", pytest.param("joblib", marks=SLOW), pytest.param("submitit_local", marks=SLOW))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_dies_leaves_the_others_running_and_resume_does_the_rest(launcher, tmp_path):
    sweep = tmp_path / "sweep"
    words = mortal("cell.end=exit,crash,kill,never", launcher=launcher)
    done = shell(*words)
    assert done.returncode == 1, done.stderr
    assert states(sweep) == {"0": "failed", "1": "failed", "2": "failed", "3": "done"}
    reasons = [
        "exit: failed: its process exited with code 3 without reporting a result",
        "crash: failed: its process crashed (SIGSEGV)",
        "kill: failed: its process was killed (SIGKILL), perhaps because memory ran out",
    ]
    told = re.sub(r"\s+", " ", done.stdout)
    for number, reason in enumerate(reasons):
        assert f"#{number} cell.end={reason} (log: sweep/{number}/train.log)" in told
    assert "1 of 4 jobs done" in told
    assert "my_cells.py" in (sweep / "1" / "train.log").read_text()  # in which line it crashed
    assert "SIGKILL" in (sweep / "2" / "train.log").read_text()

    Path("deadly").unlink()
    before = files_of(sweep / "3")
    resumed = shell("resume", "sweep")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming 3 of 4 jobs: #0 #1 #2" in resumed.stdout
    assert "4 of 4 jobs done" in resumed.stdout
    assert files_of(sweep / "3") == before
    whole = RunFolder(sweep / "3").read_results()
    for number in "012":  # from their checkpoints of the first epoch, to the same end
        run = RunFolder(sweep / number)
        assert run.read_status()["resumed"] == 1
        assert "Resuming after epoch 1." in run.log.read_text()
        assert [run.read_results()[split] for split in SPLITS] == [whole[split] for split in SPLITS]


@SLOW
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_ctrl_c_saves_the_jobs_that_run_and_resume_does_the_rest(launcher, tmp_path):
    sweep = tmp_path / "sweep"
    words = mortal("cell.end=slow", "seed=0,1,2", launcher=launcher)
    if launcher == "joblib":
        words = (*words, "hydra.launcher.n_jobs=2")
    process = started(words)
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "0 of 3 jobs done" in output
    assert states(sweep)["0"] == "interrupted"
    if launcher == "basic":
        assert states(sweep) == {"0": "interrupted", "1": "waiting", "2": "waiting"}
        assert "#0 seed=0: interrupted: stopped by Ctrl-C" in output
        assert "not started: #1 #2" in output

    wait_for(lambda: not any(run.busy() for run in jobs_of(sweep)))
    Path("deadly").unlink()
    assert shell("resume", "sweep").returncode == 0
    assert set(states(sweep).values()) == {"done"}
    whole = shell(*(word.replace("sweep.dir=sweep", "sweep.dir=whole") for word in words))
    assert whole.returncode == 0, whole.stderr
    assert [differences(sweep / number, tmp_path / "whole" / number) for number in "012"] == [[], [], []]


@SLOW
def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    """joblib ends all its workers when one dies; what they were at is saved, and launched again."""
    sweep = tmp_path / "sweep"
    process = started(mortal("cell.end=slow", "seed=0,1,2", "hydra.launcher.n_jobs=2", launcher="joblib"))
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    by_name = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in workers.stdout.split()}
    os.kill(next(pid for pid, line in by_name.items() if "LokyProcess" in line), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the launcher ended before its jobs did: TerminatedWorkerError" in errors
    assert "3 of 3 jobs done" in output


@SLOW
def test_jobs_save_and_end_when_their_sweep_is_killed(tmp_path):
    sweep = tmp_path / "sweep"
    process = started(mortal("cell.end=slow", "seed=0,1"))
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    process.kill()
    process.communicate()
    wait_for(lambda: states(sweep) == {"0": "interrupted", "1": "waiting"}, seconds=10)
    Path("deadly").unlink()
    assert shell("resume", "sweep").returncode == 0
    assert states(sweep) == {"0": "done", "1": "done"}


# From here on in one process: what a job's own process adds is tested above.


def train_sweep(cli: Callable[..., Any], *words: str) -> Path:
    cli("train", "-m", "hydra.sweep.dir=sweep", *SMALL, *words)
    return Path("sweep")


@pytest.mark.slow
@pytest.mark.long
def test_a_stopped_sweep_knows_what_never_began_and_ends_as_in_peace(cli, monkeypatch):
    whole = train_sweep(cli, "seed=0,1,2").rename("whole")
    after_epoch = Saver.after_epoch

    def stop(self: Saver, result: Any) -> bool:
        is_best = after_epoch(self, result)
        if self.folder.path.name == "1":
            raise KeyboardInterrupt
        return is_best

    with monkeypatch.context() as patched:
        patched.setattr(Saver, "after_epoch", stop)
        stopped = cli("train", "-m", "hydra.sweep.dir=sweep", *SMALL, "seed=0,1,2")
    sweep = Path("sweep")
    assert stopped.exit_code == 130
    assert states(sweep) == {"0": "done", "1": "interrupted", "2": "waiting"}
    assert "not started: #2" in stopped.stdout
    assert "1 of 3 jobs done" in stopped.stdout
    assert "resume it: rnnclf resume sweep" in stopped.stdout

    before = files_of(sweep / "0")
    resumed = cli("resume", "sweep")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming 2 of 3 jobs: #1 #2" in resumed.stdout
    assert files_of(sweep / "0") == before
    assert [differences(sweep / number, whole / number) for number in "012"] == [[], [], []]
    with open(sweep / "runs.csv") as file:
        assert {row["state"] for row in csv.DictReader(file)} == {"done"}


@pytest.mark.long
def test_a_job_that_fails_again_is_listed_again_and_the_rest_left_alone(cli):
    sweep = train_sweep(cli, "optimizer.lr=1e38,0.01")
    before = files_of(sweep / "1")
    resumed = cli("resume", sweep)
    assert resumed.exit_code == 1
    assert "resuming 1 of 2 jobs: #0" in resumed.stdout
    assert re.search(r"#0 optimizer.lr=1e\+38: failed: The loss became", resumed.stdout)
    assert resumed.stderr.startswith("error: #0 The loss became")
    assert files_of(sweep / "1") == before


@pytest.mark.long
def test_a_failing_batch_leaves_the_later_ones_running(cli):
    sweep = train_sweep(cli, "optimizer.lr=1e38,0.01", "hydra.sweeper.max_batch_size=1")
    assert states(sweep) == {"0": "failed", "1": "done"}


@pytest.mark.slow
@pytest.mark.long
def test_new_points_get_the_next_numbers_and_old_ones_stay(cli, two_jobs):
    sweep = two_jobs
    (sweep / "1").rename(sweep / "3")  # a number is a job's for good: 1 is done again, and 3 is no job
    before = {number: files_of(sweep / number) for number in "03"}
    grown = cli("resume", sweep, "seed=1,2", "cell=basic,gru")
    assert grown.exit_code == 0, grown.output
    assert "3 added: #4 #5 #6" in grown.stdout
    assert "resuming 4 of 5 jobs: #1 #4 #5 #6" in grown.stdout
    new = [parsed(RunFolder(sweep / number).read_status()["overrides"]) for number in "456"]
    points = [(words["cell"], words["seed"], words["hidden"]) for words in new]
    assert sorted(points) == [("basic", 2, 4), ("gru", 1, 4), ("gru", 2, 4)]
    assert {number: files_of(sweep / number) for number in "03"} == before
    again = cli("resume", sweep, "cell=gru,basic", "seed=2,1")  # the same, said in another way
    assert "nothing left to do" in again.stdout
    assert "5 of 5 jobs done" in again.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden=3"], "Did you mean 'hidden'?"),
        (["seed=2,-1"], "no job was started"),
        (["seed=range(0,1000000000000)"], "more than 10,000 jobs"),
    ],
)
def test_a_wrong_point_adds_nothing(cli, two_jobs, words, message):
    before = files_of(two_jobs)
    done = cli("resume", two_jobs, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert files_of(two_jobs) == before


@pytest.mark.long
def test_an_unknown_launcher_is_told(cli, two_jobs):
    (two_jobs / "1" / "results.json").unlink()
    done = cli("resume", two_jobs, "hydra/launcher=jolib")
    assert done.exit_code == 2
    assert "error: No hydra/launcher named 'jolib'" in done.stderr


@pytest.mark.long
def test_json_tells_of_all_jobs(cli, two_jobs):
    sweep = two_jobs
    (sweep / "1" / "results.json").unlink()
    answer = json.loads(cli("resume", sweep, "--json").stdout)
    assert [(job["job"], job["state"], job["results"]["seed"]) for job in answer["jobs"]] in (
        [(0, "done", 0), (1, "done", 1)],
        [(1, "done", 1), (0, "done", 0)],
    )


@pytest.mark.long
def test_a_finished_run_says_so_and_trains_longer_where_asked(cli):
    assert cli("train", *SMALL, "schedule=constant", "hydra.run.dir=run").exit_code == 0
    before = files_of(Path("run"))
    finished = cli("resume", "run")
    assert finished.exit_code == 0, finished.output
    assert re.match(r"run is finished: 2 epochs, test accuracy [\d.]+ %\n", finished.stdout)
    after = {name: file for name, file in files_of(Path("run")).items() if name != ".lock"}
    assert after == {name: file for name, file in before.items() if name != ".lock"}
    longer = json.loads(cli("resume", "run", "epochs=3", "--json").stdout)
    assert longer["epochs"] == 3
    assert longer["folder"] == str(Path("run").absolute())
    assert cli("train", *SMALL, "schedule=constant", "epochs=3", "hydra.run.dir=whole").exit_code == 0
    whole = json.loads(Path("whole/results.json").read_text())
    assert [longer[split] for split in ("train", "validation", "test")] == [
        whole[split] for split in ("train", "validation", "test")
    ]
