"""Kills training at random moments, resumes it until it ends, and compares it with a run left in peace.

    python benchmarks/reliability/kill.py                          # 50 kills of each of the runs below
    python benchmarks/reliability/kill.py lstm --kills 20 --seed 7

Each life of a run is a process of its own that does what `rnnclf train` or `rnnclf resume` does; it is
forked from this one, so that it need not wait for torch to be imported. It ends in one of these ways, drawn
with the moment from (run, seed): SIGKILL; SIGTERM; SIGINT; SIGKILL inside the n-th operation on a file, half
of what was to be written done; a power cut there, after which renames of which the disk was not told are
undone and what was not flushed is lost. When a run comes to its end, its folder must hold what an
uninterrupted run leaves, bit for bit except times.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

for _library in ("OMP", "OPENBLAS", "MKL"):  # before they are loaded: only a process of one thread may fork
    os.environ[f"{_library}_NUM_THREADS"] = "1"

RUNS = {
    "basic": "cell=basic layers=2 dropout=0.3 norm=batch schedule=onecycle clip=0.5 checkpoint.every=7steps",
    "lstm": "cell=lstm zoneout=0.1 optimizer=sgd schedule=cosine sampling=balanced focal=1",
    "gru": "cell=gru bidirectional=true layers=2 variational=true dropout=0.2 optimizer=rmsprop"
    " protocol=tutorial schedule=constant checkpoint.every=1s",
    "cfc": "cell=cfc recurrent_dropout=0.2 optimizer=adamw augment=image class_weights=balanced"
    " on_divergence=rollback checkpoint.every=5steps",
}
SHARED = "dataset=digits dataset.validation=60 dataset.test=600 hidden=6 batch_size=60 epochs=12 threads=1"
DEATHS = {"SIGKILL": 45, "SIGTERM": 15, "SIGINT": 15, "inside a file operation": 15, "power cut": 10}
LIVES = 60  # of one run, after which something must be wrong
PATIENCE = 60.0  # seconds for one life

TIMES = ("epoch_seconds", "train_seconds", "total_seconds")


def differences(folder: Path, reference: Path) -> list[str]:
    """In what the files of two runs differ, times left out; nothing where they are equal bit for bit."""
    from rnnclf.workflows.runs import RunFolder

    found, wanted = essence(RunFolder(folder)), essence(RunFolder(reference))
    return [name for name in wanted if found[name] != wanted[name]]


def essence(run: Any) -> dict[str, Any]:
    """What the files of a run hold, times left out, by their names."""
    return {
        "best.safetensors": run.best.read_bytes(),
        "last.safetensors": _state(run),
        "epochs.csv": _rows(run),
        "results.json": _results(run),
    }


def _state(run: Any) -> Any:
    """What last.safetensors holds, its times set to zero."""
    from rnnclf import checkpoint

    saved = checkpoint.load(run.last)
    saved.tensors["epochs"][:, 1] = 0
    tensors = {
        name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in sorted(saved.tensors.items())
    }
    header = {key: value for key, value in saved.header.items() if key != "seconds"}
    so_far = {**header["training"]["so_far"], "seconds": 0}
    return tensors, {**header, "training": {**header["training"], "so_far": so_far}}


def _rows(run: Any) -> list[dict[str, str]]:
    with open(run.epochs) as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
        ]


def _results(run: Any) -> dict[str, Any]:
    results = json.loads(run.results.read_text())
    return {key: value for key, value in results.items() if key not in TIMES}


@dataclass
class Disk:
    """Counts operations on files, and at a given one has the process die in the middle of it."""

    last: int | None = None
    """The number of the operation; None: it lives."""
    power: random.Random | None = None
    """Where it is the power that fails: what is lost is drawn from this."""
    count: int = 0
    _unflushed: set[str] = field(default_factory=set)
    _paths: dict[int, str] = field(default_factory=dict)
    _renames: list[tuple[str, str, bytes | None]] = field(default_factory=list)
    """Of which the disk was not told: from, to, and what was there."""
    _own: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def watch(self) -> None:
        """From now on, in this process."""
        for name in ("open", "write", "fsync", "replace", "unlink"):
            self._own[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))

    def _open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        self._count()
        descriptor: int = self._own["open"](path, flags, *rest, **options)
        if flags & os.O_CREAT and str(path).endswith(".tmp"):
            self._paths[descriptor] = str(path)
            self._unflushed.add(str(path))
        return descriptor

    def _write(self, descriptor: int, content: Any) -> int:
        if self._count(dying=lambda: self._own["write"](descriptor, content[: len(content) // 2])):
            self._die()
        written: int = self._own["write"](descriptor, content)
        return written

    def _fsync(self, descriptor: int) -> None:
        self._count()
        self._own["fsync"](descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._renames.clear()
        else:
            self._unflushed.discard(self._paths.get(descriptor, ""))

    def _replace(self, source: Any, target: Any) -> None:
        if str(source) in self._unflushed:
            print(f"{source} is renamed before it is flushed", flush=True)
            os._exit(99)
        before = Path(target).read_bytes() if Path(target).exists() else None
        self._count()
        self._own["replace"](source, target)
        self._renames.append((str(source), str(target), before))

    def _unlink(self, path: Any, **options: Any) -> None:
        self._count()
        self._own["unlink"](path, **options)

    def _count(self, dying: Callable[[], object] = lambda: None) -> bool:
        self.count += 1
        if self.count == self.last:
            dying()
            self._die()
        return False

    def _die(self) -> NoReturn:
        if self.power is not None:
            for _ in range(self.power.randint(0, len(self._renames))):
                source, target, before = self._renames.pop()
                self._own["replace"](target, source)
                if before is not None:
                    Path(target).write_bytes(before)
            for path in self._unflushed:
                with contextlib.suppress(OSError):
                    os.truncate(path, self.power.randint(0, os.path.getsize(path)))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class End:
    """How a life ended: its exit code, negative for a signal, and what it said."""

    code: int
    said: str
    seconds: float


def live(words: list[str], disk: Disk | None = None, sent: int = 0, after: float = 0.0) -> End:
    """A process that runs `rnnclf WORDS`, and is sent a signal after so many seconds if it still runs."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        # a child that a signal reaches before it is ready for it would go on as a second harness
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process = os.fork()
        if process == 0:
            _child(words, disk, output.fileno())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        code = _ended(process, began + (after if sent else PATIENCE))
        if code is None:
            os.kill(process, sent or signal.SIGKILL)
            code = _ended(process, time.monotonic() + PATIENCE)
        if code is None:
            os.kill(process, signal.SIGKILL)
            _ended(process, time.monotonic() + PATIENCE)
            raise SystemExit(f"rnnclf {' '.join(words)} did not end within {PATIENCE:g} s.")
        output.seek(0)
        return End(code, output.read().decode(errors="replace"), time.monotonic() - began)


