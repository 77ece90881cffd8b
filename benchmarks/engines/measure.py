"""Seconds and memory of one training step with each engine, on MNIST pixel by pixel.

    RNNCLF_DATA=FOLDER python benchmarks/engines/measure.py benchmarks/engines/results.csv [rounds]

The images are scaled to 14 × 14, 28 × 28 and 56 × 56 and read as sequences of 196, 784 and 3,136 pixels.
One step is forward, backward and Adam of a classifier with one layer of 64 units. Each measurement has a
process and so a memory of its own; the engines take turns, so that a noisy machine hits all alike. The
seconds are the median over the rounds of each process's median step; the memory is the most that it held
above what it held before its first step. A process that would need more than LIMIT is out of memory.
"""

import csv
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

CELLS = {"lru": ("loop", "scan", "fft"), "s4d": ("loop", "scan", "fft"), "mingru": ("loop", "scan")}
SIDES = (14, 28, 56)
BATCHES = (16, 128)
READOUTS = ("last", "mean")
LIMIT = 16 * 2**30  # bytes
SECONDS = 2.0  # of steps after the first


def one_process(cell: str, engine: str, side: int, batch: int, readout: str) -> None:
    """Prints the median seconds of a step and the memory it took, as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    import torch

    from rnnclf.cells import CELLS as KINDS
    from rnnclf.data import DATASETS
    from rnnclf.model import SequenceClassifier
    from rnnclf.stack import Stack

    data = DATASETS["mnist"]().load().train.subset(torch.arange(batch))
    images = torch.nn.functional.interpolate(data.x_NTI.unsqueeze(1), size=(side, side), mode="bilinear")
    x_BTI, y_B = images.reshape(batch, side * side, 1), data.y_N
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model = SequenceClassifier(KINDS[cell](hidden_size=64), 1, 10, Stack(engine=engine, readout=readout))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < 30 and sum(seconds[1:]) < SECONDS):
        started = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x_BTI), y_B).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        if seconds[0] > 20:
            break
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": statistics.median(seconds[1:] or seconds), "MiB": used / 1024}))


def measured(*words: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "memory" in done.stderr.lower() or done.returncode < 0:
        return {}
    raise SystemExit(done.stderr)


def main(path: Path, rounds: int) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cell", "readout", "steps", "batch", "engine", "seconds", "MiB"])
        for readout, cell, side, batch in itertools.product(READOUTS, CELLS, SIDES, BATCHES):
            engines = (*CELLS[cell], "auto")
            results: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
            for _, engine in itertools.product(range(rounds), engines):
                results[engine].append(measured(cell, engine, side, batch, readout))
            for engine, found in results.items():
                whole = [result for result in found if result]
                seconds = statistics.median(r["seconds"] for r in whole) if whole else float("nan")
                memory = statistics.median(r["MiB"] for r in whole) if whole else float("nan")
                row = [cell, readout, side * side, batch, engine, f"{seconds:.5f}", f"{memory:.0f}"]
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        cell, engine, side, batch, readout = sys.argv[2:]
        one_process(cell, engine, int(side), int(batch), readout)
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
