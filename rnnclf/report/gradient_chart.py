"""The gradient by time step, as `diagnose=true` measures it: several networks in one chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import altair as alt

from rnnclf.report.charts import HEIGHT, WIDTH, Chart, Layers, finished, named, rows_of

Curves = Mapping[str, Sequence[float]]
"""The gradient norms of a network at steps 1, 2, …, by the network's name."""


def gradients_by_step(panels: Mapping[str, Curves]) -> Chart:
    """Charts side by side, each with its title and a line for each network. The scale is logarithmic, and the
    same in all; a norm that is 0 or not finite leaves a gap."""
    norms = [norm for curves in panels.values() for curve in curves.values() for norm in curve]
    exponents = [math.log10(norm) for norm in norms if 0 < norm < math.inf]
    lowest, highest = math.floor(min(exponents, default=0.0)), math.ceil(max(exponents, default=1.0))
    decades = [10.0**exponent for exponent in range(lowest, highest + 1)]
    parts = (_panel(title, curves, decades) for title, curves in panels.items())
    return finished(alt.hconcat(*parts).resolve_scale(color="independent"))


def _panel(title: str, curves: Curves, decades: Sequence[float]) -> Layers:
    rows = [
        {
            "network": named(name),
            "step": step,
            "norm": norm if 0 < norm < math.inf else None,
            "words": f"{named(name)}, step {step}: gradient {norm:.2g}",
        }
        for name, norms in curves.items()
        for step, norm in enumerate(norms, start=1)
    ]
    steps = max(len(norms) for norms in curves.values())
    across = alt.Scale(domain=[1, steps], nice=False, zero=False)
    upwards = alt.Scale(type="log", domain=[decades[0], decades[-1]])
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1, labelLimit=WIDTH)
    base = rows_of(rows).encode(
        x=alt.X("step:Q", title="time step", scale=across, axis=alt.Axis(grid=False, format="d")),
        y=alt.Y("norm:Q", title=None, scale=upwards, axis=alt.Axis(format="~g", values=list(decades))),
        color=alt.Color("network:N", sort=[named(name) for name in curves], legend=legend),
    )
    points = base.mark_point(filled=True, size=40, opacity=0.001).encode(description="words:N")
    chart: Layers = alt.layer(base.mark_line(), points)
    return chart.properties(width=WIDTH, height=HEIGHT, title=title)
