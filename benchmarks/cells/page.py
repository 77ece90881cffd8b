"""Writes docs/cells.md from the raw figures of benchmarks/cells/ and benchmarks/engines/.

python benchmarks/cells/page.py
"""

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean, median, stdev

from rnnclf.cells import CELLS
from rnnclf.engine.choose import choose
from rnnclf.readout import READOUTS

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, str]

HEAD = """# The cells compared

`rnnclf list cells` lists them, `rnnclf show cell NAME` has the equations, the paper and the options
of each. This page is written by `python benchmarks/cells/page.py` from the raw figures in
[`benchmarks/cells/results.csv`](../benchmarks/cells/results.csv) and
[`benchmarks/engines/results.csv`](../benchmarks/engines/results.csv). Measured on two CPU cores
with torch 2.15.

## On the digits, at about 30,000 parameters

8 × 8 digits, row by row: eight steps of eight features, 1,257 sequences to train on, 180 to choose
by, 360 to test on. Each cell is as wide as `match_parameters=30k` makes it, and is trained for 30
epochs with the default recipe (Adam, one cycle, batches of 150, one thread) at two learning rates
with three seeds each. The learning rate is that of the best mean accuracy on the *validation*
split; the accuracy is the mean over the three seeds on the test split, with the standard deviation
between seeds. With 360 sequences the 95 % interval of a single run is about two points to
either side: smaller differences say little. Nearly every cell took the larger rate: a wider search would move
the figures. Eight steps say nothing about long memory.

"""

MIDDLE = """
`esn` trains its head only: the weights of its {esn_hidden} units are fixed and not counted. Repeat
it with `python benchmarks/cells/measure.py benchmarks/cells/results.csv`.

## Engines, on MNIST pixel by pixel

Milliseconds of one training step (forward, backward, Adam) of one layer of 64 units, two threads,
and in brackets the memory it takes in MiB. `auto` was measured by itself, so that the noise of the machine
shows; *takes* is the engine that it picks, and the last column compares that engine's time with the
fastest. 196, 784 and 3,136 steps are the images at 14 × 14, 28 × 28 and 56 × 56 pixels. `—` took
more than 16 GiB of memory.

"""

TAIL = """Repeat it with `python benchmarks/engines/measure.py MNIST_FOLDER
benchmarks/engines/results.csv`. On a GPU: not measured.
"""


def read(path: Path) -> list[Row]:
    with open(path) as file:
        return list(csv.DictReader(file))


def cells_table(rows: list[Row]) -> Iterator[str]:
    yield "| cell | family | engine | hidden | parameters | learning rate | test accuracy, % | s/epoch |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, group in groupby(rows, key=lambda row: row["cell"]):
        kind = CELLS[name]
        engine = choose(kind(), "cpu", every_step=False)
        yield f"| `{name}` | {kind.family} | {engine} | {figures(list(group))} |"


def figures(rows: list[Row]) -> str:
    """The figures of one cell at its best learning rate; a run that failed is said so."""
    by_rate = {rate: [row for row in rows if row["lr"] == rate] for rate in {row["lr"] for row in rows}}
    whole = {rate: runs for rate, runs in by_rate.items() if not any(run["error"] for run in runs)}
    failed = sum(bool(row["error"]) for row in rows)
    if not whole:
        return f"| | | failed: {rows[0]['error']} | "
    rate = max(sorted(whole), key=lambda rate: mean(float(run["validation"]) for run in whole[rate]))
    runs = whole[rate]
    tests = [100 * float(run["test"]) for run in runs]
    accuracy = f"{mean(tests):.2f} ± {stdev(tests):.2f}" + (f" ({failed} of 6 runs failed)" if failed else "")
    seconds = median(float(run["epoch_seconds"]) for run in runs)
    return f"{runs[0]['hidden']} | {int(runs[0]['parameters']):,} | {rate} | {accuracy} | {seconds:.2f}"


def engines_table(rows: list[Row], readout: str) -> Iterator[str]:
    yield f"`readout={readout}`:\n"
    yield "| cell | steps | batch | loop | scan | fft | auto | takes | its time / best |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
    own = [row for row in rows if row["readout"] == readout]
    for (cell, steps, batch), group in groupby(
        own, key=lambda row: (row["cell"], row["steps"], row["batch"])
    ):
        found = {row["engine"]: row for row in group}
        cells = [one(found.get(engine)) for engine in ("loop", "scan", "fft", "auto")]
        best = min(float(row["seconds"]) for name, row in found.items() if name != "auto" and measured(row))
        taken = choose(CELLS[cell](), "cpu", READOUTS[readout].every_step)
        share = float(found[taken]["seconds"]) / best
        yield f"| `{cell}` | {int(steps):,} | {batch} | {' | '.join(cells)} | {taken} | {share:.2f} |"


def measured(row: Row) -> bool:
    return row["seconds"] != "nan"


def one(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{1000 * float(row['seconds']):,.1f} ({int(row['MiB']):,})" if measured(row) else "—"


def page() -> str:
    cells = read(ROOT / "benchmarks" / "cells" / "results.csv")
    engines = read(ROOT / "benchmarks" / "engines" / "results.csv")
    esn_hidden = next(f"{int(row['hidden']):,}" for row in cells if row["cell"] == "esn")
    parts = [HEAD, "\n".join(cells_table(cells)), "\n", MIDDLE.format(esn_hidden=esn_hidden)]
    for readout in ("last", "mean"):
        parts += ["\n".join(engines_table(engines, readout)), "\n\n"]
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    (ROOT / "docs" / "cells.md").write_text(page(), encoding="utf-8")
