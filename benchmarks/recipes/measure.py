"""Trains the rows of docs/recipes.md, each with several seeds, and scores their test split once.

    python benchmarks/recipes/measure.py LEVERS --seeds 0-4 [--jobs 2] [--folder runs]
    python benchmarks/recipes/measure.py better --seeds 0-9
    python benchmarks/recipes/measure.py --list

LEVERS are all rows that change the tutorial in one place, TOGETHER those that take one part of the recipe
`better` back; otherwise name rows. A row is the words of `rnnclf train`; each of its runs takes one thread,
and adds a line to results.jsonl. Lines that are there are not measured again, and a run that was killed is
resumed where it was if its folder is still there. Which words `better` has was decided by choose.py, which
does not see the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from choose import commit, lines_of

from rnnclf.workflows.runs import RunFolder

RESULTS = Path(__file__).parent / "results.jsonl"

TUTORIAL = "experiment=tutorial protocol=standard epochs=20"
"""The tutorial, a fifth as long: the effects of single levers show, and we can afford five seeds of each."""

BASE = "a fifth of the tutorial"

LEVERS = {
    BASE: "",
    "orthogonal recurrent weights": "cell.recurrent_init=orthogonal",
    "annealed learning rate": "schedule=cosine",
    "one cycle": "schedule=onecycle optimizer.lr=0.002",
    "clipped gradients": "clip=1",
    "batches of 50": "batch_size=50",
    "batches of 500": "batch_size=500",
    "longer training": "epochs=100",
    "dropout before the head": "dropout=0.2",
    "input dropout": "input_dropout=0.2",
    "variational input dropout": "input_dropout=0.2 variational=true",
    "recurrent dropout": "recurrent_dropout=0.1",
    "zoneout": "zoneout=0.1",
    "label smoothing": "label_smoothing=0.1",
    "weight averaging": "average=ema",
    "shifted": "augment=image augment.rotate=0 augment.scale=0 augment.shear=0",
    "shifted, turned, scaled, sheared": "augment=image",
    "elastically distorted": "augment=image augment.rotate=0 augment.scale=0 augment.shear=0 augment.shift=0"
    " augment.elastic=34",
    "standardised pixels": "dataset.normalise=standard",
    "the maximum over all rows": "readout=max",
    "weight decay": "optimizer=adamw optimizer.lr=0.001 optimizer.weight_decay=0.05",
}
"""What each row changes in the first."""

WITHOUT = {
    "without augmentation": "augment.shift=0 augment.rotate=0 augment.scale=0 augment.shear=0",
    "with milder augmentation": "augment.shift=1 augment.rotate=10 augment.scale=0.1 augment.shear=5",
    "reading the last state": "readout=last",
    "at a constant rate": "schedule=constant optimizer.lr=0.001",
    "without weight decay": "optimizer.weight_decay=0",
    "without clipping": "clip=null",
    "the tutorial's initial weights": "cell.input_init=tensorflow1 cell.recurrent_init=tensorflow1",
}
"""What each row takes back of `better`."""

GIVEN_UP = {
    "longer, without weight decay": "epochs=300 optimizer=adam optimizer.lr=0.002 optimizer.weight_decay=0",
}
"""Another version of `better`, which its validation accuracy ruled out."""

BEST = {
    "best_rows": "experiment=best_rows",
    "without normalisation and dropout": "experiment=better cell=gru hidden=128 axes=both bidirectional=true"
    " epochs=60",
}
"""The best reader of rows, and one that was given up."""

PIXELS = {
    "best_pixels": "experiment=best_pixels",
    "best_permuted": "experiment=best_permuted",
}
"""What reads one pixel per step."""

ROWS = {
    **{row: f"{TUTORIAL} {words}".strip() for row, words in LEVERS.items()},
    "better": "experiment=better",
    **{row: f"experiment=better {words}" for row, words in (WITHOUT | GIVEN_UP).items()},
    **BEST,
    **PIXELS,
}


def measured(row: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains or resumes a run of a row; its line."""
    run = RunFolder(folder / row.replace(" ", "_").replace(",", "") / str(seed))
    line = {"row": row, **trained(ROWS[row], seed, run)}
    radius = spectral_radius(run.best)
    return line if radius is None else line | {"radius": round(radius, 2)}


def trained(words: str, seed: int, run: RunFolder) -> dict[str, Any]:
    """Trains with these words on one thread, or goes on with a run that was killed; its scores and cost."""
    from rnnclf import load_config
    from rnnclf.workflows.resume import resume_run
    from rnnclf.workflows.train import train

    typed = [*words.split(), "threads=1", "plots=false", f"seed={seed}"]
    if run.has_begun():
        resume_run(run)
    else:
        train(load_config(typed), run, overrides=typed)
    results = run.read_results()
    scores = {name: round(results[name]["accuracy"], 5) for name in ("train", "validation", "test")}
    cost = {"seconds": results["train_seconds"], "epochs": results["epochs"]}
    return {"words": words, "seed": seed, **scores, **cost, "commit": commit()}


def spectral_radius(weights: Path) -> float | None:
    """The largest absolute eigenvalue of the recurrent weights in a checkpoint; None for gates, towers and
    cells without such weights."""
    import numpy as np
    from safetensors.numpy import load_file

    recurrent = [w for name, w in load_file(weights).items() if name.endswith("recurrent_weight")]
    if len(recurrent) != 1 or recurrent[0].shape[0] != recurrent[0].shape[1]:
        return None
    return float(np.abs(np.linalg.eigvals(recurrent[0])).max())


def lines() -> list[dict[str, Any]]:
    return lines_of(RESULTS)


def run(rows: list[str], seeds: list[int], jobs: int, folder: Path) -> None:
    """Measures what is not there yet, one seed of all rows after the other."""
    there = {(line["row"], line["words"], line["seed"]) for line in lines()}
    wanted = [(row, seed) for seed in seeds for row in rows if (row, ROWS[row], seed) not in there]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(measured, *pair, folder) for pair in wanted]):
            with RESULTS.open("a") as file:
                file.write(json.dumps(done.result()) + "\n")


def seeds_in(text: str) -> list[int]:
    """0-4 or 0,1,2."""
    if "-" not in text:
        return [int(seed) for seed in text.split(",")]
    first, last = map(int, text.split("-"))
    return list(range(first, last + 1))


if __name__ == "__main__":
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--seeds", type=seeds_in, default=[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("outputs/recipes"))
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        print(*(f"{row}: rnnclf train {words}" for row, words in ROWS.items()), sep="\n")
    groups = {"LEVERS": list(LEVERS), "TOGETHER": ["better", *WITHOUT]}
    names = [row for asked in given.rows for row in groups.get(asked, [asked])]
    run(names, given.seeds, given.jobs, given.folder)
