"""Trains candidates for a recipe, and compares them on the validation split alone.

    python benchmarks/recipes/choose.py "optimizer.lr=0.002 clip=0.25" "readout=max" --seeds 0,1 [--jobs 2]
    python benchmarks/recipes/choose.py --show [MNIST]

Each argument is a candidate: words of `rnnclf train`. Ten thousand training images, not five thousand, are
for validation (unless a candidate says otherwise): at 99 % the standard error of an accuracy is then 0.1
points. The images of the test split are never seen, whatever is chosen: they are sealed as soon as the data
are read (`without_test`). Each line of candidates.jsonl is one training on one thread; those that are there
already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

CANDIDATES = Path(__file__).parent / "candidates.jsonl"
DEFAULTS = ("threads=1", "dataset.validation=10000")


class Sealed:
    """Stands for sequences that nobody may look at: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"The test split was opened: {name}.")


def without_test(data: Any) -> Any:
    """The data of a run, whose test split is sealed."""
    sealed: Any = Sealed()
    return replace(data, splits=replace(data.splits, test=sealed), parts={**data.parts, "test": sealed})


def curve(words: list[str], seed: int) -> list[Any]:
    """Trains a candidate as `rnnclf train` does; returns the result of each epoch."""
    import torch

    from rnnclf import load_config
    from rnnclf.training.loop import fit
    from rnnclf.training.state import Training
    from rnnclf.workflows.loading import build_model
    from rnnclf.workflows.recipe_of import recipe
    from rnnclf.workflows.settling import settled
    from rnnclf.workflows.train import Data, Watcher

    config = load_config([*DEFAULTS, *words, f"seed={seed}"])
    data = without_test(Data.of(config, Watcher()))
    config = settled(config, data.splits)
    torch.manual_seed(config.seed)
    training = Training(build_model(config, *data.shape).to(data.device), recipe(config, data))
    return list(fit(training, data.parts["train"], data.parts["validation"]))


def measured(words: str, seed: int) -> dict[str, Any]:
    """The line of a training."""
    began = time.perf_counter()
    results = curve(words.split(), seed)
    last, best = results[-1], max(results, key=lambda result: result.validation.accuracy)
    return {
        "words": words,
        "seed": seed,
        "epochs": len(results),
        "train_loss": round(last.train.loss, 5),
        "train": round(last.train.accuracy, 5),
        "loss": round(last.validation.loss, 5),
        "validation": round(last.validation.accuracy, 5),
        "best": round(best.validation.accuracy, 5),
        "best_epoch": best.epoch,
        "seconds": round(time.perf_counter() - began, 1),
        "commit": commit(),
    }


@cache
def commit() -> str:
    """The version that is measured; -dirty if anything but the figures here has been changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!*.jsonl")
    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """What is in a file of JSON lines; nothing if there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines() -> list[dict[str, Any]]:
    return lines_of(CANDIDATES)


def run(candidates: list[str], seeds: list[int], jobs: int) -> None:
    """Trains what is not there yet, and adds its lines."""
    there = {(line["words"], line["seed"]) for line in lines()}
    wanted = [(words, seed) for seed in seeds for words in candidates if (words, seed) not in there]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for line in pool.map(measured, *zip(*wanted, strict=True)) if wanted else ():
            with CANDIDATES.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def ranked() -> list[tuple[str, list[dict[str, Any]]]]:
    """The words of the candidates, and the lines of each: the lowest validation loss first."""
    found = defaultdict(list)
    for line in lines():
        found[line["words"]].append(line)
    return sorted(found.items(), key=lambda item: mean(line["loss"] for line in item[1]))


def means(group: list[dict[str, Any]]) -> list[float]:
    """Of a candidate over its seeds: the validation loss, the accuracies of validation and training."""
    return [mean(line[key] for line in group) for key in ("loss", "validation", "train")]


def table(part: str) -> Iterator[str]:
    """A row for each candidate whose words contain `part`."""
    for words, group in ranked():
        if part in words:
            loss, validation, train = means(group)
            minutes = mean(line["seconds"] for line in group) / 60
            accuracies = f"{100 * validation:6.2f} {100 * train:6.2f}"
            yield f"{loss:.4f} {accuracies}  n={len(group)} {minutes:5.1f} min  {words}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", nargs="*")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--show", nargs="?", const="")
    given = parser.parse_args()
    if given.candidates:
        run(given.candidates, [int(seed) for seed in given.seeds.split(",")], given.jobs)
    if given.show is not None:
        print("  loss validation train", *table(given.show), sep="\n")
