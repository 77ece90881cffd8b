"""The folds of a cross-validation as one result: each sequence, predicted by the model that did not see it.

Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rnnclf.errors import OutputError
from rnnclf.files import replacement_of
from rnnclf.metrics import wilson_interval

if TYPE_CHECKING:
    import polars as pl


class FoldRun(NamedTuple):
    """A finished run of one fold."""

    seed: int
    fold: int
    predictions: Path


@dataclass(frozen=True)
class Pooled:
    """The predictions of all folds with one seed, taken together."""

    seed: int
    split: str
    """The split that the folds rotate: test or, if the data come with a test split, validation."""
    correct: int
    total: int
    runs: tuple[FoldRun, ...]

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"seed": self.seed, "split": self.split, "accuracy": self.accuracy},
            **{"correct": self.correct, "total": self.total},
            "interval95": list(wilson_interval(self.correct, self.total)),
        }


def is_complete(folds: int, done: Collection[int]) -> bool:
    """Whether these are all the folds, each once."""
    return len(done) == folds and sorted(done) == list(range(folds))


def pool_folds(folds: int, runs: Sequence[FoldRun]) -> tuple[tuple[Pooled, ...], list[str]]:
    """The pooled predictions for each seed whose `folds` runs are all there, and why others are missing."""
    by_seed: dict[int, list[FoldRun]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    found, notes = [], []
    for seed, own in by_seed.items():
        if not is_complete(folds, [run.fold for run in own]):
            continue
        pooled = _pooled(seed, sorted(own, key=lambda run: run.fold))
        if isinstance(pooled, str):
            notes.append(pooled)
        else:
            found.append(pooled)
    return tuple(found), notes


def _pooled(seed: int, runs: list[FoldRun]) -> Pooled | str:
    """The pooled predictions of these runs, or a sentence that says why there are none."""
    import polars as pl
    from polars.exceptions import PolarsError

    columns = ["split", "id", "label", "predicted"]
    try:
        whole = pl.concat([_scan(run).select(columns) for run in runs], how="vertical_relaxed")
        counts = (
            whole.group_by("split")
            .agg(
                total=pl.len(),
                different=pl.col("id").n_unique(),
                correct=(pl.col("label") == pl.col("predicted")).sum(),
            )
            .collect()
            .rows_by_key("split", named=True, unique=True)
        )
    except (PolarsError, OSError) as error:
        return f"The folds with seed {seed} cannot be taken together: {str(error).splitlines()[0]}."
    for split in ("test", "validation"):
        count = counts.get(split)
        if count is not None and count["total"] == count["different"]:
            return Pooled(seed, split, count["correct"], count["total"], tuple(runs))
    return f"The folds with seed {seed} cannot be taken together: they have sequences in common."


def write_out_of_fold(path: Path, parts: Sequence[tuple[str, Pooled]]) -> None:
    """Replaces `path` by a Parquet table of all pooled predictions. Raises OutputError.

    A row for each sequence, once for each configuration and seed: configuration, seed, fold, id, label,
    predicted, and the probabilities.

    parts: the pooled predictions, each with the words of its configuration.
    """
    import polars as pl
    from polars.exceptions import PolarsError

    tables = [
        _scan(run)
        .filter(pl.col("split") == pooled.split)
        .select(
            pl.lit(words).alias("configuration"),
            pl.lit(pooled.seed).alias("seed"),
            pl.lit(run.fold).alias("fold"),
            pl.exclude("split"),
        )
        for words, pooled in parts
        for run in pooled.runs
    ]
    try:
        with replacement_of(path) as temporary:
            pl.concat(tables, how="diagonal_relaxed").sink_parquet(temporary)
    except PolarsError as error:
        raise OutputError(f"Cannot write {path}: {str(error).splitlines()[0]}.") from error


def _scan(run: FoldRun) -> pl.LazyFrame:
    import polars as pl

    return pl.scan_parquet(run.predictions, glob=False)
