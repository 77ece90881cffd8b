"""A real training run with a fault at every call of every saving, gone on with afterwards.

    python -m benchmarks.reliability.faults                            # all of them: some minutes
    python -m benchmarks.reliability.faults --first 200 --count 100    # a piece

Whatever fails, at whichever of the system calls by which a run writes its files, must leave whole checkpoints
and a clear error; and the run that goes on must end as one that never failed: the same weights, bit for bit,
the same epochs.csv and results.json but for times.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from rnnclf import checkpoint
from rnnclf.config import Config
from rnnclf.errors import OutputError
from rnnclf.hydra_app import load_config
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.faults import FAULTS, SHORT, faulty

WORDS = [
    "dataset=digits",
    "dataset.test=1500",
    "threads=1",
    "cell=gru",
    "hidden=4",
    "layers=2",
    "dropout=0.2",
]
KINDS = (["checkpoint.every=epoch"], ["checkpoint.every=1 steps", "batch_size=40", "schedule=cosine"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    outcomes: Counter[str] = Counter()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        injections = []
        for number, words in enumerate(KINDS):
            config = load_config([*WORDS, "epochs=2", *words])
            with faulty() as system:
                train(config, new_folder(base, f"whole{number}"))
            calls = len(system.made)
            print(f"{' '.join(words)}: {calls} calls in a run", flush=True)
            expected = essence(RunFolder(Path(base, f"whole{number}")))
            injections += [
                (config, expected, at, fault, lasting)
                for at in range(calls)
                for fault in FAULTS
                for lasting in ((False,) if fault == SHORT else (False, True))
            ]
        end = None if given.count is None else given.first + given.count
        for injection in injections[given.first : end]:
            outcomes[inject(base, *injection)] += 1
    print(
        f"{sum(outcomes.values()):,} of {len(injections):,} faults in {time.perf_counter() - started:.0f} s"
    )
    for outcome, count in outcomes.most_common():
        print(f"{count:6,} {outcome}")
    return 1 if any("LOST" in outcome for outcome in outcomes) else 0


def new_folder(base: str, name: str) -> RunFolder:
    path = Path(base, name)
    path.mkdir()
    return RunFolder(path)


def inject(base: str, config: Config, expected: Any, at: int, fault: str, lasting: bool) -> str:
    """What came of one fault, in words."""
    run = new_folder(base, "run")
    ended = "trained to its end all the same"
    try:
        with faulty(at, fault, lasting):
            try:
                train(config, run)
            except OutputError:
                ended = "ended with an OutputError"
            except KeyboardInterrupt:
                ended = "was interrupted"
        for file in (run.best, run.last, run.previous):
            if file.exists():
                checkpoint.load(file)  # raises where it is not whole
        if run.status.exists():
            resume_run(run)
            ended += ", gone on with to the same end"
        else:  # it had not begun
            train(config, run)
            ended += " before it began, begun again"
        if essence(run) != expected:
            return f"LOST: fault {fault} at call {at}, lasting {lasting}: another end"
        if left := [path.name for path in run.path.glob(".*.tmp")]:
            return f"LOST: fault {fault} at call {at}, lasting {lasting}: {left} left lying"
        return ended
    except Exception as error:
        return f"LOST: fault {fault} at call {at}, lasting {lasting}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(run.path)


def essence(run: RunFolder) -> Any:
    """All of a run that must not depend on what happened to it: files without times and places."""
    results = json.loads(run.results.read_text())
    with open(run.epochs, newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    weights = [
        {
            name: tensor.view(torch.uint8).tolist() if tensor.ndim else tensor.item()
            for name, tensor in tensors
        }
        for tensors in (checkpoint.load(file).tensors.items() for file in (run.best, run.last))
    ]
    for state in weights:
        state.pop("epochs", None)  # holds seconds; their other numbers are those of epochs.csv
    return {key: value for key, value in results.items() if "seconds" not in key}, rows, weights


if __name__ == "__main__":
    sys.exit(main())
