"""Which test sequences one classifier gets right and another wrong. Prints nothing, imports no torch.

Shapes: R pairs of runs, N test sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnnclf.data.recordings import Array
from rnnclf.workflows.runs import EVALUATIONS, RunFolder, evaluation_record, fits, read_json_list

if TYPE_CHECKING:
    import polars as pl

EXAMPLES = 5  # sequences of each kind that are named


@dataclass(frozen=True)
class Example:
    """A sequence that one side gets right and the other wrong."""

    id: str
    label: str
    predicted: str
    """What the side that is wrong takes it for, most often."""
    share: float
    """The share of the pairs of runs in which it is so."""


@dataclass(frozen=True)
class ClassCounts:
    """How often one side alone is right, among the sequences of a class."""

    label: str
    only_first: int
    only_second: int
    total: int


@dataclass(frozen=True)
class Disagreement:
    """The answers of two sides to the same sequences, counted over their pairs of runs."""

    pairs: int
    """The number of pairs of runs."""
    both: int
    only_first: int
    only_second: int
    neither: int
    by_class: tuple[ClassCounts, ...]
    """The classes on which the sides differ, those with the largest imbalance first."""
    first_right: tuple[Example, ...]
    """Sequences that only the first side gets right, those where this is so in most of the pairs first."""
    second_right: tuple[Example, ...]


class Answers:
    """The test predictions of runs, each read once."""

    def __init__(self) -> None:
        self._read: dict[Path, pl.DataFrame | None] = {}

    def of(self, run: RunFolder) -> pl.DataFrame | None:
        """The id, label and predicted class of each test sequence, by id, and of windows the recording; None
        if they are not recorded.

        From the run folder or, if they are not there, from the newest evaluation of the run.
        """
        if run.path not in self._read:
            files = [run.predictions, *evaluated(run)]
            self._read[run.path] = next((found for found in map(_read, files) if found is not None), None)
        return self._read[run.path]

    def pairs(self, runs: Sequence[tuple[RunFolder, RunFolder]]) -> list[pl.DataFrame] | None:
        """For each pair of runs the id, label, and both predicted classes of each sequence, and of windows
        the recording.

        None if the predictions of a run are missing, or two runs were tested on different sequences.
        """
        found = []
        for first, second in runs:
            one, other = self.of(first), self.of(second)
            if one is None or other is None or not _same(one, other):
                return None
            found.append(one.rename({"predicted": "first"}).with_columns(second=other["predicted"]))
        return found


def evaluated(run: RunFolder) -> Iterator[Path]:
    """The predictions of the evaluations of a run on its own test split, the newest first."""
    for record in sorted((run.path / EVALUATIONS).glob(f"*/{evaluation_record(Path()).name}"), reverse=True):
        form = {"checkpoint": str, "split": str, "other_data": bool}
        match read_json_list(record):
            case [entry] if fits(entry, form):
                own = Path(entry["checkpoint"]).name == run.best.name
                if own and entry["split"] == "test" and not entry["other_data"]:
                    yield record.parent / run.predictions.name


def _read(file: Path) -> pl.DataFrame | None:
    import polars as pl
    from polars.exceptions import PolarsError

    if not file.is_file():
        return None
    try:
        test = pl.scan_parquet(file, glob=False).filter(pl.col("split") == "test")
        texts = pl.col("label", "predicted").cast(pl.String).fill_null("")
        windows = ["recording"] if "recording" in test.collect_schema() else []
        answers = test.select("id", *windows, texts).collect()
    except (PolarsError, pl.exceptions.PanicException, OSError):
        return None
    return answers.sort("id", "label", maintain_order=True) if len(answers) else None


def _same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return one.select("id", "label").equals(other.select("id", "label"))


def differences(pairs: Sequence[pl.DataFrame]) -> Array | None:
    """For each pair and sequence 1 if the first side alone is right, -1 if the second alone is, else 0.

    Its shape is (R, N). None if the pairs are not of the same sequences.

    Windows of one recording are alike, so recordings take the place of sequences: each has the sum of its
    windows, scaled so that the mean stays the same.
    """
    import numpy as np
    import polars as pl

    if not all(_same(pairs[0], pair) for pair in pairs[1:]):
        return None
    rows = [
        (pair["first"] == pair["label"]).to_numpy().astype(np.int8)
        - (pair["second"] == pair["label"]).to_numpy()
        for pair in pairs
    ]
    if not has_windows(pairs):
        return np.stack(rows)
    recording_N = pairs[0].select(pl.col("recording").rank("dense") - 1).to_series().to_numpy()
    recordings = int(recording_N.max()) + 1
    scale = recordings / len(recording_N)
    return np.stack([np.bincount(recording_N, row, recordings) * scale for row in rows])


def has_windows(pairs: Sequence[pl.DataFrame]) -> bool:
    """Whether the sequences are windows of recordings."""
    return "recording" in pairs[0].columns


def disagreement(pairs: Sequence[pl.DataFrame]) -> Disagreement:
    import polars as pl

    right, other = (pl.col(side) == pl.col("label") for side in ("first", "second"))
    whole = pl.concat(pairs).with_columns(
        both=right & other, only_first=right & ~other, only_second=~right & other, neither=~right & ~other
    )
    kinds = ("both", "only_first", "only_second", "neither")
    counts = whole.select(pl.col(*kinds).sum()).row(0, named=True)
    classes = (
        whole.group_by("label")
        .agg(pl.col("only_first", "only_second").sum().cast(pl.Int64), total=pl.len())
        .filter(pl.col("only_first") + pl.col("only_second") > 0)
        .sort(-(pl.col("only_first") - pl.col("only_second")).abs(), "label")
    )
    return Disagreement(
        pairs=len(pairs),
        **counts,
        by_class=tuple(ClassCounts(**row) for row in classes.iter_rows(named=True)),
        first_right=_examples(whole, "only_first", "second"),
        second_right=_examples(whole, "only_second", "first"),
    )


def _examples(whole: pl.DataFrame, kind: str, wrong: str) -> tuple[Example, ...]:
    import polars as pl

    rows = (
        whole.group_by("id", "label", maintain_order=True)
        .agg(share=pl.col(kind).mean(), predicted=pl.col(wrong).filter(pl.col(kind)).mode().sort().first())
        .filter(pl.col("share") > 0)
        .sort("share", descending=True, maintain_order=True)
        .head(EXAMPLES)
        .rows(named=True)
    )
    return tuple(Example(str(row["id"]), row["label"], row["predicted"], row["share"]) for row in rows)
