"""What `rnnclf train PATH` and nothing else reaches on small sets of the UCR and UEA archives.

    python benchmarks/own_data/measure.py [--sets GunPoint,UnitTest] [--seeds 5] [--words "cell=lru"]

Needs the extra `archive`: the sets are those that aeon ships. Each row of results.jsonl is one training on
the training file of a set, and its accuracy on the test file. The baselines are those of `rnnclf baseline`,
MiniRocket and the forest with five seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from rnnclf.workflows.baseline import compare_baselines

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


def by_baseline(baseline: str, name: str, seed: int) -> float:
    """The accuracy of one of the classifiers of `rnnclf baseline`."""
    data = str(folder_of(name) / f"{name}_TRAIN.ts")
    words = [data, f"classifiers={baseline}", f"seed={seed}", "max_time=9h"]
    with tempfile.TemporaryDirectory() as folder:
        (run,) = compare_baselines(words, Path(folder)).runs
        return float(run.results["test"]["accuracy"])


BASELINES = {
    "MiniRocket": (partial(by_baseline, "minirocket"), 5),
    "forest": (partial(by_baseline, "forest"), 5),
    "1-NN DTW": (partial(by_baseline, "dtw"), 1),
}


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
