"""Measures how long a training step takes that reads pictures of MNIST pixel by pixel, on a quiet machine.

    python benchmarks/recipes/pixels.py [CELL ...]

One layer of 128 units and a batch of 100 pictures, as random numbers: what a step takes does not depend on
them. The head reads the mean of all outputs; of cells that are convolutions also the last output alone. Adds
a line for each to pixels.jsonl, with the median of five steps after two others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from choose import commit
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.cells.linear import TimeInvariantCell
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

FILE = Path(__file__).with_suffix(".jsonl")
NAMES = ("s4d", "s5", "lru", "linoss", "lem", "urlstm", "unicornn", "gru")
HIDDEN, BATCH, STEPS, CLASSES = 128, 100, 784, 10
WARM_UP, TIMED = 2, 5


def measured(name: str, readout: str) -> dict[str, Any]:
    """The line of a cell: seconds of a step, forward, backward and the update of the weights."""
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS[name](hidden_size=HIDDEN), 1, CLASSES, Stack(readout=readout))
    optimizer = torch.optim.Adam(model.parameters())
    x_BTI, y_B = torch.rand(BATCH, STEPS, 1), torch.randint(CLASSES, (BATCH,))
    seconds = []
    with model.cores(BATCH):
        for _ in range(WARM_UP + TIMED):
            began = time.perf_counter()
            optimizer.zero_grad()
            functional.cross_entropy(model(x_BTI), y_B).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
    step = median(seconds[WARM_UP:])
    threads, load = torch.get_num_threads(), round(os.getloadavg()[0], 2)
    return {
        "cell": name,
        "readout": readout,
        "step_seconds": round(step, 4),
        "threads": threads,
        "load": load,
        "commit": commit(),
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        is_convolution = isinstance(CELLS[name](hidden_size=HIDDEN), TimeInvariantCell)
        for readout in ("mean", "last") if is_convolution else ("mean",):
            line = json.dumps(measured(name, readout))
            print(line, flush=True)
            with FILE.open("a") as file:
                file.write(line + "\n")
