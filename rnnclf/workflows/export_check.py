"""Compares an exported file with the classifier that it was made from. Prints nothing.

Shapes: N sequences, B batch, T time, C channels as read, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from rnnclf.data.base import Learned
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.splits import divide
from rnnclf.data.survey import digests
from rnnclf.errors import RnnclfError
from rnnclf.export.running import Runner
from rnnclf.model import SequenceClassifier
from rnnclf.workflows.loading import Loaded

MOST_SEQUENCES = 1000
MOST_STEPS = 200_000  # of all sequences together, or it takes longer than training
BATCH = 64
STEP_SEQUENCES = 20  # for a file of one step, of which each beginning is a sequence of its own
BEGINNINGS = 6
GAPS = 0.2  # share of the steps at which random sequences, or such for missing=drop, miss a value


class Batch(NamedTuple):
    """Sequences as read: x (B, T, C), their lengths, the time of each step (B, T), and their classes.

    NaN is a missing value, also after the end of a sequence.
    """

    x_BTC: Array
    lengths_B: Array
    times_BT: Array | None
    labels_B: Array | None


@dataclass(frozen=True)
class Sample:
    """The sequences for a comparison.

    why_random: why they are random ones; '' if they are from the validation split. ragged: whether all
    sequences of the data may differ in length.
    """

    batches: tuple[Batch, ...]
    ragged: bool
    why_random: str = ""

    def __len__(self) -> int:
        return sum(len(batch.x_BTC) for batch in self.batches)

    @property
    def steps(self) -> int:
        """A usual number of steps."""
        return int(np.median(np.concatenate([batch.lengths_B for batch in self.batches])))


@dataclass(frozen=True)
class Comparison:
    """How far the answers of a file and of the classifier are apart.

    difference: the largest one of two logits; largest: the largest logit. same: how many sequences get the
    same
    class. right: how many sequences the classifier and the file classify correctly; None if their classes are
    not known.
    """

    sequences: int
    difference: float
    largest: float
    same: int
    right: tuple[int, int] | None

    @property
    def relative(self) -> float:
        return self.difference / self.largest if self.largest else self.difference

    @property
    def accuracies(self) -> tuple[float, float] | None:
        return (
            None if self.right is None else (self.right[0] / self.sequences, self.right[1] / self.sequences)
        )


def sample_for(loaded: Loaded) -> Sample:
    """Validation sequences of the data that the model was trained on or, where these are gone, random
    ones."""
    try:
        recordings = loaded.config.dataset.recordings_for(loaded.learned)
        if digests(recordings).fingerprint(recordings) != loaded.checkpoint.fingerprint:
            raise RnnclfError("The data are not those of the training run.")
        return _validation(recordings, loaded)
    except RnnclfError as error:
        preparation = loaded.learned.preparation
        usual = min(int(loaded.checkpoint.header.get("steps") or 50) * preparation.patch, 200)
        steps = usual if loaded.steps is None else loaded.steps * preparation.patch
        ragged = loaded.config.dataset.layout() is None and loaded.steps is None
        return Sample((_random(preparation, steps, ragged),), ragged, str(error))


def _validation(recordings: Recordings, loaded: Loaded) -> Sample:
    places_n = divide(recordings, loaded.config.dataset.plan())["validation"]
    lengths_n = recordings.lengths_N[places_n]
    most = max(min(MOST_SEQUENCES, MOST_STEPS // max(int(lengths_n.mean()), 1), len(places_n)), 1)
    some_n = places_n[np.linspace(0, len(places_n) - 1, most).astype(np.int64)]
    some_n = some_n[np.argsort(recordings.lengths_N[some_n], kind="stable")]
    parts = np.array_split(some_n, -(-len(some_n) // BATCH))
    ragged = bool((recordings.lengths_N != recordings.lengths_N[0]).any())
    batches = tuple(batch_of(recordings, part_n) for part_n in parts)
    recordings.refuse_changed()
    return Sample(batches, ragged)


def batch_of(recordings: Recordings, places_B: Array) -> Batch:
    """The sequences at `places_B`, as read."""
    starts_B, lengths_B = recordings.starts_N[places_B], recordings.lengths_N[places_B]
    t_T = np.arange(lengths_B.max())
    steps_BT = starts_B[:, None] + np.minimum(t_T, lengths_B[:, None] - 1)
    x_BTC = np.asarray(recordings.values_SC[steps_BT])
    if x_BTC.dtype.kind == "f" and (t_T >= lengths_B[:, None]).any():
        x_BTC[t_T >= lengths_B[:, None]] = np.nan
    times_BT = None if recordings.times_S is None else recordings.times_S[steps_BT]
    return Batch(x_BTC, lengths_B, times_BT, recordings.labels_N[places_B])


def elapsed_of(batch: Batch) -> Array:
    """The time since the step before (B, T); 1 if the data have no times."""
    times_BT = batch.times_BT
    if times_BT is None:
        return np.ones(batch.x_BTC.shape[:2])
    return np.diff(times_BT, axis=1, prepend=times_BT[:, :1])


def _random(preparation: Preparation, steps: int, ragged: bool) -> Batch:
    draw = np.random.default_rng(0)
    shape = (BATCH, steps, len(preparation.channels))
    x_BTC = np.array(preparation.shift_C) + np.array(preparation.scale_C) * draw.normal(size=shape)
    lengths_B = draw.integers(1, steps + 1, BATCH) if ragged else np.full(BATCH, steps)
    if preparation.fills_gaps:
        x_BTC[draw.random(shape) < GAPS] = np.nan
    x_BTC[np.arange(steps) >= lengths_B[:, None]] = np.nan
    times_BT = (
        np.cumsum(draw.exponential(preparation.interval, shape[:2]), axis=1) if preparation.timed else None
    )
    return Batch(x_BTC, lengths_B, times_BT, None)


class _Fed(NamedTuple):
    """What a file is given for a batch: x (B, T, C), lengths, time since the step before (B, T); and how many
    steps have no missing value up to each step, (B, T)."""

    x_BTC: Array
    lengths_B: Array
    elapsed_BT: Array
    done_BT: Array


def _fed(batch: Batch, drops: bool) -> _Fed:
    """A batch as a file is given it. With missing=drop, of which the batch has no more such steps, steps that
    miss a value are put in at random: they must change nothing."""
    x, lengths = batch.x_BTC, batch.lengths_B
    elapsed = elapsed_of(batch)
    done = np.broadcast_to(np.arange(1, x.shape[1] + 1), x.shape[:2])
    if not drops:
        return _Fed(x, lengths, elapsed, done)
    draw = np.random.default_rng(1)
    extra = max(int(GAPS * x.shape[1]), 1)
    wide = np.full((len(x), x.shape[1] + extra, x.shape[2]), np.nan)
    done = np.zeros(wide.shape[:2], np.int64)
    for row, length in enumerate(lengths):
        kept = np.sort(draw.permutation(length + extra)[:length])
        wide[row, kept] = x[row, :length]
        done[row, kept] = 1
    return _Fed(wide, lengths + extra, np.ones(wide.shape[:2]), done.cumsum(axis=1))


def compared(model: SequenceClassifier, learned: Learned, file: Runner, sample: Sample) -> Comparison:
    """Compares a file with the classifier on all sequences of a sample."""
    one_step = file.file.facts["kind"] == "step"
    pairs = _beginnings(model, learned, file, sample) if one_step else _wholes(model, learned, file, sample)
    sequences = same = 0
    right, known = np.zeros(2, np.int64), True
    difference = largest = 0.0
    for wanted, found, labels, whole in pairs:
        difference = max(difference, _largest(wanted - found))
        largest = max(largest, _largest(wanted))
        if not whole:
            continue
        sequences += len(wanted)
        same += int((wanted.argmax(1) == found.argmax(1)).sum())
        known = known and labels is not None
        if labels is not None:
            right += [(wanted.argmax(1) == labels).sum(), (found.argmax(1) == labels).sum()]
    return Comparison(sequences, difference, largest, same, (int(right[0]), int(right[1])) if known else None)


Pair: TypeAlias = "tuple[Array, Array, Array | None, bool]"
"""Logits of the classifier and of the file (B, K), labels (B), and whether these are whole sequences."""


def _largest(values: Array) -> float:
    """The largest absolute value; infinity if there is a NaN, so that it is no small difference."""
    found = float(np.abs(values).max(initial=0))
    return found if np.isfinite(found) else float("inf")


def _wholes(model: SequenceClassifier, learned: Learned, file: Runner, sample: Sample) -> Iterator[Pair]:
    drops = learned.preparation.missing == "drop"
    for batch in sample.batches:
        fed = _fed(batch, drops)
        [found] = file.answers(fed.x_BTC, fed.lengths_B, fed.elapsed_BT)
        yield answered(model, learned.preparation, batch, batch.lengths_B), found, batch.labels_B, True


def answered(model: SequenceClassifier, preparation: Preparation, batch: Batch, lengths_B: Array) -> Array:
    """The logits (B, K) of the classifier for the first `lengths_B` steps of each sequence."""
    t = int(lengths_B.max())
    lengths = torch.from_numpy(np.ascontiguousarray(lengths_B))
    times = None if batch.times_BT is None else torch.from_numpy(batch.times_BT[:, :t].copy())
    x = torch.from_numpy(np.ascontiguousarray(batch.x_BTC[:, :t]))
    with torch.inference_mode():
        logits = model(preparation(x, lengths, times), preparation.steps_of(lengths))
    found: Array = logits.numpy()
    return found


def _beginnings(model: SequenceClassifier, learned: Learned, file: Runner, sample: Sample) -> Iterator[Pair]:
    """Answers after each sequence, and after some beginnings of it, one step after another."""
    drops = learned.preparation.missing == "drop"
    left = STEP_SEQUENCES
    for batch in reversed(sample.batches):  # the longest first
        batch = Batch(*(None if part is None else part[:left] for part in batch))  # type: ignore[arg-type]
        left -= len(batch.x_BTC)
        fed = _fed(batch, drops)
        steps = fed.x_BTC.shape[1]
        looked_at = set(np.linspace(0, steps - 1, min(BEGINNINGS, steps)).astype(int).tolist())
        last_BK = np.zeros((len(fed.x_BTC), len(learned.classes)), np.float32)
        state = np.zeros((len(fed.x_BTC), file.width), np.float32)
        for t in range(steps):
            logits, state = file.step(fed.x_BTC[:, t], state, fed.elapsed_BT[:, t])
            ends = fed.lengths_B - 1 == t
            last_BK[ends] = logits[ends]
            going = (t < fed.lengths_B) & (fed.done_BT[:, t] > 0)
            if t in looked_at and going.any():
                some = Batch(*(None if part is None else part[going] for part in batch))  # type: ignore[arg-type]
                yield (
                    answered(model, learned.preparation, some, fed.done_BT[going, t]),
                    logits[going],
                    None,
                    False,
                )
        yield answered(model, learned.preparation, batch, batch.lengths_B), last_BK, batch.labels_B, True
        if left <= 0:
            return
