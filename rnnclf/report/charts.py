"""The charts: functions from plain data to a specification that `drawing.py` turns into a picture.

Names of classes and configurations come from unknown files. They go into the data of a chart, never into an
expression, the name of a field or a format.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import altair as alt

from rnnclf.calibration import Range
from rnnclf.escaping import one_line
from rnnclf.metrics import ClassScore, percent, wilson_interval
from rnnclf.report.theme import BLUE, INK, MUTED, ON_RIGHT, PAPER, RED, RIGHT, WRONG, look

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart
Layers: TypeAlias = alt.LayerChart | alt.FacetChart

WIDTH, HEIGHT = 330, 200  # pixels of the inner part of a chart: two are side by side, one fits a phone
MOST_CLASSES = 40  # bars of a chart of classes
LEAST_SIDE = 180  # pixels of a confusion matrix
MOST_CELLS = 30  # classes of a confusion matrix, each a row and a column
NUMBERED_CELLS = 16  # largest number of classes whose counts are legible in their cells
MOST_LINES = 8  # configurations in a chart with a line for each
NAME = 40  # characters of a name


_LINES = alt.Legend(symbolType="stroke", symbolOpacity=1, columns=2)


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run. Accuracies and losses by the name of their split."""

    number: int
    accuracy: Mapping[str, float]
    loss: Mapping[str, float]


@dataclass(frozen=True)
class Band:
    """The validation accuracy of a configuration after an epoch: its mean and range over several runs."""

    name: str
    epoch: int
    mean: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Bar:
    """A share with its interval, if it has one, and the shares of single runs."""

    name: str
    share: float
    interval95: tuple[float, float] | None
    singles: tuple[float, ...] = ()


def learning_curves(epochs: Sequence[Epoch], best: int | None) -> Chart:
    """Accuracy and loss of each epoch side by side; `best` is the epoch whose weights were kept."""
    return finished(alt.hconcat(_curve(epochs, best, "accuracy"), _curve(epochs, best, "loss")))


def learning_curve(epochs: Sequence[Epoch], best: int | None, what: str) -> Chart:
    """what: accuracy or loss."""
    return finished(_curve(epochs, best, what))


def _curve(epochs: Sequence[Epoch], best: int | None, what: str) -> Layers:
    is_share = what == "accuracy"
    rows = [
        {
            "epoch": epoch.number,
            "split": split,
            "value": value,
            "words": f"epoch {epoch.number}, {split} {what} {percent(value) if is_share else f'{value:.4f}'}",
        }
        for epoch in epochs
        for split, value in getattr(epoch, what).items()
    ]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    colours = {"training": MUTED, "validation": BLUE, "test": RED}
    base = rows_of(rows).encode(
        x=_epochs([epoch.number for epoch in epochs]),
        y=alt.Y(
            "value:Q",
            title=None,
            scale=alt.Scale(zero=False, nice=True, padding=6),
            axis=alt.Axis(format="~%" if is_share else "~g", tickCount=5),
        ),
        color=alt.Color(
            "split:N",
            scale=alt.Scale(domain=splits, range=[colours[split] for split in splits]),
            legend=_LINES,
        ),
    )
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash(
            "split:N",
            scale=alt.Scale(domain=splits, range=[[5, 4] if s == "training" else [1, 0] for s in splits]),
        )
    )
    points = base.mark_point(filled=True, size=70 if len(epochs) > 60 else 40, opacity=0.001).encode(
        description="words:N"
    )
    layers = [lines, points]
    if len(epochs) == 1:  # no line, so that the points must be seen
        layers = [base.mark_point(filled=True, size=60, opacity=1).encode(description="words:N")]
    if best is not None and any(epoch.number == best for epoch in epochs):
        layers = [_marked(best, len(epochs), is_share), *layers]
    title = alt.TitleParams("Accuracy" if is_share else "Loss (cross-entropy, nats)")
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def _epochs(numbers: Sequence[int]) -> alt.X:
    """The axis of epochs."""
    first, last = min(numbers, default=1), max(numbers, default=1)
    scale = alt.Scale(domain=[first, last], nice=False, zero=False)
    is_short = last - first < 10  # so that ticks would stand between epochs
    values = list(range(first, last + 1)) if is_short else alt.Undefined
    axis = alt.Axis(tickMinStep=1, grid=False, format="d", values=values)
    return alt.X("epoch:Q", title="epoch", scale=scale, axis=axis)


def _marked(best: int, epochs: int, at_bottom: bool) -> Layers:
    """A line at the epoch whose weights were kept, with words where the curves seldom are."""
    place = rows_of([{"epoch": best, "text": f"epoch {best} kept"}]).encode(x="epoch:Q")
    near_end = best > 0.6 * epochs
    words = place.mark_text(
        align="right" if near_end else "left",
        baseline="bottom" if at_bottom else "top",
        dx=-5 if near_end else 5,
        dy=-4 if at_bottom else 4,
        color=INK,
        fontSize=11,
    ).encode(y=alt.value(HEIGHT if at_bottom else 0), text="text:N")
    return alt.layer(place.mark_rule(color=INK, strokeDash=[2, 3], opacity=0.7), words)


