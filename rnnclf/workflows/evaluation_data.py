"""The sequences that an evaluation is about, and what a model says of them. Prints nothing.

Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from rnnclf.checkpoint import Checkpoint
from rnnclf.data import SPLITS, SequenceDataset
from rnnclf.data.base import assembled
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.seen import Seen
from rnnclf.data.splits import SplitPlan, divide
from rnnclf.data.survey import digests
from rnnclf.metrics import Evaluation
from rnnclf.training.evaluation import evaluate_model
from rnnclf.workflows import machine
from rnnclf.workflows.exported import LoadedFile, logits_of
from rnnclf.workflows.loading import Loaded, config_of, in_files

ALL = "all"  # the name of the split that contains all sequences


class EvaluationData(NamedTuple):
    """The sequences to score, the split that they are, the fingerprint of all data that were read, and notes
    on them."""

    sequences: SequenceDataset
    split: str
    fingerprint: str
    notes: tuple[str, ...]
    trained_on: Callable[[Seen | None], int | None]
    """The number of sequences to score that the model was trained on, by the record of its run; None if that
    is unknown."""
    recordings: Recordings
    places_N: Array
    """The number of each sequence to score in the recordings."""


@dataclass
class Loader:
    """Loads the requested split. Checkpoints with the same source options and preparation, such as those of
    a sweep, share one read of the data.

    split: None if none was requested: then the test split is scored or, of other data that were named and
        bring no test split, all sequences.
    """

    split: str | None
    loaded: dict[str, EvaluationData] = field(default_factory=dict)

    def __call__(self, model: Loaded | LoadedFile) -> EvaluationData:
        config = model.config
        key = repr(
            (config.dataset, config.final_fit, model.elsewhere, model.learned, model.checkpoint.fingerprint)
        )
        if key not in self.loaded:
            self.loaded[key] = self._load(model)
        return self.loaded[key]

    def _load(self, model: Loaded | LoadedFile) -> EvaluationData:
        source, elsewhere = model.config.dataset, model.elsewhere
        recordings = source.recordings_for(model.learned)
        hashes = digests(recordings)
        fingerprint = hashes.fingerprint(recordings)
        split = self.split or "test"
        if elsewhere is not None and fingerprint != model.checkpoint.fingerprint:
            source = elsewhere
            has_test = recordings.given_N is not None and (recordings.given_N == SPLITS.index("test")).any()
            split = self.split or ("test" if has_test else ALL)
        sequences = assembled(recordings, model.learned, now=isinstance(model, Loaded))
        places_n = np.arange(len(recordings))
        if split != ALL:
            places_n = divide(recordings, source.plan())[split]  # type: ignore[index]
            sequences = sequences.subset(torch.from_numpy(places_n))
        recordings.refuse_changed()
        own = None
        if fingerprint == model.checkpoint.fingerprint:
            parts = divide(recordings, _plan_of(model.checkpoint))
            with_validation = config_of(model.checkpoint).final_fit
            seen_n = np.concatenate([parts["train"], *([parts["validation"]] if with_validation else [])])
            own = Seen.of(recordings, hashes.digests_N, seen_n)

        def trained_on(recorded: Seen | None) -> int | None:
            seen = own or recorded
            if seen is None:
                return None
            return int(seen.among(recordings, hashes.digests_N)[places_n].sum())

        return EvaluationData(
            sequences, split, fingerprint, recordings.notes, trained_on, recordings, places_n
        )


def _plan_of(saved: Checkpoint) -> SplitPlan:
    """How the training data were divided. Those of a model that was trained in Python are in no file, and had
    no test split."""
    source = config_of(saved).dataset
    return (
        source.plan() if saved.header.get("in_files", in_files(source)) else replace(source.plan(), test=None)
    )


def evaluated_on(loaded: Loaded | LoadedFile, data: EvaluationData) -> Evaluation:
    """The predictions of a model for these data. Raises CheckpointError or DivergedError."""
    sequences, temperature = data.sequences, loaded.temperature
    if isinstance(loaded, Loaded):
        device = machine.prepare(loaded.config)
        return evaluate_model(loaded.model.to(device), sequences.to(device), temperature)
    logits_NK = logits_of(loaded, data.recordings, data.places_N)
    y_N = sequences.y_N.numpy()
    return Evaluation(sequences.classes, y_N, logits_NK, sequences.ids_N, sequences.recordings_N, temperature)
