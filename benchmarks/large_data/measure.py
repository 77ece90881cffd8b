"""How `rnnclf train` copes with a set larger than memory: time, memory, and what a kill costs.

    python benchmarks/large_data/make.py /tmp/large --gb 30
    python benchmarks/large_data/measure.py train /tmp/large
    python benchmarks/large_data/measure.py kill /tmp/large --at 1000 checkpoint.every=200steps

`train` trains in a process of its own. `kill` does so twice: in peace, and with SIGKILL at a batch, after
which the run is resumed; then it compares all weights, and counts the batches that were trained twice. `part`
trains up to that batch, is killed, resumes, and is killed again after as many batches, for sets whose epoch
takes too long. Each adds a line to results.jsonl. The time until the first batch counts from the call of
`train`, after the imports; it is shorter once the statistics of the set are in the cache of rnnclf ("first"
tells). Resident memory is counted without and with the pages of mapped files, which the kernel takes back
when others need memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher

RESULTS = Path(__file__).parent / "results.jsonl"
WORDS = (
    "dataset=arrays dataset.validation=0.02 dataset.test=0.02 recipe=plain"
    " cell=gru hidden=32 batch_size=150 epochs=1 threads=2"
)
BETWEEN = 0.2  # seconds between two looks at the memory


class Clock(Watcher):
    """Notes when the first and the last batch end. At batch `kill_at`, prints that and kills its process."""

    def __init__(self, memory: Memory, kill_at: int | None) -> None:
        self.memory, self.kill_at = memory, kill_at
        self.began = time.monotonic()
        self.batches = 0
        self.first: tuple[float, int] | None = None  # when, and how many sequences of the epoch were seen
        self.last = 0.0
        self.epochs: list[float] = []

    def batch(self, progress: BatchProgress) -> None:
        self.batches += 1
        self.last = time.monotonic()
        self.first = self.first or (self.last, progress.seen)
        if self.batches == self.kill_at:
            print(json.dumps(self.found()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def epoch(self, result: EpochResult, best: bool) -> None:
        self.epochs.append(result.seconds)

    def found(self) -> dict[str, Any]:
        assert self.first is not None
        when, seen = self.first
        return {
            "until_first_batch_s": round(when - self.began, 1),
            "first_batch_seen": seen,
            "batches": self.batches,
            "batches_per_s": round((self.batches - 1) / (self.last - when), 2),
            "epochs_s": [round(seconds, 1) for seconds in self.epochs],
            "own_memory_mib": self.memory.own // 1024,
            "mapped_mib": self.memory.mapped // 1024,
        }


class Memory(threading.Thread):
    """Follows the resident memory of this process: its own, and the pages of mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.mapped = 0  # the most so far, in KiB

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            now = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
            self.own, self.mapped = max(self.own, now["RssAnon:"]), max(self.mapped, now["RssFile:"])
            time.sleep(BETWEEN)


def child(words: list[str], folder: Path, kill_at: int | None) -> dict[str, Any]:
    """Trains, or resumes, in this process."""
    from rnnclf.hydra_app import load_config
    from rnnclf.workflows.resume import resume_run
    from rnnclf.workflows.train import train

    memory = Memory()
    clock = Clock(memory, kill_at)
    memory.start()
    run = RunFolder(folder)
    report = resume_run(run, watch=clock) if run.has_begun() else train(load_config(words), run, clock)
    assert report is not None
    accuracy = round(report.scores["test"].accuracy, 4)
    weights = hashlib.sha256(run.best.read_bytes()).hexdigest()[:16]
    return {**clock.found(), "test_accuracy": accuracy, "weights": weights}


def in_process(words: list[str], folder: Path, kill_at: int | None = None) -> dict[str, Any]:
    """What `child` measures in a process of its own, which is killed at a batch."""
    line = [sys.executable, __file__, "child", str(folder), *words]
    began = time.monotonic()
    done = subprocess.run([*line, f"--at={kill_at}"] if kill_at else line, stdout=subprocess.PIPE, text=True)
    assert done.returncode == (-signal.SIGKILL if kill_at else 0)
    return {"total_s": round(time.monotonic() - began, 1), **json.loads(done.stdout.splitlines()[-1])}


def measured(what: str, data: Path, words: list[str], kill_at: int | None) -> dict[str, Any]:
    words = [*WORDS.split(), f"dataset.path={data}", *words]
    record: dict[str, Any] = {
        "what": what,
        "bytes": (data / "x.npy").stat().st_size,
        "words": [word for word in words if not word.startswith("dataset.path=")],
        "load_before": round(os.getloadavg()[0], 1),
        "first": first(data),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if what != "part":
            record["in_peace"] = in_process(words, folder / "peace")
        if what != "train":
            record["killed"] = in_process(words, folder / "killed", kill_at)
            record["resumed"] = in_process([], folder / "killed", kill_at if what == "part" else None)
        if what == "kill":
            record["same_weights"] = record["resumed"]["weights"] == record["in_peace"]["weights"]
            batches = [record[part]["batches"] for part in ("killed", "resumed", "in_peace")]
            record["batches_twice"] = batches[0] + batches[1] - batches[2]
    record["load_after"] = round(os.getloadavg()[0], 1)
    return record


def first(data: Path) -> bool:
    """Whether rnnclf has not read this set before: then its statistics are not in the cache."""
    from rnnclf.data.cache import folder_for, identity

    files = [identity(file) for file in sorted(data.glob("*.npy"))]
    return not folder_for("arrays", "NTC", files).exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["train", "kill", "part", "child"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="*", help="as for rnnclf train")
    parser.add_argument("--at", type=int, help="the batch at which to kill")
    given = parser.parse_intermixed_args()
    if given.what == "child":
        print(json.dumps(child(given.words, given.folder, given.at)))
        return
    record = measured(given.what, given.folder, given.words, given.at)
    print(json.dumps(record, indent=1))
    with open(RESULTS, "a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
