"""The base class of data sources, and the path from recordings to three prepared splits.

Each source only reads. The rest is shared: missing values, splitting, and the preparation fitted on the
training split.  Shapes: N sequences, S steps in total, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rnnclf.data.categories import unseen
from rnnclf.data.dataset import RESIDENT, SequenceDataset
from rnnclf.data.doubts import Finding, doubts, refuse_untrained
from rnnclf.data.gaps import treatment, without_gaps
from rnnclf.data.matching import matched
from rnnclf.data.npy import COPY_LIMIT
from rnnclf.data.preparation import Preparation, fitted
from rnnclf.data.recordings import Array, Progress, Recordings, numbered, silent
from rnnclf.data.seen import Seen
from rnnclf.data.splits import SplitName, SplitPlan, divide
from rnnclf.data.survey import digests, moments
from rnnclf.data.training_data import TrainingData
from rnnclf.errors import CheckpointError, ConfigError, DataError
from rnnclf.options import Component, option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.layout import PictureLayout

NORMALISERS = ("none", "standard", "minmax", "robust", "quantiles")


@dataclass(frozen=True)
class Learned:
    """What training learns from the data besides the weights; `rnnclf eval` reads it from the checkpoint."""

    preparation: Preparation
    classes: tuple[str, ...]
    training: TrainingData = field(default_factory=TrainingData)
    steps: int | None = field(default=None, compare=False)
    """The number of steps that all sequences have, once prepared; None if they differ, or of a checkpoint
    whose model reads sequences of any length."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The three splits of a data set, with facts about the whole set."""

    train: SequenceDataset
    validation: SequenceDataset
    test: SequenceDataset
    fingerprint: str
    """SHA-256 of everything that was read."""
    learned: Learned
    notes: tuple[str, ...] = ()
    """Guesses made and oddities found while reading, as sentences for the user."""
    warnings: tuple[str, ...] = ()
    """Reasons not to trust the scores, such as sequences shared between splits."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """Tells whether the training or the validation split holds a sequence."""

    def __getitem__(self, name: SplitName) -> SequenceDataset:
        part: SequenceDataset = getattr(self, name)
        return part


@dataclass
class Source(Component):
    """Base of every data source: the common options, and loading the three splits."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ()
    """The options that say which files hold the data: the first names the data, the others belong to it."""
    WITHOUT: ClassVar[tuple[str, ...]] = ()
    """Common options that mean nothing for this source."""

    validation: float = option(
        0.1,
        "size of the validation split, which chooses the best epoch: a count, or a fraction below 1",
        above=0,
    )
    test: float = option(
        0.2, "size of the test split, if the data come without one: a count, or a fraction below 1", above=0
    )
    split: str = option(
        "random",
        "which sequences to hold out: a stratified random draw, or the first ones",
        choices=("random", "first"),
    )
    split_seed: int = option(
        0,
        "seed of the random draw; separate from `seed`, so that runs with different seeds share their splits",
        low=0,
        high=2**32 - 1,
    )
    folds: int | None = option(
        None,
        "cross-validation: number of parts, one of which is the test split (the validation split if the data"
        " come with a test split)",
        low=2,
    )
    fold: int = option(0, "which of the folds to hold out, counted from 0", low=0)
    missing: str = option(
        "error",
        "missing values: error refuses them, mask adds two channels per channel (present or not, time since"
        " last seen), interpolate fills gaps linearly, drop removes the steps; auto: mask if values are"
        " missing, otherwise error",
        choices=("error", "mask", "interpolate", "drop", "auto"),
    )
    normalise: str = option(
        "none",
        "rescale each channel, fitted on the training split: standard (mean 0, deviation 1), minmax (0 to 1),"
        " robust (median and quartiles) or quantiles (ranks, spread evenly with mean 0 and deviation 1)",
        choices=NORMALISERS,
    )

    def read(self, progress: Progress = silent) -> Recordings:
        """Reads all sequences. Raises DataError if a file is missing or malformed."""
        raise NotImplementedError(f"{type(self).__name__} must define read().")

    def read_for_model(
        self, channels: tuple[str, ...], progress: Progress = silent, names: tuple[str, ...] = ()
    ) -> Recordings:
        """Reads the sequences for a model that was trained on these channels, `names` of them channels of
        names; more may be read.

        What only a split needs, such as groups, may be missing. Raises DataError as `read` does.
        """
        return self.read(progress)

    def read_unlabelled(
        self, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        """Reads sequences that may have no labels, for a trained model, in the order in which they come.

        Labels that are there are kept as `truth_N`.
        lenient: what is no number is read as infinite, instead of being refused.
        Raises DataError as `read` does, and for data without the channels of the model.
        """
        raise ConfigError(f"dataset={self.name} has no data without labels to predict.")

    def recordings_to_predict(
        self, path: Path, learned: Learned, progress: Progress = silent, lenient: bool = False
    ) -> Recordings:
        """The sequences to classify of data that may have no labels, with the channels of a trained model.

        path: where they are, for a source whose options do not say it.
        Values may be missing, whatever the model makes of that. Raises CheckpointError for other channels.
        """
        recordings = self.read_unlabelled(learned, progress, lenient)
        if getattr(self, "window", None) is not None:  # the labels of recordings are not those of windows
            recordings = replace(recordings, truth_N=None)
        recordings = self.cut(recordings)
        recordings = _with_channels(recordings, learned.preparation.channels)
        return replace(matched(recordings, learned.preparation), classes=learned.classes)

    def sequences(self, progress: Progress = silent) -> Recordings:
        """The sequences to classify: as they are read or, if that was asked for, windows of them."""
        return self.cut(self.read(progress))

    def cut(self, recordings: Recordings) -> Recordings:
        """The sequences to classify, cut from these recordings."""
        return recordings

    def reading(self) -> dict[str, Any]:
        """The options that decide what one step means; a model only works on data read the same way."""
        return {}

    def layout(self) -> PictureLayout | None:
        """How the sequences encode pictures, for augmentation; None if they are not pictures."""
        return None

    def title(self) -> str:
        """The name of the data in tables."""
        return self.name

    def title_of(self, split: str) -> str:
        """The name in tables of the data that a split comes from."""
        return self.title()

    def load(self, learned: Learned | None = None, progress: Progress = silent) -> Splits:
        """Reads and splits the data, then prepares them by `learned` or, without it, fits a preparation.

        Raises DataError or ConfigError for data that cannot be trained on, CheckpointError if channels or
        classes do not match `learned`.
        """
        return self.divided(self.sequences(progress), self.plan(), learned, progress)

    def divided(
        self,
        recordings: Recordings,
        plan: SplitPlan,
        learned: Learned | None = None,
        progress: Progress = silent,
    ) -> Splits:
        """Divides and prepares recordings. Raises the same errors as `load`."""
        recordings = self._usable(recordings, learned)
        parts = divide(recordings, plan)
        notes = recordings.notes
        if learned is None:
            refuse_untrained(recordings, parts)
            missing, patch = treatment(recordings, self.missing), self.patch_for(recordings, parts["train"])
            preparation = fitted(recordings, parts["train"], missing, self.normalise, patch)
            found = moments(recordings, progress) if self.layout() is None else None
            learned = Learned(
                preparation,
                recordings.classes,
                TrainingData.of(recordings, parts["train"], found),
                one_length(preparation.steps_of(_tensor(recordings.lengths_N))),
            )
            notes = (*notes, *unseen(recordings, preparation.vocabularies))
        hashes = digests(recordings, progress)
        whole = assembled(recordings, learned)
        recordings.refuse_changed()
        return Splits(
            **{name: whole.subset(_tensor(places)) for name, places in parts.items()},
            fingerprint=hashes.fingerprint(recordings),
            learned=learned,
            notes=notes,
            warnings=tuple(doubt.sentence for doubt in self.doubts(recordings, hashes.digests_N, parts)),
            seen={
                name: Seen.of(recordings, hashes.digests_N, parts[name]) for name in ("train", "validation")
            },
        )

    def doubts(
        self,
        recordings: Recordings,
        digests_N: Array,
        parts: dict[SplitName, Array],
        progress: Progress = silent,
    ) -> list[Finding]:
        """Every reason to doubt the scores of these splits of recordings of this source."""
        found = moments(recordings, progress) if self.layout() is None else None
        return doubts(recordings, digests_N, parts, found, selectable=hasattr(self, "channels"))

    def load_whole(self, learned: Learned, progress: Progress = silent) -> tuple[SequenceDataset, str]:
        """All sequences as one data set, prepared by `learned`, and their fingerprint."""
        recordings = self.recordings_for(learned, progress)
        fingerprint = digests(recordings, progress).fingerprint(recordings)
        whole = assembled(recordings, learned)
        recordings.refuse_changed()
        return whole, fingerprint

    def recordings_for(self, learned: Learned, progress: Progress = silent) -> Recordings:
        """All sequences as a trained model needs them: its channels, found by name, and its classes.

        Raises CheckpointError if channels or classes are missing.
        """
        trained = learned.preparation
        recordings = self.cut(self.read_for_model(trained.channels, progress, tuple(trained.vocabularies)))
        return self._usable(recordings, learned)

    def patch_for(self, recordings: Recordings, train: Array) -> int:
        """How many neighbouring steps become one for a model that is trained on the sequences at `train`."""
        return 1

    def settled_options(self, preparation: Preparation) -> dict[str, Any]:
        """The options that may be auto, as they were chosen by the training data."""
        return {"missing": preparation.missing}

    def plan(self) -> SplitPlan:
        return SplitPlan(self.validation, self.test, self.split, self.split_seed, self.folds, self.fold)

    def _usable(self, recordings: Recordings, learned: Learned | None) -> Recordings:
        if learned is not None:
            return without_gaps(_as_learned(recordings, learned), learned.preparation.missing)
        refuse_one_class(recordings)
        return without_gaps(recordings, self.missing)


def refuse_one_class(recordings: Recordings) -> None:
    """Raises DataError if all sequences belong to the same class."""
    if len(recordings.classes) == 1:
        raise DataError(
            f"The data have only one class, '{recordings.classes[0]}' ({len(recordings):,} sequences):"
            " a classifier needs at least two."
        )


def _as_learned(recordings: Recordings, learned: Learned) -> Recordings:
    """The recordings with channels and labels ordered as in `learned`.

    Raises CheckpointError if they do not match.
    """
    import numpy as np

    known = learned.classes
    recordings = _with_channels(recordings, learned.preparation.channels)
    place_of = {name: place for place, name in enumerate(known)}
    if foreign := [name for name in recordings.classes if name not in place_of]:
        raise CheckpointError(
            f"The model knows the classes {_listed(known)}; these data also have {_listed(foreign)}."
        )
    place_K = np.array([place_of[name] for name in recordings.classes], np.int64)
    recordings = replace(recordings, labels_N=place_K[recordings.labels_N], classes=known)
    return matched(recordings, learned.preparation)


def _with_channels(recordings: Recordings, channels: tuple[str, ...]) -> Recordings:
    """The recordings with these channels, found by name; others are left out, which a note says.

    Raises CheckpointError if one is missing, or if channels without names differ in number.
    """
    import numpy as np

    there = recordings.channels
    if channels == there:
        return recordings
    nameless = channels == numbered(len(channels)) or there == numbered(len(there))
    if len(channels) != len(there) and nameless:
        raise CheckpointError(
            f"The model was trained on sequences with {len(channels)} features per step;"
            f" these have {len(there)}."
        )
    if not set(there).issuperset(channels):
        raise CheckpointError(
            f"The model was trained on the channels {_listed(channels)}; these data have {_listed(there)}."
        )
    values_SC = recordings.values_SC
    if values_SC.nbytes > COPY_LIMIT:
        raise CheckpointError(
            f"The model was trained on the channels {_listed(channels)}; these are {_listed(there)}, too"
            f" large ({values_SC.nbytes / 2**30:.1f} GiB) to be reordered in memory: save them in that order."
        )
    extra = [name for name in there if name not in channels]
    one = len(extra) == 1
    note = (
        f"The model was not trained on {'channel' if one else 'channels'} {_listed(extra)}, which"
        f" {'is' if one else 'are'} left out."
    )
    return recordings.copied(
        np.ascontiguousarray(values_SC[:, [there.index(name) for name in channels]]),
        channels=channels,
        notes=(*recordings.notes, *([note] if extra else [])),
    )


def one_length(steps_N: Tensor) -> int | None:
    """The number of steps that all sequences have; None if they differ."""
    first = int(steps_N[0])
    return first if bool((steps_N == first).all()) else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} … ({len(names)})" if len(names) > 12 else shown


