"""How far the logits of exported files are from those of the classifier, for every cell.

    python benchmarks/export/cells.py            measures: cells.json, and the table of docs/deploying.md
    python benchmarks/export/cells.py page       writes the table only

Two stacks: one layer that reads the last state, and two residual layers in both directions with a batch norm,
whose states attention reads. Eight sequences of 1 to 40 steps, random weights, float32. A difference is the
largest of all logits, divided by the largest logit.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rnnclf.cells import CELLS
from rnnclf.conformance.cells import made
from rnnclf.export.whole import Answers, whole_model
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.export.exporting import CLASSES, logits_of

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploying.md"

ATTENTION = Stack(layers=2, bidirectional=True, norm="batch", residual=True, readout="attention")
STACKS = {"one layer": Stack(), "two layers, both directions": ATTENTION}
RUNTIMES = ("onnxruntime", "reference")
INPUTS, BATCH, STEPS = 4, 8, 40


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, C) with NaN after the ends, and lengths (B,) of 1 to T steps."""
    x_BTC = torch.randn(BATCH, STEPS, INPUTS)
    lengths_B = torch.linspace(1, STEPS, BATCH).long()
    x_BTC[torch.arange(STEPS) >= lengths_B.unsqueeze(-1)] = float("nan")
    return x_BTC, lengths_B


def differences(name: str, stack: Stack) -> dict[str, float]:
    """By runtime."""
    torch.manual_seed(0)
    model = SequenceClassifier(made(CELLS[name]), INPUTS, len(CLASSES), stack).eval()
    x_BTC, lengths_B = sequences()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
        wanted_BK = model(x_BTC, lengths_B).numpy()
    proto = whole_model(model, None, Answers(CLASSES))
    feed = {"x": x_BTC, "lengths": lengths_B}
    largest = abs(wanted_BK).max()
    return {
        runtime: float(abs(logits_of(proto, feed, runtime) - wanted_BK).max() / largest)
        for runtime in RUNTIMES
    }


def measure() -> dict[str, Any]:
    found = {name: {stack: differences(name, STACKS[stack]) for stack in STACKS} for name in CELLS.names()}
    packages = ("torch", "onnx", "onnxruntime")
    return {"versions": {name: version(name) for name in packages}, "differences": found}


def table(found: dict[str, Any]) -> Iterator[str]:
    heads = [f"{stack}: {runtime}" for stack in STACKS for runtime in RUNTIMES]
    yield f"| cell | {' | '.join(heads)} |"
    yield f"| --- {'| ---: ' * len(heads)}|"
    for name, stacks in found["differences"].items():
        cells = (f"{stacks[stack][runtime]:.0e}" for stack in STACKS for runtime in RUNTIMES)
        yield f"| `{name}` | {' | '.join(cells)} |"


def page(text: str) -> str:
    """The page with the table as the raw figures have it."""
    lines = "\n".join(table(json.loads(RESULTS.read_text())))
    return re.sub(
        r"(<!-- cells -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{lines}\n\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    if sys.argv[1:] != ["page"]:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
