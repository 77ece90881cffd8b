"""Training and classification inside another program, of sequences in memory.

Nothing is written or printed, and torch's settings and random generators are restored.

Shapes: N sequences, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnclf import checkpoint
from rnnclf.calibration import calibrate
from rnnclf.config import Config
from rnnclf.data import Learned, SequenceDataset
from rnnclf.data.base import assembled
from rnnclf.data.matching import matched
from rnnclf.data.memory import for_prediction
from rnnclf.data.recordings import Array, Recordings
from rnnclf.hydra_app.setup import register
from rnnclf.model import SequenceClassifier
from rnnclf.training.divergence import doubt
from rnnclf.training.eligibility import engine_used
from rnnclf.training.evaluation import evaluate_model, score_model
from rnnclf.training.loop import EpochResult, fit
from rnnclf.training.state import Training
from rnnclf.workflows import machine
from rnnclf.workflows.beginning import beginning
from rnnclf.workflows.checkpoints import only_checkpoint
from rnnclf.workflows.final import fitted_to_all
from rnnclf.workflows.loading import build_model, grid_for, load_model
from rnnclf.workflows.recipe_of import recipe
from rnnclf.workflows.saving import History, header_after, row
from rnnclf.workflows.settling import settled
from rnnclf.workflows.stopping import epochs_up_to, final_fit_out_of_time, out_of_patience, out_of_time
from rnnclf.workflows.train import Data, RunInfo, Watcher


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained model and the header of its checkpoint.

    history: the epochs as in epochs.csv; empty if the model was loaded from a checkpoint.
    notes: what was noticed in the training data, as sentences.
    """

    config: Config
    learned: Learned
    model: SequenceClassifier
    header: dict[str, Any]
    history: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def logits(self, recordings: Recordings, config: Config) -> Array:
        """Logits (N, K) of the sequences, columns as in `learned.classes`, from the device of `config`.

        Raises DataError for sequences that cannot be classified.
        """
        preparation = self.learned.preparation
        recordings = for_prediction(matched(recordings, preparation), preparation.missing)
        with machine.one_at_a_time, machine.borrowed(config) as device:
            data = assembled(recordings, self.learned).to(device)
            try:
                return np.array(evaluate_model(self.model.to(device), data).logits_NK)
            finally:
                self.model.cpu()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities."""
        return float(self.header.get("calibration", {"temperature": 1})["temperature"])

    def limit_of_sets(self, level: float, word: str) -> float:
        """See `Checkpoint.limit_of_sets`."""
        return checkpoint.Checkpoint(Path("This model"), self.header, {}).limit_of_sets(level, word)

    def save(self, path: Path) -> None:
        """Writes the checkpoint that the command line reads. Raises OutputError."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        checkpoint.save(path, self.header, weights)


def fit_in_memory(
    config: Config,
    recordings: Recordings,
    labels: Sequence[Any] | None = None,
    watch: Watcher | None = None,
) -> Classifier:
    """Trains as `rnnclf train` does, and returns the classifier of the best epoch by validation.

    labels: the label of each class for the checkpoint, a number or a text; None if it is the class's name.

    Raises DataError or ConfigError if training is impossible with these data, DivergedError.
    """
    with machine.one_at_a_time, machine.borrowed(config) as device, _random_numbers_kept():
        config.augment.check_layout(config.dataset.layout())
        splits = config.dataset.divided(recordings, replace(config.dataset.plan(), test=None))
        parts = {"train": splits.train.to(device), "validation": splits.validation.to(device)}
        data = Data(device, splits, parts, grid_for(config, splits.learned))
        config = settled(config, splits)
        begun = beginning(config, splits.learned)
        torch.manual_seed(config.seed)
        model = begun.filled(build_model(config, *data.shape)).to(device)
        training = Training(model, recipe(config, data))
        engine = engine_used(model, training.recipe, parts["train"])
        began, watch = time.perf_counter(), watch or Watcher()

        def seconds() -> float:
            return time.perf_counter() - began

        sizes = {name: len(part) for name, part in parts.items()}
        where = machine.device_in_words(device)
        watch.started(RunInfo(config, model.parameter_count(), sizes, where, engine))
        history, best = _trained(config, training, parts, watch, seconds)
        doubtful = doubt(best.validation, data.shape[1], config.optimizer.lr)
        history.restore_best(model)
        calibration = calibrate(evaluate_model(model, parts["validation"]))
        missing = history.shortfall(config, score_model(model, parts["train"]))
        final_stopped = ""
        if config.final_fit:
            model, final_stopped = fitted_to_all(
                config,
                recipe(config, data.with_validation()),
                parts["train"],
                parts["validation"],
                epochs_up_to(best, config, len(parts["train"])),
                stop=lambda: final_fit_out_of_time(config, seconds()),
                begun=begun,
                grid=data.grid,
            )
        header = header_after(config, splits, engine, best, labels=labels, calibration=calibration)
        notes = *begun.notes, *splits.notes, *splits.warnings, doubtful, training.stopped, final_stopped
        found = [*history.breaks(config.clip), *([missing] if missing else [])]
        notes += tuple(one["words"] for one in found)
        epochs_of_run = tuple(map(row, history.results))
        return Classifier(
            config, splits.learned, model.cpu(), header, epochs_of_run, tuple(filter(None, notes))
        )


def _trained(
    config: Config,
    training: Training,
    parts: Mapping[str, SequenceDataset],
    watch: Watcher,
    seconds: Callable[[], float],
) -> tuple[History, EpochResult]:
    """Trains until the epochs, the time or the patience are used up. Returns also the best epoch."""
    history, train = History(), parts["train"]

    def stop() -> str:
        return out_of_time(config, seconds(), training)

    for result in fit(training, train, parts["validation"], watch.batch, stop=stop):
        watch.epoch(result, history.add(result, training.result, config.select))
        assert history.best is not None
        waited = out_of_patience(config, result.epoch, history.best.epoch, len(train))
        training.stopped = training.stopped or waited
    assert history.best is not None  # a recipe has at least one epoch
    return history, history.best


def load_classifier(path: Path, plugins: Sequence[str] = ()) -> tuple[Classifier, list[Any]]:
    """The classifier of a checkpoint file, or the best one of a run folder, and the labels of its classes.

    Raises CheckpointError.
    """
    register(list(plugins))
    loaded = load_model(only_checkpoint(path), [])
    saved = loaded.checkpoint
    return Classifier(loaded.config, loaded.learned, loaded.model, saved.header), saved.labels


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Restores the random generators of all devices on exit: torch.manual_seed seeds them all."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices):
        yield
    if mps is not None:
        torch.mps.set_rng_state(mps)
