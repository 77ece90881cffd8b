"""The gradient by time step under two levers, measured by diagnose=true on MNIST.

RNNCLF_DATA=FOLDER python benchmarks/recipes/gradients.py   # writes gradients.jsonl: a line per run
python docs/pictures.py gradients                           # draws docs/recipes-gradients.svg from it
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rnnclf.hydra_app import load_config
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train

FILE = Path(__file__).with_suffix(".jsonl")
COMMON = "cell=basic dataset=mnist epochs=2 diagnose=true"
RUNS = [
    ("recurrent_init", "tensorflow1", "cell.recurrent_init=tensorflow1"),
    ("recurrent_init", "orthogonal", "cell.recurrent_init=orthogonal"),
    ("readout", "last", "cell.recurrent_init=tensorflow1"),  # what readout is by default
    ("readout", "mean", "cell.recurrent_init=tensorflow1 readout=mean"),
]


def measured(words: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        config = load_config([*COMMON.split(), *words.split(), "plots=false"])
        report = train(config, RunFolder(Path(folder) / "run"))
    assert report.diagnosis is not None
    (gradient,) = report.diagnosis.gradients().values()
    return {
        "command": f"rnnclf train {COMMON} {words}",
        "validation_accuracy": report.results["validation"]["accuracy"],
        "radius": report.diagnosis.of((1, "forward"), "radius")["h"],
        "gradient": gradient,
    }


def main() -> None:
    found = {words: measured(words) for words in dict.fromkeys(words for *_, words in RUNS)}
    rows = [{"lever": lever, "name": name, **found[words]} for lever, name, words in RUNS]
    FILE.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
