"""The result of checking a data set: facts, findings, an example of each class, the training command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rnnclf.baselines.quick import Quick
from rnnclf.console.drawing import drawn, light_of, shaded
from rnnclf.console.screen import screen, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.data import Checked, Example

if TYPE_CHECKING:
    from rnnclf.data.findings import ChannelFacts
    from rnnclf.data.layout import PictureLayout

CHANNELS = 20  # rows of the table
CLASSES = 30  # rows of the table
NAMES = 16  # of a channel
PICTURES = 10  # maximum number of classes with a drawn example
LINES = 3  # maximum number of channels drawn per example
MARKS = {"doubtful": ("!! ", "bold red"), "warning": ("! ", "bold yellow"), "remark": ("- ", "dim")}
LINE_WIDTH = 60  # maximum columns of a drawn channel


def show_checked(found: Checked) -> None:
    console = screen()
    console.print(_headline(found))
    for note in found.notes:
        console.print(Text(one_line(note), style="dim"))
    for finding in found.findings:
        mark, style = MARKS[finding.severity]
        console.print(Text(mark, style=style).append(one_line(finding.sentence), style="not bold default"))
    console.print(_channels(found))
    console.print(_classes(found))
    console.print(_examples(found, console.width))
    if found.quick is not None:
        console.print(Text(_quick(found.quick)))
    if found.obstacle is None:
        console.print(Text("To train on it:", style="bold"))
        console.print(Text(f"  {found.line}", style="cyan"), soft_wrap=True)
    if found.quick is not None:
        console.print(Text("To try well-known classifiers on the same splits:", style="bold"))
        console.print(Text(f"  {found.baseline_line}", style="cyan"), soft_wrap=True)


def _quick(quick: Quick) -> str:
    share, guess = percent(quick.correct / quick.total), percent(quick.commonest / quick.total)
    return (
        "Nearest neighbours by length, mean, deviation and range of each channel, without the order of steps,"
        f" get {share} of {quick.total:,} training and validation sequences right; guessing {guess}."
    )


def show_made(path: Path, windows: bool = False, blocks: bool = False) -> None:
    """Says that the data were written, and how to look at them.

    windows: whether they are recordings to be cut into windows; blocks: whether these are too few to divide.
    """
    console = screen()
    console.print(Text(f"{short(path)} was written. Look at it, then train on it:"))
    words = [" dataset.window=2.5s"] * windows + [" dataset.block=10min"] * blocks
    line = f"  rnnclf data check {short(path)}{''.join(words)}"
    console.print(Text(line, style="cyan"), soft_wrap=True)


def _headline(found: Checked) -> Text:
    low, middle, high = found.steps
    steps = _counted(high, "step") if low == high else f"{low:,} to {high:,} steps (median {middle:,})"
    classes = len(next(iter(found.members.values())))
    parts = [
        f"{found.sequences:,} sequences of {steps}",
        _counted(len(found.channels), "channel" if found.config.dataset.layout() is None else "feature"),
        _counted(classes, "class"),
    ]
    if found.groups is not None:
        parts.append(_counted(found.groups, "group"))
    return Text(one_line(found.config.dataset.title()), style="bold").append(
        f": {', '.join(parts)}", style="not bold"
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}{'es' if what.endswith('s') else 's'}"


def _channels(found: Checked) -> RenderableType:
    """A row for each channel. Nothing for pictures: statistics of single pixels are of no use."""
    if found.config.dataset.layout() is not None:
        return ""
    table = _table("channel", "missing", "lowest", "mean", "deviation", "highest")
    for channel in found.channels[:CHANNELS]:
        numbers = (channel.low, channel.mean, channel.deviation, channel.high)
        shown = [f"{number:.4g}" for number in numbers] if not channel.names else ["", "", "", ""]
        table.add_row(Text(one_line(channel.name)), f"{channel.missing:,}", *shown)
    rows = _with_rest(table, len(found.channels) - CHANNELS, "channels")
    named = [channel for channel in found.channels[:CHANNELS] if channel.names]
    return Group(rows, *map(_names, named)) if named else rows


def _names(channel: ChannelFacts) -> Text:
    """The names in a channel of names."""
    some = ", ".join(channel.names[:NAMES]) + (" …" if len(channel.names) > NAMES else "")
    counted = _counted(len(channel.names), "name")
    return Text(one_line(channel.name)).append(f": {counted}: {one_line(some)}", style="dim")


def _classes(found: Checked) -> RenderableType:
    table = _table("class", *found.members)
    names = list(next(iter(found.members.values())))
    for name in names[:CLASSES]:
        table.add_row(Text(one_line(name)), *(f"{members[name]:,}" for members in found.members.values()))
    table.add_section()
    table.add_row("together", *(f"{sum(members.values()):,}" for members in found.members.values()))
    return _with_rest(table, len(names) - CLASSES, "classes")


def _table(first: str, *others: str) -> Table:
    table = PlainTable(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _with_rest(table: Table, rest: int, what: str) -> RenderableType:
    return (
        Group(table, Text(f"… and {rest:,} more {what}; --json has all", style="dim")) if rest > 0 else table
    )


def _examples(found: Checked, width: int) -> RenderableType:
    layout = found.config.dataset.layout()
    if layout is not None:
        pictures = [_picture(example, layout) for example in found.examples[:PICTURES]]
        return Padding(Columns(pictures, padding=(0, 2)), (0, 0, 1, 0))
    numeric = {c: channel.name for c, channel in enumerate(found.channels) if not channel.names}
    return _lines(found.examples[:PICTURES], dict(list(numeric.items())[:LINES]), width) if numeric else ""


def _lines(examples: Sequence[Example], channels: dict[int, str], width: int) -> RenderableType:
    """Some channels of an example of each class, with a common scale per channel and in time."""
    import numpy as np

    grid = Table.grid(padding=(0, 1))
    longest = max(len(example.x_TC) for example in examples)
    room = min(LINE_WIDTH, width - 4 - max(len(e.label) for e in examples) - max(map(len, channels.values())))
    for example in examples:
        for c, name in channels.items():
            values = np.concatenate([e.x_TC[:, c] for e in examples])
            scale = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 1.0)
            columns = max(round(len(example.x_TC) / longest * max(room, 10)), 1)
            label = Text(one_line(example.label) if c == min(channels) else "", style="bold")
            line = drawn(example.x_TC[:, c], columns if longest > room else len(example.x_TC), scale)
            grid.add_row(label, Text(one_line(name), style="dim"), Text(line, style="cyan"))
    return Padding(grid, (0, 0, 1, 0))


def _picture(example: Example, layout: PictureLayout) -> RenderableType:
    return Text("\n".join([one_line(example.label), *shaded(light_of(example.x_TC, layout))]), no_wrap=True)
