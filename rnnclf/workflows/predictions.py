"""The predictions of a model as a table: a Parquet file that polars, pandas and DuckDB can open.

A row for each sequence: split, id, of windows the recording, label, predicted, and probability_CLASS of each
class or, of many classes, the probability of the predicted one alone.
Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.recordings import Array
from rnnclf.errors import OutputError
from rnnclf.files import replacement_of
from rnnclf.metrics import MANY_CLASSES, Evaluation

if TYPE_CHECKING:
    import polars as pl

CHUNK = 2**20  # maximum number of probabilities in memory at a time


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
        f"probability_{name}": evaluation.probabilities_of(k, first, last)
        for k, name in enumerate(evaluation.classes)
    }
