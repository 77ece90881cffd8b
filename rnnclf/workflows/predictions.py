"""The predictions of a model as a table: a Parquet file that polars, pandas and DuckDB can open.

A row for each sequence: split, id, of windows the recording, label, predicted, and probability_CLASS of each
class or, of many classes, the probability of the predicted one alone.
Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.recordings import Array
from rnnclf.errors import OutputError
from rnnclf.files import replacement_of
from rnnclf.metrics import MANY_CLASSES, Evaluation

if TYPE_CHECKING:
    import polars as pl

CHUNK = 2**20  # maximum number of probabilities in memory at a time
PROBABILITY = "probability_"
"""What precedes the name of a class in the name of a column."""


def write_predictions(path: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Replaces `path` by a table of the given splits, which share their classes. Raises OutputError."""
    from polars.exceptions import PolarsError
    from polars.io.plugins import register_io_source

    def chunks(*_: Any) -> Iterator[pl.DataFrame]:
        for split, evaluation in evaluations.items():
            yield from _frames(split, evaluation)

    first = next(_frames(*next(iter(evaluations.items()))))
    try:
        with replacement_of(path) as temporary:
            register_io_source(chunks, schema=first.schema).sink_parquet(temporary)
    except PolarsError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error


def _frames(split: str, evaluation: Evaluation) -> Iterator[pl.DataFrame]:
    """The rows in order, in chunks of bounded size."""
    import numpy as np
    import polars as pl

    classes, recordings_N = np.array(evaluation.classes, dtype=object), evaluation.recordings_N
    rows = max(CHUNK // min(len(classes), MANY_CLASSES), 1)
    for first in range(0, len(evaluation), rows):
        here = slice(first, first + rows)
        ids = evaluation.ids_N[here]
        yield pl.DataFrame(
            {
                "split": pl.Series([split] * len(ids), dtype=pl.String),
                "id": _ids(ids),
                **({} if recordings_N is None else {"recording": _ids(recordings_N[here])}),
                "label": pl.Series(classes[evaluation.y_N[here]].tolist(), dtype=pl.String),
                "predicted": pl.Series(classes[evaluation.predicted_N[here]].tolist(), dtype=pl.String),
                **_probabilities(evaluation, first, first + rows),
            }
        )


def _ids(ids: Array) -> pl.Series:
    import polars as pl

    return pl.Series(ids.tolist(), dtype=pl.String if ids.dtype == object else pl.Int64)


def _probabilities(evaluation: Evaluation, first: int, last: int) -> dict[str, Array]:
    """The columns of probabilities for the sequences from `first` up to `last`, float64."""
    if len(evaluation.classes) > MANY_CLASSES:  # a file takes memory for each column of each part
        return {"probability": evaluation.confidence_N[first:last]}
    return {
        f"{PROBABILITY}{name}": evaluation.probabilities_of(k, first, last)
        for k, name in enumerate(evaluation.classes)
    }


@dataclass(frozen=True, eq=False)
class Predicted:
    """The saved predictions for a split, in the order of the table.

    y_N: int64, indices into `classes`. probability_KN: float64.
    recordings_N: the recording that each sequence is a window of; None if they are no windows.
    """

    classes: tuple[str, ...]
    y_N: Array
    ids_N: Array
    recordings_N: Array | None
    probability_KN: Array

    def __len__(self) -> int:
        return len(self.y_N)


def read_predictions(path: Path, split: str) -> Predicted | str:
    """The predictions for a split with the probabilities of all classes, or why there are none."""
    import polars as pl
    from polars.exceptions import PolarsError

    if not path.is_file():
        return f"{path.name} is missing"
    try:
        whole = pl.scan_parquet(path, glob=False)
        classes = [
            name.removeprefix(PROBABILITY)
            for name in whole.collect_schema().names()
            if name.startswith(PROBABILITY)
        ]
        if not classes:
            return (
                f"{path.name} has no probabilities for each class, as with more than {MANY_CLASSES} classes"
            )
        table = whole.filter(pl.col("split") == split).collect()
        return _predicted(table, classes) if len(table) else f"{path.name} has no {split} split"
    except (PolarsError, pl.exceptions.PanicException, OSError, ValueError, KeyError):
        return f"{path.name} cannot be read"


def _predicted(table: pl.DataFrame, classes: list[str]) -> Predicted:
    """Raises KeyError or ValueError for what is no table of predictions."""
    import numpy as np

    place = {name: k for k, name in enumerate(classes)}
    probability_KN = np.stack([table[f"{PROBABILITY}{name}"].to_numpy() for name in classes])
    if probability_KN.dtype != np.float64 or not ((probability_KN >= 0) & (probability_KN <= 1)).all():
        raise ValueError("a probability is out of range")
    return Predicted(
        tuple(classes),
        np.array([place[label] for label in table["label"].to_list()], np.int64),
        table["id"].to_numpy(),
        table["recording"].to_numpy() if "recording" in table.columns else None,
        probability_KN,
    )
