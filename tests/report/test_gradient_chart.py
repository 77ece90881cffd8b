"""The gradient by time step of several networks in one chart."""

from __future__ import annotations

import math

import pytest

from tests.report.test_charts import texts_of, words_of

pytestmark = pytest.mark.long


def test_each_network_has_a_line_and_what_cannot_be_drawn_leaves_a_gap():
    from rnnclf.report.drawing import svg_of
    from rnnclf.report.gradient_chart import gradients_by_step

    panels = {"start": {"a": [0.01, 0.1, 1.0], "b": [0.0, math.inf, 2.0]}, "readout": {"last": [1e-9, 1.0]}}
    svg = svg_of(gradients_by_step(panels))
    assert {"start", "readout", "a", "b", "last"} <= set(texts_of(svg).split())
    drawn = {words for words in words_of(svg) if "step" in words and "gradient" in words}
    assert {"a, step 1: gradient 0.01", "b, step 3: gradient 2", "last, step 1: gradient 1e-09"} <= drawn
    assert not any(words.startswith(("b, step 1", "b, step 2")) for words in drawn)