def bands(rows: Iterable[Band]) -> Chart:
    """The validation accuracy of configurations while they are trained: the mean of their runs, and from the
    lowest to the highest."""
    values = [
        {
            **vars(band),
            "name": named(band.name),
            "words": f"{named(band.name)}, epoch {band.epoch}: {percent(band.mean)}"
            + (f", {percent(band.low)} to {percent(band.high)} in {band.runs} runs" if band.runs > 1 else ""),
        }
        for band in rows
    ]
    names = list(dict.fromkeys(row["name"] for row in values))
    base = rows_of(values).encode(
        x=_epochs([row["epoch"] for row in values]),
        color=alt.Color("name:N", sort=names, legend=_LINES),
    )
    axis = alt.Axis(format="~%", tickCount=5)
    y = alt.Y("mean:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=axis)
    return finished(
        alt.layer(
            base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
            base.mark_line().encode(y=y),
            base.mark_point(filled=True, size=50, opacity=0.001).encode(y=y, description="words:N"),
        ).properties(width=WIDTH, height=HEIGHT, title="Validation accuracy while training")
    )


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    """Which classes are taken for which. Each row is a class; a cell is shaded by its share of the row.

    Of more than MOST_CELLS classes, those that take part in most mistakes are drawn.
    """
    kept = _confused(counts)
    names = unlike([named(classes[i]) for i in kept])
    rows = [
        {
            **{"true": names[r], "predicted": names[c], "count": counts[i][j], "right": i == j},
            "share": counts[i][j] / max(sum(counts[i]), 1),
            "text": f"{counts[i][j]:,}" if counts[i][j] else "",
            "words": f"{counts[i][j]:,} of {sum(counts[i]):,} sequences of {names[r]} "
            + ("are recognised" if i == j else f"are taken for {names[c]}"),
        }
        for r, i in enumerate(kept)
        for c, j in enumerate(kept)
    ]
    numbered = len(kept) <= NUMBERED_CELLS
    cell = max(30, LEAST_SIDE // len(kept)) if numbered else 14
    base = rows_of(rows).encode(
        x=alt.X("predicted:N", sort=names, title="predicted class", axis=_below(names, cell)),
        y=alt.Y("true:N", sort=names, title="class", axis=alt.Axis(grid=False)),
    )
    opacity = alt.Opacity("share:Q", legend=None, scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]))
    parts: list[Any] = [
        base.mark_rect(stroke=PAPER, strokeWidth=1).encode(
            color=alt.Color(
                "right:N", legend=None, scale=alt.Scale(domain=[True, False], range=[RIGHT, WRONG])
            ),
            opacity=opacity,
            description="words:N",
        )
    ]
    if numbered:
        on_dark = alt.datum.share > 0.35
        shown = alt.when(on_dark).then(alt.value(ON_RIGHT)).otherwise(alt.value(INK))
        parts.append(base.mark_text(fontSize=11, aria=False).encode(text="text:N", color=shown))
    left = len(classes) - len(kept)
    title = alt.TitleParams("Which class is taken for which", subtitle=_left_out(left) if left else "")
    return finished(
        alt.layer(*parts).properties(width=cell * len(kept), height=cell * len(kept), title=title)
    )


def _confused(counts: Sequence[Sequence[int]]) -> list[int]:
    """The numbers of the classes to draw, in order."""
    k = len(counts)
    if k <= MOST_CELLS:
        return list(range(k))
    wrong = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in range(k)]
    return sorted(sorted(range(k), key=lambda i: -wrong[i])[:MOST_CELLS])


def _left_out(number: int) -> str:
    return f"without the {number:,} classes that are confused least"


def _below(names: Sequence[str], room: int) -> alt.Axis:
    """The axis of names below a matrix, upright if one of them needs more than its `room` in pixels."""
    is_wide = any(7 * len(name) > room for name in names)
    return alt.Axis(grid=False, labelAngle=-90 if is_wide else 0, labelOverlap=False, labelLimit=100)


def by_class(scores: Sequence[ClassScore]) -> Chart:
    """The share of each class that is recognised, with its 95 % interval; the worst at the top."""
    known = sorted((score for score in scores if score.support), key=lambda score: score.recall)
    shown = known[:MOST_CLASSES]
    bars = [
        Bar(score.name, score.recall, wilson_interval(round(score.recall * score.support), score.support))
        for score in shown
    ]
    words = [
        f"{named(score.name)}: {percent(score.recall)} of {score.support:,} sequences recognised"
        for score in shown
    ]
    left = len(known) - len(shown)
    title = alt.TitleParams(
        "Accuracy by class", subtitle=f"the {len(shown)} worst of {len(known):,} classes" if left else ""
    )
    return finished(_dots(bars, words, BLUE, "share of the class that is recognised").properties(title=title))


