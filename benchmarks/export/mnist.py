"""Exported models on all 10,000 test sequences of MNIST by rows: classes that differ, accuracy, bytes.

    python benchmarks/export/mnist.py FOLDER

FOLDER holds the runs lstm, gru and basic; those that are missing are trained first, three epochs each. Each
model is exported in every way, and the file is scored as `rnnclf eval FILE` does it, which runs it in
onnxruntime. The figures go to mnist.json beside this script.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rnnclf import evaluate, load_config, train
from rnnclf.workflows.export import export

CELLS = ("lstm", "gru", "basic")
WAYS = {
    "Scan": [],
    "own operator": ["operators=own"],
    "Scan, int8": ["int8=true"],
    "own operator, int8": ["operators=own", "int8=true"],
}


def main() -> None:
    folder = Path(sys.argv[1])
    rows = [row for cell in CELLS for row in measured(cell, folder / cell)]
    packages = {name: version(name) for name in ("rnnclf", "torch", "onnx", "onnxruntime")}
    found = {"versions": packages, "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def measured(cell: str, run: Path) -> list[dict[str, Any]]:
    """A row for each way of writing the model of a run."""
    if not (run / "best.safetensors").exists():
        train(load_config(["dataset=mnist", f"cell={cell}", "hidden=150", "epochs=3"]), run)
    [own] = evaluate(run)
    rows = []
    for way, words in WAYS.items():
        file = run / f"{way.replace(', ', '-').replace(' ', '-')}.onnx"
        exported = export(run, words, file)
        [scored] = evaluate(file)
        ours, theirs = own.evaluation, scored.evaluation
        logits = ours.logits_NK
        rows.append(
            {
                "cell": cell,
                "way": way,
                "sequences": len(logits),
                "classes_that_differ": int(
                    (own.evaluation.predicted_N != scored.evaluation.predicted_N).sum()
                ),
                "largest_difference": float(np.abs(logits - theirs.logits_NK).max()),
                "largest_logit": float(np.abs(logits).max()),
                "correct": theirs.score.correct,
                "correct_by_rnnclf": ours.score.correct,
                "bytes": exported.file.size,
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
