"""Seconds and memory of one training step with each engine, on MNIST pixel by pixel.

    python benchmarks/engines/measure.py MNIST_FOLDER benchmarks/engines/results.csv [rounds [CELL,CELL …]]

The images are scaled to 14 × 14, 28 × 28 and 56 × 56 and read as sequences of 196, 784 and 3,136 pixels.
One step is forward, backward and Adam of a classifier with one layer of 64 units. Each measurement has a
process and so a memory of its own; the engines take turns, so that a noisy machine hits all alike. The
seconds are the median over the rounds of each process's median step; the memory is the most that it held
above what it held before its first step. A process that would need more than LIMIT is out of memory.
"""

import csv
import itertools
import multiprocessing
import os
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from rnnclf.cells import CELLS as KINDS
from rnnclf.data import DATASETS, SequenceDataset
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.workflows.machine import keep_freed_memory

CELLS = {
    "lru": ("loop", "scan", "fft", "machine"),
    "s4d": ("loop", "scan", "fft"),
    "mingru": ("loop", "scan", "machine"),
}
SIDES = (14, 28, 56)
BATCHES = (16, 128)
READOUTS = ("last", "mean")
LIMIT = 16 * 2**30  # bytes
SECONDS = 1.0  # of steps after the first
THREADS = os.cpu_count() or 1


def measure(
    data: SequenceDataset, cell: str, engine: str, side: int, batch: int, readout: str, result: Connection
) -> None:
    """Sends the median seconds of a step and the MiB it took; nothing where memory is not enough."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    part = data.subset(torch.arange(batch))
    rows_BTI = part.batch(torch.arange(batch)).x_BTI
    images = torch.nn.functional.interpolate(rows_BTI.unsqueeze(1), size=(side, side), mode="bilinear")
    x_BTI = images.reshape(batch, side * side, 1)
    model = SequenceClassifier(KINDS[cell](hidden_size=64), 1, 10, Stack(engine=engine, readout=readout))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < 30 and sum(seconds[1:]) < SECONDS):
        started = time.perf_counter()
        optimizer.zero_grad()
        try:
            with model.cores(batch):
                torch.nn.functional.cross_entropy(model(x_BTI), part.y_N).backward()
        except RuntimeError as error:
            if "allocate memory" in str(error):
                return
            raise
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        if seconds[0] > 20:
            break
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result.send((statistics.median(seconds[1:] or seconds), used / 1024))


def in_a_process(*arguments: object) -> tuple[float, float] | None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # forked: reading torch and the data anew would take longer than the steps
    process = multiprocessing.get_context("fork").Process(target=measure, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        return None
    finally:
        process.join()


COLUMNS = ["cell", "readout", "steps", "batch", "engine", "seconds", "MiB"]


def main(mnist: str, path: Path, rounds: int, cells: list[str]) -> None:
    """Measures these cells; the rows of others stay as they are."""
    torch.set_num_threads(1)  # threads that were started here would not be there in a fork
    data = DATASETS["mnist"](root=mnist).load().train
    with open(path) as file:
        rows = [row for row in csv.DictReader(file) if row["cell"] not in cells]
    for readout, cell, side, batch in itertools.product(READOUTS, cells, SIDES, BATCHES):
        engines = (*CELLS[cell], "auto")
        found: dict[str, list[tuple[float, float] | None]] = {engine: [] for engine in engines}
        for turn, engine in itertools.product(range(rounds), engines):
            if turn == 0 or found[engine][0] is not None:
                found[engine].append(in_a_process(data, cell, engine, side, batch, readout))
        for engine, results in found.items():
            whole = [result for result in results if result is not None]
            figures = [statistics.median(column) for column in zip(*whole, strict=True)]
            seconds, memory = figures or (float("nan"), float("nan"))
            values = [cell, readout, side * side, batch, engine, f"{seconds:.5f}", f"{memory:.0f}"]
            rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
            print(*values, flush=True)
    order = list(CELLS)
    rows.sort(key=lambda row: (READOUTS.index(row["readout"]), order.index(row["cell"])))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    more = sys.argv[3:]
    named = more[1].split(",") if len(more) > 1 else list(CELLS)
    main(sys.argv[1], Path(sys.argv[2]), int(more[0]) if more else 3, named)
