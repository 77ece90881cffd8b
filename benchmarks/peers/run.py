"""Seconds of an epoch of row-MNIST with rnnclf and with its peers, on this machine (Linux).

    python benchmarks/peers/run.py --mnist DIR --python-of keras=PATH --python-of jax=PATH --out results.jsonl
    python benchmarks/peers/run.py --summarise results.jsonl [--plot speed.svg]

Each result comes from a process of its own. In each round every peer runs once with every model and number
of threads; of one model and number the peers follow each other, so that a noisy machine hits all alike, and
with each round another one is first. Before each process the machine has to be idle. A command that was
interrupted goes on where it was when it is given again.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import results

IDLE = 0.95  # share of all cores that has to be idle for a second before a process starts
PATIENCE = 300  # seconds to wait for that; then it starts all the same, and the result says so
LIMIT = 3600  # seconds after which a process is ended


@dataclass(frozen=True)
class Peer:
    environment: str
    script: str
    options: tuple[str, ...] = ()


PEERS = {
    "rnnclf": Peer("rnnclf", "rnnclf_train.py"),
    "torch_tensors": Peer("torch", "torch_tensors.py"),
    "torch_tutorial": Peer("torch", "torch_tutorial.py"),
    "keras_tf": Peer("keras", "keras_fit.py", ("--backend", "tensorflow")),
    "keras_tf_unrolled": Peer("keras", "keras_fit.py", ("--backend", "tensorflow", "--unroll")),
    "keras_jax": Peer("keras", "keras_fit.py", ("--backend", "jax")),
    "keras_jax_unrolled": Peer("keras", "keras_fit.py", ("--backend", "jax", "--unroll")),
    "jax": Peer("jax", "jax_scan.py"),
    "jax_unrolled": Peer("jax", "jax_scan.py", ("--unroll", "28")),
    "jax_epoch": Peer("jax", "jax_scan.py", ("--epoch-scan",)),
    "jax_epoch_unrolled": Peer("jax", "jax_scan.py", ("--epoch-scan", "--unroll", "28")),
}


class Job(NamedTuple):
    round: int
    model: str
    threads: int
    peer: str


def jobs(options: argparse.Namespace) -> list[Job]:
    """All processes in the order in which they run."""
    order = []
    for turn in range(options.rounds):
        first = turn % len(options.peers)
        peers = options.peers[first:] + options.peers[:first]
        order += [Job(turn, *job) for job in itertools.product(options.models, options.threads, peers)]
    return order


def idle_share(seconds: float = 1.0) -> float:
    """The share of the time of all cores in which nothing ran, over the next `seconds`."""

    def ticks() -> list[int]:
        return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]

    before = ticks()
    time.sleep(seconds)
    spent = [after - earlier for after, earlier in zip(ticks(), before, strict=True)]
    return (spent[3] + spent[4]) / max(sum(spent), 1)  # idle and waiting for a disk


def wait_until_idle(share: float) -> dict[str, float]:
    started = time.monotonic()
    while (found := idle_share()) < share and time.monotonic() - started < PATIENCE:
        pass
    return {"waited_seconds": round(time.monotonic() - started, 1), "idle_share": round(found, 3)}


def run(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """One process: what it printed, or its error, and what it took from outside."""
    peer = PEERS[job.peer]
    python = options.python_of.get(peer.environment, sys.executable)
    script = str(Path(__file__).with_name(peer.script))
    command = [python, script, *peer.options, "--model", job.model, "--threads", str(job.threads)]
    command += ["--epochs", str(options.epochs), "--mnist", str(options.mnist)]
    if options.limit is not None:
        command += ["--limit", str(options.limit)]
    if peer.environment == "rnnclf" and options.rnnclf:
        command += ["--rnnclf", options.rnnclf]
    waited = wait_until_idle(options.idle)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = outcome(command)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **printed,
        **job._asdict(),
        "script": peer.script,
        "epochs": options.epochs,
        "limit": options.limit,
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(used, 3),
        **waited,
        "machine": machine(),
    }


def outcome(command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT} seconds"}
    except OSError as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}


def measure(options: argparse.Namespace) -> None:
    """Runs what the file of results lacks and adds a line for each."""
    there = results.read(options.out) if options.out.exists() else []
    for result in there:
        if (result["epochs"], result["limit"]) != (options.epochs, options.limit):
            raise SystemExit(f"{options.out} is of another --epochs or --limit; name a new file.")
    done = {Job(*(result[name] for name in Job._fields)) for result in there}
    missing = [job for job in jobs(options) if job not in done]
    with open(options.out, "a") as file:
        for number, job in enumerate(missing, 1):
            result = run(job, options)
            file.write(json.dumps(result) + "\n")
            file.flush()
            said = (
                result.get("error") or f"epochs {result['epoch_seconds']}, {result['wall_seconds']} s in all"
            )
            place = f"{number}/{len(missing)}: round {job.round + 1}, {job.model}, {job.threads} threads"
            print(f"{place}, {job.peer}: {said}", file=sys.stderr, flush=True)


def names(known: tuple[str, ...]) -> Any:
    """The type of an option that is a list of names, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}; known: {', '.join(known)}")
        return chosen

    return parse


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def pair(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("give it as NAME=PATH")
    return name, path


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = tuple(PEERS)
    parser.add_argument("--peers", type=names(known), default=list(known), help="names, separated by commas")
    parser.add_argument("--models", type=names(("basic", "lstm", "gru")), default=["basic", "lstm", "gru"])
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of each process; the first is not counted")
    parser.add_argument("--limit", type=int, help="train on so many images only, to try the scripts")
    parser.add_argument("--idle", type=float, default=IDLE, help="share of the cores that has to be idle")
    parser.add_argument("--mnist", type=Path, help="the folder with MNIST/raw/*.gz")
    parser.add_argument(
        "--python-of",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the Python of an environment: rnnclf, torch, keras or jax; left out: the one that runs this",
    )
    parser.add_argument("--rnnclf", help="the command; left out: the one beside the Python of rnnclf")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    parser.add_argument("--summarise", type=Path, metavar="RESULTS", help="print the table of a file and end")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw the bars, too")
    options = parser.parse_args()
    options.python_of = dict(options.python_of)
    if options.summarise is None and options.mnist is None:
        parser.error("--mnist DIR is needed to measure.")
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first is not counted.")
    return options


def main() -> None:
    options = read_options()
    if options.summarise is None:
        measure(options)
    measured = results.read(options.summarise or options.out)
    if not measured:
        raise SystemExit("There are no results yet.")
    results.show(measured)
    if options.plot:
        options.plot.write_text(results.picture(measured))


if __name__ == "__main__":
    main()
