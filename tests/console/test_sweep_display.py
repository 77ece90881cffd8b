"""What a terminal shows of a sweep whose jobs run in other processes."""

import io
import json
import os
import re
import sys

import pytest

from rnnclf.console import jobs, screen, sweep_display
from rnnclf.console.jobs import JobsDisplay
from rnnclf.errors import JobFailed
from rnnclf.hydra_app.bridge import Job
from rnnclf.hydra_app.checks import side_by_side
from rnnclf.workflows.jobs import _end_of_launcher
from rnnclf.workflows.sweep_progress import RunningJob


@pytest.fixture
def terminal(monkeypatch):
    """What is written to a terminal of 80 columns and 24 lines."""
    console = screen.SafeConsole(
        file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None
    )
    for module in (screen, sweep_display, jobs):
        monkeypatch.setattr(module, "screen", lambda: console)
    return console


def write(folder, **status):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text(json.dumps(status))
    os.replace(folder / "new", folder / "status.json")


def test_running_jobs_have_a_line_each_and_those_that_fail_a_sentence(tmp_path, terminal, monkeypatch):
    monkeypatch.setattr(sweep_display, "PERIOD", 60)  # so that it looks at the end alone
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for number in range(3):
        write(tmp_path / str(number), state="waiting", overrides=["epochs=4", f"hidden={number}\x1b[2J"])
    display = JobsDisplay(json=False)
    with display.jobs_run(tmp_path):
        screen.print_note("a remark")
        words = ["epochs=4", "hidden=0\x1b[2J"]
        write(tmp_path / "0", state="failed", overrides=words, error="its process was killed")
        words = ["epochs=4", "hidden=1"]
        write(tmp_path / "1", state="running", overrides=words, configuration={"epochs": 4})
        (tmp_path / "1" / "epochs.csv").write_text("epoch,validation_accuracy,seconds\n1,0.25,30\n2,0.5,30\n")
    said = terminal.file.getvalue()
    assert "3 jobs, in parallel; sweep folder" in said
    assert "a remark" in said
    assert "error: #0 hidden=0�[2J: its process was killed (log in" in said
    assert "\x1b[2J" not in said  # which would clear the screen
    assert re.search(r"2/4    50\.00 % +60 s", said)
    assert "0 of 3 jobs done, 1 failed, about" in said
    assert not display.has_board


def test_what_does_not_fit_is_counted(terminal):
    rows = [RunningJob(n, (f"seed={n}",), 3, 10, 0.5, 9.0, 21.0) for n in range(40)]
    with terminal.capture() as said:
        terminal.print(sweep_display.board(rows, [sweep_display.line("0 of 50 jobs done")], terminal))
    lines = said.get().splitlines()
    assert len(lines) < terminal.height
    assert lines[-2:] == ["and 23 more", "0 of 50 jobs done"]
    assert max(map(len, lines)) < terminal.width


def test_the_processes_of_jobs_are_silent_below_a_board(tmp_path, terminal, capsys):
    job, failure = Job(tmp_path, [], 3, parallel=True), JobFailed("no memory")
    JobsDisplay(json=False, has_board=True).job_failed(job, failure)
    assert capsys.readouterr().err == ""
    JobsDisplay(json=False).job_failed(job, failure)
    assert capsys.readouterr().err == "error: #3 no memory\n"


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "cores", "expected"),
    [
        ("basic", None, 8, False),
        ("joblib", -1, 8, True),
        ("joblib", 1, 8, False),  # which trains in the process of the sweep
        ("joblib", -1, 1, False),
        ("submitit_local", None, 8, True),
    ],
)
def test_a_board_is_for_jobs_in_other_processes(monkeypatch, launcher, n_jobs, cores, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert side_by_side(launcher, n_jobs) is expected


def test_a_killed_launcher_is_told_in_a_sentence():
    killed = type("TerminatedWorkerError", (Exception,), {})("A worker process … \n\nThe exit codes are {-9}")
    assert _end_of_launcher(killed) == "a process that ran jobs was killed, perhaps because memory ran out"
    assert (
        _end_of_launcher(ValueError("odd\nmore")) == "the launcher ended before its jobs did: ValueError: odd"
    )
