"""The look of all charts: on paper, on a light screen and on a dark one.

The colours are those that Okabe and Ito (2008, https://jfly.uni-koeln.de/color/) chose for readers with any
colour vision, in an order in which neighbours differ in lightness, too.
"""

from __future__ import annotations

from typing import Any

BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
SERIES = (BLUE, RED, GREEN, PURPLE, "#e69f00", "#56b4e9", "#8c6d1f", "#6b6b6b")

INK, MUTED, GRID, PAPER = "#1f2430", "#5c6470", "#dfe3e8", "#ffffff"
RIGHT, WRONG, ON_RIGHT = "#0070b0", "#d35c00", "#fffffe"
"""Of cells and the numbers in them, which look the same on dark screens."""
IN_A_PAGE = {
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
}
"""The names under which a page defines these colours, once for light and once for dark screens."""

FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""Fonts of the same widths, one of which is there on every system: a chart is laid out before it is shown."""
LABEL_PIXELS = 150  # of the longest name of a class or a configuration that is shown whole


def look() -> dict[str, Any]:
    """The part of a chart's specification that says what it looks like."""
    return {
        "font": FONT,
        "background": PAPER,
        "padding": 6,
        "view": {"stroke": None},
        "axis": {
            **{"labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID},
            **{"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "ticks": False},
            **{"labelPadding": 5, "titlePadding": 8, "labelLimit": LABEL_PIXELS, "domain": False},
        },
        "title": {
            **{"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10},
            **{"subtitleColor": MUTED, "subtitleFontSize": 11, "subtitlePadding": 4},
        },
        "legend": {
            **{"labelColor": INK, "titleColor": MUTED, "labelFontSize": 11, "titleFontSize": 11},
            **{"orient": "top", "direction": "horizontal", "title": None, "labelLimit": LABEL_PIXELS},
            **{"symbolStrokeWidth": 3, "padding": 0, "offset": 6},
        },
        "text": {"color": INK, "fontSize": 11},
        "line": {"strokeWidth": 2, "strokeCap": "round", "strokeJoin": "round"},
        "range": {"category": list(SERIES)},
    }
