"""Workers run the jobs of a sweep side by side: each job once, whoever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.errors import JobFailed
from rnnclf.system.claims import claimed
from rnnclf.workflows import work as working
from rnnclf.workflows.jobs import Job, JobsWatcher
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.work import Queue
from tests.workflows.sweeps import SLOW, SMALL, command, mortal, shell, started, states, wait_for

LATER = ("train", "-m", "hydra/launcher=later", "cell=basic", *SMALL, "hydra.sweep.dir=sweep")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_later_writes_the_sweep_and_runs_nothing(cli):
    done = cli(*LATER, "seed=range(3)")
    assert (done.exit_code, done.stdout) == (
        0,
        "3 jobs wait for workers; sweep folder: sweep\n"
        "start as many as you like, on any machine that sees it: rnnclf work sweep\n",
    )
    assert states(Path("sweep")) == dict.fromkeys("012", "waiting")
    assert not Path("sweep/sweep.csv").exists()
    assert json.loads(cli(*LATER[:-1], "hydra.sweep.dir=other", "--json").stdout) == {
        "folder": "other",
        "jobs": 1,
    }


@pytest.mark.long
def test_a_worker_runs_what_is_left_and_ranks_it(cli):
    cli(*LATER, "seed=range(3)")
    failed = RunFolder(Path("sweep/1"))
    failed.status.write_text(json.dumps({**failed.read_status(), "state": "failed", "error": "it broke"}))
    done = cli("work", "sweep")
    assert done.exit_code == 1, "one job of the sweep has failed"
    assert states(Path("sweep")) == {"0": "done", "1": "failed", "2": "done"}
    assert "2 of 3 jobs done" in done.stdout
    again = cli("work", "sweep")
    assert "#0 epoch" not in again.stdout
    assert "2 of 3 jobs done" in again.stdout


@pytest.mark.long
def test_a_job_of_another_worker_is_left_to_it(cli):
    cli(*LATER, "seed=range(2)")
    with claimed(Path("sweep/0")):
        done = cli("work", "sweep")
        assert (done.exit_code, states(Path("sweep"))["1"]) == (0, "done")
        assert done.stdout.endswith(
            "no job is left for this worker; 1 job is with others: rnnclf inspect sweep\n"
        )
        assert not RunFolder(Path("sweep/0")).has_begun()
    assert cli("work", "sweep").exit_code == 0
    assert set(states(Path("sweep")).values()) == {"done"}


@pytest.mark.long
def test_resume_runs_the_jobs_that_were_left_to_workers(cli):
    cli(*LATER, "seed=range(2)")
    assert cli("resume", "sweep").exit_code == 0
    assert set(states(Path("sweep")).values()) == {"done"}


def test_what_is_no_sweep_is_refused(cli):
    Path("empty").mkdir()
    assert (cli("work", "empty").exit_code, cli("work", "nowhere").exit_code) == (2, 2)
    assert "is not a sweep folder" in cli("work", "empty").stderr
    assert cli("work", "empty", "--jobs", "0").exit_code == 2


def test_a_worker_takes_a_job_once(cli):
    """Else it would begin again and again one whose process is killed each time."""
    cli(*LATER, "seed=range(2)")
    queue = Queue(Path("sweep"))
    first, second = queue.take(), queue.take()
    assert [first.run.number, second.run.number] == [0, 1]
    for taken in (first, second):
        taken.claim.release()
    assert queue.take() is None


def test_a_job_whose_worker_has_died_is_taken_after_the_others(cli):
    cli(*LATER, "seed=range(2)")
    queue = Queue(Path("sweep"))
    with claimed(Path("sweep/0")):
        assert queue.take().run.number == 1
        assert queue.take() is None
    assert queue.take().run.number == 0


def test_a_job_that_ends_while_it_is_claimed_is_not_run_again(cli, monkeypatch):
    cli(*LATER)
    run = RunFolder(Path("sweep/0"))
    claim = working.claim

    def too_late(folder: Path):
        run.status.write_text(json.dumps({**run.read_status(), "state": "done"}))
        return claim(folder)

    monkeypatch.setattr(working, "claim", too_late)
    assert Queue(Path("sweep")).take() is None
    assert not run.busy()


def test_an_error_of_a_job_is_told_and_the_others_run(cli, monkeypatch):
    cli(*LATER, "seed=range(2)")
    told: list[tuple[int | None, str]] = []

    class Watch(JobsWatcher):
        def job_failed(self, job: Job, error: Exception) -> None:
            told.append((job.number, str(error)))

    def fail(job: Job, watch: JobsWatcher) -> None:
        raise JobFailed(f"job {job.number} broke")

    monkeypatch.setattr(working, "resume_job", fail)
    assert working.work(Path("sweep"), Watch()).failed
    assert told == [(0, "job 0 broke"), (1, "job 1 broke")]
    assert states(Path("sweep")) == {"0": "failed", "1": "failed"}


# In processes of their own

IMPATIENT = "from rnnclf.cli import main; from rnnclf.system import fork; fork.SAVING = 0.5; main()"


@SLOW
def test_jobs_at_once_equal_single_runs(tmp_path):
    shell(*LATER, "seed=range(3)")
    done = shell("work", "sweep", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of 3 jobs done" in done.stdout
    shell("train", "cell=basic", *SMALL, "seed=2", "hydra.run.dir=alone")
    assert differences(Path("sweep/2"), Path("alone")) == []


@pytest.mark.long
def test_an_interrupted_worker_saves_all_its_jobs_and_another_goes_on(tmp_path):
    shell(*mortal("cell.end=slow", "seed=0,1,2", launcher="later"))
    process = started(("work", "sweep", "--jobs", "2"))
    runs = jobs_of(Path("sweep"))
    wait_for(lambda: runs[0].last.exists() and runs[1].last.exists())
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert states(Path("sweep")) == {"0": "interrupted", "1": "interrupted", "2": "waiting"}
    assert runs[0].read_status()["error"] == "stopped by Ctrl-C"
    assert not any(run.busy() for run in runs)
    Path("deadly").unlink()
    assert shell("work", "sweep", "--jobs", "2").returncode == 0
    assert [run.read_status().get("resumed") for run in runs[:2]] == [1, 1]


@SLOW
@pytest.mark.parametrize("launcher", ["later", "basic"])
def test_a_job_that_does_not_end_when_it_is_asked_is_killed_and_can_go_on(launcher):
    shell(*mortal("cell.end=hang,never", launcher="later"))
    words = ("work", "sweep", "--jobs", "2") if launcher == "later" else ("resume", "sweep")
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    hangs = RunFolder(Path("sweep/0"))
    wait_for(lambda: hangs.path.with_name("hangs").exists())
    if launcher == "later":
        wait_for(lambda: states(Path("sweep"))["1"] == "done")
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    reason = "its process did not save within 0.5 s and was killed"
    assert stderr.count(f"#0 {reason}: it goes on from its last checkpoint.") == 1, stderr
    assert (hangs.state(), hangs.read_status()["error"]) == ("interrupted", reason)
    assert not hangs.busy()
    Path("deadly").unlink()
    assert shell("work", "sweep").returncode == 0
    assert (hangs.state(), hangs.read_status().get("resumed")) == ("done", 1)


@SLOW
def test_a_job_that_is_killed_fails_alone(tmp_path):
    shell(*mortal("cell.end=kill,never", launcher="later"))
    done = shell("work", "sweep", "--jobs", "2")
    assert done.returncode == 1
    assert "#0 its process was killed (SIGKILL), perhaps because memory ran out" in done.stderr
    assert states(Path("sweep")) == {"0": "failed", "1": "done"}


@SLOW
@pytest.mark.timeout(900)
def test_four_workers_with_random_kills_do_each_of_fifty_jobs_once(tmp_path):
    draw = random.Random(0)
    jobs, epochs, more = 50, 40, ("epochs=40", "checkpoint.every=5steps")
    shell(*LATER, *more, f"seed=range({jobs})")
    runs = jobs_of(Path("sweep"))

    def worker() -> subprocess.Popen[bytes]:
        with open("workers.log", "a") as log:
            return subprocess.Popen(command("work", "sweep"), stdout=log, stderr=log, start_new_session=True)

    workers, kills = [worker() for _ in range(4)], 0
    while any(run.state() != "done" for run in runs):
        time.sleep(draw.uniform(0.5, 3))
        k = draw.randrange(4)
        if workers[k].poll() is None and kills < 30:
            os.killpg(workers[k].pid, draw.choice([signal.SIGKILL, signal.SIGTERM]))
            workers[k].wait()
            kills += 1
        if workers[k].poll() is not None:
            workers[k] = worker()
    for process in workers:
        process.wait(timeout=60)
    text = Path("workers.log").read_text()
    assert kills >= 10
    for run in runs:
        assert len(run.epochs.read_text().splitlines()) == 1 + epochs
        assert text.count(f"#{run.number} test accuracy") <= 1, "each job is finished once"
    shell("train", "cell=basic", *SMALL, *more, "seed=7", "hydra.run.dir=alone")
    assert differences(Path("sweep/7"), Path("alone")) == []
