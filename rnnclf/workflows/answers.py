"""What a model says of each sequence, as tables: their columns, and files of them. Prints nothing.

Shapes: N sequences of a part, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rnnclf.data.recordings import Array
from rnnclf.errors import ConfigError, OutputError
from rnnclf.files import refuse_pipe, replacement_of
from rnnclf.registry import did_you_mean
from rnnclf.workflows.sureness import ALWAYS_SURE, Sureness

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DIGITS = 6  # of probabilities and logits in text
BETWEEN = "|"  # the classes of a set in CSV and TSV


@dataclass(frozen=True)
class Layout:
    """The columns of the answers.

    top: the most probable classes, so many of them; 0: the probability of every class instead.
    logits: the outputs of the model instead of the probabilities of all classes.
    chosen: these columns alone, in this order; none: all.
    sure: what is said where the model is not sure.
    as_text: whether the table is CSV or TSV, which have no lists.
    """

    classes: tuple[str, ...]
    top: int = 0
    logits: bool = False
    chosen: tuple[str, ...] = ()
    sure: Sureness = ALWAYS_SURE
    as_text: bool = False

    def __post_init__(self) -> None:
        if len({*self.chosen}) < len(self.chosen):
            raise ConfigError("--columns names a column twice.")
        if self.top > len(self.classes):
            raise ConfigError(f"--top {self.top} is more than the model's {len(self.classes)} classes.")
        if self.top and self.logits:
            raise ConfigError("--top and --logits do not go together: leave one out.")
        if self.top and self.sure.abstain_limit is not None:
            raise ConfigError("--top names classes where --abstain names none: leave one out.")
        self._refuse_ambiguous_sets()
        for name in self.chosen:
            if name not in self.names:
                hint = did_you_mean(name, self.names)
                raise ConfigError(
                    f"--columns: there is no column '{name}'.{hint} Known: {', '.join(self.names)}."
                )

    def _refuse_ambiguous_sets(self) -> None:
        if self.sure.set_limit is None or not self.as_text:
            return
        if odd := [name for name in self.classes if BETWEEN in name]:
            raise ConfigError(
                f"The class '{odd[0]}' contains {BETWEEN}, which separates the classes of a set in text:"
                " write .jsonl or .parquet, or use --json."
            )

    @property
    def names(self) -> list[str]:
        """All columns. Those of classes have a prefix, so that a class may have any name."""
        ranks = [f"_{rank}" for rank in range(2, self.top + 1)]
        ranked = [f"{name}{rank}" for rank in ("", *ranks) for name in ("class", "probability")]
        doubts = {"set": self.sure.set_limit is not None, "abstain": self.sure.may_abstain}
        ranked += [name for name, wanted in doubts.items() if wanted]
        prefix = "l_" if self.logits else "p_"
        return ["id", *ranked, *([] if self.top else [f"{prefix}{name}" for name in self.classes])]

    def frame(self, ids_N: Array, probabilities_NK: Array, logits_NK: Array | None) -> pl.DataFrame:
        """The answers for some sequences, a row for each; a row of NaN is one without an answer."""
        import numpy as np
        import polars as pl

        known_N = ~np.isnan(probabilities_NK[:, 0])
        classes_K = np.array(self.classes, dtype=object)
        columns: dict[str, pl.Series] = {
            "id": pl.Series(ids_N.tolist(), dtype=pl.String if ids_N.dtype == object else pl.Int64)
        }
        order_NK = np.argsort(-probabilities_NK, axis=1, kind="stable")
        undecided_N = self.sure.abstains(probabilities_NK)
        for rank, place_N in enumerate(order_NK[:, : max(self.top, 1)].T, start=1):
            suffix = "" if rank == 1 else f"_{rank}"
            named_N = classes_K[place_N]
            named_N[~known_N] = None
            if self.sure.abstain_limit is not None:
                named_N[undecided_N] = None
            columns[f"class{suffix}"] = pl.Series(named_N.tolist(), dtype=pl.String)
            columns[f"probability{suffix}"] = _numbers(probabilities_NK[np.arange(len(place_N)), place_N])
        if self.sure.set_limit is not None:
            columns["set"] = self._sets(probabilities_NK, order_NK)
        if self.sure.may_abstain:
            marks = zip(known_N.tolist(), undecided_N.tolist(), strict=True)
            columns["abstain"] = pl.Series(
                [mark if known else None for known, mark in marks], dtype=pl.Boolean
            )
        if not self.top:
            shown_NK, prefix = (logits_NK, "l_") if self.logits else (probabilities_NK, "p_")
            assert shown_NK is not None
            columns |= {f"{prefix}{n}": _numbers(shown_NK[:, k]) for k, n in enumerate(self.classes)}
        return pl.DataFrame({name: columns[name] for name in self.chosen or self.names})

    def _sets(self, probabilities_NK: Array, order_NK: Array) -> pl.Series:
        """The classes of each set, the most probable first; in text one after another."""
        import numpy as np
        import polars as pl

        known_N = ~np.isnan(probabilities_NK[:, 0])
        size_N = self.sure.sets(probabilities_NK).sum(axis=1)
        found: list[list[str] | None] = [
            [self.classes[k] for k in order_K[:size]] if known else None
            for order_K, size, known in zip(order_NK.tolist(), size_N.tolist(), known_N.tolist(), strict=True)
        ]
        series = pl.Series(found, dtype=pl.List(pl.String))
        return series.list.join(BETWEEN) if self.as_text else series


def _numbers(values_N: Array) -> pl.Series:
    import polars as pl

    return pl.Series(values_N.astype("f8")).fill_nan(None)


def is_text(path: Path | None, json: bool) -> bool:
    """Whether a table for this file, or for stdout, is CSV or TSV."""
    return not json if path is None else path.suffix.lower() in (".csv", ".tsv")


class Writer(Protocol):
    """Takes answers part by part."""

    def __call__(self, frame: pl.DataFrame) -> None: ...


@contextmanager
def table_at(path: Path) -> Iterator[Writer]:
    """Replaces the file at `path` by a table, of the kind that its suffix says, when all parts are there.

    Until then, and after any error, the old file stays. Raises ConfigError for another suffix, OutputError.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path} should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    refuse_pipe(path)
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.")
    with replacement_of(path) as temporary:
        if suffix == ".parquet":
            with _parquet(temporary) as write:
                yield write
            return
        with open(temporary, "xb") as file:
            as_text = Text(suffix)
            yield lambda frame: _write(file, as_text(frame))


