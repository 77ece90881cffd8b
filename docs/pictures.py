"""Makes the pictures of the README and of the pages here.

python docs/pictures.py             # all, from today's output and from the figures in benchmarks/
python docs/pictures.py gradients   # only the gradients by time step
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rnnclf.console.screen import PICTURE_WIDTH, self_contained

DOCS = Path(__file__).resolve().parent
TRAIN = "rnnclf train cell=basic hidden=150 dataset=digits"
CHECK = "rnnclf data check my.csv"
GRADIENTS = {
    "recurrent_init": "Gradient by time step: initialisation",
    "readout": "Gradient by time step: what is read out",
}
MAKE = "rnnclf data make my.csv"  # before CHECK, outside the picture


def shown(command: str, folder: str) -> str:
    """What a terminal shows in the end, with its colours: each line as last drawn, without bars."""
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm-256color", "COLUMNS": str(PICTURE_WIDTH)}
    words = [sys.executable, "-m", *command.split()]
    env = {**os.environ, **terminal}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=True)
    lines = [re.split(r"\x1b\[2K|\x1b\[1A|\r", line)[-1] for line in done.stdout.split("\n")]
    kept = (re.sub(r"\x1b\[\?25[lh]", "", line) for line in lines if "━" not in line)
    return "\n".join(kept).rstrip()


def save(command: str, output: str, name: str) -> None:
    console = Console(record=True, width=PICTURE_WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
    console.print(Text.from_ansi(output))
    (DOCS / name).write_text(self_contained(console.export_svg(title="rnnclf")), encoding="utf-8")


def draw_gradients() -> None:
    """The gradient by time step under two levers, from the figures of benchmarks/recipes/gradients.py."""
    from rnnclf.report.drawing import svg_of
    from rnnclf.report.gradient_chart import gradients_by_step

    panels: dict[str, dict[str, list[float]]] = {}
    for line in (DOCS.parent / "benchmarks" / "recipes" / "gradients.jsonl").read_text().splitlines():
        run = json.loads(line)
        panels.setdefault(GRADIENTS[run["lever"]], {})[f"{run['lever']}={run['name']}"] = run["gradient"]
    (DOCS / "recipes-gradients.svg").write_text(svg_of(gradients_by_step(panels)), encoding="utf-8")


def main() -> None:
    draw_gradients()
    if sys.argv[1:] == ["gradients"]:
        return
    with tempfile.TemporaryDirectory() as folder:
        save(TRAIN, shown(TRAIN, folder), "train.svg")
        shown(MAKE, folder)
        save(CHECK, shown(CHECK, folder), "check.svg")


if __name__ == "__main__":
    main()
