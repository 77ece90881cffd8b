"""A cache of machine code that is missing, damaged, foreign or full costs the time to compile, no more."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("llvmlite")

from rnnclf.engine.machine import cache
from rnnclf.errors import OutputError

users_folder = cache.cache_folder  # imported before the session's fixtures replace it
TEXT = """
define double @half(double %x) {
  %y = fmul double %x, 5.000000e-01
  ret double %y
}
"""


@pytest.fixture(autouse=True)
def folder_of_the_user(monkeypatch):
    """As users have it: not the one that all tests share."""
    monkeypatch.setattr(cache, "cache_folder", users_folder)


@pytest.fixture
def compilations(monkeypatch):
    """Notes each compilation; nothing is known from before in this process."""
    found, compile_text = [], cache.object_code
    monkeypatch.setattr(cache, "object_code", lambda text: found.append(text) or compile_text(text))
    forget(monkeypatch)
    return found


def half():
    address = cache.compiled(TEXT, ("half",))["half"]
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(3.0)


LOADED = []


def forget(monkeypatch):
    """As in a new process. Loaded code must stay where it is."""
    LOADED.append(cache._known)
    monkeypatch.setattr(cache, "_known", {})


def the_file() -> Path:
    (path,) = cache.cache_folder().iterdir()
    return path


def test_code_is_compiled_once_and_then_read(compilations, monkeypatch):
    assert half() == 1.5
    assert half() == 1.5
    forget(monkeypatch)
    assert half() == 1.5
    assert len(compilations) == 1
    assert the_file().suffix == ".o"
    assert the_file().stat().st_mode & 0o022 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    ],
    ids=["empty", "cut-short", "another-byte", "a-folder", "a-pipe", "a-link"],
)
def test_a_damaged_file_is_compiled_again(damage, compilations, monkeypatch):
    half()
    damage(the_file())
    forget(monkeypatch)
    assert half() == 1.5
    assert len(compilations) == 2


def test_a_folder_that_others_can_write_to_is_not_used(compilations, monkeypatch):
    half()
    the_file().parent.chmod(0o777)
    forget(monkeypatch)
    assert cache.cache_folder() is None
    assert half() == 1.5
    assert len(compilations) == 2


def test_a_file_of_another_user_is_not_executed(compilations, monkeypatch):
    half()
    folder = cache.cache_folder()
    monkeypatch.setattr(cache, "cache_folder", lambda: folder)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    forget(monkeypatch)
    assert half() == 1.5
    assert len(compilations) == 2


def test_a_full_disk_is_no_error(compilations, monkeypatch):
    def full(path, content):
        raise OutputError("No space left on device.")

    monkeypatch.setattr(cache, "write_atomically", full)
    assert half() == 1.5
    assert list(cache.cache_folder().iterdir()) == []


def test_without_any_folder_code_is_compiled_in_memory(compilations, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert cache.cache_folder() is None
    assert half() == 1.5


def test_files_that_were_not_used_for_long_are_deleted(compilations, monkeypatch):
    half()
    old, recent = (the_file().with_name(name) for name in ("old.o", "recent.o"))
    for path, days in ((old, 91), (recent, 89)):
        path.write_bytes(b"")
        os.utime(path, (time.time() - days * 86_400,) * 2)
    the_file_before = next(path for path in old.parent.iterdir() if path not in (old, recent))
    the_file_before.unlink()
    forget(monkeypatch)
    half()  # writes a file
    assert not old.exists()
    assert recent.exists()


def test_another_processor_or_another_llvmlite_has_files_of_its_own(monkeypatch):
    keys = {cache._key(TEXT)}
    monkeypatch.setattr(cache, "processor", lambda: ("another", "+features"))
    keys.add(cache._key(TEXT))
    monkeypatch.setattr(cache.llvmlite, "__version__", "0.0")
    keys.add(cache._key(TEXT))
    assert len(keys) == 3


@pytest.mark.long
def test_two_processes_share_an_empty_folder(tmp_path):
    code = (
        "import ctypes; from rnnclf.engine.machine import cache;"
        f"address = cache.compiled({TEXT!r}, ('half',))['half'];"
        "print(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(3.0))"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["1.5\n", "1.5\n"]
    assert len(list(cache.cache_folder().iterdir())) == 1