def _ended(process: int, until: float) -> int | None:
    """The exit code, as soon as the process ends; None where it still runs."""
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


def _child(words: list[str], disk: Disk | None, output: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if disk is not None:
            disk.watch()
        from rnnclf.cli import app

        try:
            app(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # before the command began, or after it ended
        code = 130
    finally:
        try:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
        finally:  # also when Ctrl-C comes this late
            os._exit(code)


@dataclass
class Harness:
    """One of the runs: its words, what it leaves in peace, and how long that takes."""

    name: str
    base: Path
    random: random.Random
    deaths: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    unrecorded: int = 0
    """Lives that ended before they had written anything."""

    def __post_init__(self) -> None:
        self.words = [*SHARED.split(), *RUNS[self.name].split()]
        self.reference = self.base / f"{self.name}-in-peace"
        disk = self.base / "operations"
        end = live([*self._train(self.reference)], None)
        if end.code != 0:
            raise SystemExit(f"{self.name} fails in peace:\n{end.said}")
        self.seconds = end.seconds
        self.operations = _operations(self._train(self.base / f"{self.name}-counted"), disk)

    def _train(self, folder: Path) -> list[str]:
        return ["train", *self.words, f"hydra.run.dir={folder}"]

    def run(self, number: int) -> None:
        """One run from its beginning to its end, through as many lives as it takes. Raises SystemExit."""
        folder = self.base / f"{self.name}-{number}"
        for life in range(LIVES):
            recorded = (folder / "status.json").exists()
            self.unrecorded += life > 0 and not recorded
            words = ["resume", str(folder)] if recorded else self._train(folder)
            way = self.random.choices([*DEATHS], [*DEATHS.values()])[0]
            moment = self.random.uniform(0, 1.1 * self.seconds)
            operation = self.random.randint(1, self.operations)
            if way.startswith("SIG"):
                end = live(words, None, getattr(signal, way), moment)
            else:
                power = random.Random(self.random.random()) if way == "power cut" else None
                end = live(words, Disk(operation, power))
            if end.code == 0:
                self._check(folder)
                shutil.rmtree(folder)
                self.ended += 1
                return
            expected = {"SIGTERM": (143, -signal.SIGTERM), "SIGINT": (130,)}.get(way, (-signal.SIGKILL,))
            if end.code not in expected:
                raise SystemExit(f"{' '.join(words)} ended with {end.code} after {way}:\n{end.said}")
            self.deaths[way] += 1
        raise SystemExit(f"{folder} does not come to its end.")

    def summary(self) -> str:
        kills = f"{self.deaths.total()} kills in {self.ended} runs ({_listed(self.deaths)})"
        peace = f"in peace {self.seconds:.1f} s and {self.operations} file operations"
        return f"{kills}, {self.unrecorded} before anything was written; {peace}"

    def _check(self, folder: Path) -> None:
        found = differences(folder, self.reference)
        state = json.loads((folder / "status.json").read_text())["state"]
        left = [path.name for path in folder.glob(".*.tmp")]
        if found or left or state != "done":
            raise SystemExit(f"{folder}, {state}: other than in peace: {found}; left behind: {left}.")


def _operations(words: list[str], file: Path) -> int:
    """How many operations on files a life without a death makes."""
    process = os.fork()
    if process == 0:
        disk = Disk()
        end = os._exit

        def exit_counted(code: int) -> NoReturn:
            file.write_text(str(disk.count))
            end(code)

        os._exit = exit_counted
        with open(os.devnull, "w") as nowhere:
            _child(words, disk, nowhere.fileno())
    os.waitpid(process, 0)
    return int(file.read_text())


@contextlib.contextmanager
def warm(base: Path, names: list[str]) -> Iterator[None]:
    """Everything imported that a life needs, and no thread left: those would not live in its children."""
    import torch

    import rnnclf.console.training
    import rnnclf.workflows.resume
    import rnnclf.workflows.train
    from rnnclf.hydra_app import load_config
    from rnnclf.workflows.runs import RunFolder
    from rnnclf.workflows.train import train

    assert rnnclf.console.training is not rnnclf.workflows.resume
    torch.set_num_threads(1)
    # without the file of predictions: polars starts threads, and each child starts its own
    with mock.patch.object(rnnclf.workflows.train, "write_predictions"):
        for name in names:
            train(
                load_config([*SHARED.split(), *RUNS[name].split(), "epochs=1"]),
                RunFolder(_made(base / f"{name}-warm")),
            )
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
    if threads != 1:
        raise SystemExit(f"{threads} threads are on: their locks would be held for ever in a fork.")
    yield


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Prints a line for each run, and the counts of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=_known, default=[*RUNS], metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--kills", type=int, default=50, help="of each run, at least")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    total: Counter[str] = Counter()
    ended = 0
    with tempfile.TemporaryDirectory() as base, warm(Path(base), words.runs):
        for name in words.runs:
            began = time.monotonic()
            harness = Harness(name, Path(base), random.Random(f"{name} {words.seed}"))
            while harness.deaths.total() < words.kills:
                harness.run(harness.ended)
            total += harness.deaths
            ended += harness.ended
            print(f"{name}: {harness.summary()}; {time.monotonic() - began:.0f} s", flush=True)
    print(f"{total.total()} kills survived, nothing lost: {ended} runs equal bit for bit ({_listed(total)})")


def _known(name: str) -> str:
    """The name of a run. argparse's choices refuse the default of all before 3.12."""
    if name not in RUNS:
        raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(RUNS)}")
    return name


def _listed(deaths: Counter[str]) -> str:
    return ", ".join(f"{count} {way}" for way, count in deaths.most_common())


if __name__ == "__main__":
    main()
