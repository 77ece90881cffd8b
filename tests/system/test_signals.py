"""What a batch system's signals do to a process that runs a job in a fork of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rnnclf.system import signals

# A process that runs work in a fork, which sends a signal to both, as a batch system does.
GROUP = """
import os, signal, sys, time
from pathlib import Path
from rnnclf.system.fork import in_subprocess
from rnnclf.system.signals import exit_on_signals

def requeue(number, frame):  # as submitit
    with open("calls", "a") as calls:
        calls.write("requeued ")
    sys.exit(-1)

def work():
    try:
        os.killpg(0, signal.{name})
        for _ in range(300):  # a signal just before a sleep does not shorten it
            time.sleep(0.1)
    except SystemExit as end:
        time.sleep(0.1)
        Path("saved").write_text(str(end.code))
        raise

{handling}
"""
SUBMITIT = "signal.signal(signal.{name}, requeue); in_subprocess(work, Path('log'))"
OURS = "\nwith exit_on_signals(): in_subprocess(work, Path('log'))"


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sent_to_group(name: str, handling: str) -> int:
    script = GROUP.format(name=name, handling=handling.format(name=name))
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=30, start_new_session=True, stderr=subprocess.PIPE
    )
    return done.returncode


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_job_leaves_a_signal_to_its_launcher_and_saves_when_that_ends(tmp_path, name):
    assert sent_to_group(name, SUBMITIT) == 255
    assert (tmp_path / "calls").read_text() == "requeued "  # once, not by the fork as well
    assert (tmp_path / "saved").read_text() == str(128 + signal.SIGTERM)


@pytest.mark.usefixtures("tmp_path")
def test_a_job_that_nobody_waits_for_yet_is_ended_with_its_process():
    script = GROUP.format(name="SIGCONT", handling="from rnnclf.system.fork import Child\n")
    script += "child = Child(work, Path('log'))\nsys.exit(3)\n"
    done = subprocess.run([sys.executable, "-c", script], timeout=20, start_new_session=True)
    assert done.returncode == 3  # the job itself would take 30 s


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_without_a_launcher_a_job_saves_at_the_signal_of_its_batch_system(tmp_path, name):
    code = 128 + getattr(signal, name)
    assert sent_to_group(name, OURS) == code
    assert (tmp_path / "saved").read_text() in (str(code), str(128 + signal.SIGTERM))


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_that_no_launcher_handles_stays_as_it_is(handler):
    signal.signal(signal.SIGUSR2, handler)
    signals.leave_to_launcher()
    assert signal.getsignal(signal.SIGUSR2) == handler
