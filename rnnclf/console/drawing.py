"""Sequences and pictures drawn with characters.

Shapes: T steps, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rnnclf.data.layout import PictureLayout
    from rnnclf.data.recordings import Array

BARS = "▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"
HALVES = " ▄▀█"
"""The two pixels of a character: neither is light, the lower one, the upper one, both."""
SHADED_ROWS = 10  # maximum lines of a shaded picture
HALVED_ROWS = 16  # maximum lines of a picture of half blocks


def drawn(x_T: Array, columns: int, scale: tuple[float, float]) -> str:
    """A channel as a line of bars; `scale` is the range of values. Missing values are shown as spaces."""
    import numpy as np

    low, high = scale
    text = ""
    for part in np.array_split(x_T, min(columns, len(x_T))):
        there = part[~np.isnan(part)]
        share = (there.mean() - low) / (high - low) if len(there) and high > low else 0.5
        text += BARS[min(int(share * len(BARS)), len(BARS) - 1)] if len(there) else " "
    return text


def light_of(x_TC: Array, layout: PictureLayout) -> Array:
    """The picture (H, W) that a sequence encodes, in shades of grey from 0 to 1."""
    light_HW: Array = layout.picture(x_TC).mean(axis=2).clip(0, 1)
    return light_HW


def shaded(light_HW: Array) -> list[str]:
    """Lines of shades. Columns are doubled, since a character is about twice as high as wide."""
    rows = min(len(light_HW), SHADED_ROWS)
    columns = round(2 * rows * light_HW.shape[1] / len(light_HW))
    lights = _resized(light_HW.repeat(2, axis=1), rows, columns)
    return [
        "".join(SHADES[min(int(light * len(SHADES)), len(SHADES) - 1)] for light in row) for row in lights
    ]


def halved(light_HW: Array, greys: bool) -> list[Text]:
    """Lines of half blocks, two pixels to a character. greys: in colours of the terminal, else in black and
    white."""
    import numpy as np

    rows = min(len(light_HW), 2 * HALVED_ROWS)
    columns = round(rows * light_HW.shape[1] / len(light_HW))
    light_RW = np.array(_resized(light_HW, rows, columns))
    if rows % 2:
        light_RW = np.vstack((light_RW, np.zeros((1, columns))))
    return [_of_halves(upper_W, lower_W, greys) for upper_W, lower_W in light_RW.reshape(-1, 2, columns)]


def _of_halves(upper_W: Array, lower_W: Array, greys: bool) -> Text:
    line = Text(no_wrap=True)
    for upper, lower in zip(upper_W.tolist(), lower_W.tolist(), strict=True):
        if greys:
            line.append("▀", f"{_grey(upper)} on {_grey(lower)}")
        else:
            line.append(HALVES[2 * (upper >= 0.5) + (lower >= 0.5)])
    return line


def _grey(light: float) -> str:
    return f"#{round(255 * light):02x}" + f"{round(255 * light):02x}" * 2


def _resized(light_HW: Array, rows: int, columns: int) -> list[list[float]]:
    """The picture with at most as many rows and columns as it has: means of neighbouring pixels."""
    import numpy as np

    return [
        [float(part.mean()) for part in np.array_split(band, columns, axis=1)]
        for band in np.array_split(light_HW, rows)
    ]
