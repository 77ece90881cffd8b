"""How a process begins with torch, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LATE = """
import atexit, os, sys, threading, time
from rnnclf.system import startup
atexit.register(lambda: print("registered", flush=True))
threading.Thread(target=lambda: (time.sleep(0.2), print("thread", flush=True))).start()
class Late:
    def __del__(self, write=os.write): write(1, b"taken down\\n")
sys.late = Late()
"""


def ended(code: str, folder: Path | None = None) -> tuple[int, list[str]]:
    """The exit code of a fresh process, and the lines that it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_command_that_imported_torch_ends_when_all_that_waits_is_done():
    code = f"{LATE}\nsys.modules['torch'] = sys\nstartup.end_with(3)\nprint('unflushed', end='')\nsys.exit(3)"
    assert ended(code) == (3, ["unflushedthread", "registered"])


def test_any_other_process_ends_as_python_has_it():
    ends = {
        "without torch": "startup.end_with(3)\nsys.exit(3)",
        "of a launcher": "sys.modules['torch'] = sys\nsys.exit(3)",
    }
    for what, end in ends.items():
        assert ended(f"{LATE}\n{end}") == (3, ["thread", "registered", "taken down"]), what


def test_text_that_nobody_reads_any_more_is_told_by_the_exit_code():
    lines = ["sys.stdout = open(1, 'w', closefd=False)", "print('text')", "startup.end_with(0)"]
    code = "\n".join(
        ["import sys", "from rnnclf.system import startup", "sys.modules['torch'] = sys", *lines]
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 120
    assert "BrokenPipeError" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_exit_codes_of_the_command_are_kept(tmp_path):
    words = ["train", "dataset=digits", "hidden=4", "epochs=1", "threads=1", f"hydra.run.dir={tmp_path}/run"]
    for more, code in (([], 0), (["hiden=3"], 2), ([], 2)):  # the last: the folder is used already
        done = subprocess.run([sys.executable, "-m", "rnnclf", *words, *more], capture_output=True, text=True)
        assert done.returncode == code, done.stderr


@pytest.mark.long
def test_importing_torch_searches_for_no_cycles_and_leaves_its_objects_out_of_later_searches():
    code = """
import gc
from rnnclf.system.startup import import_torch
searches = []
gc.callbacks.append(lambda phase, info: searches.append(info["generation"]))
import_torch()
assert not searches, searches
assert gc.isenabled() and gc.get_freeze_count() > 100_000
frozen = gc.get_freeze_count()
more = [[i] for i in range(100)]
import_torch()
assert gc.get_freeze_count() == frozen
"""
    assert ended(code) == (0, [])


@pytest.mark.long
def test_a_training_starts_without_searches_for_cycles(tmp_path):
    """But for those of Typer, before the command begins."""
    code = """
import gc
from rnnclf import cli
from rnnclf.workflows import jobs
states = []
jobs._train_job = lambda *anything, **more: states.append(gc.isenabled()) or 0.0
try:
    cli.app(["train", "dataset=digits", "hydra.run.dir=run"])
except SystemExit:
    pass
assert states == [False] and gc.isenabled()
"""
    assert ended(code, tmp_path) == (0, [])


def test_a_current_folder_that_was_deleted_is_told(tmp_path, cli):
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = cli("list")
    assert done.exit_code == 2
    assert done.stderr == "error: The current folder no longer exists: change to another one.\n"
