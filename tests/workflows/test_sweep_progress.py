"""How far a sweep has come."""

import json

import pytest

from rnnclf.console.training import show_progress
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_progress import SweepProgress, progress_of


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Makes the folders of jobs in these states; those that are done took 10, 20 … s and were 0.5 right."""
    monkeypatch.setattr(RunFolder, "read_results", lambda run: {"validation": {"accuracy": 0.5}})

    def made(*states):
        for number, state in enumerate(states):
            folder = tmp_path / "sweep" / str(number)
            folder.mkdir(parents=True)
            status = {"state": state, "started": 0.0, "seconds": 10.0 * (number + 1)}
            (folder / "status.json").write_text(json.dumps(status))
        return tmp_path / "sweep"

    return made


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


def test_the_best_so_far_is_the_first_of_equals(sweep):
    assert progress_of(sweep("waiting", "done", "done")).best == (1, 0.5)


def test_it_is_one_line(capsys):
    show_progress(SweepProgress(4, 1, 12, 190.0, (2, 0.934)))
    show_progress(SweepProgress(2, 0, 2, None, None))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "4 of 12 jobs done, 1 failed, about 3 min left, best validation accuracy so far 93.40 % (#2)",
        "2 of 2 jobs done",
    ]
