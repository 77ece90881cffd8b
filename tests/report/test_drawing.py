"""Sequences as small pictures."""

from __future__ import annotations

import base64
import re
import zlib
from xml.etree import ElementTree

import numpy as np

from rnnclf.report.drawing import picture_url, series_svg


def pixels(url: str, width: int, colours: int) -> np.ndarray:
    """The bytes of the only part of a PNG, without the byte that begins each row."""
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    start = content.index(b"IDAT") + 4
    rows = zlib.decompress(content[start : content.index(b"IEND") - 8])
    return np.frombuffer(rows, np.uint8).reshape(-1, 1 + width * colours)[:, 1:]


def test_a_picture_is_a_png_of_its_shades():
    light_HW1 = np.array([[0.0, 0.5, 1.0], [2.0, -1.0, np.nan]])[:, :, None]
    assert pixels(picture_url(light_HW1), 3, 1).tolist() == [[0, 128, 255], [255, 0, 0]]
    colour_HW3 = np.array([[[1.0, 0.0, 0.2]]])
    assert pixels(picture_url(colour_HW3), 1, 3).tolist() == [[255, 0, 51]]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = [node.attrib["points"] for node in ElementTree.fromstring(svg)]
    return [[tuple(map(float, point.split(","))) for point in path.split()] for path in found]


def test_a_gap_cuts_the_line_and_each_channel_has_its_own_band():
    x_TC = np.array([[0.0, 5.0], [1.0, 5.0], [np.nan, 5.0], [0.5, 5.0]])
    first, second, other = lines(series_svg(x_TC, [(0.0, 1.0), (5.0, 5.0)], 4, 'said "so"'))
    assert len(first) == 2
    assert len(second) == 2  # a lone value is drawn as a short stroke
    assert len(other) == 4
    assert first[0][1] > first[1][1]  # larger values stand higher
    assert max(y for _, y in [*first, *second]) < min(y for _, y in other)


def test_a_short_series_takes_its_share_of_the_width_and_a_long_one_is_averaged():
    (short,) = lines(series_svg(np.arange(10.0)[:, None], [(0.0, 9.0)], 20, ""))
    assert len(short) == 10
    assert max(x for x, _ in short) < 120
    (long,) = lines(series_svg(np.arange(10_000.0)[:, None], [(0.0, 9999.0)], 10_000, ""))
    assert len(long) == 240
    assert "NaN" not in series_svg(np.full((3, 1), np.nan), [(0.0, 1.0)], 3, "")


def test_words_for_those_who_do_not_see_it_are_escaped():
    assert re.search('aria-label="&lt;b&gt;&quot;"', series_svg(np.ones((2, 1)), [(0.0, 1.0)], 2, '<b>"'))
