"""Jobs that a batch system starts again, and sweeps of which it still has jobs in its queue."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rnnclf.errors import JobFailed
from rnnclf.hydra_app import Job
from rnnclf.hydra_app.bridge import Outcome
from rnnclf.system import fork, slurm
from rnnclf.system.fork import ChildDied, exit_reason
from rnnclf.workflows import jobs, ledger
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from tests.workflows.killed_runs import assert_as_in_peace, killed

TERMINATED = 128 + signal.SIGTERM


@pytest.fixture
def squeue(tmp_path, monkeypatch) -> Path:
    """A command squeue that shows the job of the file `queue`, and fails without it."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ncat {tmp_path / 'queue'}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PAUSE", 0.01)
    return tmp_path / "queue"


def submitted(folder: Path, job: str) -> None:
    """What submitit leaves in the folder of a sweep."""
    script = folder / ".submitit" / job / f"{job}_submission.sh"
    script.parent.mkdir(parents=True)
    script.touch()


def job_that_dies(monkeypatch, folder: Path, exit_code: int) -> Job:
    """A job whose process ends with this code; the code is negative after a signal that was not handled."""

    def died(work: object, log: Path) -> float:
        raise ChildDied(exit_reason(exit_code), exit_code)

    monkeypatch.setattr(fork, "in_subprocess", died)
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"state": "interrupted", "error": "stopped by SIGTERM"}))
    return Job(folder, [], 0, parallel=True)


def test_a_job_that_slurm_told_to_end_hands_over_no_result(monkeypatch, tmp_path):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    job = job_that_dies(monkeypatch, tmp_path / "0", TERMINATED)
    with pytest.raises(SystemExit) as caught:
        ledger.in_subprocess(job, lambda: None)
    assert caught.value.code == TERMINATED
    assert RunFolder(job.folder).read_status() == {"state": "interrupted", "error": "stopped by SIGTERM"}


@pytest.mark.parametrize(
    ("executor", "exit_code"), [("slurm", -signal.SIGKILL), ("local", TERMINATED), ("", TERMINATED)]
)
def test_any_other_job_that_dies_has_failed(monkeypatch, tmp_path, executor, exit_code):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    with pytest.raises(JobFailed):
        ledger.in_subprocess(job_that_dies(monkeypatch, tmp_path / "0", exit_code), lambda: None)


def test_submitits_own_exit_code_does_not_replace_the_reason(monkeypatch, tmp_path):
    job = job_that_dies(monkeypatch, tmp_path / "0", TERMINATED)

    def requeued(work: object, log: Path) -> float:
        raise SystemExit(-1)

    monkeypatch.setattr(fork, "in_subprocess", requeued)
    with pytest.raises(SystemExit):
        ledger.in_subprocess(job, lambda: None)
    assert RunFolder(job.folder).read_status()["error"] == "stopped by SIGTERM"


@pytest.mark.long
@pytest.mark.parametrize(("batches", "resumed"), [(1, None), (8, 1)])
def test_resumed_counts_the_checkpoints_that_were_loaded(tmp_path, batches, resumed):
    """The first checkpoint is that of the first epoch, after batch 6."""
    run = killed("", batches, tmp_path / "run")
    resume_run(run)
    assert run.read_status().get("resumed") == resumed
    assert_as_in_peace(run, "")


def test_only_the_sweeps_own_jobs_in_the_queue_count(squeue, tmp_path):
    sweep = tmp_path / "sweep"
    submitted(sweep, "12")
    submitted(sweep / ".resumed" / "2026-11-30" / "10-00-00", "9")
    squeue.write_text("12\n12\n13\n9\n")
    assert ledger.queued(sweep) == ["9", "12"]
    squeue.write_text("13\n")
    assert ledger.queued(sweep) == []


@pytest.mark.parametrize("fault", ["no squeue", "no answer"])
def test_without_an_answer_of_slurm_nothing_is_in_its_queue(squeue, monkeypatch, tmp_path, fault):
    if fault == "no squeue":
        monkeypatch.setenv("PATH", str(tmp_path))
    submitted(tmp_path, "12")
    assert ledger.queued(tmp_path) == []


def test_a_sweep_waits_until_its_jobs_have_left_the_queue(squeue, monkeypatch, tmp_path):
    submitted(tmp_path, "12")
    answers = [{"12", "13"}, {"12"}, {"13"}]
    monkeypatch.setattr(slurm, "own_jobs", lambda: answers.pop(0))
    ledger.wait_for_queue(tmp_path)
    assert answers == []


@pytest.mark.long
def test_resume_is_refused_while_slurm_has_jobs_of_the_sweep(cli, squeue, two_jobs):
    (two_jobs / "1" / "results.json").unlink()
    submitted(two_jobs, "12")
    squeue.write_text("12\n")
    refused = cli("resume", two_jobs)
    assert refused.exit_code == 2
    assert "Slurm still has jobs of sweep: wait for them (squeue), or end them: scancel 12." in " ".join(
        refused.stderr.split()
    )
    squeue.write_text("")
    assert cli("resume", two_jobs).exit_code == 0


class UncompletedJobError(Exception):
    """As submitit's."""


@pytest.mark.parametrize(("most", "restarted"), [(1, 0), (2, 2), (None, 2)])
def test_a_launcher_that_got_no_further_is_not_started_again(monkeypatch, tmp_path, most, restarted):
    notes = []
    watch = jobs.JobsWatcher()
    monkeypatch.setattr(watch, "note", notes.append)
    left = [RunFolder(tmp_path / number) for number in "01"]
    monkeypatch.setattr(ledger, "pending_jobs", lambda folder: left)
    monkeypatch.setattr(ledger, "wait_for_jobs", lambda folder: None)
    killed = UncompletedJobError("Job 12_3 (task: 0) with path /somewhere\nhas not produced any output")
    assert len(jobs._remaining_jobs(Outcome(tmp_path, killed), watch, most)) == restarted
    said = "; restarting 2 jobs" if restarted else ""
    assert notes == [f"job 12_3 ended without a result, perhaps because it was killed{said}"]
