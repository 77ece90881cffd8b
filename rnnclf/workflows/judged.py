"""What the saved predictions of a run say: its confusions, its classes, its reliability, its mistakes.

Reads predictions.parquet in pieces, so that memory stays bounded for any number of sequences. Torch-free.
Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.calibration import Range, ranges_of
from rnnclf.metrics import MANY_CLASSES, ClassScore, class_scores
from rnnclf.workflows.predictions import PROBABILITY

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Wrong:
    """A sequence whose predicted class is not its own. row: its number in the split."""

    row: int
    id: int | str
    label: str
    predicted: str
    probability: float
    """Of the predicted class."""
    probability_of_label: float | None
    """None if only that of the predicted class is saved."""


@dataclass(frozen=True)
class Judged:
    """A split as a run has classified it.

    pairs: how many sequences of the first class were classified as the second, by their numbers.
    wrong: the most confident mistakes, the most confident first.
    """

    classes: tuple[str, ...]
    pairs: dict[tuple[int, int], int]
    reliability: tuple[Range, ...]
    wrong: tuple[Wrong, ...]

    @property
    def total(self) -> int:
        return sum(self.pairs.values())

    @property
    def mistakes(self) -> int:
        return sum(count for (i, j), count in self.pairs.items() if i != j)

    @cached_property
    def counts(self) -> list[list[int]] | None:
        """The confusion matrix (K, K); None for so many classes that it would be too large."""
        k = len(self.classes)
        if k > MANY_CLASSES:
            return None
        return [[self.pairs.get((i, j), 0) for j in range(k)] for i in range(k)]

    def by_class(self) -> list[ClassScore]:
        import numpy as np

        totals_3K = np.zeros((3, len(self.classes)), np.int64)
        for (i, j), count in self.pairs.items():
            totals_3K[0, i] += count * (i == j)
            totals_3K[1, j] += count
            totals_3K[2, i] += count
        return class_scores(self.classes, totals_3K)


def together(parts: Sequence[Judged]) -> Judged | None:
    """The confusions of several runs, added up; None if there are none, or their classes differ."""
    if len({part.classes for part in parts}) != 1:
        return None
    pairs: Counter[tuple[int, int]] = Counter()
    for part in parts:
        pairs.update(part.pairs)
    return Judged(parts[0].classes, dict(pairs), (), ())


def judged(path: Path, split: str, most: int) -> Judged | str:
    """Reads the predictions of a split, with its `most` most confident mistakes, or says why it cannot."""
    import polars as pl
    from polars.exceptions import PolarsError

    if not path.is_file():
        return f"{path.name} is missing"
    try:
        return _judged(pl.scan_parquet(path, glob=False), split, most)
    except (PolarsError, OSError, ValueError):
        return f"{path.name} cannot be read"


def _judged(table: pl.LazyFrame, split: str, most: int) -> Judged | str:
    import polars as pl

    names = table.collect_schema().names()
    columns = [name for name in names if name.startswith(PROBABILITY)]
    confidence = pl.max_horizontal(columns) if columns else pl.col("probability")
    part = table.filter(pl.col("split") == split).with_row_index("row")
    rows = part.select("row", "id", "label", "predicted", confidence.cast(pl.Float64).alias("confidence"))
    counted = _collected(rows.group_by("label", "predicted").len())
    if not len(counted):
        return f"there are no predictions for the {split} split"
    classes = [name.removeprefix(PROBABILITY) for name in columns]
    if not columns:
        classes = sorted({*counted["label"].to_list(), *counted["predicted"].to_list()})
    place = {name: k for k, name in enumerate(classes)}
    if not {*counted["label"], *counted["predicted"]} <= place.keys():
        raise ValueError("a class has no column of probabilities")
    right = pl.col("label") == pl.col("predicted")
    known = _collected(rows.select("confidence", right.alias("right")))
    return Judged(
        tuple(classes),
        {(place[label], place[predicted]): count for label, predicted, count in counted.rows()},
        tuple(ranges_of(known["confidence"].to_numpy(), known["right"].to_numpy())),
        tuple(_wrong(part, _collected(rows.filter(~right).top_k(most, by="confidence")))),
    )


def _wrong(part: pl.LazyFrame, found: pl.DataFrame) -> list[Wrong]:
    """The mistakes in `found`; part: the rows of the split with all columns."""
    import polars as pl

    whole = _collected(part.filter(pl.col("row").is_in(found["row"].to_list())))
    by_row: dict[int, dict[str, Any]] = {row["row"]: row for row in whole.iter_rows(named=True)}
    return [
        Wrong(
            row["row"],
            row["id"],
            row["label"],
            row["predicted"],
            row["confidence"],
            by_row[row["row"]].get(f"{PROBABILITY}{row['label']}"),
        )
        for row in found.sort(["confidence", "row"], descending=[True, False]).iter_rows(named=True)
    ]


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")
