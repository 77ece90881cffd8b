"""Measures what recipes for MNIST cost on this machine, which should do nothing else.

    RNNCLF_DATA=FOLDER python benchmarks/recipes/cost.py [NAME ...] [--threads 2]

Each recipe is trained for three epochs; the time of a whole run is that of the second and third, which no
longer compile anything, for as many epochs as the recipe has. Adds a line for each to cost.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from choose import commit

from rnnclf import load_config
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train

FILE = Path(__file__).with_suffix(".jsonl")
NAMES = ("tutorial", "better", "best_rows", "best_permuted")


def cost(name: str, threads: int) -> dict[str, Any]:
    """The line of a recipe: seconds of an epoch, scoring included, and of all its epochs."""
    words = [f"experiment={name}", f"threads={threads}", "plots=false"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        train(load_config([*words, "epochs=3"]), run)
        with open(run.path / "epochs.csv") as file:
            seconds = [float(epoch["seconds"]) for epoch in csv.DictReader(file)]
    epoch = mean(seconds[1:])
    return {
        "recipe": name,
        "threads": threads,
        "epoch_seconds": round(epoch, 2),
        "seconds": round(epoch * load_config(words).epochs),
        "load": round(os.getloadavg()[0], 2),
        "commit": commit(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    for name in given.names:
        line = json.dumps(cost(name, given.threads))
        print(line, flush=True)
        with FILE.open("a") as file:
            file.write(line + "\n")
