"""What a tracker costs: CPU seconds of an epoch of MNIST with the defaults, and of telling it to a tracker.

    python -m benchmarks.trackers.cost tensorboard mlflow     # those that are installed; takes a minute

CPU seconds are those of this process with all its threads. So they mean something on a busy machine, too, but
leave out the process that wandb starts, and waiting for the disk. The first epoch is left out of both.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rnnclf.hydra_app import load_config
from rnnclf.workflows.mirrored import MirroringWatcher
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.tracking import Mirror
from rnnclf.workflows.train import Watcher, train


class Timed:
    """A mirror in place of `Attempts`, whose errors are not caught, that adds up its CPU time."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.begun_in = 0.0
        self.seconds: list[float] = []

    def begin(self) -> None:
        began = time.process_time()
        self.mirror.connect()
        self.begun_in = time.process_time() - began

    def catch_up(self) -> None:
        began = time.process_time()
        self.mirror.catch_up()
        self.seconds.append(time.process_time() - began)


class Epochs(Watcher):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, *event: Any) -> None:
        self.ends.append(time.process_time())


def main(names: list[str], epochs: int = 6) -> None:
    os.chdir(tempfile.mkdtemp())
    os.environ.setdefault("TRACKIO_DIR", str(Path("trackio").absolute()))
    run, watch = RunFolder(Path("run")), Epochs()
    mirrors = [Timed(Mirror(run, name)) for name in names]
    train(
        load_config(["dataset=mnist", "threads=1", f"epochs={epochs}"]), run, MirroringWatcher(watch, mirrors)
    )
    told = [sum(times) for times in zip(*(mirror.seconds for mirror in mirrors), strict=True)]
    spans = zip(watch.ends, watch.ends[1:], told, strict=False)
    epoch = statistics.median(after - before - own for before, after, own in spans)
    for name, mirror in zip(names, mirrors, strict=True):
        cost = statistics.median(mirror.seconds[1:])
        found = {"tracker": name, "epoch": round(epoch, 3), "cost": round(cost, 5)}
        found |= {"share": round(cost / epoch, 5), "first": round(mirror.seconds[0], 3)}
        print(json.dumps(found | {"begin": round(mirror.begun_in, 2)}))


if __name__ == "__main__":
    main(sys.argv[1:])
