"""The table of docs/many-machines.md from the lines that measure.py has written.

python benchmarks/search/table.py [results.jsonl]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev


def table(path: Path) -> str:
    """Means over the repetitions, in per cent, with the standard deviation of the test accuracy."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [
        "| data | way | trials | best trial, validation | its point, validation | its point, test |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for data, way in dict.fromkeys((row["data"], row["way"]) for row in rows):
        own = [row for row in rows if (row["data"], row["way"]) == (data, way)]
        test = [100 * row["test"] for row in own]
        shown = [100 * mean(row[key] for row in own) for key in ("best_trial_validation", "validation")]
        trials = f"{mean(row['trials'] for row in own):.0f}"
        spread = f" ± {stdev(test):.2f}" if len(test) > 1 else ""
        cells = [data, way, trials, *(f"{value:.2f}" for value in shown), f"{mean(test):.2f}{spread}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results.jsonl"))
