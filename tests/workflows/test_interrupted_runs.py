"""A run that a signal ends saves first, and ends by that signal."""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnclf import checkpoint
from rnnclf.errors import JobFailed
from rnnclf.files import write_json
from rnnclf.hydra_app import Job
from rnnclf.system import fork, signals
from rnnclf.system.signals import ENDING, ask_to_end, defer_signals, exit_on_signals
from rnnclf.training import evaluation
from rnnclf.training.state import BatchProgress
from rnnclf.workflows import ledger
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.workflows.killed_runs import CASES, Witness, assert_as_in_peace, config_of

# Signals


@pytest.fixture
def own_signals():
    """Signals as in a command, whatever the tests were started by."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_signals():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Signalled(Witness):
    """Is sent signals at the 9th batch, in the middle of the second epoch."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def batch(self, progress: BatchProgress) -> None:
        super().batch(progress)
        if len(self.batches) == 9:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "end", "reason"),
    [
        (signal.SIGINT, KeyboardInterrupt, "stopped by Ctrl-C"),
        (signal.SIGTERM, SystemExit, "stopped by SIGTERM"),
        (signal.SIGHUP, SystemExit, "stopped by SIGHUP"),
        (signal.SIGUSR1, SystemExit, "stopped by SIGUSR1"),
        (signal.SIGUSR2, SystemExit, "stopped by SIGUSR2"),
    ],
)
def test_a_signal_saves_first(number, end, reason, own_signals, tmp_path):
    folder, witness = RunFolder(tmp_path), Signalled(number)
    with pytest.raises(end) as caught:
        train(config_of(CASES["zoneout"]), folder, witness)
    assert end is KeyboardInterrupt or caught.value.code == 128 + number
    state = checkpoint.read_header(folder.last)["training"]
    assert (state["epoch"], state["so_far"]["batches"]) == (1, 3)
    status = folder.read_status()
    assert (status["state"], status["error"]) == ("interrupted", reason)
    assert witness.notes == [f"Saved in epoch 2 after batch 3. Resume with: rnnclf resume {tmp_path}"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume_run(folder)
    assert_as_in_peace(folder, CASES["zoneout"])


def test_a_second_ctrl_c_stops_at_once(own_signals, tmp_path):
    folder, witness = RunFolder(tmp_path), Signalled(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(""), folder, witness)
    assert checkpoint.read_header(folder.last)["training"]["so_far"]["batches"] == 0
    assert folder.read_status()["state"] == "interrupted"
    resume_run(folder)
    assert_as_in_peace(folder, "")


@pytest.mark.long
def test_a_signal_while_the_splits_are_scored_ends_the_run_and_loses_nothing(
    own_signals, monkeypatch, tmp_path
):
    folder, witness = RunFolder(tmp_path), Witness()

    def evaluate(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return evaluation.evaluate_model(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("rnnclf.workflows.train.evaluate_model", evaluate)
        with pytest.raises(KeyboardInterrupt):
            train(config_of(""), folder, witness)
    assert folder.read_status()["state"] == "interrupted"
    assert witness.notes == [f"Saved after epoch 3. Resume with: rnnclf resume {tmp_path}"]
    before = folder.last.read_bytes()
    resume_run(folder, watch=(witness := Witness()))
    assert (witness.batches, folder.last.read_bytes()) == ([], before)
    assert_as_in_peace(folder, "")


@pytest.mark.long
@pytest.mark.parametrize(
    "numbers", [(signal.SIGHUP,) * 3, (signal.SIGTERM,) * 2, (signal.SIGHUP, signal.SIGTERM)]
)
def test_several_signals_at_once_are_one_request(own_signals, tmp_path, numbers):
    """`timeout` sends two, a closed terminal up to three, and a sweep's parent may add one."""
    folder, witness = RunFolder(tmp_path), Signalled(*numbers)
    with pytest.raises(SystemExit) as caught:
        train(config_of(""), folder, witness)
    assert caught.value.code == 128 + numbers[0]
    assert checkpoint.read_header(folder.last)["training"]["so_far"]["batches"] == 3
    assert folder.read_status()["state"] == "interrupted"


def after(*requests: Callable[[], None]) -> str:
    """What a deferred end, requested so, is in the end: by exit code, and whether it was deferred to it."""
    reached = False
    try:
        with defer_signals():
            for request in requests:
                request()
            reached = True
    except SystemExit as end:
        return f"{end.code} {'deferred' if reached else 'at once'}"
    return "nothing"


def sent(number: int) -> Callable[[], None]:
    return functools.partial(signal.raise_signal, number)


def test_a_second_request_acts_at_once(own_signals, monkeypatch):
    assert after(sent(signal.SIGTERM), sent(signal.SIGTERM)) == "143 deferred"
    monkeypatch.setattr(signals, "BURST", 0.0)
    assert after(sent(signal.SIGTERM), sent(signal.SIGTERM)) == "143 at once"


def test_a_command_that_is_ending_is_not_disturbed_by_the_rest_of_a_burst(own_signals):
    def end() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        end()
    assert caught.value.code == 129


def test_a_dying_parent_does_not_hurry_a_job_that_is_saving_already(own_signals, monkeypatch):
    monkeypatch.setattr(signals, "BURST", 0.0)
    assert after(ask_to_end) == "143 deferred"
    assert after(sent(signal.SIGHUP), ask_to_end) == "129 deferred"


def test_a_signal_that_the_parent_ignores_stays_ignored(own_signals):
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with exit_on_signals(), defer_signals() as waiting:
        signal.raise_signal(signal.SIGHUP)
    assert waiting.signal is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.long
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_two_signals_in_the_middle_of_a_save_lose_nothing(own_signals, monkeypatch, tmp_path, call):
    folder, really, saving, sent = RunFolder(tmp_path), getattr(os, call), checkpoint.save, []

    def save(path: Path, *arguments: Any, **more: Any) -> None:
        with pytest.MonkeyPatch.context() as patched:
            if path == folder.last and path.exists():  # the second one, which keeps the first
                patched.setattr(f"rnnclf.files.os.{call}", signalled)
            saving(path, *arguments, **more)

    def signalled(*arguments: Any) -> Any:
        if not sent:
            sent.append(call)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return really(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(config_of(""), folder)
    assert sent
    assert folder.read_status()["state"] == "interrupted"
    resume_run(folder)
    assert_as_in_peace(folder, "")


# No process left for a job


def test_a_process_that_cannot_be_started_is_a_failed_job(monkeypatch, tmp_path):
    def full() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(fork, "can_fork", lambda: True)
    monkeypatch.setattr(os, "fork", full)
    run = RunFolder(tmp_path, 0)
    write_json(run.status, {"state": "waiting"})
    with pytest.raises(JobFailed, match="its process could not be started: Resource temporarily unavailable"):
        ledger.in_subprocess(Job(tmp_path, [], 0, parallel=False), lambda: 1.0)
    assert run.state() == "failed"


def test_a_job_that_fails_before_it_begins_is_recorded(monkeypatch, tmp_path):
    def work() -> float:
        raise JobFailed("its process could not start a thread")

    run = RunFolder(tmp_path, 0)
    write_json(run.status, {"state": "waiting"})
    with pytest.raises(JobFailed):
        ledger.in_subprocess(Job(tmp_path, [], 0, parallel=False), work)
    assert (run.state(), run.read_status()["error"]) == ("failed", "its process could not start a thread")


def as_machine_code_tells_of(end: BaseException) -> SystemError:
    """Python makes this of what is raised in the middle of a function of Numba's."""
    inner, outer = SystemError("returned a result with an exception set"), SystemError("once more")
    inner.__cause__, outer.__cause__ = end, inner
    return outer


@pytest.mark.parametrize(
    ("end", "reason"), [(KeyboardInterrupt(), "stopped by Ctrl-C"), (SystemExit(143), "stopped by SIGTERM")]
)
def test_a_signal_in_the_middle_of_machine_code_is_no_failure(end, reason, tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(type(end)), folder.locked(), folder.tracked({}):
        raise as_machine_code_tells_of(end)
    assert (folder.read_status()["state"], folder.read_status()["error"]) == ("interrupted", reason)


def test_an_error_of_the_system_itself_is_one(tmp_path):
    with pytest.raises(SystemError), RunFolder(tmp_path).tracked({}):
        raise as_machine_code_tells_of(ValueError())
    assert RunFolder(tmp_path).read_status()["state"] == "failed"


def test_ctrl_c_in_the_middle_of_machine_code_ends_a_command_as_anywhere(cli, monkeypatch, tmp_path):
    def inspect(path: Path) -> Any:
        raise as_machine_code_tells_of(KeyboardInterrupt())

    monkeypatch.setattr("rnnclf.workflows.inspect.inspect", inspect)
    done = cli("inspect", tmp_path)
    assert (done.exit_code, done.stderr.strip()) == (130, "stopped by Ctrl-C")


def test_a_signal_that_comes_when_nobody_looks_any_more_is_not_swallowed(own_signals):
    with pytest.raises(KeyboardInterrupt), defer_signals():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_somebody_else_handles_are_left_alone(own_signals):
    seen = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with defer_signals() as waiting:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (seen, waiting.signal) == ([signal.SIGTERM], None)


@pytest.mark.long
def test_a_run_in_a_thread_of_its_own_ends_as_any_other(tmp_path):
    errors = []

    def work() -> None:
        try:
            train(config_of(""), RunFolder(tmp_path))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert_as_in_peace(RunFolder(tmp_path), "")
