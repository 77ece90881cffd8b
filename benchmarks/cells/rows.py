"""Trains every cell on the rows of MNIST, all with 30,000 parameters and the same number of epochs.

    python benchmarks/cells/rows.py [CELL …] [--jobs 2] [--folder runs]

First the learning rate: one seed each, from 0.003 on in steps of about three, until the rates on both sides
of the best one are worse. What counts is the loss on 10,000 of the training images; the test split is sealed
meanwhile (benchmarks/recipes/choose.py). Then three seeds at that rate, whose test split is scored once, at
the end. Each training takes one thread and adds a line to rows.jsonl: those without "test" chose the rate.
Lines that are there are not measured again, and a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import choose
import measure

from rnnclf.cells import CELLS
from rnnclf.workflows.runs import RunFolder

RESULTS = Path(__file__).parent / "rows.jsonl"

EPOCHS = 4

WORDS = f"cell={{}} match_parameters=30k epochs={EPOCHS}"
"""The words of a cell; everything else is the default: Adam, one cycle, batches of 150."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FIRST = slice(2, 5)
"""The rates that every cell is tried at."""

SEEDS = (0, 1, 2)

LEFT_OUT = {"esn": "an epoch of its 3,000 units takes longer than all epochs of most other cells"}


def words_of(cell: str, rate: float) -> str:
    return f"{WORDS.format(cell)} optimizer.lr={rate}"


def lines() -> list[dict[str, Any]]:
    return choose.lines_of(RESULTS)


def add(line: dict[str, Any]) -> dict[str, Any]:
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def best_rate(loss: Callable[[float], float]) -> float:
    """The rate with the lowest loss: the search ends when those on both sides are worse, or not there."""
    low, high = FIRST.start, FIRST.stop
    while True:
        best = min(RATES[low:high], key=loss)
        if best == RATES[low] and low > 0:
            low -= 1
        elif best == RATES[high - 1] and high < len(RATES):
            high += 1
        else:
            return best


def validation_loss(cell: str, rate: float) -> float:
    """After the last epoch, of the first seed; infinite if it is not a number."""
    words = words_of(cell, rate)
    there = [line for line in lines() if line["words"] == words and "test" not in line]
    (line,) = there or [add({"cell": cell, "lr": rate, **choose.measured(words, SEEDS[0])})]
    return math.inf if math.isnan(line["loss"]) else line["loss"]


def measured(cell: str, folder: Path) -> None:
    """Adds what is missing of a cell."""
    rate = best_rate(lambda rate: validation_loss(cell, rate))
    words = words_of(cell, rate)
    there = {line["seed"] for line in lines() if line["words"] == words and "test" in line}
    for seed in sorted({*SEEDS} - there):
        run = RunFolder(folder / cell / str(seed))
        line = {"cell": cell, "lr": rate, **measure.trained(words, seed, run)}
        add(line | {key: run.read_results()[key] for key in ("hidden", "parameters")})


def main(cells: list[str], jobs: int, folder: Path) -> None:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for _ in pool.map(measured, cells, [folder] * len(cells)):
            pass


if __name__ == "__main__":
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("cells", nargs="*", default=[name for name in CELLS.names() if name not in LEFT_OUT])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/cells"))
    given = parser.parse_args()
    main(given.cells, given.jobs, given.folder)
