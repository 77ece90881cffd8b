"""The list of `rnnclf runs`. The records may come from anywhere, so any text in them may be anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from rnnclf.console.screen import screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.listing import Listed

LONGEST = 400  # characters of the words of a run; --json has all
ROOM = 36  # columns of a terminal for these words, below which they get a line of their own
STYLES = {"done": "green", "failed": "red", "evaluation": ""}
TITLES = {"when": "began", "name": "name", "state": "state", "accuracy": "accuracy"}


class Line(NamedTuple):
    """A run as it is shown."""

    path: str
    when: str
    """'' if its path says it."""
    name: str
    """'' if its path says it."""
    state: str
    accuracy: str
    words: str
    style: str


def show_runs(listed: Sequence[Listed], folder: Path) -> None:
    console = screen()
    if not listed:
        console.print(Text(f"no runs below {short(folder)}"))
        return
    lines = list(map(line_of, listed))
    shown = [key for key in TITLES if any(getattr(line, key) for line in lines)]
    if not console.is_terminal:
        _print_plain(console, lines, shown)
        return
    taken = sum(_width(lines, key) + 3 for key in ("path", *shown))
    if taken + ROOM <= console.width:
        console.print(_table(lines, shown))
    else:
        _print_stacked(console, lines, shown)
    for sentence in _legend(listed):
        console.print(Text(sentence, style="dim"))


def line_of(listed: Listed) -> Line:
    path, name = listed.path, listed.name or ""
    dated = re.match(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", "/".join(path.absolute().parts[-2:]))
    return Line(
        path=short(path),
        when="" if dated else listed.when[:16],
        name="" if path.name.endswith(f"_{name}") else name,
        state=_state(listed),
        accuracy=_accuracy(listed),
        words=_cut(" ".join(listed.words), LONGEST),
        style=STYLES.get("evaluation" if listed.kind == "evaluation" else listed.state, "yellow"),
    )


def _state(listed: Listed) -> str:
    if listed.kind == "evaluation":
        return "evaluation"
    state = _cut(listed.state, 20)
    if listed.kind == "search":
        parts = [f"{n:,} {each}" for each, n in listed.jobs if each not in ("done", listed.state)]
        trials = f"{listed.job_count:,} trial{'' if listed.job_count == 1 else 's'}"
        return f"{state}, {trials}" + (f" ({', '.join(parts)})" if parts else "")
    if listed.kind != "sweep":
        return state
    done, count = dict(listed.jobs).get("done", 0), listed.job_count
    jobs = f"{count:,} job{'' if count == 1 else 's'}" if done == count else f"{done:,} of {count:,} jobs"
    return f"{state}, {jobs}"


def _accuracy(listed: Listed) -> str:
    if listed.accuracy is None:
        return ""
    split = "" if listed.split == "test" else f"{_cut(listed.split or '', 20)} "
    return f"{split}{percent(listed.accuracy)}"


def _cut(text: str, most: int) -> str:
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - 2]} …"


def _table(lines: Sequence[Line], shown: Sequence[str]) -> PlainTable:
    table = PlainTable()
    table.add_column("run", no_wrap=True)
    for key in shown:
        table.add_column(TITLES[key], no_wrap=True, justify="right" if key == "accuracy" else "left")
    table.add_column("words")
    for line in lines:
        cells = [Text(getattr(line, key), style=line.style if key == "state" else "") for key in shown]
        table.add_row(Text(line.path, style="cyan"), *cells, Text(line.words))
    return table


def _print_stacked(console: Console, lines: Sequence[Line], shown: Sequence[str]) -> None:
    """Each path in a line of its own, so that it can be copied whole, and the rest below it."""
    for line in lines:
        console.print(Text(line.path, style="cyan"), soft_wrap=True)
        below = Text(overflow="fold")
        for key, text in _aligned(lines, shown, line):
            below.append(f"{text}  ", style=line.style if key == "state" else "")
        console.print(Padding(below.append(line.words, style="dim"), (0, 0, 0, 2)))


def _print_plain(console: Console, lines: Sequence[Line], shown: Sequence[str]) -> None:
    """A line for each run, however long, for pipes and grep."""
    for line in lines:
        parts = [text for _, text in _aligned(lines, ("path", *shown), line)]
        console.print(Text("  ".join([*parts, line.words]).rstrip()), soft_wrap=True)


def _aligned(lines: Sequence[Line], keys: Sequence[str], line: Line) -> Iterator[tuple[str, str]]:
    for key in keys:
        text = getattr(line, key)
        rest = " " * (_width(lines, key) - cell_len(text))
        yield key, rest + text if key == "accuracy" else text + rest


def _width(lines: Sequence[Line], key: str) -> int:
    return max(cell_len(getattr(line, key)) for line in lines)


def _legend(listed: Sequence[Listed]) -> Iterator[str]:
    yield "accuracy: on the test split unless stated otherwise"
    if any(each.kind == "sweep" and each.accuracy is not None for each in listed):
        yield "of a sweep: that of the configuration with the best validation accuracy"
    if any(each.kind == "search" and each.accuracy is not None for each in listed):
        yield "of a search: the validation accuracy of its best trial, which was chosen by it: optimistic"
    if any(each.state == "lost" for each in listed):
        yield "lost: its process ended without reporting, or its record is damaged"


def lines_of(listed: Sequence[Listed]) -> list[dict[str, Any]]:
    """A line for each, for CSV."""
    return [
        {
            **{"path": str(each.path), "kind": each.kind, "state": each.state, "name": each.name},
            **{"started": each.when, "split": each.split, "accuracy": each.accuracy},
            **{"jobs": each.job_count or None, "done": dict(each.jobs).get("done", 0) if each.jobs else None},
            "words": " ".join(each.words),
        }
        for each in listed
    ]
