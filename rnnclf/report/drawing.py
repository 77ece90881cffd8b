"""Charts as SVG and PNG, and sequences as small pictures. Without a network and without a browser.

Shapes: T steps, C channels, H height, W width.
"""

from __future__ import annotations

import base64
import html
import re
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnclf.report.theme import IN_A_PAGE, SERIES

if TYPE_CHECKING:
    from rnnclf.data.recordings import Array
    from rnnclf.report.charts import Chart

PNG_SCALE = 2  # pixels of a PNG for each of the SVG, so that it is sharp in print
LINE_WIDTH, LINE_HEIGHT = 240, 90  # of a drawn series
MOST_POINTS = 240  # of a drawn line; a longer series is averaged
CHANNELS = 4  # maximum number that is drawn


def svg_of(chart: Chart) -> str:
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    return text


def png_of(svg: str) -> bytes:
    import vl_convert

    found: bytes = vl_convert.svg_to_png(svg, scale=PNG_SCALE)
    return found


class PageDrawer:
    """Draws the charts of a page, each with names of its own, which the SVGs of a page share otherwise."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, chart: Chart, words: str) -> str:
        """The SVG of a chart in the colours of the page. words: what it shows, for readers who do not see
        it."""
        self.number += 1
        svg = svg_of(chart)
        for colour, name in IN_A_PAGE.items():
            svg = re.sub(f'"{colour}"', f'"{name}"', svg, flags=re.IGNORECASE)
        svg = re.sub(r'\bid="([^"]*)"', rf'id="f{self.number}-\1"', svg)
        svg = re.sub(r"url\(#([^)]*)\)", rf"url(#f{self.number}-\1)", svg)
        return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)


def picture_url(light_HWC: Array) -> str:
    """A picture of shades from 0 to 1, grey (C = 1) or colour (C = 3), as the address of a PNG that is part
    of the page."""
    import numpy as np

    height, width, colours = light_HWC.shape
    bytes_HWC = (255 * np.nan_to_num(light_HWC).clip(0, 1)).round().astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in bytes_HWC)
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if colours == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def series_svg(x_TC: Array, scales: Sequence[tuple[float, float]], longest: int, words: str) -> str:
    """A series as lines below each other, one for each of the first channels. Missing values are gaps.

    scales: the lowest and highest value of each channel among all series that are shown beside this one.
    longest: the number of steps of the longest of these.
    """
    import numpy as np

    lines = []
    room = max(round(MOST_POINTS * len(x_TC) / longest), 1)
    band = LINE_HEIGHT / min(len(scales), CHANNELS)
    for c, (low, high) in enumerate(scales[:CHANNELS]):
        parts = np.array_split(x_TC[:, c], min(len(x_TC), room))
        step = LINE_WIDTH * len(x_TC) / longest / len(parts)
        for run in _runs([_share(part, low, high) for part in parts]):
            bottom = band * (c + 0.95)
            points = [(step * (place + 0.5), bottom - 0.9 * band * share) for place, share in run]
            if len(points) == 1:  # a value between two gaps
                points.append((points[0][0] + 1, points[0][1]))
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            lines.append(f'<polyline points="{path}" stroke="{IN_A_PAGE[SERIES[c]]}"/>')
    return (
        f'<svg viewBox="0 0 {LINE_WIDTH} {LINE_HEIGHT}" role="img" aria-label="{html.escape(words)}"'
        f' class="series" preserveAspectRatio="none">{"".join(lines)}</svg>'
    )


def _share(part: Array, low: float, high: float) -> float | None:
    """Where the mean of some values lies from `low` to `high`; None if all are missing."""
    import numpy as np

    there = part[np.isfinite(part)]
    if not len(there):
        return None
    return float((there.mean() - low) / (high - low)) if high > low else 0.5


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The values with their places, cut where one is missing."""
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place, value))
    return [run for run in runs if run]
