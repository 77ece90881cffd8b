"""How the time of a training step grows with each size, beside torch's own layers.

    python benchmarks/growth/measure.py results.jsonl     # measures what the file lacks, prints the table
    python benchmarks/growth/measure.py --table results.jsonl

From the tutorial's sizes (150 units, batch 150, 28 steps of 28 features, one layer) one is changed at a
time. A line of the file is what `rnnclf bench --json` printed for one size: engines and torch's layer take
turns.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SIZES = {
    "hidden": (64, 150, 512, 1024),
    "batch": (32, 1024),
    "length": (112, 784),
    "layers": (2, 4),
}
CELLS = ("basic", "lstm", "gru")


def measure(path: Path, command: str, seconds: float) -> None:
    there = {(line["size"], line["value"], line["cell"]) for line in read(path)}
    with open(path, "a") as file:
        for size, values in SIZES.items():
            for value in values:
                for cell in CELLS:
                    if (size, value, cell) in there:
                        continue
                    words = [
                        command,
                        "bench",
                        cell,
                        f"--{size}",
                        str(value),
                        "--seconds",
                        str(seconds),
                        "--json",
                    ]
                    printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
                    found = json.loads(printed)
                    file.write(json.dumps({"size": size, "value": value, "cell": cell, **found}) + "\n")
                    file.flush()
                    print(f"{cell}, {size} {value}", file=sys.stderr)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(lines: list[dict]) -> str:
    """Markdown: milliseconds of a step with engine=auto, and how many times as long torch's layer takes."""
    rows = [
        "| size | cell | engine | ms | torch / rnnclf |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for line in lines:
        batch = line["settings"]["batch"]
        by_engine = {row["engine"]: row for row in line["rows"]}
        ours = [row for row in line["rows"] if row["auto"]]
        rate = min(row["training"] for row in ours)  # with several layers the top one may have another engine
        own = next(row for row in ours if row["training"] == rate)
        times = rate / by_engine["torch"]["training"]
        cells = (
            f"{line['size']} {line['value']}", f"`{line['cell']}`", own["engine"],
            f"{1000 * batch / rate:.2f}", f"{times:.2f}",
        )  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table only")
    parser.add_argument("--rnnclf", default="rnnclf", help="the command")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each engine and size")
    options = parser.parse_args()
    if not options.table:
        measure(options.results, options.rnnclf, options.seconds)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