def _write(file: object, text: bytes) -> None:
    file.write(text)  # type: ignore[attr-defined]


class Text:
    """Turns parts of a table into UTF-8 text, the first with a header."""

    def __init__(self, suffix: str = ".csv") -> None:
        self._suffix, self._first = suffix, True

    def __call__(self, frame: pl.DataFrame) -> bytes:
        import polars as pl

        header, self._first = self._first, False
        if self._suffix == ".jsonl":
            return frame.with_columns(pl.col(pl.Float64).round(DIGITS)).write_ndjson().encode()
        separator = "\t" if self._suffix == ".tsv" else ","
        return frame.write_csv(include_header=header, separator=separator, float_precision=DIGITS).encode()


@contextmanager
def _parquet(path: Path) -> Iterator[Writer]:
    """Writes parts beside the final file and joins them at the end, so that no more than one is in memory."""
    import polars as pl

    with tempfile.TemporaryDirectory(
        prefix=f"{path.name}.", dir=path.parent, ignore_cleanup_errors=True
    ) as folder:
        parts: list[Path] = []

        def write(frame: pl.DataFrame) -> None:
            parts.append(Path(folder) / f"{len(parts)}.parquet")
            frame.write_parquet(parts[-1])

        try:
            yield write
            pl.scan_parquet(parts, glob=False).sink_parquet(path)
        except pl.exceptions.PolarsError as error:
            raise OSError(0, str(error)) from error
