"""What `rnnclf train PATH` and nothing else reaches on small sets of the UCR and UEA archives.

    python benchmarks/own_data/measure.py [--sets GunPoint,UnitTest] [--seeds 5] [--words "cell=lru"]

Needs the extra `archive`: the sets are those that aeon ships. Each row of results.jsonl is one training on
the training file of a set, and its accuracy on the test file. The baselines:
MiniRocket (Dempster et al. 2021, https://arxiv.org/abs/2012.08791) with five seeds; 1-NN DTW with a window of
10 %; a forest of 500 trees on the values. Where lengths differ, the first and the last see zeros at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

CHOOSING = ("UnitTest", "ItalyPowerDemand", "JapaneseVowels", "BasicMotions", "GunPoint", "ACSF1")
"""The sets by which the recipe was chosen; all others are judges."""
RESULTS = Path(__file__).parent / "results.jsonl"


def folder_of(name: str) -> Path:
    import aeon

    return Path(aeon.__file__).parent / "datasets" / "data" / name


def by_rnnclf(name: str, seed: int, words: list[str]) -> float:
    command = [sys.executable, "-m", "rnnclf", "train", str(folder_of(name) / f"{name}_TRAIN.ts")]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, f"seed={seed}", *words, "--json"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        (results,) = Path(folder).glob("outputs/*/*/results.json")
        return float(json.loads(results.read_text())["test"]["accuracy"])


def loaded(name: str, part: str) -> tuple[Any, Any]:
    from aeon.datasets import load_from_ts_file

    x, y = load_from_ts_file(str(folder_of(name) / f"{name}_{part}.ts"))
    return x, y


def padded(name: str) -> tuple[Any, Any, Any, Any]:
    """Training and test sequences (N, C, T), padded with zeros to the longest of all, and their labels."""
    (x, y), (x_test, y_test) = loaded(name, "TRAIN"), loaded(name, "TEST")
    longest = max(sequence.shape[-1] for sequence in [*x, *x_test])

    def at_full_length(sequences: Any) -> Any:
        return np.stack([np.pad(s, ((0, 0), (0, longest - s.shape[-1]))) for s in sequences])

    return at_full_length(x), y, at_full_length(x_test), y_test


def by_minirocket(name: str, seed: int) -> float:
    from aeon.classification.convolution_based import MiniRocketClassifier

    x, y, x_test, y_test = padded(name)
    return float(MiniRocketClassifier(random_state=seed).fit(x, y).score(x_test, y_test))


def by_dtw(name: str, seed: int) -> float:
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    (x, y), (x_test, y_test) = loaded(name, "TRAIN"), loaded(name, "TEST")
    nearest = KNeighborsTimeSeriesClassifier(distance="dtw", distance_params={"window": 0.1})
    return float(nearest.fit(x, y).score(x_test, y_test))


def by_forest(name: str, seed: int) -> float:
    from sklearn.ensemble import RandomForestClassifier

    x, y, x_test, y_test = padded(name)
    forest = RandomForestClassifier(500, random_state=seed).fit(x.reshape(len(x), -1), y)
    return float(forest.score(x_test.reshape(len(x_test), -1), y_test))


BASELINES = {"MiniRocket": (by_minirocket, 5), "forest": (by_forest, 5), "1-NN DTW": (by_dtw, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", default=",".join(CHOOSING))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--words", default="")
    parser.add_argument("--by", default=",".join(["rnnclf", *BASELINES]))
    options = parser.parse_args()
    words = options.words.split()
    os.environ.pop("RNNCLF_DATA", None)
    for name in options.sets.split(","):
        for by in options.by.split(","):
            compute, seeds = BASELINES.get(by, (None, options.seeds))
            scores = []
            for seed in range(seeds):
                began = time.perf_counter()
                score = compute(name, seed) if compute else by_rnnclf(name, seed, words)
                seconds = round(time.perf_counter() - began, 2)
                scores.append(score)
                row = {"set": name, "by": by, "words": options.words, "seed": seed, "accuracy": score}
                with RESULTS.open("a") as file:
                    file.write(json.dumps({**row, "seconds": seconds}) + "\n")
            spread = f" ± {stdev(scores):.4f}" if len(scores) > 1 else ""
            print(f"{name:18} {by:12} {mean(scores):.4f}{spread}  {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
