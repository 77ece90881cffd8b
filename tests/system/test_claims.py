"""A folder has one owner at a time: on one machine by the kernel's lock, on several by a record."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rnnclf.errors import InUseError, OutputError
from rnnclf.system import claims
from rnnclf.system.claims import Claim, claim, claimed, is_claimed, owner_of, refuse_lost


@contextmanager
def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another kernel, which does not see the locks of this one."""
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_kernel", lambda: "another")
        patch.setattr(claims, "_has_locks", lambda descriptor: True)
        yield


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)


def silent_for(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / claims.RECORD, (then, then))


def dead_claim(folder: Path) -> Claim:
    """What a claim leaves behind whose process was killed."""
    made = claim(folder)
    made.ended.set()
    os.close(made.descriptor)
    return made


def test_a_second_claim_is_refused_until_the_first_is_released(tmp_path):
    assert not is_claimed(tmp_path)
    with claimed(tmp_path):
        assert is_claimed(tmp_path)
        with pytest.raises(InUseError, match="is being trained by another process"):
            claim(tmp_path)
    assert not is_claimed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    claim(tmp_path).release()


def test_a_killed_process_on_this_machine_is_dead_at_once(tmp_path):
    dead_claim(tmp_path)
    assert (tmp_path / claims.RECORD).exists()
    assert not is_claimed(tmp_path)
    claim(tmp_path).release()


def test_a_stopped_process_on_this_machine_keeps_its_claim(tmp_path):
    def hold(pipe) -> None:
        with claimed(tmp_path):
            pipe.send(None)
            time.sleep(60)

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(there,))
    process.start()
    here.recv()
    os.kill(process.pid, signal.SIGSTOP)
    silent_for(tmp_path, 10 * claims.STALE)
    with pytest.raises(InUseError):
        claim(tmp_path)
    process.kill()
    process.join()
    claim(tmp_path).release()


def test_another_machine_respects_a_living_record(tmp_path, monkeypatch):
    with claimed(tmp_path), on_another_machine(monkeypatch):
        assert is_claimed(tmp_path)
        with pytest.raises(InUseError, match=rf"is being trained by process {os.getpid()} on "):
            claim(tmp_path)


def test_another_machine_takes_over_after_a_long_silence_and_the_silent_one_is_told(tmp_path, monkeypatch):
    with claimed(tmp_path):
        silent_for(tmp_path, claims.STALE + 1)
        with on_another_machine(monkeypatch):
            assert not is_claimed(tmp_path)
            other = claim(tmp_path)
        with pytest.raises(InUseError, match=r"was taken over by a process on .* Nothing more is written"):
            refuse_lost(tmp_path)
    assert owner_of(tmp_path) == other.owner, "the silent one has not released what is no longer its own"
    other.release()


@pytest.mark.parametrize("hours", [-9, 9])
def test_clocks_of_machines_may_differ(tmp_path, monkeypatch, hours):
    now = time.time()
    with claimed(tmp_path), on_another_machine(monkeypatch):
        monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
        assert is_claimed(tmp_path)
        silent_for(tmp_path, claims.STALE + 1 + 3600 * hours)
        assert not is_claimed(tmp_path)


def test_a_living_claim_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with claimed(tmp_path):
        silent_for(tmp_path, 1000)
        before = (tmp_path / claims.RECORD).stat().st_mtime
        deadline = time.monotonic() + 10
        while (tmp_path / claims.RECORD).stat().st_mtime < before + 900:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.usefixtures("without_locks")
def test_without_locks_the_record_decides(tmp_path):
    with claimed(tmp_path):
        assert is_claimed(tmp_path)
        with pytest.raises(InUseError, match="is being trained by process"):
            claim(tmp_path)
    assert not is_claimed(tmp_path)
    dead_claim(tmp_path)
    assert is_claimed(tmp_path), "without locks nobody can know so soon that it is dead"
    silent_for(tmp_path, claims.STALE + 1)
    claim(tmp_path).release()


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("is_first", [True, False])
def test_of_many_that_claim_at_once_one_succeeds(tmp_path, is_first):
    """Either a new folder, or that of a dead process."""
    if not is_first:
        dead_claim(tmp_path)
        silent_for(tmp_path, claims.STALE + 1)
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()

    def attempt() -> None:
        start.wait()
        try:
            claim(tmp_path)
            results.put(True)
            time.sleep(60)
        except InUseError:
            results.put(False)

    processes = [context.Process(target=attempt) for _ in range(8)]
    for process in processes:
        process.start()
    start.set()
    try:
        assert sorted(results.get() for _ in processes) == [False] * 7 + [True]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_forked_child_inherits_a_claim(tmp_path):
    made = claim(tmp_path)
    context = multiprocessing.get_context("fork")

    def work(pipe) -> None:
        with made.inherited(), claimed(tmp_path):
            refuse_lost(tmp_path)
            pipe.send(is_claimed(tmp_path))

    here, there = context.Pipe()
    process = context.Process(target=work, args=(there,))
    process.start()
    assert here.recv()
    process.join()
    assert is_claimed(tmp_path), "it is still the parent's"
    made.release()
    assert not is_claimed(tmp_path)


def test_a_child_that_does_other_work_does_not_keep_a_claim(tmp_path):
    """A worker of several jobs claims one, and forks the next before the first has ended."""
    made = claim(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    made.release()
    try:
        assert not is_claimed(tmp_path)
        claim(tmp_path).release()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff", b'{"token": 1}', b'{"token":"a","kernel":"b","host":[],"pid":"c"}'],
)
def test_a_record_that_nobody_can_read_lasts_as_long_as_one_that_is_not_touched(
    tmp_path, monkeypatch, content
):
    (tmp_path / ".lock").touch()
    (tmp_path / claims.RECORD).write_bytes(content)
    with on_another_machine(monkeypatch):
        with pytest.raises(InUseError):
            claim(tmp_path)
        silent_for(tmp_path, claims.STALE + 1)
        claim(tmp_path).release()


def test_a_record_says_who_has_claimed_the_folder(tmp_path):
    with claimed(tmp_path):
        found = json.loads((tmp_path / claims.RECORD).read_text())
        assert found.keys() == {"token", "kernel", "host", "pid"}
        assert found["pid"] == os.getpid()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OutputError, match=r"Cannot write .*\.lock"):
        claim(tmp_path)
