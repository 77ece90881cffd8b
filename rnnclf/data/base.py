"""Where sequences come from, and the one way from what was read to three splits.

A source reads; what follows is the same for all: missing values, splits, the preparation that is learned
from the training split.  Shapes: N sequences, S steps of all of them, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rnnclf.data.dataset import SequenceDataset
from rnnclf.data.preparation import Preparation, fitted, without_gaps
from rnnclf.data.recordings import Array, Progress, Recordings, silent
from rnnclf.data.splits import Plan, SplitName, divide, shared
from rnnclf.data.survey import digests
from rnnclf.errors import CheckpointError, DataError
from rnnclf.options import Component, option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.layout import PictureLayout

NORMALISERS = ("none", "standard", "minmax", "robust")


@dataclass(frozen=True)
class Learned:
    """What a model learned of its data beside its weights: eval takes it from the checkpoint."""

    preparation: Preparation
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set, and what is known of all of it."""

    train: SequenceDataset
    validation: SequenceDataset
    test: SequenceDataset
    fingerprint: str
    """SHA-256 of everything that was read."""
    learned: Learned
    notes: tuple[str, ...] = ()
    """What was guessed or found while reading."""
    warnings: tuple[str, ...] = ()
    """What makes the scores doubtful."""

    def __getitem__(self, name: SplitName) -> SequenceDataset:
        part: SequenceDataset = getattr(self, name)
        return part


@dataclass
class Source(Component):
    """Base of every data source: its options, and how they become three splits."""

    validation: float = option(
        0.1, "set aside to choose the best epoch: a number of sequences, or a share below 1", above=0
    )
    test: float = option(
        0.2, "set aside for the test, where the data name none: a number, or a share below 1", above=0
    )
    split: str = option("random", "which ones: a stratified draw, or the first", choices=("random", "first"))
    split_seed: int = option(
        0, "seed of the draw; apart from `seed`, so that runs share their splits", low=0, high=2**32 - 1
    )
    folds: int | None = option(
        None,
        "cross-validation: parts, of which one is the test split, or where it is given validation",
        low=2,
    )
    fold: int = option(0, "which of the folds, counted from 0", low=0)
    missing: str = option(
        "error",
        "what becomes of missing values: mask adds channels that say where and since when, interpolate"
        " draws lines between neighbours, drop leaves out steps",
        choices=("error", "mask", "interpolate", "drop"),
    )
    normalise: str = option(
        "none",
        "each channel, by the training data: mean 0 and deviation 1, range 0 to 1, or median and quartiles",
        choices=NORMALISERS,
    )

    def read(self, progress: Progress = silent) -> Recordings:
        """Reads all sequences. Raises DataError where a file is missing or not what it should be."""
        raise NotImplementedError(f"{type(self).__name__} must define read().")

    def reading(self) -> dict[str, Any]:
        """What decides the meaning of a step beside the data; a model is good for one reading only."""
        return {}

    def layout(self) -> PictureLayout | None:
        """How pictures lie in the sequences, where they are pictures: for augmentation."""
        return None

    def title(self) -> str:
        """What the data are called in tables."""
        return self.name

    def load(self, learned: Learned | None = None, progress: Progress = silent) -> Splits:
        """Reads and divides the data, and prepares them as `learned` says or as the training split teaches.

        Raises DataError or ConfigError for data that cannot be trained with, CheckpointError where they
        are not such as `learned` was learned from.
        """
        return self.divided(self.read(progress), self.plan(), learned, progress)

    def divided(
        self, recordings: Recordings, plan: Plan, learned: Learned | None = None, progress: Progress = silent
    ) -> Splits:
        """Divides and prepares recordings. Raises the same errors as `load`."""
        recordings = self._usable(recordings, learned)
        parts = divide(recordings, plan)
        if learned is None:
            preparation = fitted(recordings, parts["train"], self.missing, self.normalise)
            learned = Learned(preparation, recordings.classes)
        hashes = digests(recordings, progress)
        whole = assembled(recordings, learned)
        return Splits(
            **{name: whole.subset(_tensor(places)) for name, places in parts.items()},
            fingerprint=hashes.fingerprint(recordings),
            learned=learned,
            notes=recordings.notes,
            warnings=tuple(leaks(hashes.digests_N, parts)),
        )

    def load_whole(self, learned: Learned, progress: Progress = silent) -> tuple[SequenceDataset, str]:
        """All sequences undivided, prepared as `learned` says, and their fingerprint."""
        recordings = self._usable(self.read(progress), learned)
        return assembled(recordings, learned), digests(recordings, progress).fingerprint(recordings)

    def plan(self) -> Plan:
        return Plan(self.validation, self.test, self.split, self.split_seed, self.folds, self.fold)

    def _usable(self, recordings: Recordings, learned: Learned | None) -> Recordings:
        if learned is not None:
            return without_gaps(_as_learned(recordings, learned), learned.preparation.missing)
        refuse_one_class(recordings)
        return without_gaps(recordings, self.missing)


