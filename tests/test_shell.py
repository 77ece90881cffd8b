"""TAB in real shells, which are driven through a terminal as a user would type."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
from typer.testing import CliRunner

from rnnclf.cli import app
from tests.imports import modules_after

REAL = Path(sysconfig.get_path("scripts")) / "rnnclf"

# In place of `rnnclf`: prints its words instead of running them, but lets the real one answer TAB. Beside a
# file called `slow` it does not answer.
STAND_IN = f"""#!/bin/sh
if [ -n "$_RNNCLF_COMPLETE" ]; then
    [ -e slow ] && touch asked && exec {shlex.quote(sys.executable)} -c "import time; time.sleep(60)"
    exec {shlex.quote(str(REAL))} "$@"
fi
printf '<'; printf '%s|' "$@"; printf '>\\n'
"""

SHELLS = {"bash": ["-i"], "zsh": ["-i"], "fish": ["-i", "-C", "function fish_greeting; end"]}


def answers(monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What `rnnclf` answers to the scripts in this process."""
    monkeypatch.setenv("_RNNCLF_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"rnnclf {line}")
    done = CliRunner().invoke(app, prog_name="rnnclf")
    return [answer.partition("\t")[0] for answer in done.stdout.splitlines() if answer]


def test_tab_offers_the_words_that_stand_for_runs(monkeypatch, tmp_path):
    assert answers(monkeypatch, "resume ") == []
    run = tmp_path / "outputs" / "2026-11-29" / "run"
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"state": "done", "configuration": {"name": "first-try"}}')
    offered = ["outputs/", "latest", "first-try"]
    for line in (
        "resume ",
        "inspect ",
        "eval ",
        "export ",
        "stream ",
        "predict ",
        "compare ",
        "ensemble ",
        "board ",
        "runs ",
    ):
        assert answers(monkeypatch, line) == offered
    assert answers(monkeypatch, "eval fir") == ["first-try"]
    assert answers(monkeypatch, "train init=la") == ["init=latest"]
    assert "torch" not in modules_after("from rnnclf.shell import complete_run; complete_run('l')")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train cell=ls", ["cell=lstm"]),
        ("train --mul", ["--multirun"]),
        ("train my", ["my other.csv", "my.csv"]),
        ("data check m", ["mine/", "my other.csv", "my.csv"]),
        ("data check dataset=arrays dataset.lab", ["dataset.labels=", "dataset.labels=mine/",
                                                   "dataset.labels=my other.csv", "dataset.labels=my.csv"]),
        ("data check hid", []),
        ("data make mi", ["mine/"]),
        ("resume mi", ["mine/"]),
        ("resume mine epo", ["epochs=", "epochs=20"]),
        ("inspect mi", ["mine/"]),
        ("eval ", ["mine/", "my other.csv", "my.csv"]),
        ("eval mine spl", ["split=train", "split=validation", "split=test", "split=all"]),
        ("eval mine dev", ["device=", "device=auto", "device=cpu", "device=cuda", "device=mps"]),
        ("eval mine epo", []),
        ("eval --output mi", ["mine/"]),
        ("baseline mine cl", ["classifiers="]),
        ("baseline mine classifiers=f", ["classifiers=forest"]),
        ("bench ls", ["lstm"]),
        ("bench lstm ls", []),
        ("test-cell lst", ["lstm"]),
        ("list optim", ["optimizer"]),
        ("list nonsense", []),
        ("evalu", []),
    ],
)  # fmt: skip
def test_each_command_offers_what_it_takes(monkeypatch, tmp_path, line, expected):
    (tmp_path / "mine").mkdir()
    for name in ("my.csv", "my other.csv"):
        (tmp_path / name).touch()
    assert answers(monkeypatch, line) == expected


class Terminal:
    """A shell with a home of its own, in which `rnnclf --install-completion` was run."""

    def __init__(self, shell: str, home: Path) -> None:
        work, programs = home / "work", home / "bin"
        for folder in (work, programs):
            folder.mkdir()
        (programs / "rnnclf").write_text(STAND_IN)
        (programs / "rnnclf").chmod(0o755)
        env: dict[str, Any] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("BASH", "XDG"))},
            **{"HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8", "ZDOTDIR": str(home)},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }
        without_detection = {**env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        subprocess.run([REAL, "--install-completion", shell], env=without_detection, check=True)
        self.work = work
        self.child = pexpect.spawn(
            shell, SHELLS[shell], env=env, cwd=str(work), encoding="utf-8", timeout=30, dimensions=(40, 200)
        )

    def run(self, line: str) -> list[str]:
        """The words that the line runs after TAB was pressed behind it."""
        self.child.send(f"{line}\t\r")
        self.child.expect(r"<([^<>\r]*)\|>")
        return str(self.child.match[1]).split("|")


@pytest.fixture(
    params=["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in SHELLS if shell != "bash")]
)
def terminal_of(request, tmp_path):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    opened = Terminal(request.param, tmp_path)
    yield opened
    opened.child.close(force=True)


@pytest.mark.long
def test_tab_completes_from_the_first_press(terminal_of):
    for name in ("my other.csv", "größe.csv"):
        (terminal_of.work / name).touch()
    assert terminal_of.run("rnnclf train -m cell=basic,ls") == ["train", "-m", "cell=basic,lstm"]
    words = ["train", "dataset=table", "dataset.path=my other.csv"]
    assert terminal_of.run("rnnclf train dataset=table dataset.path=my") == words
    assert terminal_of.run("rnnclf data check gr") == ["data", "check", "größe.csv"]
    assert terminal_of.run("rnnclf eval 'my o") == ["eval", "my other.csv"]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.long
def test_ctrl_c_during_tab_is_silent(terminal_of):
    (terminal_of.work / "slow").touch()
    terminal_of.child.send("rnnclf train cell=ls\t")
    wait_for(terminal_of.work / "asked")
    time.sleep(0.2)  # the answer is being waited for, and Python has started
    terminal_of.child.sendintr()
    time.sleep(0.2)  # the interrupt also throws away what is typed at once
    terminal_of.child.send("\r")  # bash takes the first character for an end of the completion
    time.sleep(0.2)
    terminal_of.child.send("rnnclf ended\r")
    terminal_of.child.expect(r"<ended\|>", timeout=10)
    assert "Traceback" not in terminal_of.child.before
