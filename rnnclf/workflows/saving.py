"""The files that a run writes during training, and reading its history back from a checkpoint.

`last.safetensors` holds everything, including the rows of epochs.csv and the weights of the best epoch: if
the process is killed between two of the writes below, the other files can be restored from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnnclf import checkpoint
from rnnclf.calibration import Calibration
from rnnclf.checkpoint import Checkpoint, ResumableHeader, header_of
from rnnclf.config import Config
from rnnclf.data import Splits
from rnnclf.errors import CheckpointError
from rnnclf.metrics import Score
from rnnclf.model import SequenceClassifier
from rnnclf.system.signals import DeferredSignals
from rnnclf.training.breaks import breaks_in
from rnnclf.training.eligibility import EngineUsed
from rnnclf.training.gradient_norms import GradientNorms
from rnnclf.training.loop import EpochResult
from rnnclf.training.shortfall import shortfall
from rnnclf.training.state import Training
from rnnclf.workflows.runs import RunFolder, write_csv
from rnnclf.workflows.stopping import out_of_patience


@dataclass
class History:
    """The results of the epochs so far."""

    results: list[EpochResult] = field(default_factory=list)
    best: EpochResult | None = None
    """The epoch whose weights are the result, so far."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """The model's state after the best epoch."""
    extended: list[dict[str, int]] = field(default_factory=list)
    """Changes of the number of epochs: after which epoch (at), from and to which number."""
    seconds: float = 0.0
    """Training time of earlier processes, up to the checkpoint from which this one resumed."""

    def add(self, result: EpochResult, state: Mapping[str, Tensor], select: str) -> bool:
        """Adds an epoch, which ended with this state of the model. Returns whether that is the result so far,
        by Config.select."""
        self.results.append(result)
        is_best = select == "last" or self.best is None or _rank(result) > _rank(self.best)
        if is_best:
            self.best = result
            self.best_weights = {name: tensor.clone() for name, tensor in state.items()}
        return is_best

    def breaks(self, clip: float | None) -> list[dict[str, Any]]:
        """The breaks of training as stored in results.json; in_words of each is its `words`."""
        assert self.best is not None  # a recipe has at least one epoch
        return [found.to_dict(self.best.epoch, clip) for found in breaks_in(self.results)]

    def shortfall(self, config: Config, kept: Score) -> dict[str, Any] | None:
        """The shortfall as stored in results.json. None also where the two scores are those of different
        weights or different sequences.

        kept: the score of the best epoch's weights on the training split.
        """
        best = self.best
        assert best is not None
        if config.final_fit or config.average.name != "none" or config.sampling == "balanced":
            return None
        return shortfall(best.epoch, best.train, kept, config.optimizer.lr, config.augment)

    def restore_best(self, model: SequenceClassifier) -> None:
        """Gives the model the weights of the best epoch."""
        model.load_state_dict(self.best_weights)


@dataclass
class Saver:
    """Writes the files of a run during training.

    After each epoch it writes epochs.csv and, if the epoch is the best so far, best.safetensors. When a
    checkpoint is due, it then writes last.safetensors. After a signal, the run is saved at the next batch.
    """

    folder: RunFolder
    config: Config
    splits: Splits
    engine: EngineUsed
    training: Training
    history: History
    started: float
    waiting: DeferredSignals
    note: Callable[[str], None]
    calibration: Calibration | None = None
    """Of the result, at the end of training."""
    _steps: int = 0
    """Number of steps since the last checkpoint."""
    _saved: float = field(default_factory=time.monotonic)
    _saved_at: tuple[int, ...] = ()
    """The position of training at the last checkpoint."""

    def after_batch(self) -> None:
        self._steps += 1
        self.save_and_stop_if_signalled()
        if self._due(epoch_done=False):
            self.save()

    def after_epoch(self, result: EpochResult) -> bool:
        """Returns whether the epoch is the best so far."""
        self.folder.refuse_lost()
        is_best = self.history.add(result, self.training.result, self.config.select)
        if not self.training.stopped and self.history.best is not None:
            place = (result.epoch, self.history.best.epoch, len(self.splits.train))
            self.training.stopped = out_of_patience(self.config, *place)
        self.write_epochs()
        if is_best:
            self.write_best()
        is_last = result.epoch == self.config.epochs or self.training.stopped
        if is_last or self._due(epoch_done=True):
            self.save()
        return is_best

    @property
    def seconds(self) -> float:
        """The training time so far, with that of earlier processes."""
        return self.history.seconds + time.perf_counter() - self.started

    def save_and_stop_if_signalled(self) -> None:
        """Saves a checkpoint and ends the run if a signal is pending."""
        if self.waiting.signal is not None:
            self.save()
            self.stop_if_signalled()

    def stop_if_signalled(self) -> None:
        """Ends the run if a signal is pending; everything must have been saved."""
        if self.waiting.signal is None:
            return
        epoch, batches = self.training.epoch, self.training.so_far.batches
        place = f"in epoch {epoch + 1} after batch {batches}" if batches else f"after epoch {epoch}"
        self.note(f"Saved {place}. Resume with: rnnclf resume {self.folder.path}")
        self.waiting.end()

    def _due(self, epoch_done: bool) -> bool:
        interval = self.config.checkpoint.interval()
        if interval.steps is not None:
            return self._steps >= interval.steps
        if interval.seconds is not None:
            return time.monotonic() - self._saved >= interval.seconds
        return epoch_done

    def save(self) -> None:
        """Writes last.safetensors unless it is up to date, and keeps the previous one."""
        history, training = self.history, self.training
        place = (training.epoch, training.so_far.batches, len(training.rollbacks))
        if place == self._saved_at:
            return
        self.folder.refuse_lost()
        tensors = {**training.tensors(), "epochs": _as_tensor(history.results)}
        if history.best is not None and not self._holds_best():
            tensors |= {f"best.{name}": tensor for name, tensor in history.best_weights.items()}
        now = history.results[-1] if history.results else None
        resumable = ResumableHeader(
            training.state(),
            None if history.best is None else history.best.epoch,
            history.extended,
            self.seconds,
        )
        header = header_after(self.config, self.splits, self.engine, now, resumable)
        checkpoint.save(self.folder.last, header, tensors, keep=self.folder.previous)
        self._steps, self._saved, self._saved_at = 0, time.monotonic(), place

    def _holds_best(self) -> bool:
        """Whether the weights of the best epoch are those of the model now."""
        best, training = self.history.best, self.training
        is_there = best is not None and best.epoch == training.epoch and not training.so_far.batches
        return is_there and not training.average.count

    def write_epochs(self) -> None:
        write_csv(self.folder.epochs, map(row, self.history.results))

    def write_best(self, model: SequenceClassifier | None = None) -> None:
        """Writes best.safetensors with the weights of the best epoch, or of the final fit."""
        best = self.history.best_weights if model is None else model.state_dict()
        weights = {f"model.{name}": tensor for name, tensor in best.items()}
        header = header_after(
            self.config, self.splits, self.engine, self.history.best, calibration=self.calibration
        )
        checkpoint.save(self.folder.best, header, weights)

    def restore_files(self) -> None:
        """Rewrites epochs.csv and best.safetensors from the history: after a kill they may not match it."""
        if self.history.best is None:
            return
        self.write_epochs()
        try:
            there = checkpoint.load(self.folder.best).epoch
        except CheckpointError:
            there = None
        if there != self.history.best.epoch:
            self.write_best()


