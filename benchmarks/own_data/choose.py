"""Compares settings for own data by cross-validation within the training files of small sets.

    python benchmarks/own_data/choose.py "cell=lru" --sets ACSF1,GunPoint [--draws 0,1] [--seeds 1]
    python benchmarks/own_data/choose.py --show

Each argument is one candidate: words that are added to recipe=auto; "" is the recipe as it is. A fold is
scored by the model of the final fit, which is trained on all other folds; the first training, which chooses
nothing with select=last, is left out. The files of the archives' test splits are never opened. Each row of
choices.jsonl is one training. With several seeds, the mean of the models' probabilities is a row, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from measure import CHOOSING, fitted, path_of

from rnnclf.calibration import probabilities

CHOICES = Path(__file__).parent / "choices.jsonl"
FOLDS = 3
FIGURES = ("accuracy", "loss", "correct", "total")


def rows(name: str, words: list[str], draw: int, seeds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each fold and seed and, with several seeds, one for all of them together."""
    where = f"dataset={alone(name, folder)}"
    for fold in range(FOLDS):
        found, labels_N = [], np.zeros(0, int)
        for seed in range(seeds):
            began = time.process_time()
            folds = [f"dataset.folds={FOLDS}", f"dataset.fold={fold}", f"dataset.split_seed={draw}"]
            evaluation = fitted([where, *folds, f"seed={seed}", *words])
            found.append(probabilities(evaluation.logits_NK, 1.0))
            labels_N = evaluation.y_N
            seconds = round(time.process_time() - began, 2)
            yield {"fold": fold, "seed": seed, **figures(found[-1], labels_N), "seconds": seconds}
        if seeds > 1:
            yield {"fold": fold, "members": seeds, **figures(np.mean(found, axis=0), labels_N)}


def alone(name: str, folder: Path) -> Path:
    """The training file without the test file beside it."""
    path = folder / f"{name}_TRAIN.ts"
    if not path.exists():
        shutil.copy(path_of(name), path)
    return path


def figures(probability_NK: np.ndarray, y_N: np.ndarray) -> dict[str, Any]:
    correct = int((probability_NK.argmax(axis=1) == y_N).sum())
    loss = -np.log(np.maximum(probability_NK[np.arange(len(y_N)), y_N], 1e-9)).mean()
    return dict(zip(FIGURES, (correct / len(y_N), round(float(loss), 4), correct, len(y_N)), strict=True))


@cache
def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def show() -> None:
    """Prints the pooled accuracy of each candidate on each set, and the mean loss."""
    found = defaultdict(list)
    for line in CHOICES.read_text().splitlines():
        row = json.loads(line)
        members = f" ({row['members']} together)" if "members" in row else ""
        found[(row["set"], row["words"] + members)].append(row)
    for (name, words), each in sorted(found.items()):
        accuracy = sum(row["correct"] for row in each) / sum(row["total"] for row in each)
        loss, seconds = mean(row["loss"] for row in each), mean(row.get("seconds", 0) for row in each)
        print(f"{name:17} {accuracy:.3f} loss {loss:.3f} {len(each):3} trainings {seconds:5.1f} s  {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("candidates", nargs="*")
    parser.add_argument("--sets", default=",".join(CHOOSING))
    parser.add_argument("--draws", default="0")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for draw in map(int, options.draws.split(",")):
            for name in options.sets.split(","):
                for words in options.candidates:
                    about = {"set": name, "words": words, "draw": draw}
                    for row in rows(name, words.split(), draw, options.seeds, Path(folder)):
                        with CHOICES.open("a") as file:
                            file.write(json.dumps({**about, **row, "commit": commit()}) + "\n")
                        print(name, words, draw, row, flush=True)
    if options.show:
        show()


if __name__ == "__main__":
    main()