def comparison(bars: Sequence[Bar], guessing: float | None) -> Chart:
    """The test accuracy of configurations with its interval, each run as a small mark."""
    words = [
        f"{named(bar.name)}: {percent(bar.share)}"
        + (
            f", 95 % interval {percent(bar.interval95[0])} to {percent(bar.interval95[1])}"
            if bar.interval95
            else ""
        )
        for bar in bars
    ]
    chart: Layers = _dots(bars, words, BLUE, "test accuracy")
    lowest = min([bar.share for bar in bars] + [single for bar in bars for single in bar.singles])
    if guessing is not None and lowest - guessing < 0.15:
        rule = rows_of([{"share": guessing}]).mark_rule(color=MUTED, strokeDash=[2, 3])
        chart = alt.layer(rule.encode(x="share:Q"), chart)
    return finished(chart.properties(title="Test accuracy"))


def _dots(bars: Sequence[Bar], words: Sequence[str], colour: str, title: str) -> Layers:
    names = unlike([named(bar.name) for bar in bars])
    rows = [
        {
            **{"name": name, "share": bar.share, "words": text},
            "low": bar.share if bar.interval95 is None else bar.interval95[0],
            "high": bar.share if bar.interval95 is None else bar.interval95[1],
        }
        for name, bar, text in zip(names, bars, words, strict=True)
    ]
    singles = [
        {"name": name, "share": single}
        for name, bar in zip(names, bars, strict=True)
        for single in bar.singles
    ]
    y = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(grid=False, labelColor=INK))
    scale = alt.Scale(zero=False, nice=True, padding=8)
    x = alt.X("share:Q", title=title, scale=scale, axis=alt.Axis(format="~%", tickCount=5))
    base = rows_of(rows).encode(y=y)
    parts = [
        base.mark_rule(strokeWidth=2, color=colour, opacity=0.55).encode(
            x=alt.X("low:Q", title=title), x2="high:Q"
        ),
        base.mark_point(filled=True, size=70, color=colour, opacity=1).encode(x=x, description="words:N"),
    ]
    if singles:
        marks = rows_of(singles).mark_tick(thickness=1.5, size=9, color=MUTED, opacity=0.8)
        parts.insert(1, marks.encode(y=y, x=x))
    return alt.layer(*parts).properties(width=WIDTH, height=max(22 * len(rows), 60))


def calibration(ranges: Sequence[Range]) -> Chart:
    """How often the predicted class is right, by its probability; on the dashed line if probabilities are
    right on average."""
    rows = []
    for found in ranges:
        low, high = wilson_interval(found.correct, found.sequences)
        share = found.correct / found.sequences
        words = f"{found.sequences:,} sequences, mean probability {percent(found.probability)}:"
        rows.append(
            {
                "p": found.probability,
                "share": share,
                "low": low,
                "high": high,
                "n": found.sequences,
                "words": f"{words} {percent(share)} right",
            }
        )
    ends = rows_of([{"p": 0, "share": 0}, {"p": 1, "share": 1}])
    scale = alt.Scale(domain=[0, 1])
    x = alt.X(
        "p:Q",
        title="probability of the predicted class",
        scale=scale,
        axis=alt.Axis(format="~%", tickCount=5),
    )
    y = alt.Y("share:Q", title="share that is right", scale=scale, axis=alt.Axis(format="~%", tickCount=5))
    base = rows_of(rows).encode(x=x)
    return finished(
        alt.layer(
            ends.mark_line(color=MUTED, strokeDash=[3, 4], strokeWidth=1.5).encode(x=x, y=y),
            base.mark_rule(color=BLUE, strokeWidth=2, opacity=0.55).encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_point(filled=True, color=BLUE, opacity=1).encode(
                y=y,
                size=alt.Size("n:Q", legend=None, scale=alt.Scale(type="sqrt", range=[30, 220])),
                description="words:N",
            ),
        ).properties(width=240, height=240, title="Probability and truth")
    )


def rows_of(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart of these rows, which has no marks yet."""
    return alt.Chart({"values": list(rows)})


def named(name: str) -> str:
    """A name on one line, harmless and not too long."""
    name = one_line(name) or "(no name)"
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def unlike(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that became equal when they were shortened: they must stay
    apart on an axis."""
    found: dict[str, None] = {}
    for name in names:
        tries = (f"{name} ({number})" for number in itertools.count(2))
        found[name if name not in found else next(other for other in tries if other not in found)] = None
    return list(found)


def finished(chart: Any) -> Chart:
    """The chart in the look of all charts."""
    configured: Chart = chart.configure(**look())
    return configured