def assembled(recordings: Recordings, learned: Learned, now: bool = True) -> SequenceDataset:
    """All sequences, ready for training: prepared now if they fit into memory, otherwise batch by batch, as
    always if not `now`.

    Bytes, such as pictures, are always prepared batch by batch: that is as fast as reading four times as many
    bytes of floats from memory.
    """
    data = SequenceDataset(
        x_SI=_tensor(recordings.values_SC),
        starts_N=_tensor(recordings.starts_N),
        lengths_N=_tensor(recordings.lengths_N),
        y_N=_tensor(recordings.labels_N),
        classes=learned.classes,
        times_S=None if recordings.times_S is None else _tensor(recordings.times_S),
        preparation=learned.preparation.reading(recordings),
        ids=recordings.ids,
        origins=recordings.origins,
        files=recordings.files,
        coded=learned.preparation.coded,
    )
    if not now:
        return data
    are_bytes = recordings.values_SC.itemsize == 1 and not learned.preparation.fills_gaps
    if not are_bytes:
        return data.prepared() if data.fits else data
    return data.in_memory() if recordings.values_SC.nbytes <= RESIDENT // 4 else data


def _tensor(array: Array) -> Tensor:
    """The array as a tensor that shares its memory."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # nothing writes to it
        return torch.from_numpy(array)
