"""Trains every cell on the digits at about 30,000 parameters: two learning rates, three seeds each.

    python benchmarks/cells/measure.py benchmarks/cells/results.csv [CELL,CELL …]

Rows of cells that are not named stay as they are.

One sweep per cell, `rnnclf train -m cell=… match_parameters=30k dataset=digits epochs=30 threads=1`. The
test split takes part in no choice: page.py picks a cell's learning rate by its mean validation accuracy.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rnnclf.cells import CELLS
from rnnclf.training.eligibility import EngineUsed

WORDS = ["match_parameters=30k", "dataset=digits", "epochs=30", "threads=1"]
GRID = ["optimizer.lr=0.002,0.01", "seed=0,1,2"]
COLUMNS = [
    "cell",
    "engine",
    "lr",
    "seed",
    "hidden",
    "parameters",
    "validation",
    "test",
    "epoch_seconds",
    "error",
]


def sweep(cell: str) -> list[dict[str, Any]]:
    """A row for each job of the sweep over one cell."""
    command = [sys.executable, "-m", "rnnclf", "train", "--json", "-m", f"cell={cell}", *GRID, *WORDS]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if not done.stdout:
        return [{"cell": cell, "error": done.stderr.strip().splitlines()[-1]}]
    jobs = sorted(json.loads(done.stdout)["jobs"], key=lambda job: job["job"])
    return [row(cell, job) for job in jobs]


def row(cell: str, job: dict[str, Any]) -> dict[str, Any]:
    words = dict(word.split("=", 1) for word in job["overrides"])
    known = {"cell": cell, "lr": words["optimizer.lr"], "seed": words["seed"], "error": job["error"]}
    if not job["results"]:
        return known
    results = job["results"]
    return known | {
        "engine": EngineUsed(**results["engine"]).words,
        "hidden": results["hidden"],
        "parameters": results["parameters"],
        "validation": round(results["validation"]["accuracy"], 6),
        "test": round(results["test"]["accuracy"], 6),
        "epoch_seconds": round(median(results["epoch_seconds"]), 4),
    }


def main(path: Path, names: list[str]) -> None:
    with open(path) as file:
        rows = [row for row in csv.DictReader(file) if row["cell"] not in names]
    for name in names:
        rows += sweep(name)
        print(name, [row.get("test") for row in rows if row["cell"] == name], flush=True)
    rows.sort(key=lambda row: CELLS.names().index(row["cell"]))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(",") if len(sys.argv) > 2 else list(CELLS.names()))
