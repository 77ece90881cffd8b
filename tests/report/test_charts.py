"""The charts as SVG. The first one takes more than a second."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from rnnclf.calibration import Range
from rnnclf.metrics import ClassScore
from tests.report.hostile import NAMES

pytestmark = pytest.mark.long

EPOCHS = [(1, 0.5, 0.4), (2, 0.8, 0.7), (3, 0.9, 0.65)]


@pytest.fixture(scope="module")
def svgs() -> dict[str, str]:
    """Each chart, with hostile names where it has names."""
    from rnnclf.report import charts
    from rnnclf.report.drawing import svg_of

    epochs = [
        charts.Epoch(n, {"training": a, "validation": b}, {"training": 1 - a, "validation": 1 - b})
        for n, a, b in EPOCHS
    ]
    k = len(NAMES)
    counts = [[9 if i == j else i + 2 * j for j in range(k)] for i in range(k)]
    scores = [ClassScore(name, 0.5, n / 10, 0.5, 10) for n, name in enumerate(NAMES)]
    bars = [charts.Bar(name, 0.9 - n / 20, (0.5, 0.95), (0.8, 0.9)) for n, name in enumerate(NAMES)]
    bands = [charts.Band(name, n, 0.1 * n, 0.05 * n, 0.15 * n, 3) for name in NAMES for n in (1, 2)]
    every = {
        "curves": charts.learning_curves(epochs, 2),
        "confusion": charts.confusion(NAMES, counts),
        "classes": charts.by_class(scores),
        "comparison": charts.comparison(bars, 0.5),
        "bands": charts.bands(bands),
        "calibration": charts.calibration([Range(0.5, 0.7, 10, 0.6, 4), Range(0.7, 0.8, 20, 0.75, 20)]),
        "one epoch": charts.learning_curve(epochs[:1], 1, "accuracy"),
    }
    return {name: svg_of(chart) for name, chart in every.items()}


def words_of(svg: str) -> list[str]:
    """What is said of each mark."""
    return [
        node.attrib["aria-label"]
        for node in ElementTree.fromstring(svg).iter()
        if "aria-label" in node.attrib
    ]


def texts_of(svg: str) -> str:
    return " ".join(node.text or "" for node in ElementTree.fromstring(svg).iter())


def test_hostile_names_are_text_in_each_chart(svgs):
    for name, svg in svgs.items():
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
        assert tags <= {"svg", "g", "path", "rect", "line", "text", "defs", "clipPath", "symbol", "tspan"}, (
            name
        )
        assert "\x1b" not in svg
        assert "\u202e" not in svg
    for name in ("confusion", "classes", "comparison", "bands"):
        assert "=cmd('calc')" in texts_of(svgs[name])
        assert "{{7*7}}" in " ".join(words_of(svgs[name]))


def test_the_epoch_that_was_kept_is_marked_and_each_one_can_be_read(svgs):
    assert texts_of(svgs["curves"]).count("epoch 2 kept") == 2
    words = words_of(svgs["curves"])
    assert "epoch 3, validation accuracy 65.00 %" in words
    assert "epoch 1, training loss 0.5000" in words
    assert "epoch 1, validation accuracy 40.00 %" in words_of(svgs["one epoch"])


def test_cells_are_shaded_by_their_share_of_the_row(svgs):
    """13 of 13 must be darker than 1 of 13: opacity is the square root of the share."""
    words = words_of(svgs["confusion"])
    assert sum(" sequences of =cmd" in text for text in words) == len(NAMES)
    cells = re.findall(
        r'aria-label="([\d,]+) of ([\d,]+) sequences[^>]*?opacity="([\d.]+)"', svgs["confusion"]
    )
    assert len(cells) > len(NAMES)
    for count, total, opacity in cells:
        assert float(opacity) == pytest.approx((int(count) / int(total)) ** 0.5, abs=0.01)


def test_the_worst_class_stands_at_the_top(svgs):
    words = [text for text in words_of(svgs["classes"]) if "recognised" in text and "sequences" in text]
    assert "0.00 % of 10" in words[0]
    assert "60.00 % of 10" in words[-1]


def test_of_many_classes_those_that_are_confused_are_drawn():
    from rnnclf.report import charts

    k = 50
    counts = [[5 * (i == j) for j in range(k)] for i in range(k)]
    for i in range(20, k):
        counts[i][(i + 1) % k] = 2
    kept = charts._confused(counts)
    assert len(kept) == charts.MOST_CELLS
    assert {*range(21, k)} <= {*kept}
    assert kept == sorted(kept)


def test_names_that_are_alike_when_shortened_stay_apart():
    from rnnclf.report import charts

    names = charts.unlike([charts.named("x" * 60 + end) for end in "abc"])
    assert len({*names}) == 3
    assert max(map(len, names)) <= charts.NAME + 4


def test_two_charts_of_a_page_share_no_names_and_take_its_colours():
    from rnnclf.report import charts
    from rnnclf.report.drawing import PageDrawer

    draw = PageDrawer()
    chart = charts.calibration([Range(0.5, 0.7, 10, 0.6, 4)])
    first, second = draw(chart, "one"), draw(chart, 'an"other')
    ids = [{*re.findall(r'\bid="([^"]*)"', svg)} for svg in (first, second)]
    assert not ids[0] & ids[1]
    assert {*re.findall(r"url\(#([^)]*)\)", first)} <= ids[0]
    assert "var(--ink)" in first
    assert "var(--series-1)" in first
    assert ElementTree.fromstring(second).attrib["aria-label"] == 'an"other'
