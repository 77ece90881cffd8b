"""Small sweeps, some with a cell whose job dies, and the command line in processes of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rnnclf.workflows.sweep_folder import jobs_of

SMALL = ("dataset=digits", "hidden=4", "epochs=2", "threads=1")
SLOW = pytest.mark.slow

MORTAL = '''
import ctypes, os, signal, time
from dataclasses import dataclass

from rnnclf.cells import GatedCell
from rnnclf.options import option


def hang():
    """As on a file system that has gone away: no signal ends it."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    open("sweep/hangs", "w").close()
    time.sleep(600)


ENDS = {
    "exit": lambda: os._exit(3),
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "slow": lambda: time.sleep(0.02),
    "hang": hang,
    "never": lambda: None,
}


@dataclass
class Mortal(GatedCell):
    """Ends its process in its second epoch, as long as the file `deadly` is there."""

    name: str = "mortal"
    end: str = option("never", "how", choices=tuple(ENDS))
    gates = ("h",)

    def step(self, p, z, h):
        Mortal.steps = getattr(Mortal, "steps", 0) + 1
        if Mortal.steps > 140 and os.path.exists("deadly"):
            ENDS[self.end]()
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''

MORTAL_WORDS = ("plugins=[my_cells]", "cell=mortal", "engine=loop")  # which runs all of a step's Python


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "rnnclf", *map(str, words)]


def shell(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose jobs have processes of their own, too."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=120)


def states(sweep: Path) -> dict[str, str]:
    """What became of each job, by its number."""
    return {run.path.name: run.read_status()["state"] for run in jobs_of(sweep)}


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files below, with when they were written and what they hold."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def mortal(*words: str, launcher: str = "basic") -> tuple[str, ...]:
    """The words of a sweep over a cell that may end its process."""
    if launcher not in ("basic", "later"):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    Path("my_cells.py").write_text(MORTAL)
    Path("deadly").touch()
    own = (*MORTAL_WORDS, f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    return ("train", "-m", *own, *words, *SMALL)


def started(words: tuple[str, ...]) -> subprocess.Popen[str]:
    """A command in a process group of its own."""
    return subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
