"""The diagnosis of a run: its file, and an interpretation of its figures in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from rnnclf.config import Config
from rnnclf.data import SequenceDataset
from rnnclf.diagnosis import Figure, diagnose
from rnnclf.errors import OutputError
from rnnclf.files import write_atomically
from rnnclf.training.state import Training

COLUMNS = ("epoch", *(field.name for field in fields(Figure)))
ROW = re.compile(
    r"(?P<epoch>\d{1,9}),(?P<layer>\d{1,9}),(?P<direction>\w+),(?P<quantity>\w+),(?P<part>[^,]*),"
    r"(?P<step>\d{0,9}),(?P<value>nan|inf|\d+(\.\d+)?(e[+-]\d+)?)"
)

WEAK, LOST, STRONG = 1e-3, 1e-6, 1e3
"""Thresholds for the ratio of the first step's gradient to the last step's. The gradient of a weight is a
sum over all steps, and float32 keeps seven digits of it: contributions below LOST are rounded away."""

SATURATED = {"tanh": 0.5, "sigmoid": 0.9}
"""The shares of saturated values that count as too large. The limit for gates is higher: a task may need a
gate that is always open or always shut."""


@dataclass(frozen=True)
class Diagnosis:
    """The figures of one epoch, and sentences: how training broke, if it did, and what the figures mean."""

    epoch: int
    figures: tuple[Figure, ...]
    words: tuple[str, ...]

    def gradients(self) -> dict[tuple[int, str], list[float]]:
        """The gradient norm at each step, by layer and direction."""
        return _gradients(self.figures)

    def of(self, place: tuple[int, str], quantity: str) -> dict[str, float]:
        """The values, by part, of a quantity that is not measured per step."""
        return {
            figure.part: figure.value
            for figure in self.figures
            if (figure.layer, figure.direction) == place and figure.quantity == quantity
        }


def record_diagnosis(path: Path, epoch: int, training: Training, data: SequenceDataset) -> None:
    """Adds the figures of an epoch to the file, and removes rows of this or a later epoch, which it holds if
    the run was resumed from an earlier checkpoint."""
    lines = [row[0] for row in _rows(path) if int(row["epoch"]) < epoch]
    for figure in diagnose(training.model, data, training.recipe.loss):
        *place, value = astuple(figure)
        lines.append(",".join("" if part is None else str(part) for part in (epoch, *place, f"{value:.6g}")))
    write_atomically(path, "\n".join([",".join(COLUMNS), *lines, ""]).encode())


def read_diagnosis(path: Path, config: Config, breaks: Sequence[str] = ()) -> Diagnosis | None:
    """The diagnosis of the last epoch in the file; None if there is none. breaks: sentences on those of
    training, which the figures of the last epoch cannot show."""
    rows = _rows(path)
    epoch = max((int(row["epoch"]) for row in rows), default=0)
    figures = tuple(_figure(row) for row in rows if int(row["epoch"]) == epoch)
    if not _gradients(figures):
        return None
    return Diagnosis(epoch, figures, (*breaks, *in_words(figures, config)))


def _rows(path: Path) -> list[re.Match[str]]:
    """The complete rows of the file. Raises OutputError."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"Cannot read {path}: {error.strerror}.") from error
    return [row for row in map(ROW.fullmatch, text.splitlines()) if row]


def _figure(row: re.Match[str]) -> Figure:
    return Figure(
        layer=int(row["layer"]),
        direction=row["direction"],
        quantity=row["quantity"],
        part=row["part"],
        step=int(row["step"]) if row["step"] else None,
        value=float(row["value"]),
    )


def _gradients(figures: tuple[Figure, ...]) -> dict[tuple[int, str], list[float]]:
    found: dict[tuple[int, str], list[float]] = {}
    for figure in figures:
        if figure.quantity == "gradient":
            found.setdefault((figure.layer, figure.direction), []).append(figure.value)
    return found


def worst_of(gradients: dict[tuple[int, str], list[float]]) -> tuple[int, str]:
    """The layer and direction in which the gradients of the first and the last step differ most."""
    return max(gradients, key=lambda place: _distance(first_to_last(gradients[place])))


def first_to_last(gradient: list[float]) -> float:
    """The gradient of the first step divided by that of the last; NaN if both are zero."""
    first, last = gradient[0], gradient[-1]
    if not (math.isfinite(first) and math.isfinite(last)) or (last == 0 and first > 0):
        return math.inf
    return first / last if last else math.nan


