"""The word that stands on a terminal while libraries are imported, and commands that a notebook runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnnclf.console.starting import WORD

pty = pytest.importorskip("pty")

TRAIN = ("train", "dataset=digits", "hidden=2", "epochs=1", "threads=1", "hydra.run.dir=run")
REPORTING = """
import sys
from rnnclf.console import starting

starting._write = lambda text: print(repr(text), "torch" in sys.modules, "hydra" in sys.modules)
sys.argv[0] = "rnnclf"
from rnnclf.cli import main

main()
"""


def on_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"}
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**inherited, "TERM": "xterm", **environment},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side has closed it
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(60) == 0, written
    return written.decode()


def test_the_word_comes_before_all_imports_and_gives_way_to_the_first_line():
    first, second, *_ = on_a_terminal("-c", REPORTING, *TRAIN).splitlines()
    assert first == f"{WORD + chr(13)!r} False False"
    assert second.startswith("'\\x1b[2K' ")


def test_a_command_of_a_notebook_prints_lines_that_stay(tmp_path):
    written = on_a_terminal("-m", "rnnclf", *TRAIN, JPY_PARENT_PID="1")
    assert "\x1b" not in written
    assert WORD not in written
    assert written.count("epoch 1/1: ") == 1
    assert (Path("run") / "results.json").exists()
