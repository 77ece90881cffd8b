"""`rnnclf tune` against random search and a grid, with as many seconds of training for each.

    python benchmarks/search/measure.py results.jsonl 20 0 5 [DATA…]

That is with 20 s for each search, and the repetitions from 0 up to 5. For each of them and each data set:
the search with its defaults, points at random without pruning, and the points of a grid in random order,
all of one cell with three settings. The first two begin with the settings that `train` would use. Each
writes a line: the validation accuracy of its best trial, and the validation and test accuracy of that point
with five other seeds, which is what counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import aeon

VOWELS = Path(aeon.__file__).parent / "datasets" / "data" / "JapaneseVowels"
DATA = {
    "digits": ["dataset=digits"],
    "JapaneseVowels": [
        "dataset=archive",
        f"dataset.path={VOWELS / 'JapaneseVowels_TRAIN.ts'}",
        f"dataset.test_path={VOWELS / 'JapaneseVowels_TEST.ts'}",
    ],
    "waves": ["waves.csv", "dataset.missing=interpolate", "batch_size=30"],
}
COMMON = ["cell=basic", "epochs=30", "threads=1", "recipe=plain", "device=cpu", "plots=false"]
RANGES = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "hidden=range(8,65,8)", "dropout=interval(0,0.5)"]
GRID = ["optimizer.lr=1e-4,1e-3,1e-2,1e-1", "hidden=8,32,64", "dropout=0,0.25,0.5"]
WAYS = {
    "tune": RANGES,
    "random": [*RANGES, "sampler=random", "prune=none"],
    "grid": [*GRID, "sampler=random", "prune=none"],
}


def main() -> None:
    out, budget, first, end, *names = sys.argv[1:]
    file = Path(out).absolute()
    os.chdir(tempfile.mkdtemp())
    made = ["rnnclf", "data", "make", "waves.csv", "--sequences", "300"]
    subprocess.run(made, check=True, capture_output=True)
    for seed in range(int(first), int(end)):
        for name in names or DATA:
            for way, words in WAYS.items():
                line = {"data": name, "way": way, "repetition": seed, "budget_s": int(budget)}
                found = search([*DATA[name], *COMMON, *words, f"seed={1000 * seed}", f"budget={budget}s"])
                with open(file, "a", encoding="utf-8") as results:
                    results.write(json.dumps({**line, **found}) + "\n")
                print(line["data"], way, seed, found, flush=True)


def search(words: list[str]) -> dict[str, object]:
    """What a search has found."""
    command = ["rnnclf", "tune", *words, "seeds=5", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    plain = json.loads(done.stdout)
    seeds = plain["seeds"]
    return {
        "load": round(os.getloadavg()[0], 1),
        **{key: plain[key] for key in ("trials", "done", "pruned", "failed", "seconds")},
        "best_trial_validation": plain["best"]["validation_accuracy"],
        "validation": seeds["validation"]["accuracy"],
        "test": seeds["test"]["accuracy"],
        "ensemble_test": plain["ensemble"] and plain["ensemble"]["test"]["accuracy"],
    }


if __name__ == "__main__":
    main()
