"""What diagnose=true adds to an epoch: the same run with it and without, in turn.

    python benchmarks/reliability/diagnosis.py [OVERRIDES] [epochs=4]

Shown are the median seconds of an epoch's training and validation, and of what comes between two epochs:
the diagnosis and the files. The weights of all these runs must be the same.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from rnnclf import checkpoint
from rnnclf.hydra_app import load_config
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher, train

ROUNDS = 3


class Clock(Watcher):
    def __init__(self) -> None:
        self.last: float | None = None
        self.epochs: list[float] = []
        self.between: list[float] = []

    def epoch(self, result, best):
        now = time.perf_counter()
        if self.last is not None:
            self.epochs.append(result.seconds)
            self.between.append(now - self.last - result.seconds)
        self.last = now


def timed(words: list[str], diagnosed: bool) -> tuple[Clock, dict[str, torch.Tensor]]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        train(load_config([*words, f"diagnose={str(diagnosed).lower()}"]), run, clock)
        return clock, checkpoint.load(run.last).model_tensors()


def main(words: list[str]) -> None:
    clocks: dict[bool, list[Clock]] = {False: [], True: []}
    weights = []
    for _ in range(ROUNDS):
        for diagnosed in clocks:
            clock, tensors = timed(["epochs=4", *words], diagnosed)
            clocks[diagnosed].append(clock)
            weights.append(tensors)
    epoch = statistics.median(
        seconds for both in clocks.values() for clock in both for seconds in clock.epochs
    )
    without, with_it = (
        statistics.median(seconds for clock in clocks[diagnosed] for seconds in clock.between)
        for diagnosed in clocks
    )
    print(f"an epoch {epoch:.3f} s; between two: {without:.3f} s, diagnosed {with_it:.3f} s")
    print(f"diagnose=true adds {(with_it - without) / (epoch + without):.1%}")
    same = all(torch.equal(one[name], weights[0][name]) for one in weights for name in one)
    print("weights of all runs:", "identical" if same else "DIFFERENT")


if __name__ == "__main__":
    main(sys.argv[1:])
