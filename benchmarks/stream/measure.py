"""Processor time of `rnnclf stream` for a step, reading and writing included.

    python benchmarks/stream/measure.py > benchmarks/stream/results.jsonl

One sequence of 28 channels, models of 150 units and 10 classes, one thread. `file`: the steps lie in a file.
`one by one`: each is sent when the answer to the one before has come. The time of the start is left out: a
row is the difference of a long and a short stream, the lowest of several.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CELLS = ("basic", "lstm", "gru")
CHANNELS, CLASSES, HIDDEN = 28, 10, 150
SHORT, LONG = 2_000, 22_000  # steps
REPEATS = 3
RNNCLF = (sys.executable, "-m", "rnnclf")
HEADER = ",".join(f"c{c}" for c in range(CHANNELS)) + "\n"


def lines(steps: int) -> list[str]:
    return [",".join(f"{x:.2f}" for x in row) + "\n" for row in _values(steps)]


def _values(steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, CHANNELS))


def trained(folder: Path, cell: str) -> Path:
    """A run of this cell; what it has learned does not matter."""
    table = folder / "table.csv"
    if not table.exists():
        rows = zip(lines(60 * 28), np.repeat(np.arange(60), 28), strict=True)
        table.write_text("id,class," + HEADER + "".join(f"{i},{i % CLASSES},{row}" for row, i in rows))
    words = [f"cell={cell}", f"hidden={HIDDEN}", "layers=1", "epochs=1", "threads=1", "recipe=plain"]
    words += ["readout=last", f"hydra.run.dir={folder / cell}"]
    subprocess.run([*RNNCLF, "train", table, *words], check=True, capture_output=True)
    return folder / cell


def of_file(run: Path, steps: Sequence[str]) -> float:
    """Seconds of processor time, start included."""
    with tempfile.TemporaryFile() as file:
        file.write((HEADER + "".join(steps)).encode())
        file.seek(0)
        process = subprocess.Popen(
            [*RNNCLF, "stream", run], stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return _seconds(process)


def one_by_one(run: Path, steps: Sequence[str]) -> float:
    process = subprocess.Popen(
        [*RNNCLF, "stream", run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(HEADER.encode())
    for step in steps:
        process.stdin.write(step.encode())
        os.read(process.stdout.fileno(), 2**16)
    process.stdin.close()
    return _seconds(process)


def _seconds(process: subprocess.Popen[bytes]) -> float:
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    steps = lines(LONG)
    with tempfile.TemporaryDirectory() as folder:
        for cell in CELLS:
            run = trained(Path(folder), cell)
            for name, stream in {"file": of_file, "one by one": one_by_one}.items():
                found = [stream(run, steps) - stream(run, steps[:SHORT]) for _ in range(REPEATS)]
                each = [round(1e6 * seconds / (LONG - SHORT), 1) for seconds in found]
                row = {"cell": cell, "steps": name, "us_per_step": min(each), "all": each}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