def _distance(share: float) -> float:
    return abs(math.log(share)) if 0 < share < math.inf else math.inf


def in_words(figures: tuple[Figure, ...], config: Config) -> tuple[str, str]:
    """A sentence on the gradients, and one on saturation or on what to try."""
    gradients = _gradients(figures)
    place = worst_of(gradients)
    share = first_to_last(gradients[place])
    where = f" in {place_in_words(place, gradients)}" if len(gradients) > 1 else ""
    rest = _on_the_rest(figures, share, len(gradients[place]), config)
    return _on_gradients(gradients[place], share, where), rest


def place_in_words(place: tuple[int, str], among: dict[tuple[int, str], list[float]]) -> str:
    layer, direction = place
    words = direction.replace("_", " ")
    return f"layer {layer} {words}" if len({other for _, other in among}) > 1 else f"layer {layer}"


def _on_gradients(gradient: list[float], share: float, where: str) -> str:
    if math.isnan(share):
        return f"The states{where} get no gradient: all units are dead, or there is nothing left to learn."
    steps = len(gradient)
    first = f"The gradient of the first of {steps} steps{where} is"
    if share > STRONG:
        return f"{first} {share:.2g} times that of the last: what happened early drowns out the rest."
    if share >= WEAK:
        return f"{first} {share:.2g} of that of the last: what happened early can be learned."
    weak = next(step for step, value in enumerate(gradient) if value >= WEAK * gradient[-1])
    compared = f"{share:.2g} of" if share else "0 beside"
    extent = f", and below a thousandth of it up to step {weak}" if weak > 1 else ""
    fate = "cannot be" if share < LOST else "is hardly"
    return f"{first} {compared} that of the last{extent}: what happened early {fate} learned."


def _on_the_rest(figures: tuple[Figure, ...], share: float, steps: int, config: Config) -> str:
    saturation = [figure for figure in figures if figure.quantity == "saturation"]
    highest = max(saturation, key=lambda figure: figure.value / SATURATED[figure.part], default=None)
    if highest is not None and highest.value > SATURATED[highest.part]:
        ends = "-1 or 1" if highest.part == "tanh" else "0 or 1"
        where = f"the results of {highest.part} in layer {highest.layer}"
        return (
            f"{_percent(highest.value)} of {where} are near {ends}, where gradients almost vanish:"
            f" try {_either(_to_desaturate(config))}."
        )
    if math.isnan(share) or share > STRONG:
        return f"Try {_either(_to_calm(config))}."
    if share < WEAK:
        return f"Try {_either(_to_remember(steps, config))}."
    if highest is None:
        return "The cell has no tanh or sigmoid that could saturate."
    return (
        "No sign of saturation:"
        f" at most {_percent(highest.value)} of the results of {highest.part} are saturated."
    )


def _to_remember(steps: int, config: Config) -> list[str]:
    """Settings that carry gradients further back in time, without those already in use."""
    ideas = []
    if config.cell.family == "simple":
        ideas += ["cell=lstm", "cell=gru"]
    elif getattr(config.cell, "chrono", 0) is None:
        ideas += [f"cell.chrono={max(3, steps)}"]
    if config.cell.family != "simple":
        ideas += [f"cell={name}" for name in ("lem", "lru") if name != config.cell.name]
    return [*ideas, "readout=mean"] if config.readout == "last" else ideas


def _to_calm(config: Config) -> list[str]:
    ideas = ["clip=1"] if config.clip is None or config.clip > 1 else []
    if getattr(config.cell, "recurrent_init", "orthogonal") != "orthogonal":
        ideas.append("cell.recurrent_init=orthogonal")
    if config.cell.family == "simple":
        ideas += ["cell=lstm", "cell=gru"]
    return [*ideas, _smaller_rate(config)]


def _to_desaturate(config: Config) -> list[str]:
    normalised = getattr(config.dataset, "normalise", "standard") in ("standard", "quantiles")
    return [_smaller_rate(config), *([] if normalised else ["dataset.normalise=standard"])]


def _smaller_rate(config: Config) -> str:
    return f"a smaller learning rate (optimizer.lr is {config.optimizer.lr:g})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _either(ideas: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(ideas[:-1]), ideas[-1]]))
