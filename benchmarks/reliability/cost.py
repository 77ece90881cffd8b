"""What checkpoints and guards cost: as shares of training, and runs with and without them in turn.

    RNNCLF_DATA=/data python benchmarks/reliability/cost.py               # MNIST by rows, 3 epochs: shares
    RNNCLF_DATA=/data python benchmarks/reliability/cost.py --rounds 7    # in turn
    python benchmarks/reliability/cost.py dataset=digits epochs=20 checkpoint.every=1steps

Shares: every call that writes a file of the run while it trains is timed, and every look at a loss and a
gradient. In turn: in each round the same run with a checkpoint each epoch and with one at its end alone, in
every second round the other way round; timed from the first batch to the end of the last epoch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from rnnclf.hydra_app import load_config
from rnnclf.training.divergence import Losses
from rnnclf.training.loop import EpochResult
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.saving import Saver
from rnnclf.workflows.train import RunInfo, Watcher, train

spent: Counter[str] = Counter()
calls: Counter[str] = Counter()


def timed(owner: Any, name: str, what: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[what] += time.perf_counter() - began
            calls[what] += 1

    setattr(owner, name, measured)


class Clock(Watcher):
    """The seconds between the first batch and the end of the last epoch."""

    def started(self, info: RunInfo) -> None:
        self.began = time.perf_counter()

    def epoch(self, result: EpochResult, best: bool) -> None:
        self.seconds = time.perf_counter() - self.began


def in_turn(words: list[str], rounds: int) -> None:
    """Runs with a checkpoint each epoch and without, and what the former take longer."""
    every = {"with": "checkpoint.every=epoch", "without": "checkpoint.every=999999999steps"}
    seconds: dict[str, list[float]] = {kind: [] for kind in every}
    for number in range(rounds):
        for kind in [*every][:: 1 - 2 * (number % 2)]:
            with tempfile.TemporaryDirectory() as folder:
                train(load_config([*words, every[kind]]), RunFolder(Path(folder)), clock := Clock())
            seconds[kind].append(clock.seconds)
        print(", ".join(f"{kind} {seconds[kind][-1]:.3f} s" for kind in every), flush=True)
    ratios = [one / other - 1 for one, other in zip(*seconds.values(), strict=True)]
    of_medians = median(seconds["with"]) / median(seconds["without"]) - 1
    print(
        f"a checkpoint each epoch takes {of_medians:+.2%} by the medians of {rounds} rounds,"
        f" {min(ratios):+.2%} to {max(ratios):+.2%} in single ones"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--rounds", type=int, default=0)
    given = parser.parse_args()
    words = given.words or ["epochs=3", "cell=basic", "hidden=150"]
    if given.rounds:
        in_turn(words, given.rounds)
    else:
        shares(words)


def shares(words: list[str]) -> None:
    timed(Saver, "save", "last.safetensors")
    timed(Saver, "write_best", "best.safetensors")
    timed(Saver, "write_epochs", "epochs.csv")
    timed(Losses, "spiked", "guard of the loss")
    timed(nn.utils, "get_total_norm", "norm of the gradients (part of clipping, too)")
    with tempfile.TemporaryDirectory() as folder:
        report = train(load_config(words), RunFolder(Path(folder)))
    seconds = report.results["epoch_seconds"]
    print(f"{len(seconds)} epochs of {sum(seconds) / len(seconds):.3f} s")
    for what, whole in spent.items():
        share = whole / (sum(seconds) + sum(spent[file] for file in spent if "." in file))
        print(f"{what}: {calls[what]} times {1000 * whole / calls[what]:.3f} ms, {share:.3%} of the time")


if __name__ == "__main__":
    main()
