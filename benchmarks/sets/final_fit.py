"""What sets of classes cover after a final fit, if their size is that of the model before it.

    python benchmarks/sets/final_fit.py > benchmarks/sets/final_fit.jsonl
    python benchmarks/sets/final_fit.py table < benchmarks/sets/final_fit.jsonl

Each training has a split and a seed of its own. The model before the final fit says, by its scores on
validation, how large sets have to be; its own sets and those of the final model are then counted on the same
test sequences.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

LEVELS = (0.9, 0.95)
SEEDS = range(10)
WAVES = "dataset=table dataset.path={waves} dataset.missing=mask hidden=16"
TRAININGS = {
    "digits, basic, 15 epochs": "dataset=digits cell=basic hidden=32 epochs=15 batch_size=50",
    "digits, gru, 15 epochs": "dataset=digits cell=gru hidden=32 epochs=15 batch_size=50",
    "300 digits, gru, 60 epochs": "dataset=digits dataset.test=1497 dataset.validation=60 cell=gru hidden=32"
    " epochs=60 batch_size=20",
    "400 waves, gru, 15 epochs": f"{WAVES} cell=gru epochs=15 batch_size=20 optimizer.lr=0.01",
}


def measure() -> None:
    from rnnclf.calibration import Calibration, calibrate, sets_found
    from rnnclf.data.synthetic import Waves, make
    from rnnclf.hydra_app.compose import load_config
    from rnnclf.training.evaluation import evaluate_model
    from rnnclf.workflows import train

    fit_again = train._train_on_all
    found: list[dict[str, float]] = []

    def counted(run, calibration: Calibration) -> None:
        evaluation = evaluate_model(run.training.model, run.data.parts["test"], calibration.temperature)
        row = {"accuracy": evaluation.score.accuracy}
        for level in LEVELS:
            sets = sets_found(evaluation, level, calibration.limit(level, "sets")).to_dict()
            row |= {f"covered_{level}": sets["coverage"], f"classes_{level}": sets["mean_size"]}
        found.append(row)

    def watched(run, saver) -> None:
        calibration = calibrate(evaluate_model(run.training.model, run.data.parts["validation"]))
        counted(run, calibration)
        fit_again(run, saver)
        counted(run, calibration)

    train._train_on_all = watched
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "waves.csv", Waves(400, 2, 20, missing=0.1))
        for name, words in TRAININGS.items():
            for seed in SEEDS:
                found.clear()
                words_of = words.format(waves=Path(folder) / "waves.csv").split()
                more = ["final_fit=true", "threads=1", f"seed={seed}", f"dataset.split_seed={seed}"]
                config = load_config([*words_of, *more])
                train.train(config, Path(folder) / f"{name}{seed}")
                before, after = found
                print(
                    json.dumps({"training": name, "seed": seed, "before": before, "after": after}), flush=True
                )


def table() -> None:
    rows = [json.loads(line) for line in sys.stdin]
    print("| training | level | sets of | covered | ± | classes | accuracy |")
    for name in dict.fromkeys(row["training"] for row in rows):
        for level in LEVELS:
            for which in ("before", "after"):
                own = [row[which] for row in rows if row["training"] == name]
                shares = [row[f"covered_{level}"] for row in own]
                size, right = (mean(row[key] for row in own) for key in (f"classes_{level}", "accuracy"))
                words = (
                    f"{100 * mean(shares):.1f} | {100 * stdev(shares):.1f} | {size:.2f} | {100 * right:.1f}"
                )
                print(f"| {name} | {100 * level:g} % | {which} | {words} |")


if __name__ == "__main__":
    table() if sys.argv[1:] == ["table"] else measure()
