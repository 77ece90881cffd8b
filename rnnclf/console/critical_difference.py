"""The critical-difference diagram (Demšar 2006): methods on an axis of mean ranks, and bars that join those
which are not told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

from rnnclf.escaping import one_line
from rnnclf.workflows.compare import AcrossData

_NOT_IN_XML = re.compile("[\ufffe\uffff]")  # beside what one_line has replaced
Position = Callable[[float], float]  # the x of a rank
WIDTH, SIDE, ROW = 900, 300, 22  # pixels: of the picture, of the names at each side, of a line
LONGEST = 42  # characters of a name


def critical_difference(found: AcrossData) -> str:
    """The diagram as SVG: best at the left; names of the better half at the left side, the others right."""
    ranks, m = found.ranks, len(found.methods)
    order = sorted(range(m), key=lambda method: ranks.mean[method])
    left, right = order[: (m + 1) // 2], order[(m + 1) // 2 :][::-1]

    def x(rank: float) -> float:
        return SIDE + (rank - 1) / (m - 1) * (WIDTH - 2 * SIDE)

    axis, bars = 62, len(ranks.groups)
    first = axis + 14 + 8 * bars + ROW // 2
    height = first + ROW * len(left) + 10
    parts = list(_axis(x, m, axis, ranks.critical))
    for number, group in enumerate(ranks.groups):
        ends = [x(ranks.mean[method]) for method in (group[0], group[-1])]
        parts.append(_line(ends[0] - 3, axis + 10 + 8 * number, ends[1] + 3, axis + 10 + 8 * number, 4))
    for side, methods in (("left", left), ("right", right)):
        parts += _names(found, methods, side, x, axis, first)
    title = escape(f"Mean ranks over {len(found.data)} data sets")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" font-family="sans-serif" font-size="13" stroke-width="1">\n'
        f'<title>{title}</title>\n<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _axis(x: Position, m: int, axis: int, critical: float) -> Iterator[str]:
    yield _line(x(1), axis, x(m), axis)
    for rank in range(1, m + 1):
        yield _line(x(rank), axis - 6, x(rank), axis)
        yield _text(x(rank), axis - 10, str(rank), "middle")
    if critical <= m - 1:
        yield _line(x(1), 20, x(1 + critical), 20)
        for end in (x(1), x(1 + critical)):
            yield _line(end, 16, end, 24)
        yield _text((x(1) + x(1 + critical)) / 2, 13, f"Nemenyi's difference {critical:.2f}", "middle")


def _names(
    found: AcrossData, methods: Sequence[int], side: str, x: Position, axis: int, first: int
) -> Iterator[str]:
    for row, method in enumerate(methods):
        y, rank = first + ROW * row, found.ranks.mean[method]
        edge = SIDE - 12 if side == "left" else WIDTH - SIDE + 12
        yield _line(x(rank), axis, x(rank), y)
        yield _line(x(rank), y, edge, y)
        name = one_line(found.methods[method])
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 2]} …"
        words = f"{name}  {rank:.2f}" if side == "left" else f"{rank:.2f}  {name}"
        yield _text(edge + (-4 if side == "left" else 4), y + 4, words, "end" if side == "left" else "start")


def _line(x1: float, y1: float, x2: float, y2: float, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="black" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(_NOT_IN_XML.sub("", text))}</text>'
