"""What augmentation adds to an epoch of training on MNIST by rows: affine maps alone, and elastic distortion.

    python benchmarks/augment/measure.py results.jsonl     # measures, and prints the table
    python benchmarks/augment/measure.py results.jsonl --versions before=DIR after=DIR
    python benchmarks/augment/measure.py --table results.jsonl

The sizes are the tutorial's: 150 units, batches of 150. A line of the file is what one process found for one
cell and number of threads: for each augmentation the seconds of each of its epochs, by the clock and of the
processor. Within a process the augmentations take turns epoch by epoch; with --versions, so do checkouts of
this repository, process by process. The first epoch of each augmentation, which compiles, is left out, and so
is validation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

WAYS = {"none": [], "image": ["augment=image"], "elastic": ["augment=image", "augment.elastic=34"]}
CELLS = ("basic", "gru", "lstm")


def epochs(cell: str, threads: int, rounds: int) -> dict[str, Any]:
    """The seconds of the epochs of each way, by the clock and of the processor."""
    import torch

    from rnnclf.hydra_app import load_config
    from rnnclf.training.epoch import Epoch
    from rnnclf.training.state import EpochSoFar, Training
    from rnnclf.workflows.loading import build_model
    from rnnclf.workflows.recipe_of import recipe
    from rnnclf.workflows.train import Data, Watcher

    common = [f"cell={cell}", "hidden=150", f"threads={threads}", "dataset=mnist", "batch_size=150"]
    configs = {way: load_config([*common, f"epochs={rounds + 1}", *words]) for way, words in WAYS.items()}
    data = Data.of(configs["none"], Watcher())
    trainings = {}
    for way, config in configs.items():
        torch.manual_seed(0)
        trainings[way] = Training(build_model(config, *data.shape), recipe(config, data))
    found: dict[str, Any] = {way: {"wall": [], "cpu": []} for way in WAYS}
    for number, (way, training) in product(range(rounds + 1), trainings.items()):
        wall, cpu = time.perf_counter(), time.process_time()
        with training.model.cores(training.recipe.batch_size, data.parts["train"].ragged):
            epoch = Epoch(training, data.parts["train"])
            training.model.train()
            epoch.run(lambda total: None, lambda: "")
            epoch.close()
        if number:
            found[way]["wall"].append(round(time.perf_counter() - wall, 4))
            found[way]["cpu"].append(round(time.process_time() - cpu, 4))
        training.epoch += 1
        training.so_far = EpochSoFar()
    return found


def measure(path: Path, options: argparse.Namespace) -> None:
    versions = dict(version.split("=", 1) for version in options.versions)
    with open(path, "a") as file:
        for cell, threads, _ in product(options.cells, options.threads, range(options.turns)):
            for version, folder in versions.items():
                words = [sys.executable, __file__, "--one", cell, str(threads)]
                words += ["--rounds", str(options.rounds)]
                environment = {**os.environ, "PYTHONPATH": folder} if folder else None
                printed = subprocess.run(
                    words, check=True, stdout=subprocess.PIPE, text=True, env=environment
                ).stdout
                line = {"version": version, "cell": cell, "threads": threads, **json.loads(printed)}
                file.write(json.dumps(line) + "\n")
                file.flush()
                print(f"{version}, {cell}, {threads} threads", file=sys.stderr)


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: the seconds of an epoch without augmentation, and how many times as long it takes with it.
    Medians over the epochs, each divided by the one without augmentation from the same turn."""
    rows = [
        "| cell | threads | version | clock | none, s | image | elastic |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    keys = sorted({(line["cell"], line["threads"], line["version"]) for line in lines})
    for (cell, threads, version), clock in product(keys, ("cpu", "wall")):
        own = [
            line
            for line in lines
            if (line["cell"], line["threads"], line["version"]) == (cell, threads, version)
        ]
        seconds = {way: [s for line in own for s in line[way][clock]] for way in WAYS}
        cells = [cell, str(threads), version, clock, f"{median(seconds['none']):.2f}"]
        for way in ("image", "elastic"):
            times = [s / none for s, none in zip(seconds[way], seconds["none"], strict=True)]
            cells.append(f"{median(times):.2f}")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="print the table only")
    parser.add_argument("--versions", nargs="+", default=["now="], help="names and folders of checkouts")
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--rounds", type=int, default=4, help="epochs of each augmentation in a process")
    parser.add_argument("--turns", type=int, default=2, help="processes of each version")
    parser.add_argument("--one", nargs=2, metavar=("CELL", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        cell, threads = options.one
        print(json.dumps(epochs(cell, int(threads), options.rounds)))
        return
    if not options.table:
        measure(options.results, options)
    print(table([json.loads(line) for line in options.results.read_text().splitlines()]))


if __name__ == "__main__":
    main()