def history_of(saved: Checkpoint) -> History:
    """The history in a checkpoint. Raises CheckpointError if it is inconsistent."""
    tensors = saved.tensors
    try:
        header, results = saved.resumable, _from_tensor(tensors["epochs"])
        number = header.best_epoch
        best = None if number is None else results[number - 1]
        if len(results) != header.training["epoch"] or (best is not None and best.epoch != number):
            raise ValueError("its list of epochs is incomplete")
        prefix = "best." if any(name.startswith("best.") for name in tensors) else "model."
        weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return History(results, best, weights if best else {}, header.extended, header.seconds)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{saved.path} cannot be resumed from: {error}.") from error


def row(result: EpochResult) -> dict[str, Any]:
    """An epoch as a row of epochs.csv."""
    gradients = result.gradients
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
        "gradient_norm": None if gradients is None else gradients.mean,
        "largest_gradient_norm": None if gradients is None else gradients.largest,
        "clipped": None if gradients is None else gradients.clipped,
    }


def _rank(result: EpochResult) -> tuple[float, float]:
    """Orders epochs by validation accuracy and, if equal, by validation loss; no loss is worse than NaN."""
    accuracy, loss = result.validation.accuracy, result.validation.loss
    return accuracy, -math.inf if math.isnan(loss) else -loss


def header_after(
    config: Config,
    splits: Splits,
    engine: EngineUsed,
    result: EpochResult | None,
    resumable: ResumableHeader | None = None,
    labels: Sequence[Any] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """The header of a checkpoint after the epoch of `result`; None: before the first epoch is done."""
    return header_of(
        config=config.to_plain(),
        classes=splits.train.classes,
        input_size=splits.train.input_size,
        steps=splits.train.steps,
        preparation=splits.learned.preparation.to_plain(),
        reading=config.dataset.reading(),
        fingerprint=splits.fingerprint,
        engine=asdict(engine),
        epoch=0 if result is None else result.epoch,
        metrics={} if result is None else {"validation": result.validation.to_dict()},
        resumable=resumable,
        labels=labels,
        calibration=calibration,
        training_data=splits.learned.training.to_plain(),
    )


# Epochs are stored as rows of float64, which represents losses and counts below 2^53 exactly; what an epoch
# does not have is NaN.
_SCORES = ("train", "validation", "test")


def _as_tensor(results: Sequence[EpochResult]) -> Tensor:
    rows = [
        [
            result.learning_rate,
            result.seconds,
            *(n for name in _SCORES for n in _numbers(getattr(result, name))),
            *((math.nan,) * 3 if result.gradients is None else astuple(result.gradients)),
        ]
        for result in results
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 5 + 3 * len(_SCORES))


def _numbers(score: Score | None) -> tuple[float, float, float]:
    return (math.nan,) * 3 if score is None else (score.correct, score.total, score.loss)


def _from_tensor(rows: Tensor) -> list[EpochResult]:
    results = []
    for epoch, (rate, seconds, *numbers) in enumerate(rows.tolist(), start=1):
        counted, norms = numbers[: 3 * len(_SCORES)], numbers[3 * len(_SCORES) :]  # none in older ones
        scores = {
            name: None if math.isnan(total) else Score(int(correct), int(total), loss)
            for name, correct, total, loss in zip(_SCORES, *(counted[i::3] for i in range(3)), strict=True)
        }
        if scores["train"] is None or scores["validation"] is None:
            raise ValueError("an epoch has no score")
        gradients = GradientNorms(*norms) if norms and not math.isnan(norms[0]) else None
        results.append(
            EpochResult(
                epoch, scores["train"], scores["validation"], rate, seconds, gradients, scores["test"]
            )
        )
    return results
