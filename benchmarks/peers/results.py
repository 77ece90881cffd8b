"""The table and the picture of what run.py has measured."""

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OURS = "rnnclf"
TITLES = {"basic": "basic (tanh)", "lstm": "LSTM", "gru": "GRU"}


@dataclass(frozen=True)
class Figure:
    """A peer with one model and one number of threads, over all rounds. Seconds are medians."""

    peer: str
    model: str
    threads: int
    epoch: float  # of all epochs but the first of each process
    low: float  # the least and the greatest of the rounds' medians
    high: float
    first: float  # the first epoch, in which peers compile
    command: float  # the whole process
    accuracy: float


def read(path: Path) -> list[dict[str, Any]]:
    """The results that are whole, in the order of running; failed ones are left out, to be run again."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "error" not in line]


def best(measured: list[dict[str, Any]]) -> dict[str, list[Figure]]:
    """For each model each peer with its better number of threads, the fastest first."""
    groups = defaultdict(list)
    for result in measured:
        groups[result["model"], result["peer"], result["threads"]].append(result)
    chosen: dict[tuple[str, str], Figure] = {}
    for (model, peer, _), results in groups.items():
        figure = summary(results)
        if (model, peer) not in chosen or figure.epoch < chosen[model, peer].epoch:
            chosen[model, peer] = figure
    models = dict.fromkeys(model for model, _ in chosen)
    fastest = sorted(chosen.values(), key=lambda figure: figure.epoch)
    return {model: [figure for figure in fastest if figure.model == model] for model in models}


def summary(results: list[dict[str, Any]]) -> Figure:
    rounds = [result["epoch_seconds"][1:] for result in results]
    medians = [statistics.median(seconds) for seconds in rounds]
    return Figure(
        peer=results[0]["peer"],
        model=results[0]["model"],
        threads=results[0]["threads"],
        epoch=statistics.median(second for seconds in rounds for second in seconds),
        low=min(medians),
        high=max(medians),
        first=statistics.median(result["epoch_seconds"][0] for result in results),
        command=statistics.median(result["wall_seconds"] for result in results),
        accuracy=statistics.median(result["validation_accuracy"] for result in results),
    )


def ratio(figure: Figure, figures: list[Figure]) -> str:
    """How many times the seconds of rnnclf, '' where it was not measured."""
    ours = [other.epoch for other in figures if other.peer == OURS]
    return f"{figure.epoch / ours[0]:.2f}" if ours else ""


def conditions(measured: list[dict[str, Any]]) -> str:
    machine, epochs, limit = (measured[0][name] for name in ("machine", "epochs", "limit"))
    rounds = max(result["round"] for result in measured) + 1
    waited = sum(result["waited_seconds"] for result in measured)
    part = "" if limit is None else f"; ONLY {limit:,} IMAGES, a trial"
    return (
        f"{machine['cpu']}, {machine['cores']} cores; rounds: {rounds}, of {epochs} epochs, "
        f"the first not counted{part}; waited {waited:,.0f} s for an idle machine"
    )


def show(measured: list[dict[str, Any]]) -> None:
    """Prints a table for each model."""
    console = Console(highlight=False)
    for model, figures in best(measured).items():
        table = Table(title=TITLES[model], title_justify="left", title_style="bold", box=None)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)
        table.add_column("peer", no_wrap=True)
        for name in ("threads", "epoch s", "rounds", f"× {OURS}", "first s", "whole s", "acc. %"):
            table.add_column(name, justify="right", no_wrap=True)
        for figure in figures:
            table.add_row(
                figure.peer,
                str(figure.threads),
                f"{figure.epoch:.2f}",
                f"{figure.low:.2f}–{figure.high:.2f}",
                ratio(figure, figures),
                f"{figure.first:.2f}",
                f"{figure.command:.1f}",
                f"{100 * figure.accuracy:.2f}",
                style="bold green" if figure.peer == OURS else None,
            )
        console.print(table)
        console.print()
    console.print(conditions(measured))


WIDTH, LEFT, RIGHT, ROW, BAR = 760, 200, 120, 24, 16  # pixels
STYLE = "text { font: 13px sans-serif; fill: #24292f } .title { font-weight: bold } .quiet { fill: #6e7781 }"


def picture(measured: list[dict[str, Any]]) -> str:
    """An SVG with a panel for each model: a bar for each peer, the fastest on top."""
    shapes: list[str] = []
    top = 34
    for model, figures in best(measured).items():
        shapes.append(f'<text class="title" x="16" y="{top}">{TITLES[model]}</text>')
        longest = max(figure.epoch for figure in figures)
        for number, figure in enumerate(figures):
            width = (WIDTH - LEFT - RIGHT) * figure.epoch / longest
            shapes += bar(figure, ratio(figure, figures), top + 12 + number * ROW, width)
        top += 12 + len(figures) * ROW + 32
    shapes.append(f'<text class="quiet" x="16" y="{top - 6}">{escape(caption(measured))}</text>')
    height = top + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            "<title>Seconds of an epoch with rnnclf and with its peers</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def bar(figure: Figure, times: str, top: float, width: float) -> list[str]:
    ours = figure.peer == OURS
    colour, weight = ("#2da44e", ' class="title"') if ours else ("#afb8c1", "")
    middle = top + BAR - 3
    number = f"{figure.epoch:.2f} s" + (f"  ({times} ×)" if times and not ours else "")
    label = escape(figure.peer.replace("_", " "))
    return [
        f'<text{weight} x="{LEFT - 10}" y="{middle}" text-anchor="end">{label}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        f'<text{weight} x="{LEFT + width + 8:.1f}" y="{middle}">{number}</text>',
    ]


def caption(measured: list[dict[str, Any]]) -> str:
    machine, limit = measured[0]["machine"], measured[0]["limit"]
    images = "55,000 MNIST images by rows" if limit is None else f"ONLY {limit:,} IMAGES, a trial"
    return f"seconds of an epoch: {images}, 150 units, batch 150; {machine['cores']} cores, {machine['cpu']}"
