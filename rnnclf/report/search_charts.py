"""The charts of a search: how its best score rose, which settings matter, and the score over each of them.

Names and values of settings are words of the user. They go into the data of a chart, as in `charts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import altair as alt

from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.report.charts import HEIGHT, NAME, WIDTH, Chart, finished, named, rows_of, unlike
from rnnclf.report.theme import BLUE, INK, RED

SMALL_WIDTH, SMALL_HEIGHT = 210, 150  # pixels of the inner part of a small chart: three are side by side
DONE, ENDED = "trained to its end", "ended early"
_MARKS = {DONE: (BLUE, "circle"), ENDED: (RED, "cross")}
_SHARE = alt.Axis(format="~%", tickCount=5)


@dataclass(frozen=True)
class TrialPoint:
    """A trial that has a score."""

    number: int
    accuracy: float
    """On the validation split, of the epoch that is its result so far."""
    is_done: bool
    """Whether it was trained to its end."""
    words: str
    """Its settings as words."""
    values: Mapping[str, str | float | int]
    """Its settings by key."""


@dataclass(frozen=True)
class Setting:
    """A key that was searched. choices: its values if they have no order, else none."""

    key: str
    is_log: bool = False
    choices: tuple[str, ...] = ()


def best_so_far(trials: Sequence[TrialPoint]) -> Chart:
    """Each trial as a point, and the best validation accuracy up to it as a line of steps.

    A trial that was ended early does not raise the line: it is not what the search would choose.
    """
    heights = accumulate((trial.accuracy if trial.is_done else 0.0 for trial in trials), max)
    steps = [
        {"trial": trial.number, "best": height}
        for trial, height in zip(trials, heights, strict=True)
        if height
    ]
    x = alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1, grid=False, format="d"),
              scale=alt.Scale(zero=False, nice=False, padding=8))  # fmt: skip
    y = alt.Y("accuracy:Q", title=None, axis=_SHARE, scale=alt.Scale(zero=False, nice=True, padding=6))
    line = rows_of(steps).mark_line(interpolate="step-after", color=INK, strokeWidth=1.5, opacity=0.7)
    layers = [line.encode(x=x, y=alt.Y("best:Q", title=None)), _points(trials, x, y, 55)]
    return finished(
        alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title="Best validation accuracy so far")
    )


def over_setting(trials: Sequence[TrialPoint], setting: Setting) -> Chart:
    """The validation accuracy of the trials over the values of one setting."""
    names = unlike([named(value) for value in setting.choices])
    shown: dict[Any, str] = dict(zip(setting.choices, names, strict=True))
    values = {trial.number: trial.values[setting.key] for trial in trials}
    x = _choices(names) if names else _numbers(setting.is_log)
    y = alt.Y("accuracy:Q", title=None, axis=_SHARE, scale=alt.Scale(zero=False, nice=True, padding=6))
    chart = _points(trials, x, y, 40, {number: shown.get(value, value) for number, value in values.items()})
    title = alt.TitleParams(named(setting.key))
    return finished(chart.properties(width=SMALL_WIDTH, height=SMALL_HEIGHT, title=title))


def _choices(names: Sequence[str]) -> alt.X:
    axis = alt.Axis(grid=False, labelAngle=-35 if len(names) > 3 else 0, labelOverlap=False)
    return alt.X("value:N", title=None, sort=names, axis=axis, scale=alt.Scale(domain=names))


def _numbers(is_log: bool) -> alt.X:
    scale = alt.Scale(type="log" if is_log else "linear", zero=False, nice=False, padding=8)
    axis = alt.Axis(grid=False, format="~g", tickCount=4, labelOverlap=True)
    return alt.X("value:Q", title=None, scale=scale, axis=axis)


def importance(shares: Mapping[str, float]) -> Chart:
    """The share of the variance of the score that each setting explains, as bars."""
    names = unlike([named(key) for key in shares])
    rows = [
        {"name": name, "share": share, "text": f"{share:.0%}",
         "words": f"{name} explains {share:.0%} of the variance of the score"}
        for name, share in zip(names, shares.values(), strict=True)
    ]  # fmt: skip
    base = rows_of(rows).encode(
        y=alt.Y("name:N", sort=names, title=None, axis=alt.Axis(grid=False, labelColor=INK)),
        x=alt.X("share:Q", title="share of the variance of the score", axis=_SHARE,
                scale=alt.Scale(domain=[0, 1])),
    )  # fmt: skip
    bars = base.mark_bar(color=BLUE, height=12).encode(description="words:N")
    text = base.mark_text(align="left", dx=5, color=INK, aria=False).encode(text="text:N")
    height = max(22 * len(rows), 60)
    return finished(
        alt.layer(bars, text).properties(width=WIDTH, height=height, title="Which settings matter")
    )


def _points(
    trials: Sequence[TrialPoint], x: Any, y: Any, size: int, values: Mapping[int, Any] | None = None
) -> alt.Chart:
    """A mark for each trial, filled if it was trained to its end; values: their places, by number."""
    rows = [
        {
            **{"trial": trial.number, "accuracy": trial.accuracy},
            **({} if values is None else {"value": values[trial.number]}),
            "state": DONE if trial.is_done else ENDED,
            "words": f"trial {trial.number}, {DONE if trial.is_done else ENDED}: {percent(trial.accuracy)},"
            f" {_short(trial.words)}",
        }
        for trial in trials
    ]
    states = [state for state in (DONE, ENDED) if any(row["state"] == state for row in rows)]
    colours, shapes = zip(*(_MARKS[state] for state in states), strict=True)
    legend = alt.Legend() if values is None else None
    marks = rows_of(rows).mark_point(filled=True, size=size, opacity=0.85)
    chart: alt.Chart = marks.encode(
        x=x,
        y=y,
        color=alt.Color(
            "state:N", title=None, legend=legend, scale=alt.Scale(domain=states, range=[*colours])
        ),
        shape=alt.Shape(
            "state:N", title=None, legend=legend, scale=alt.Scale(domain=states, range=[*shapes])
        ),
        description="words:N",
    )
    return chart


def _short(words: str) -> str:
    words = one_line(words)
    return words if len(words) <= 4 * NAME else f"{words[: 4 * NAME - 1]}…"
