"""What the peers' scripts share: options, cores, images, stopwatch, and the one line of results.

Only the standard library and NumPy are needed, and `start` comes before a script imports its own library: the
number of threads and the cores have to be settled when that library starts.
"""

import argparse
import gzip
import json
import os
import platform
import sys
import time
from pathlib import Path
from types import ModuleType

STEPS, FEATURES, CLASSES = 28, 28, 10  # an image is a sequence of rows
HIDDEN, BATCH, LEARNING_RATE = 150, 150, 0.001
VALIDATION = 5_000  # images at the beginning of the training file
MODELS = ("basic", "lstm", "gru")


def parser(description: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    options.add_argument("--model", choices=MODELS, default="basic")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--mnist", type=Path, required=True, help="the folder with MNIST/raw/*.gz")
    options.add_argument("--limit", type=int, help="train on so many images only, to try the script")
    return options


def start(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the options and keeps this process, and all that it starts, to `threads` cores and threads."""
    given = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if given.threads > len(cores):
        options.error(f"--threads {given.threads}: there are only {len(cores)} cores here.")
    os.sched_setaffinity(0, cores[: given.threads])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):  # NPROC: the thread pools of XLA
        os.environ[name] = str(given.threads)
    return given


def read_mnist(options: argparse.Namespace):
    """(x_NTI, y_N) to train on and to validate with: float32 from 0 to 1, int64."""
    import numpy as np

    raw = options.mnist / "MNIST" / "raw"
    images = gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((raw / "train-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, STEPS, FEATURES)
    x_NTI = pixels.astype(np.float32) / np.float32(255)
    y_N = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    end = None if options.limit is None else VALIDATION + options.limit
    return (x_NTI[VALIDATION:end], y_N[VALIDATION:end]), (x_NTI[:VALIDATION], y_N[:VALIDATION])


class Stopwatch:
    """`with stopwatch:` around each epoch of training; `seconds` has one figure for each."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def report(options: argparse.Namespace, seconds: list[float], accuracy: float, used: dict[str, str]) -> None:
    """Prints the line of results: the only thing that a script writes to stdout."""
    common = {"model", "epochs", "threads", "mnist", "limit", "rnnclf"}
    result = {
        "peer": Path(sys.argv[0]).stem,
        "options": {name: value for name, value in vars(options).items() if name not in common},
        "model": options.model,
        "threads": options.threads,
        "limit": options.limit,
        "epoch_seconds": [round(second, 4) for second in seconds],
        "validation_accuracy": round(accuracy, 4),
        "versions": {"python": platform.python_version(), **used},
    }
    print(json.dumps(result), flush=True)


def versions(*modules: ModuleType) -> dict[str, str]:
    return {module.__name__: module.__version__ for module in modules}
