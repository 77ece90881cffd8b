"""Compares ways in which the values of a small set can enter the network, on its test file.

    python benchmarks/own_data/inputs.py [--set ACSF1] [--seeds 3] [--words W] standard four log ranks …

The values are changed in a file of their own, whose channels are then standardised (but for what --words
say). Ranks and quantiles are those of both files together, without their labels; those of
`dataset.normalise=quantiles` are of the training split alone. Each row of inputs.jsonl is one way: the
accuracy of each seed, and that of their mean probabilities.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
from aeon.datasets import load_from_ts_file
from measure import fitted, path_of

from rnnclf.calibration import probabilities

RESULTS = Path(__file__).parent / "inputs.jsonl"
Array = np.ndarray


def four(x_NTC: Array) -> Array:
    """Four steps side by side as channels, each of which is standardised by itself."""
    return x_NTC.reshape(len(x_NTC), -1, 4)


def log(x_NTC: Array) -> Array:
    return np.sign(x_NTC) * np.log1p(4 * np.abs(x_NTC))


def ranks(x_NTC: Array) -> Array:
    return x_NTC.ravel().argsort().argsort().reshape(x_NTC.shape) / x_NTC.size


def pieces(count: int, x_NTC: Array) -> Array:
    """How far a value has come between two quantiles, from 0 to 1, as a channel for each pair (Gorishniy et
    al. 2022, https://arxiv.org/abs/2203.05556)."""
    knots = np.unique(np.quantile(x_NTC, np.linspace(0, 1, count + 1)))
    return np.concatenate([np.clip((x_NTC - a) / (b - a), 0, 1) for a, b in pairwise(knots)], axis=-1)


WAYS: dict[str, Callable[[Array], Array]] = {
    "standard": lambda x_NTC: x_NTC,
    "four": four,
    "log": log,
    "ranks": ranks,
    **{f"pieces{count}": lambda x_NTC, count=count: pieces(count, x_NTC) for count in (4, 8, 16)},
}


def changed(name: str, way: str, folder: Path) -> Path:
    """A file of the set with other values, in which it has one channel and one length."""
    files = path_of(name), path_of(name).with_name(f"{name}_TEST.ts")
    (x_train, y_train), (x_test, y_test) = (load_from_ts_file(str(file)) for file in files)
    x_NTC = WAYS[way](np.concatenate((x_train, x_test)).swapaxes(1, 2)).astype(np.float32)
    n, path = len(x_train), folder / f"{name}-{way}.npz"
    np.savez(path, X_train=x_NTC[:n], y_train=y_train, X_test=x_NTC[n:], y_test=y_test)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ways", nargs="+", choices=list(WAYS))
    parser.add_argument("--set", default="ACSF1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--words", default="")
    asked = parser.parse_args()
    words = asked.words.split()
    if "dataset.normalise" not in asked.words:
        words.append("dataset.normalise=standard")
    for way in asked.ways:
        with tempfile.TemporaryDirectory() as folder:
            path, found, began = changed(asked.set, way, Path(folder)), [], time.process_time()
            for seed in range(asked.seeds):
                evaluation = fitted([f"dataset={path}", f"seed={seed}", *words])
                found.append(probabilities(evaluation.logits_NK, 1.0))
        each = [float((found_NK.argmax(axis=1) == evaluation.y_N).mean()) for found_NK in found]
        together = float((np.mean(found, axis=0).argmax(axis=1) == evaluation.y_N).mean())
        seconds = round((time.process_time() - began) / asked.seeds, 1)
        row = {"set": asked.set, "way": way, "words": asked.words, "accuracy": mean(each), "each": each}
        row |= {"together": together, "cpu_s": seconds}
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
