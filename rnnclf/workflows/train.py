"""One run: from a Config to a run folder full of results. Prints nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from rnnclf import __version__, checkpoint
from rnnclf.config import Config
from rnnclf.data import SequenceDataset, Splits
from rnnclf.files import write_json
from rnnclf.metrics import Score
from rnnclf.model import SequenceClassifier
from rnnclf.sizing import hidden_for, parse_count
from rnnclf.training import BatchProgress, EpochResult, Recipe, Training, evaluate, fit
from rnnclf.workflows import machine
from rnnclf.workflows.runs import RunFolder, write_csv

log = logging.getLogger("rnnclf")


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before its first epoch."""

    config: Config
    parameters: int
    sizes: dict[str, int]
    """Sequences of each split."""
    device: str
    notes: tuple[str, ...] = ()
    """What was guessed or found in the data."""
    warnings: tuple[str, ...] = ()
    """What makes the scores doubtful."""


class Watcher:
    """Is told how a run goes. This one does nothing; the console's draw."""

    def reading(self, what: str, share: float) -> None:
        """The data are being read: what is done, and which share of it, from 0 to 1."""

    def started(self, facts: RunFacts) -> None:
        """The data are read, the model is built."""

    def batch(self, progress: BatchProgress) -> None:
        """A batch is done."""

    def epoch(self, result: EpochResult, best: bool) -> None:
        """An epoch is done and saved; `best` says whether it is the best so far."""


@dataclass(frozen=True)
class Report:
    """What came of a run; `results` is the content of results.json."""

    folder: RunFolder
    results: dict[str, Any]
    scores: dict[str, Score]
    """By split, of the best epoch."""


def build_model(config: Config, input_size: int, classes: int) -> SequenceClassifier:
    """The classifier that `config` describes, with weights drawn from torch's random generator."""
    return SequenceClassifier(config.cell, input_size, classes, config.stack())


def sized(config: Config, input_size: int, classes: int) -> Config:
    """The config with the hidden size that `match_parameters` asks for. Raises ConfigError."""
    if config.match_parameters is None:
        return config

    def with_hidden(hidden: int) -> Config:
        return replace(config, hidden=hidden, cell=replace(config.cell, hidden_size=hidden))

    def count(hidden: int) -> int:
        with torch.device("meta"):  # shapes only: no weights are drawn
            return build_model(with_hidden(hidden), input_size, classes).parameter_count()

    target = parse_count(config.match_parameters)
    return with_hidden(hidden_for(target, count, config.cell.multiple))


def train(config: Config, folder: RunFolder, watch: Watcher | None = None) -> Report:
    """Trains one classifier and writes everything that belongs into its run folder.

    Raises an RnnclfError for what the user can put right: data, device, a loss that diverges, a disk
    that is full. The checkpoints written so far stay whole.
    """
    watch = watch or Watcher()
    started = time.perf_counter()
    device = machine.prepare(config)
    layout = config.dataset.layout()
    config.augment.refuse_what_does_not_fit(layout)
    splits = config.dataset.load(progress=watch.reading)
    write_json(folder.provenance, machine.provenance(device, splits.fingerprint))

    shape = splits.train.input_size, len(splits.train.classes)
    config = sized(config, *shape)
    torch.manual_seed(config.seed)
    model = build_model(config, *shape).to(device)
    parts = {name: splits[name].to(device) for name in ("train", "validation", "test")}
    sizes = {name: len(part) for name, part in parts.items()}
    for sentence in (*splits.notes, *splits.warnings):
        log.info("%s", sentence)
    watch.started(
        RunFacts(
            config,
            model.parameter_count(),
            sizes,
            machine.device_in_words(device),
            splits.notes,
            splits.warnings,
        )
    )

    tutorial = config.protocol == "tutorial"
    training = Training(model, _recipe(config, splits))
    epochs: list[EpochResult] = []
    best: EpochResult | None = None
    for result in fit(training, parts["train"], parts["validation"], watch.batch):
        if tutorial:
            result = replace(result, test=evaluate(model, parts["test"]).score)
        epochs.append(result)
        write_csv(folder.epochs, map(_row, epochs))
        header = _header(config, splits, result)
        checkpoint.save(folder.last, header, training.tensors())
        is_best = best is None or _rank(result) > _rank(best)
        if is_best:
            best = result
            checkpoint.save(folder.best, header, _weights(model))
        log.info("%s", _row(result))
        watch.epoch(result, is_best)
    trained = time.perf_counter()

    assert best is not None  # a recipe has at least one epoch
    model.load_state_dict(checkpoint.load(folder.best).model_tensors())
    scores = {name: evaluate(model, part).score for name, part in parts.items()}
    results = {
        **_description(config, model),
        "epochs": len(epochs),
        "best_epoch": best.epoch,
        **{name: score.to_dict() for name, score in scores.items()},
        "epoch_seconds": [round(result.seconds, 4) for result in epochs],
        "train_seconds": round(trained - started, 3),
        "total_seconds": round(time.perf_counter() - started, 3),
    }
    write_json(folder.results, results)
    return Report(folder, results, scores)


def _description(config: Config, model: SequenceClassifier) -> dict[str, Any]:
    return {
        "format": 1,
        "cell": config.cell.name,
        "dataset": config.dataset.name,
        "data": config.dataset.title(),
        "reading": config.dataset.reading(),
        "hidden": config.cell.hidden_size,
        "parameters": model.parameter_count(),
        "seed": config.seed,
        "protocol": config.protocol,
    }


def _recipe(config: Config, splits: Splits) -> Recipe:
    preparation = splits.learned.preparation
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        schedule=config.schedule,
        clip=config.clip,
        label_smoothing=config.label_smoothing,
        class_weights=_balanced_weights(splits.train) if config.class_weights == "balanced" else None,
        focal=config.focal,
        sampling=config.sampling,
        augment=config.augment,
        layout=config.dataset.layout(),
        values=len(preparation.channels) if preparation.missing == "mask" else None,
        last_batch=config.protocol == "tutorial",
    )


def _balanced_weights(train: SequenceDataset) -> tuple[float, ...]:
    """For each class N / (K · its members), so that all weigh the same together and the mean is 1."""
    members_K = torch.bincount(train.y_N.cpu(), minlength=len(train.classes)).clamp(min=1)
    return tuple((len(train) / (len(train.classes) * members_K)).tolist())


def _rank(result: EpochResult) -> tuple[float, float]:
    """Better by validation accuracy; between equals, by validation loss."""
    return result.validation.accuracy, -result.validation.loss


def _row(result: EpochResult) -> dict[str, Any]:
    test = {} if result.test is None else {"test_accuracy": result.test.accuracy}
    return {
        "epoch": result.epoch,
        "train_loss": result.train.loss,
        "train_accuracy": result.train.accuracy,
        "validation_loss": result.validation.loss,
        "validation_accuracy": result.validation.accuracy,
        **test,
        "learning_rate": result.learning_rate,
        "seconds": round(result.seconds, 4),
    }


def _header(config: Config, splits: Splits, result: EpochResult) -> dict[str, Any]:
    """All that eval needs to know beside the weights."""
    return {
        "rnnclf": __version__,
        "config": config.to_plain(),
        "classes": list(splits.train.classes),
        "input_size": splits.train.input_size,
        "steps": splits.train.steps,
        "preparation": splits.learned.preparation.to_plain(),
        "reading": config.dataset.reading(),
        "fingerprint": splits.fingerprint,
        "epoch": result.epoch,
        "metrics": {"validation": result.validation.to_dict()},
    }


def _weights(model: SequenceClassifier) -> dict[str, torch.Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
