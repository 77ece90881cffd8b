"""Generates synthetic example data: noisy waves whose frequency depends on the class. Torch-free.

Shapes: N sequences, S steps in total, C channels, P phases of a recording.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rnnclf.data.recordings import Array, Progress, silent
from rnnclf.errors import ConfigError, OutputError
from rnnclf.files import in_the_way
from rnnclf.options import Options, option

CLASSES = ("calm", "quick", "hasty")
CHUNK = 2000  # sequences to generate and write at a time
GROUP = 5  # sequences per person
STEPS = 2**18  # steps of a recording to generate and write at a time
PHASE = (10.0, 60.0)  # seconds after which the class of a recording changes, at least and at most
NOISE = 0.5  # standard deviation, relative to the amplitude of a wave


@dataclass
class Waves(Options):
    """Noisy waves of different lengths. The same seed gives the same sequences in every format."""

    sequences: int = option(300, "number of sequences", low=2 * GROUP * len(CLASSES), high=100_000_000)
    channels: int = option(3, "number of channels", low=1, high=10_000)
    length: int = option(
        60, "mean number of steps per sequence; lengths range from half to one and a half of it", low=2
    )
    missing: float = option(0.05, "fraction of missing values", low=0, high=0.9)
    seed: int = option(0, "seed of all random draws", low=0, high=2**32 - 1)

    @property
    def total(self) -> int:
        """What is counted when progress is reported."""
        return self.sequences

    def frames(self) -> Iterator[tuple[Any, int]]:
        """All sequences as tables with a row for each step, each with the number of sequences so far."""
        for chunk in self.chunks():
            yield _frame(chunk), int(chunk.numbers_N[-1]) + 1

    def chunks(self) -> Iterator[Chunk]:
        """All sequences, in chunks."""
        for first in range(0, self.sequences, CHUNK):
            yield self._chunk(first, min(first + CHUNK, self.sequences))

    def _chunk(self, first: int, last: int) -> Chunk:
        import numpy as np

        random = np.random.default_rng([self.seed, first])
        numbers_n = np.arange(first, last)
        labels_n = random.integers(0, len(CLASSES), last - first)
        lengths_n = random.integers(self.length // 2, self.length + self.length // 2 + 1, last - first).clip(
            1
        )
        steps = int(lengths_n.sum())
        times_S = random.uniform(0.5, 1.5, steps).cumsum()
        times_S -= np.repeat(times_S[lengths_n.cumsum() - lengths_n], lengths_n)
        per_length_S = np.repeat(2.0 + 2.0 * labels_n, lengths_n) / self.length
        phase_SC = np.repeat(random.uniform(0, 2 * np.pi, (last - first, self.channels)), lengths_n, axis=0)
        faster_C = 1 + np.arange(self.channels) / self.channels
        x_SC = np.sin(2 * np.pi * (times_S * per_length_S)[:, None] * faster_C + phase_SC)
        x_SC += random.normal(0, NOISE, x_SC.shape)
        x_SC[random.random(x_SC.shape) < self.missing] = np.nan
        return Chunk(numbers_n, lengths_n, labels_n, times_S, x_SC.astype(np.float32))


class Chunk(NamedTuple):
    """Some sequences: their numbers, lengths and labels (N,), times (S,) and values (S, C)."""

    numbers_N: Array
    lengths_N: Array
    labels_N: Array
    times_S: Array
    x_SC: Array


@dataclass
class LongWaves(Options):
    """Long recordings with a label in each row: waves whose class changes after 10 to 60 seconds."""

    hours: float = option(1.0, "length of each recording", above=0, high=10_000)
    recordings: int = option(1, "number of recordings", low=1, high=1_000_000)
    rate: float = option(100.0, "steps per second", above=0, high=10_000)
    channels: int = option(3, "number of channels", low=1, high=10_000)
    missing: float = option(0.0, "fraction of missing values", low=0, high=0.9)
    seed: int = option(0, "seed of all random draws", low=0, high=2**32 - 1)

    @property
    def total(self) -> int:
        """What is counted when progress is reported."""
        return self.recordings * self.steps

    @property
    def steps(self) -> int:
        """The number of steps of a recording."""
        return max(round(self.hours * 3600 * self.rate), 1)

    def frames(self) -> Iterator[tuple[Any, int]]:
        """All recordings as tables with a row for each step, each with the number of steps so far."""
        for recording in range(self.recordings):
            for first in range(0, self.steps, STEPS):
                last = min(first + STEPS, self.steps)
                yield self._frame(recording, first, last), recording * self.steps + last

    def _frame(self, recording: int, first: int, last: int) -> Any:
        """Some steps of a recording. Phases begin anew with each chunk, so that none depends on another."""
        import numpy as np
        import polars as pl

        random = np.random.default_rng([self.seed, recording, first])
        seconds_S = np.arange(first, last) / self.rate
        phases = int((last - first) / self.rate // PHASE[0]) + 1
        ends_P = random.uniform(*PHASE, phases).cumsum()
        phase_S = np.searchsorted(ends_P, seconds_S - seconds_S[0], side="right").clip(max=phases - 1)
        labels_P = random.integers(0, len(CLASSES), phases)
        angle_S = 2 * np.pi * seconds_S * (1.0 + labels_P[phase_S])
        faster_C = 1 + np.arange(self.channels) / self.channels
        x_SC = np.sin(angle_S[:, None] * faster_C) + random.normal(0, NOISE, (last - first, self.channels))
        x_SC[random.random(x_SC.shape) < self.missing] = np.nan
        columns = {
            "recording": np.full(last - first, recording),
            "time": seconds_S.round(6),
            **{f"x{c}": x_SC[:, c].astype(np.float32) for c in range(self.channels)},
            "label": np.asarray(CLASSES)[labels_P[phase_S]],
        }
        return pl.DataFrame(columns).with_columns(pl.col("^x[0-9]+$").fill_nan(None))


Made: TypeAlias = Waves | LongWaves


def make(path: Path, waves: Made, progress: Progress = silent) -> None:
    """Writes the sequences in the format given by the suffix of `path`.

    .csv, .tsv and .parquet: a table with one row per step; .npz: arrays; no suffix: a folder with one folder
    per class and one file per sequence. Long recordings are written as a table, chunk by chunk. Raises
    ConfigError for another suffix and if `path` exists, and OutputError if it cannot be written.
    """
    write = WRITERS.get(path.suffix.lower())
    if isinstance(waves, LongWaves) and write not in TABLES.values():
        raise ConfigError(
            f"{path.name}: recordings with a label in each row are written to {', '.join(TABLES)}."
        )
    if write is None:
        known = ", ".join(filter(None, WRITERS))
        raise ConfigError(
            f"{path.name}: the name must end in {known}, or have no suffix for a folder of files."
        )
    if path.exists():
        raise ConfigError(f"{path} already exists and is not overwritten: choose another name.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary, waves, lambda done: progress(f"writing {path.name}", done / waves.total))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {in_the_way(path.parent) or error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(
            missing_ok=True
        )


Report = Callable[[int], None]
"""Called with the number of sequences or steps written so far."""


def _frame(chunk: Chunk) -> Any:
    """A polars frame with one row per step."""
    import numpy as np
    import polars as pl

    names_N = np.asarray(CLASSES)[chunk.labels_N]
    columns = {
        "id": np.repeat(chunk.numbers_N, chunk.lengths_N),
        "person": np.repeat(chunk.numbers_N // GROUP, chunk.lengths_N),
        "time": chunk.times_S.round(3),
        **{f"x{c}": chunk.x_SC[:, c] for c in range(chunk.x_SC.shape[1])},
        "label": np.repeat(names_N, chunk.lengths_N),
    }
    return pl.DataFrame(columns).with_columns(pl.col("^x[0-9]+$").fill_nan(None))


def _write_text(separator: str) -> Callable[[Path, Made, Report], None]:
    def write(path: Path, waves: Made, report: Report) -> None:
        with open(path, "wb") as file:
            for number, (frame, done) in enumerate(waves.frames()):
                frame.write_csv(file, separator=separator, include_header=number == 0, float_precision=4)
                report(done)

    return write


def _write_parquet(path: Path, waves: Made, report: Report) -> None:
    from polars.io.plugins import register_io_source

    def frames(*_: Any) -> Iterator[Any]:
        for frame, done in waves.frames():
            report(done)
            yield frame

    first, _ = next(waves.frames())
    register_io_source(frames, schema=first.schema).sink_parquet(path)


def _write_npz(path: Path, waves: Waves, report: Report) -> None:
    import numpy as np

    chunks = list(waves.chunks())
    lengths_N = np.concatenate([chunk.lengths_N for chunk in chunks])
    x_NTC = np.zeros((len(lengths_N), int(lengths_N.max()), waves.channels), np.float32)
    valid_NT = np.arange(x_NTC.shape[1]) < lengths_N[:, None]
    x_NTC[valid_NT] = np.concatenate([chunk.x_SC for chunk in chunks])
    names_N = np.asarray(CLASSES)[np.concatenate([chunk.labels_N for chunk in chunks])]
    with open(path, "wb") as file:
        np.savez(file, x=x_NTC, y=names_N, lengths=lengths_N)
    report(waves.sequences)


def _write_folder(path: Path, waves: Waves, report: Report) -> None:
    for chunk in waves.chunks():
        for (_, _, label), frame in _frame(chunk).group_by("id", "person", "label", maintain_order=True):
            number = int(frame["id"][0])
            (path / str(label)).mkdir(parents=True, exist_ok=True)
            frame.drop("id", "person", "label").write_csv(
                path / str(label) / f"p{number // GROUP}_{number}.csv", float_precision=4
            )
            report(number + 1)


TABLES: dict[str, Callable[[Path, Made, Report], None]] = {
    ".csv": _write_text(","),
    ".tsv": _write_text("\t"),
    ".parquet": _write_parquet,
}
WRITERS: dict[str, Callable[[Path, Any, Report], None]] = {**TABLES, ".npz": _write_npz, "": _write_folder}
