"""What is printed never ends a command: any encoding, readers that go away, full disks, closed streams."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading

import pytest

from rnnclf.system import streams
from rnnclf.system.streams import LOOKALIKES, Descriptor
from tests.cli_runs import SMALL


@pytest.fixture
def redirected(monkeypatch):
    """Redirects stdout and stderr to a stream with the given encoding; returns what was written so far."""

    def redirect(encoding: str):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        streams.protect()

        def read() -> str:
            stream.flush()
            return written.getvalue().decode(encoding)

        return read

    return redirect


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "7.31 – 13.53 × ▁█ Größe 猫"),
        ("latin-1", "7.31 - 13.53 × _# Größe ?"),
        ("ascii", "7.31 - 13.53 x _# Gr??e ?"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(redirected, encoding, shown):
    read = redirected(encoding)
    print("7.31 – 13.53 × ▁█ Größe 猫")
    assert read() == shown + "\n"


def test_every_replacement_is_ascii():
    assert "".join(LOOKALIKES.values()).isascii()


def test_a_file_name_that_is_no_text_can_be_printed(redirected):
    read = redirected("utf-8")
    print(os.fsdecode(b"mesur\xe9.csv"))
    assert read() == "mesur?.csv\n"


def broken_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def test_a_reader_that_goes_away_costs_the_text_only():
    stream = Descriptor(broken_pipe(), "stdout")
    assert stream.write(b"text") == 4
    assert stream.error is None
    os.close(stream.number)


def test_a_full_disk_is_remembered():
    stream = Descriptor(os.open("/dev/full", os.O_WRONLY), "stdout")
    assert stream.write(b"text") == 4
    assert stream.error is not None
    assert stream.error.errno == errno.ENOSPC
    os.close(stream.number)


def test_a_pipe_that_another_process_made_non_blocking_gets_everything():
    read, write = os.pipe()
    os.set_blocking(write, False)
    text = b"x" * 300_000  # more than a pipe holds
    received: list[bytes] = []

    def drain() -> None:
        while block := os.read(read, 2**16):
            received.append(block)

    reader = threading.Thread(target=drain)
    reader.start()
    Descriptor(write, "stdout").write(text)
    os.close(write)
    reader.join()
    os.close(read)
    assert b"".join(received) == text


# The command, in a process of its own


def command(words: list[object], before: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """Runs `rnnclf WORDS`, after the Python lines `before` in the new process."""
    code = f"import os, sys\n{before}\nsys.argv = {['rnnclf', *map(str, words)]}\n"
    code += "from rnnclf.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code], text=True, encoding="utf-8", **{"capture_output": True, **options}
    )


@pytest.mark.long
def test_a_list_for_a_reader_that_went_away_is_silent_and_fine():
    write = broken_pipe()
    done = command(["list"], capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_no_space_left_for_the_output_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = command(["list"], capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "error: Cannot write to stdout: No space left on device.\n"


@pytest.mark.long
@pytest.mark.parametrize(("words", "columns"), [(["list", "optimizers"], "0"), (["--help"], "1")])
def test_columns_that_are_no_width_are_ignored(words, columns):
    done = command(words, env={**os.environ, "COLUMNS": columns, "LINES": "0"})
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) >= 60


BROKEN = "read, write = os.pipe(); os.close(read); os.dup2(write, 1); os.dup2(write, 2)"
CLOSED = "[os.close(fd) for fd in (0, 1, 2)]; sys.stdin = sys.stdout = sys.stderr = None\n"
CLOSED += "sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None"


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "before"), [([], CLOSED), pytest.param(["-m", "seed=0,1"], BROKEN, marks=pytest.mark.slow)]
)
def test_without_anyone_to_read_it_a_run_goes_on_to_its_end(tmp_path, before, words):
    folder = f"hydra.{'sweep' if words else 'run'}.dir={tmp_path}/out"
    done = command(["train", *SMALL, *words, folder], before)
    assert done.returncode == 0, done.stderr
    states = [path.read_text() for path in (tmp_path / "out").rglob("status.json")]
    assert len(states) == (len(words) or 1)
    assert all('"state": "done"' in state for state in states)


@pytest.mark.long
def test_a_run_whose_output_finds_no_space_is_done_and_says_so(tmp_path):
    with open("/dev/full", "w") as full:
        words = ["train", *SMALL, f"hydra.run.dir={tmp_path}/out"]
        done = command(words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "error: Cannot write to stdout: No space left on device.\n"
    assert '"state": "done"' in (tmp_path / "out" / "status.json").read_text()
