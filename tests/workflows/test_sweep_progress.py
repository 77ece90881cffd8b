"""How far a sweep has come."""

import json
import os
import time
from contextlib import contextmanager

import pytest

from rnnclf.console.sweep_display import progress_in_words
from rnnclf.workflows import jobs
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_progress import Best, JobsFollowed, RunningJob, SweepProgress, progress_of


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Makes the folders of jobs in these states; those that are done took 10, 20 … s and were 0.5 right."""
    monkeypatch.setattr(RunFolder, "read_results", lambda run: {"validation": {"accuracy": 0.5}})

    def made(*states):
        for number, state in enumerate(states):
            folder = tmp_path / "sweep" / str(number)
            folder.mkdir(parents=True)
            words = ["hidden=8", f"cell={'lstm' if number % 2 else 'gru'}", f"seed={number}"]
            write(folder, state=state, started=0.0, seconds=10.0 * (number + 1), overrides=words)
        return tmp_path / "sweep"

    return made


def write(folder, **status):
    """Replaces the record of a job, as a job does."""
    (folder / "new").write_text(json.dumps(status))
    os.replace(folder / "new", folder / "status.json")


@pytest.mark.parametrize(
    ("states", "left"),
    [
        (("done", "done", "waiting", "waiting"), 30.0),
        (("done", "done", "running", "waiting"), 22.5 / 2),  # half of one and another, by two
        (("done", "done", "running", "running"), 15.0 / 2),
        (("failed", "waiting"), None),
        (("done", "failed"), None),
    ],
)
def test_the_time_left_is_that_of_the_jobs_that_are_done(sweep, states, left):
    found = progress_of(sweep(*states))
    assert found.seconds_left == (None if left is None else pytest.approx(left))
    assert (found.done, found.total) == (states.count("done"), len(states))
    assert found.failed == states.count("failed")


def test_the_best_so_far_is_a_configuration_and_the_first_of_equals(sweep):
    assert progress_of(sweep("waiting", "done", "done", "done")).best == Best(("cell=lstm",), 0.5, 2)


def test_a_running_job_is_known_by_its_files(sweep):
    """Its own words, epochs, best accuracy, and time: that of its last epochs, at most max_time."""
    folder = sweep("running", "waiting")
    now = time.time()
    configuration = {"epochs": 12, "max_time": None}
    write(folder / "0", state="running", started=now, seconds=0.0, configuration=configuration)
    (folder / "0" / "epochs.csv").write_text(
        "epoch,validation_accuracy,seconds\n1,0.2,9\n" + "2,0.7,2\n" * 4 + "6,nan,2\n"
    )
    followed = JobsFollowed(folder, from_now=True)
    (job,) = followed.progress().running
    assert (job.epoch, job.epochs, job.best, job.seconds_left) == (6, 12, 0.7, pytest.approx(12.0))
    assert followed.progress().seconds_left == pytest.approx(24.0, abs=1)
    configuration["max_time"] = "8s"
    write(folder / "0", state="running", started=now - 3, seconds=0.0, configuration=configuration)
    assert followed.progress().running[0].seconds_left == pytest.approx(5, abs=1)


def test_damaged_files_of_a_running_job_say_nothing(sweep):
    folder = sweep("running")
    (folder / "0" / "epochs.csv").write_text('epoch\n"')
    write(folder / "0", state="running", overrides=3, started="x", configuration=[1])
    (job,) = progress_of(folder).running
    assert job == RunningJob(0, (), 0, 0, None, 0.0, None)


def test_each_job_that_ends_is_told_once(sweep):
    """A job that failed before the sweep was resumed waits until it fails again."""
    folder = sweep("done", "failed", "running")
    followed = JobsFollowed(folder, from_now=True)
    assert [*followed.ended()] == []
    assert (followed.progress().done, followed.progress().failed) == (1, 0)
    for number in (1, 2):
        write(folder / str(number), state="failed", error="no memory")
    assert [job.run.number for job in followed.ended()] == [1, 2]
    assert [*followed.ended()] == []
    assert followed.progress().failed == 2


def test_jobs_that_a_sweeper_adds_are_found(sweep, tmp_path):
    followed = JobsFollowed(sweep("done"), from_now=True)
    (tmp_path / "sweep" / "1").mkdir()
    write(tmp_path / "sweep" / "1", state="failed", overrides=["hidden=8", "seed=7"], error="odd")
    assert (followed.progress().total, followed.progress().failed) == (2, 1)
    assert [job.words for job in followed.ended()] == [("seed=7",)]


def test_it_is_one_line():
    some = SweepProgress(4, 1, 12, 190.0, Best(("cell=lstm",), 0.934, 2))
    assert progress_in_words(some) == (
        "4 of 12 jobs done, 1 failed, about 3 min left,"
        " best mean validation accuracy so far 93.40 % (cell=lstm)"
    )
    assert progress_in_words(SweepProgress(2, 0, 2, None, None)) == "2 of 2 jobs done"


@pytest.mark.parametrize("parallel", [True, False])
def test_the_board_of_a_parallel_sweep_goes_before_the_table_is_shown(tmp_path, monkeypatch, parallel):
    events = []

    class Watch(jobs.JobsWatcher):
        @contextmanager
        def jobs_run(self, sweep):
            events.append("board")
            yield
            events.append("no board")

        def sweep_ended(self, folder, ranking):
            events.append("table")

    def interrupted(body, words, prog, isolate, start):
        start.parallel = parallel
        start.begin_sweep(tmp_path / "sweep", [])
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_hydra", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.train(["-m"], Watch())
    assert events == (["board", "no board"] if parallel else []) + ["table"]
