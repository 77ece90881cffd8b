"""The pictures in a run folder: which there are, and when they are drawn.

Nothing is imported before something is drawn, which takes a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rnnclf.files import made_folder, write_atomically
from rnnclf.workflows.judged import Judged, judged
from rnnclf.workflows.runs import RunFolder, fits, read_csv

if TYPE_CHECKING:
    from rnnclf.report.charts import Chart, Epoch

WORTH_IT = 30.0  # seconds of a run, from which on the few that drawing takes matter little
PACKAGES = ("altair", "vl_convert")
INSTALL = "pip install 'rnnclf[report]'"


def save_plots(run: RunFolder, plots: str, results: Mapping[str, Any]) -> str:
    """Draws the pictures of a run that has ended, if that is wanted. Returns a remark for the user, '' if
    there is none.

    plots: `Config.plots`.
    """
    wanted = results["total_seconds"] >= WORTH_IT if plots == "auto" else plots == "true"
    if not wanted:
        return ""
    if not all(map(find_spec, PACKAGES)):
        return f"no pictures of the run are drawn, which needs Altair: {INSTALL}, or plots=false"
    try:
        _draw(run, results)
    except Exception as error:  # whatever it is: the run is done, and its results are saved
        return f"the pictures of the run could not be drawn: {error}"
    return ""


def _draw(run: RunFolder, results: Mapping[str, Any]) -> None:
    from rnnclf.report.drawing import png_of, svg_of

    made_folder(run.plots)
    for name, chart in _charts(run, results):
        svg = svg_of(chart)
        write_atomically(run.plots / f"{name}.svg", svg.encode())
        write_atomically(run.plots / f"{name}.png", png_of(svg))


def _charts(run: RunFolder, results: Mapping[str, Any]) -> Iterator[tuple[str, Chart]]:
    from rnnclf.report import charts

    if epochs := epochs_of(run):
        yield "curves", charts.learning_curves(epochs, results["best_epoch"])
    found = judged(run.predictions, "test", 0)
    if isinstance(found, Judged):
        if found.counts is not None:
            yield "confusion", charts.confusion(found.classes, found.counts)
        yield "classes", charts.by_class(found.by_class())
        yield "calibration", charts.calibration(found.reliability)


def epochs_of(run: RunFolder) -> list[Epoch]:
    """The epochs in epochs.csv; none if it is missing or damaged."""
    from rnnclf.report.charts import Epoch

    found = []
    for row in read_csv(run.epochs):
        numbers = {name: value for name in row if (value := _number(row[name])) is not None}
        if "epoch" not in numbers:
            continue
        accuracy, loss = (
            {
                shown: numbers[f"{split}_{what}"]
                for split, shown in (("train", "training"), ("validation", "validation"), ("test", "test"))
                if f"{split}_{what}" in numbers
            }
            for what in ("accuracy", "loss")
        )
        found.append(Epoch(int(numbers["epoch"]), accuracy, loss))
    return found


def _number(text: str) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if fits(value, float) else None
