"""The tables of docs/speed.md, from the figures of measure.py and start.py.

python benchmarks/machine_code/table.py RESULTS.jsonl START.jsonl
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ALL = ("engine", "loop", "torch", "step", "jax")
PEERS = {
    "rows": ALL,
    "small": ALL,
    "long": ("engine", "loop", "torch", "jax"),
    "own": ("engine", "loop"),
    "single": ("engine", "loop", "torch"),
    "all_rows": ("engine", "scan"),
    "all_pixels": ("engine", "scan"),
}


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def merged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each cell and setting: ratios that were measured in another process are added."""
    found: dict[Any, dict[str, Any]] = {}
    for line in lines:
        first = found.setdefault((line["setting"], line["cell"]), line)
        first["ratio"] = line["ratio"] | first["ratio"]
    return list(found.values())


def training_steps(lines: list[dict[str, Any]]) -> None:
    """A row for each cell: ms of machine code, then how many times as long the others take."""
    for setting in PEERS:
        found = [line for line in lines if line["setting"] == setting]
        if not found:
            continue
        print(f"\n{setting}\n\n| cell | ms | {' | '.join(PEERS[setting])} |")
        print("| --- | ---: |" + " ---: |" * len(PEERS[setting]))
        for line in found:
            ours = "whole" if "whole" in line["ms"] else "engine"
            ratios = [line["ratio"].get(peer) if peer != ours else None for peer in PEERS[setting]]
            cells = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
            print(f"| `{line['cell']}` | {line['ms'][ours]:.2f} | {' | '.join(cells)} |")
        means = []
        for peer in PEERS[setting]:
            logs = [math.log(line["ratio"][peer]) for line in found if line["ratio"].get(peer)]
            means.append(f"**{math.exp(sum(logs) / len(logs)):.2f}**" if logs else "")
        print(f"| geometric mean | | {' | '.join(means)} |")


def start(lines: list[dict[str, Any]]) -> None:
    print("\n| cell | cold, s | warm, s | loop, s | machine code, MiB | loop, MiB |")
    print("| --- |" + " ---: |" * 5)
    for line in lines:
        seconds = " | ".join(f"{line[name]:.2f}" for name in ("cold_s", "warm_s", "loop_s"))
        print(f"| `{line['cell']}` | {seconds} | {line['cold_MiB']:.0f} | {line['loop_MiB']:.0f} |")


if __name__ == "__main__":
    training_steps(merged(lines_of(sys.argv[1])))
    if len(sys.argv) > 2:
        start(lines_of(sys.argv[2]))
