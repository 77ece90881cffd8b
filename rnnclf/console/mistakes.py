"""The most confident mistakes of a classifier, each drawn small."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rnnclf.console.drawing import drawn, halved, light_of
from rnnclf.console.screen import screen
from rnnclf.data.layout import PictureLayout
from rnnclf.data.recordings import Array
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.evaluate import Evaluated
from rnnclf.workflows.mistakes import Mistake, Mistakes, common_scale

CHANNELS = 3  # maximum number that is drawn
NAME = 30  # characters of a class, an id or a channel
PLACE = 60  # characters of a file and a line
LINE_WIDTH = 60  # maximum columns of a drawn channel
PICTURE_WIDTH = 34  # columns of a picture and the words above it


def show_mistakes(results: Sequence[Evaluated], most: int) -> None:
    """Prints the `most` most confident mistakes of each checkpoint."""
    console = screen()
    several = len(results) > 1
    for result in results:
        if result.mistakes or (result.mistakes is not None and several):  # what a single one has, details say
            where = f"{result.path}: " if several else ""
            console.print(_mistakes(result.mistakes, most, where, result.config.dataset.layout(), console))


def _mistakes(
    found: Mistakes, most: int, where: str, layout: PictureLayout | None, console: Console
) -> RenderableType:
    shown = list(islice(found, most))
    total = found.evaluation.score.total
    if not shown:
        return Text(one_line(f"{where}none of the {total:,} sequences is misclassified"), style="bold")
    which = f"the {len(shown):,} most confident of " if len(shown) < len(found) else ""
    are = f"{which}{len(found):,} {'mistake' if len(found) == 1 else 'mistakes'} in {total:,} sequences"
    headline = Text(one_line(f"{where}{are}"), style="bold")
    values = [found.values(mistake) for mistake in shown]
    if layout is None:
        parts = _series(shown, values, found.channels[:CHANNELS], console.width)
    else:
        greys = console.color_system in ("256", "truecolor") and not console.options.ascii_only
        parts = [_pictures(shown, values, layout, greys)]
    return Group(headline, "", *parts)


def _pictures(
    shown: Sequence[Mistake], values: Sequence[Array], layout: PictureLayout, greys: bool
) -> RenderableType:
    cells = []
    for number, (mistake, x_TC) in enumerate(zip(shown, values, strict=True), start=1):
        words = Group(_headed(number, mistake), *halved(light_of(x_TC, layout), greys))
        cells.append(Padding(words, (0, 0, 1, 0)))
    return Columns(cells, width=PICTURE_WIDTH)


def _series(
    shown: Sequence[Mistake], values: Sequence[Array], channels: Sequence[str], width: int
) -> list[RenderableType]:
    """Each mistake with a line for each channel, at a common scale of the channel and of time."""
    names = [_short(name) for name in channels]
    room = max(min(LINE_WIDTH, width - 6 - max(map(len, names))), 10)
    longest = max(map(len, values))
    scales = [common_scale([x_TC[:, c] for x_TC in values]) for c in range(len(names))]
    parts: list[RenderableType] = []
    for number, (mistake, x_TC) in enumerate(zip(shown, values, strict=True), start=1):
        columns = len(x_TC) if longest <= room else max(round(len(x_TC) / longest * room), 1)
        grid = Table.grid(padding=(0, 1))
        for c, name in enumerate(names):
            line = drawn(x_TC[:, c], columns, scales[c])
            grid.add_row(Text(name, style="dim"), Text(line, style="cyan", no_wrap=True))
        parts += [_headed(number, mistake), Padding(grid, (0, 0, 1, 4))]
    return parts


def _headed(number: int, mistake: Mistake) -> Text:
    """Number, class and predicted class with its probability; below, the id and the place."""
    text = Text(f"{number:>3} ", style="dim")
    text.append(_short(mistake.label), style="bold not dim").append(" taken for ", style="not dim")
    text.append(_short(mistake.predicted), style="bold red not dim")
    text.append(f", {percent(mistake.probability)}", style="not dim")
    text.append(f"\n    id {_short(str(mistake.id))}")
    return text.append(f"; {_short(mistake.place, PLACE)}" if mistake.place != str(mistake.id) else "")


def _short(name: str, most: int = NAME) -> str:
    name = one_line(name)
    return name if len(name) <= most else f"{name[: most - 2]} …"