def refuse_one_class(recordings: Recordings) -> None:
    """Raises DataError where there is nothing to tell apart."""
    if len(recordings.classes) == 1:
        raise DataError(
            f"All {len(recordings):,} sequences are of one class, '{recordings.classes[0]}':"
            " a classifier needs two at least."
        )


def leaks(digests_N: Array, parts: dict[SplitName, Array]) -> list[str]:
    """A sentence for each pair of splits that share sequences."""
    return [
        f"{count:,} of the {len(parts[second]):,} {second} sequences {'are' if count > 1 else 'is'} in the"
        f" {first} split, too: the {second} score will be too good."
        for (first, second), count in shared(digests_N, parts).items()
    ]


def _as_learned(recordings: Recordings, learned: Learned) -> Recordings:
    """The recordings with labels counted as in `learned`. Raises CheckpointError where that cannot be."""
    import numpy as np

    channels, known = learned.preparation.channels, learned.classes
    if len(channels) != len(recordings.channels):
        raise CheckpointError(
            f"The model was trained on sequences of {len(channels)} features a step;"
            f" these have {len(recordings.channels)}."
        )
    if channels != recordings.channels:
        raise CheckpointError(
            f"The model was trained on the channels {_listed(channels)};"
            f" these are {_listed(recordings.channels)}."
        )
    if foreign := [name for name in recordings.classes if name not in known]:
        raise CheckpointError(
            f"The model knows the classes {_listed(known)}; these data have {_listed(tuple(foreign))}, too."
        )
    place_K = np.array([known.index(name) for name in recordings.classes], np.int64)
    return replace(recordings, labels_N=place_K[recordings.labels_N], classes=known)


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} … ({len(names)})" if len(names) > 12 else shown


def assembled(recordings: Recordings, learned: Learned) -> SequenceDataset:
    """All sequences as training takes them: prepared now where they fit into memory, else batch by batch.

    Bytes, such as pictures, are always prepared batch by batch: that takes no longer than to fetch four times
    as much from memory.
    """
    data = SequenceDataset(
        x_SI=_tensor(recordings.values_SC),
        starts_N=_tensor(recordings.starts_N),
        lengths_N=_tensor(recordings.lengths_N),
        y_N=_tensor(recordings.labels_N),
        classes=learned.classes,
        times_S=None if recordings.times_S is None else _tensor(recordings.times_S),
        preparation=learned.preparation,
        ids=recordings.ids,
    )
    are_bytes = recordings.values_SC.itemsize == 1 and not learned.preparation.fills_gaps
    return data.prepared() if data.fits and not are_bytes else data


def _tensor(array: Array) -> Tensor:
    """The array as a tensor of the same memory."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # nothing writes to it
        return torch.from_numpy(array)
