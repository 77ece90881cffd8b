"""A run that a signal ends saves first, and ends by that signal."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from rnnclf import checkpoint
from rnnclf.system.signals import defer_signals, exit_on_signals
from rnnclf.training import evaluation
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.workflows.killed_runs import CASES, Witness, assert_as_in_peace, config_of

# Signals


@pytest.fixture
def own_signals():
    """Ctrl-C and SIGTERM as in a command, whatever the tests were started by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_signals():
        yield
    signal.signal(signal.SIGINT, before)


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
    ],
)
def test_a_signal_saves_first(number, end, reason, own_signals, tmp_path):
    folder, witness = RunFolder(tmp_path), Signalled(number)
    with pytest.raises(end) as caught:
        train(config_of(CASES["zoneout"]), folder, witness)
    assert end is KeyboardInterrupt or caught.value.code == 143
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
