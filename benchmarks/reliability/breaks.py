"""What a run that breaks in the middle looks like, and how often a good one is taken for such a run.

    python benchmarks/reliability/breaks.py train [mnist | good | harsh]   # adds runs to breaks.jsonl
    python benchmarks/reliability/breaks.py judge                          # what is found in them

Good runs are those of ordinary settings on small sets with noisy curves: digits, the sets that come with aeon
and generated waves. Harsh ones have learning rates at which training may break. A line of breaks.jsonl is a
run; its epochs are rows of training (correct, total, loss), validation (the same), learning rate, gradient
norms (mean, largest, share of clipped steps). MNIST is read from the folder that RNNCLF_DATA names.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple
from importlib.resources import files
from pathlib import Path

from rnnclf.data.synthetic import Waves, make
from rnnclf.hydra_app import load_config
from rnnclf.metrics import Score
from rnnclf.training.breaks import breaks_in, in_words
from rnnclf.training.gradient_norms import GradientNorms
from rnnclf.training.loop import EpochResult
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher, train

FILE = Path(__file__).with_suffix(".jsonl")
WAVES = "waves.csv"
SETS = {
    "digits": "dataset=digits",
    "waves": f"dataset=table dataset.path={WAVES}",
    **{
        name: f"dataset=archive dataset.path=AEON/{name}/{name}_TRAIN.ts"
        for name in ("JapaneseVowels", "BasicMotions", "GunPoint", "ItalyPowerDemand", "ArrowHead")
    },
}
GOOD = (
    [f"{data} {more}" for data in SETS for more in ("cell=gru hidden=30", "cell=basic hidden=30 dropout=0.3")]
    + [f"{data} cell=lstm hidden=30 epochs=60" for data in SETS]
    + [f"{data} cell=gru hidden=30 schedule=constant batch_size=16" for data in SETS]
    + [f"{data} cell=lru hidden=30" for data in SETS]
    + [f"digits cell={cell} hidden=50 augment=image" for cell in ("lstm", "gru", "mgu", "qrnn", "s5")]
    + [f"digits cell=gru hidden=50 dropout=0.5 seed={seed}" for seed in range(3)]
    + ["digits cell=gru protocol=tutorial", "JapaneseVowels cell=gru protocol=tutorial"]
)
HARSH = [
    f"{data} {cell} {rest}"
    for data in ("digits", "JapaneseVowels", "waves")
    for cell in ("cell=basic hidden=100", "cell=lstm hidden=100")
    for rest in (
        "optimizer.lr=0.01 clip=null",
        "optimizer.lr=0.02 clip=null",
        "optimizer.lr=0.05 clip=null schedule=constant",
    )
]
MNIST = [
    f"dataset=mnist cell=basic {rest}"
    for rest in (
        "epochs=25 augment=image optimizer.lr=0.01 clip=null",
        "epochs=25 augment=image optimizer.lr=0.005",
        "epochs=10 optimizer.lr=0.002",
        "epochs=15 optimizer.lr=0.01 protocol=tutorial",
    )
]


class Curve(Watcher):
    def __init__(self) -> None:
        self.results: list[EpochResult] = []

    def epoch(self, result: EpochResult, best: bool) -> None:
        self.results.append(result)


def trained(words: str) -> list[EpochResult]:
    name, *rest = words.split()
    written = [
        word.replace("AEON", str(files("aeon") / "datasets" / "data"))
        for word in SETS.get(name, name).split()
    ]
    epochs = [] if "epochs=" in words else ["epochs=40"]
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        config = load_config([*epochs, *written, *rest, "plots=false", "threads=1"])
        train(config, RunFolder(Path(folder) / "run"), curve)
    return curve.results


def row(result: EpochResult) -> list[float]:
    scores = [n for s in (result.train, result.validation) for n in (s.correct, s.total, round(s.loss, 5))]
    norms = () if result.gradients is None else astuple(result.gradients)
    return [*scores, *(float(f"{number:.4g}") for number in (result.learning_rate, *norms))]


def results_of(rows: list[list[float]]) -> list[EpochResult]:
    return [
        EpochResult(n, Score(*row[:3]), Score(*row[3:6]), row[6], 0.0, GradientNorms(*row[7:]))
        for n, row in enumerate(rows, 1)
    ]


def saved() -> Iterator[tuple[str, str, list[EpochResult]]]:
    for line in FILE.read_text().splitlines() if FILE.exists() else ():
        run = json.loads(line)
        yield run["kind"], run["run"], results_of(run["epochs"])


def collect(kinds: list[str]) -> None:
    done = {run for _, run, _ in saved()}
    if not Path(WAVES).exists():
        make(Path(WAVES), Waves(sequences=200))
    for kind, runs in {"good": GOOD, "harsh": HARSH, "mnist": MNIST}.items():
        for words in runs if kind in kinds else ():
            if words in done:
                continue
            try:
                rows = [row(result) for result in trained(words)]
            except Exception as error:
                print(kind, words, "failed:", error, flush=True)
                continue
            with open(FILE, "a") as file:
                file.write(
                    json.dumps({"kind": kind, "run": words, "epochs": rows}, separators=(",", ":")) + "\n"
                )
            print(kind, words, flush=True)


def judge() -> None:
    """Prints what is found in each run that has a break, and the number of such runs of each kind."""
    runs, with_breaks = Counter[str](), Counter[str]()
    for kind, run, results in saved():
        found = breaks_in(results)
        runs[kind] += 1
        with_breaks[kind] += bool(found)
        best = max(results, key=lambda result: result.validation.accuracy).epoch
        for one in found:
            print(f"{kind}: {run}\n    {in_words(one, None if 'clip=null' in run else 1.0, best)}")
    for kind in runs:
        print(f"{kind}: {with_breaks[kind]} of {runs[kind]} runs have a break")


def main(words: list[str]) -> None:
    if words[:1] == ["train"]:
        collect(words[1:] or ["good", "harsh", "mnist"])
    else:
        judge()


if __name__ == "__main__":
    main(sys.argv[1:])
