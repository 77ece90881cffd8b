"""A process of its own for what may end a process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnnclf.errors import DataError
from rnnclf.system import helper
from rnnclf.system.fork import ChildDied
from rnnclf.system.helper import in_helper, limit_memory

HERE = __name__


def plain(*words: object) -> object:
    print("what a library prints is no answer")
    return [os.getpid(), *words]


def ends(signal: int) -> None:
    os.kill(os.getpid(), signal)


def refuses() -> None:
    raise DataError("my.csv is damaged.")


def meets_a_full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def is_wrong() -> None:
    raise KeyError("oops")


def takes_memory(size: int) -> int:
    limit_memory(2**30)
    return len(bytearray(size))


def test_what_is_returned_or_raised_comes_back():
    pid, *words = in_helper(f"{HERE}:plain", "é\udce9", None, 3)
    assert pid != os.getpid()
    assert words == ["é\udce9", None, 3]
    with pytest.raises(DataError, match=r"^my\.csv is damaged\.$"):
        in_helper(f"{HERE}:refuses")
    with pytest.raises(OSError, match="No space left") as caught:
        in_helper(f"{HERE}:meets_a_full_disk")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match=r"(?s)is_wrong failed in its own process:.*KeyError: 'oops'"):
        in_helper(f"{HERE}:is_wrong")


def test_what_takes_too_much_memory_is_told_and_the_limit_holds_for_one_call():
    with pytest.raises(ChildDied, match="it takes more memory than there is"):
        in_helper(f"{HERE}:takes_memory", 2**31)
    assert in_helper(f"{HERE}:takes_memory", 2**20) == 2**20


def runs_in_circles() -> None:
    while True:
        pass


@pytest.mark.long
def test_what_takes_longer_than_its_file_explains_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(helper, "LEAST_SECONDS", 1.0)
    file = tmp_path / "a.bin"
    file.write_bytes(b"")
    with pytest.raises(ChildDied, match="SIGXCPU"):
        in_helper(f"{HERE}:runs_in_circles", reads=file)
    assert in_helper(f"{HERE}:plain")[1:] == []


@pytest.mark.long
def test_a_process_that_dies_is_replaced():
    with pytest.raises(ChildDied, match=r"its process crashed \(SIGABRT\)"):
        in_helper(f"{HERE}:ends", 6)
    assert in_helper(f"{HERE}:plain")[0] != os.getpid()


@pytest.mark.long
def test_the_helper_loads_nothing_from_the_current_folder(tmp_path):
    (tmp_path / "rnnclf.py").write_text("raise SystemExit('a stranger')\n")
    code = "from rnnclf.system.helper import in_helper; print(in_helper('os:getcwd'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert Path(done.stdout.strip()).name == tmp_path.name
