"""Seconds of a training epoch on a GPU: rnnclf against torch's layer in a plain loop, alternating.

python benchmarks/gpu/measure.py --mnist DIR --out results.jsonl --rounds 3

Each is a process of its own and trains the row-MNIST task. Of rnnclf an epoch is what epochs.csv calls so,
the scoring of 5,000 validation images included; of the plain loop it is training alone. The first epoch of
each, in which libraries are loaded and steps recorded, is kept in the raw line and not counted.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MODELS = (("basic", 150), ("lstm", 128), ("lstm", 150), ("gru", 128), ("gru", 150))
BATCHES = (150, 1024)
WAYS = {
    "torch": None,
    "rnnclf": (),
    "rnnclf graph=false": ("graph=false",),
}
ROUNDED = {
    "torch tf32": None,
    "rnnclf tf32": ("precision=tf32",),
    "rnnclf bf16": ("precision=bf16",),
}


def torch_loop(way, model, hidden, batch, options):
    words = ["--model", model, "--hidden", hidden, "--batch", batch, "--epochs", options.epochs]
    words += ["--mnist", options.mnist, *(["--tf32"] if "tf32" in way else [])]
    done = subprocess.run(
        [sys.executable, HERE / "torch_loop.py", *map(str, words)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def rnnclf(changes, model, hidden, batch, options):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [f"cell={model}", f"hidden={hidden}", f"batch_size={batch}", f"epochs={options.epochs}"]
        words += ["device=cuda", f"dataset.root={options.mnist}", f"hydra.run.dir={run}", *changes]
        command = [sys.executable, "-m", "rnnclf", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        rows = list(csv.DictReader((run / "epochs.csv").read_text().splitlines()))
        seconds = [float(row["seconds"]) for row in rows]
        accuracy = float(rows[-1]["validation_accuracy"])
    return {
        "epoch_seconds": seconds,
        "validation_accuracy": round(accuracy, 4),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mnist", type=Path, required=True, help="the folder with MNIST/raw/*.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--models", type=lambda text: text.split(","), help="such as basic:150,lstm:128")
    parser.add_argument("--rounded", action="store_true", help="tf32 and bf16, too")
    options = parser.parse_args()
    models = [(m.split(":")[0], int(m.split(":")[1])) for m in options.models] if options.models else MODELS
    ways = WAYS | (ROUNDED if options.rounded else {})
    medians = {}
    with options.out.open("a") as out:
        for number in range(options.rounds):
            for model, hidden in models:
                for batch in BATCHES:
                    for way, changes in ways.items():
                        if changes is None:
                            found = torch_loop(way, model, hidden, batch, options)
                        else:
                            found = rnnclf(changes, model, hidden, batch, options)
                        key = {"model": model, "hidden": hidden, "batch": batch, "way": way}
                        print(json.dumps({"round": number, **key, **found}), file=out, flush=True)
                        counted = found["epoch_seconds"][1:]
                        medians.setdefault((model, hidden, batch, way), []).extend(counted)
    for key, seconds in medians.items():
        print(*key, f"{statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f}")


main()
