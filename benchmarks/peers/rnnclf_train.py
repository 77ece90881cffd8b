"""The command `rnnclf train` with the same recipe as its peers.

    python benchmarks/peers/rnnclf_train.py --rnnclf PATH --model gru --epochs 3 --threads 1 --mnist DIR

Its seconds are the column of that name in the run's epochs.csv: unlike the peers' they include the scores on
the images of validation after each epoch. With --limit all other images are for validation, and the seconds
say nothing.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common

IMAGES = 60_000


def overrides(options, folder: Path) -> list[str]:
    validation = common.VALIDATION if options.limit is None else IMAGES - options.limit
    return [
        "dataset=mnist",
        f"dataset.root={options.mnist.resolve()}",
        f"dataset.validation={validation}",
        f"cell={options.model}",
        f"hidden={common.HIDDEN}",
        f"batch_size={common.BATCH}",
        f"epochs={options.epochs}",
        f"threads={options.threads}",
        "device=cpu",
        "optimizer=adam",
        f"optimizer.lr={common.LEARNING_RATE}",
        "schedule=constant",
        "clip=null",
        f"hydra.run.dir={folder}",
    ]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rnnclf", help="the command; left out: the one of this Python, or on the PATH")
    options = common.start(parser)
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = options.rnnclf or shutil.which("rnnclf", path=places)
    if command is None:
        parser.error("there is no rnnclf on the PATH; name it with --rnnclf PATH.")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "run")
        subprocess.run(
            [command, "train", *overrides(options, folder), "--json"], check=True, stdout=subprocess.DEVNULL
        )
        with open(folder / "epochs.csv", newline="") as file:
            epochs = list(csv.DictReader(file))
        versions = json.loads((folder / "provenance.json").read_text())["versions"]
    seconds = [float(epoch["seconds"]) for epoch in epochs]
    used = {name: versions[name] for name in ("rnnclf", "torch")}
    common.report(options, seconds, float(epochs[-1]["validation_accuracy"]), used)


main()
