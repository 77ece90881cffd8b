"""Writes the tables of docs/recipes.md from the raw figures in this folder.

    python benchmarks/recipes/page.py

The page's text is written by hand; each table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from choose import lines_of, means, ranked
from measure import BASE, BEST, GIVEN_UP, LEVERS, PIXELS, ROWS, WITHOUT, lines

from rnnclf.statistics import LEAST_RUNS, mean_and_sd, paired, spread

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "recipes.md"
IMAGES, BATCH = 55_000, 100  # of an epoch of experiment=smnist, and of a step in pixels.jsonl

Runs = dict[int, dict[str, Any]]
"""The lines of a row by seed."""


def runs_of(row: str) -> Runs:
    """The lines of a row as its words are today."""
    return {line["seed"]: line for line in lines() if line["row"] == row and line["words"] == ROWS[row]}


def accuracy(runs: Runs, split: str) -> str:
    return mean_and_sd(spread([line[split] for line in runs.values()]))


def against(runs: Runs, base: Runs, split: str) -> str:
    """The mean difference over the seeds that both have, in points, with its 95 % interval."""
    shared = sorted(runs.keys() & base.keys())
    if len(shared) < LEAST_RUNS:
        return ""
    found = paired([runs[seed][split] - base[seed][split] for seed in shared])
    assert found is not None
    low, high = found.interval95
    return f"{100 * found.mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


COLUMNS = ("", "words", "seeds", "validation", "test", "difference on test, points [95 %]", "radius", "time")


def table(rows: Sequence[str], base: str, words: Callable[[str], str]) -> Iterator[str]:
    """A line for each row that has been measured, with the difference from the row `base`."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| --- | --- {'| ---: ' * (len(COLUMNS) - 2)}|"
    for row in rows:
        if not (runs := runs_of(row)):
            continue
        validation, test = (accuracy(runs, split) for split in ("validation", "test"))
        difference = "" if row == base else against(runs, runs_of(base), "test")
        radii = [line["radius"] for line in runs.values() if "radius" in line]
        radius = f"{median(radii):.1f}" if radii else ""
        seconds = in_words(median(line["seconds"] for line in runs.values()))
        figures = (validation, test, difference, radius, seconds)
        yield f"| {' | '.join((row, f'`{words(row)}`', str(len(runs)), *figures))} |"


def levers() -> Iterator[str]:
    return table(list(LEVERS), BASE, lambda row: LEVERS[row] or ROWS[row])


def together() -> Iterator[str]:
    changed = WITHOUT | GIVEN_UP
    return table(["better", *changed], "better", lambda row: changed.get(row, ROWS[row]))


def best() -> Iterator[str]:
    return table(list(BEST), "best_rows", ROWS.__getitem__)


def chosen(pixels: bool) -> Iterator[str]:
    """The candidates that read pixels or the others, those with the lowest loss on the validation images
    first."""
    yield "| words | seeds | validation loss | validation | training | epochs |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for words, group in ranked():
        if ("smnist" in words) != pixels:
            continue
        loss, validation, training = means(group)
        shares = f"{loss:.4f} | {100 * validation:.2f} % | {100 * training:.2f} %"
        yield f"| `{words}` | {len(group)} | {shares} | {group[0]['epochs']} |"


def costs() -> Iterator[str]:
    """What a recipe costs on a machine that does nothing else; the latest line of each counts."""
    yield "| recipe | threads | an epoch | all epochs |"
    yield "| --- | ---: | ---: | ---: |"
    latest = {(line["recipe"], line["threads"]): line for line in lines_of(HERE / "cost.jsonl")}
    for (recipe, threads), line in latest.items():
        name = f"`experiment={recipe}`"
        yield f"| {name} | {threads} | {line['epoch_seconds']:.1f} s | {in_words(line['seconds'])} |"


def read_pixels() -> Iterator[str]:
    """The recipes that read one pixel per step."""
    yield "| recipe | epochs | seeds | training | validation | test | time |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in PIXELS:
        if runs := runs_of(row):
            epochs = max(line["epochs"] for line in runs.values())
            accuracies = (accuracy(runs, split) for split in ("train", "validation", "test"))
            seconds = in_words(median(line["seconds"] for line in runs.values()))
            yield f"| `{ROWS[row]}` | {epochs} | {len(runs)} | {' | '.join(accuracies)} | {seconds} |"


def pixels() -> Iterator[str]:
    """How long cells take to see every pixel of every image; the latest line of each counts."""
    yield "| cell | read is | a step | an epoch | 100 epochs |"
    yield "| --- | --- | ---: | ---: | ---: |"
    found = lines_of(HERE / "pixels.jsonl")
    latest = {(line["cell"], line["readout"]): line["step_seconds"] for line in found}
    for (cell, readout), step in sorted(latest.items(), key=lambda item: item[1]):
        epoch = step * IMAGES / BATCH
        read = {"mean": "the mean output", "last": "the last output"}[readout]
        times = f"{1000 * step:.0f} ms | {in_words(epoch)} | {100 * epoch / 3600:.1f} h"
        yield f"| `{cell}` | {read} | {times} |"


TABLES = {
    "levers": levers,
    "together": together,
    "best": best,
    "candidates": partial(chosen, pixels=False),
    "costs": costs,
    "read_pixels": read_pixels,
    "pixel_candidates": partial(chosen, pixels=True),
    "pixels": pixels,
}


def page(text: str) -> str:
    """The page with its tables as the raw figures have them."""
    for name, make in TABLES.items():
        lines = "\n".join(make())
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, lines=lines: f"{found[1]}\n{lines}\n\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
