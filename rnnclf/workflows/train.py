"""Trains one run, from its Config to the results in its folder. Prints nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rnnclf.calibration import Calibration, calibrate
from rnnclf.config import Config
from rnnclf.data import SPLITS, SequenceDataset, SplitName, Splits
from rnnclf.data.categories import CodedFeatures
from rnnclf.data.grid import Grid
from rnnclf.errors import ConfigError, DataError
from rnnclf.files import made_folder, missing_folders, remove_empty, write_atomically, write_json
from rnnclf.metrics import Evaluation, Score, commonest_share
from rnnclf.model import SequenceClassifier
from rnnclf.system.signals import defer_signals
from rnnclf.training.averaging import holding
from rnnclf.training.breaks import breaks_in, in_words
from rnnclf.training.by_recording import with_recordings
from rnnclf.training.divergence import doubt
from rnnclf.training.eligibility import EngineUsed, engine_used
from rnnclf.training.evaluation import evaluate_model, score_model
from rnnclf.training.loop import EpochResult, fit
from rnnclf.training.state import BatchProgress, Rollback, Training
from rnnclf.workflows import machine
from rnnclf.workflows.baseline_runs import division
from rnnclf.workflows.beginning import Beginning, beginning
from rnnclf.workflows.diagnosis import Diagnosis, read_diagnosis, record_diagnosis
from rnnclf.workflows.final import fitted_to_all, joined
from rnnclf.workflows.loading import build_model, grid_for
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.pretrained import continued, record_of
from rnnclf.workflows.reasons import reasons
from rnnclf.workflows.recipe_of import recipe
from rnnclf.workflows.report_words import training_doubts
from rnnclf.workflows.runs import RunFolder, config_record
from rnnclf.workflows.saving import History, Saver
from rnnclf.workflows.settling import settled
from rnnclf.workflows.stopping import epochs_up_to, final_fit_out_of_time, out_of_time

log = logging.getLogger("rnnclf")

SCORED: tuple[SplitName, ...] = ("validation", "test")
"""The splits whose predictions are saved with a run."""


@dataclass(frozen=True)
class RunInfo:
    """What is known about a run before training begins, to be shown to the user."""

    config: Config
    parameters: int
    sizes: dict[str, int]
    """Number of sequences in each split."""
    device: str
    engine: EngineUsed
    notes: tuple[str, ...] = ()
    """What was inferred from the data, and how the run was resumed."""
    warnings: tuple[str, ...] = ()
    """Reasons to doubt the scores."""
    epoch: int = 0
    """Number of completed epochs."""
    seen: int = 0
    """Number of training sequences already processed in the current epoch."""


class Watcher:
    """Receives the events of a run. This class ignores them; subclasses in the console display them."""

    def reading(self, what: str, share: float) -> None:
        """The data are being read: `what` is the current activity, `share` its progress from 0 to 1."""

    def started(self, info: RunInfo) -> None:
        """The data have been read and the model is built."""

    def batch(self, progress: BatchProgress) -> None:
        """A batch has been processed."""

    def epoch(self, result: EpochResult, best: bool) -> None:
        """An epoch has finished; `best` says whether it is the best so far."""

    def note(self, sentence: str) -> None:
        """A message for the user, such as a rollback."""


@dataclass(frozen=True)
class Report:
    """The outcome of a run; `results` is the content of results.json."""

    folder: RunFolder
    results: dict[str, Any] = field(repr=False)
    scores: dict[str, Score]
    """The scores of all three splits with the weights of the best epoch."""
    evaluations: dict[str, Evaluation] = field(repr=False)
    """The evaluations of the validation and the test split with the weights of the best epoch."""
    plots: str = "false"
    """Whether pictures are wanted: `Config.plots`."""
    diagnosis: Diagnosis | None = None
    """The diagnosis of the last epoch, if it was requested."""


Conclusion = Callable[[Report], None]


def train(
    config: Config,
    folder: RunFolder | str | os.PathLike[str],
    watch: Watcher | None = None,
    overrides: Sequence[str] = (),
    conclude: Conclusion = lambda report: None,
) -> Report:
    """Trains one classifier and writes all files of its run folder.

    Args:
        folder: created if it does not exist. It may hold other files, but no other run.
        overrides: the words of the command line that made the config, for the records.
        conclude: called with the report before the run's status becomes done, to write further files.

    Raises an RnnclfError for errors that the user can correct: in the data or the device, a diverging loss, a
    full disk, a folder that holds a run or in which another process trains. Checkpoints written so far stay
    intact. Errors in the data or the configuration leave nothing behind if they are noticed before training,
    and neither does Ctrl-C before that.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder(Path(folder))
    config = continued(config, overrides)
    new_folders = missing_folders(run.path)
    made_folder(run.path)
    try:
        with machine.one_at_a_time, run.locked():
            run.refuse_used()
            is_job = run.status.exists()  # of a sweep, which keeps a record of all its jobs
            try:
                with run.tracked(config_record(config, overrides)) as status:
                    report = start_run(config, run, watch or Watcher(), status)
                    conclude(report)
            except (ConfigError, DataError, KeyboardInterrupt):
                if not is_job:
                    run.discard_start()
                raise
    except (ConfigError, DataError, KeyboardInterrupt):
        remove_empty(new_folders)
        raise
    return report


def start_run(config: Config, folder: RunFolder, watch: Watcher, status: dict[str, Any]) -> Report:
    """Trains a run from its first step."""
    started = time.perf_counter()
    data = Data.of(config, watch)
    asked, config = config, settled(config, data.splits)
    begun = beginning(config, data.splits.learned)
    torch.manual_seed(config.seed)
    model = begun.filled(build_model(config, *data.shape))
    training = Training(model.to(data.device), recipe(config, data))
    why = (*begun.notes, *reasons(asked, config, data.splits))
    for sentence in why:
        log.info("%s", sentence)
    run = Run(config, folder, data, training, History(), status, started, why, begun=begun)
    write_json(folder.provenance, run.provenance())
    return complete_run(run, watch)


@dataclass(frozen=True)
class Data:
    """The data of a run, and the device that holds them."""

    device: torch.device
    splits: Splits
    parts: dict[str, SequenceDataset]
    """The splits by name, on the device."""
    grid: Grid | None = None
    """The grid as which the model reads its sequences; None if it reads their steps alone."""

    @classmethod
    def of(cls, config: Config, watch: Watcher) -> Data:
        """Reads the data. Raises DataError or ConfigError."""
        device = machine.prepare(config)
        config.augment.check_layout(config.dataset.layout())
        splits = config.dataset.load(progress=watch.reading)
        grid = grid_for(config, splits.learned)
        for sentence in (*splits.notes, *splits.warnings):
            log.info("%s", sentence)
        machine.keep_freed_memory()
        return cls(device, splits, {name: splits[name].to(device) for name in SPLITS}, grid)

    def with_validation(self) -> Data:
        """These data with the validation sequences among the training sequences."""
        train = joined(self.splits.train, self.splits.validation)
        parts = {**self.parts, "train": joined(self.parts["train"], self.parts["validation"])}
        return replace(self, splits=replace(self.splits, train=train), parts=parts)

    @property
    def shape(self) -> tuple[int, int, CodedFeatures | None, Grid | None]:
        """The number of features of a step, and of classes, the features that are codes, and the grid."""
        train = self.splits.train
        return train.input_size, len(train.classes), train.coded, self.grid


@dataclass
class Run:
    """A run whose data are read and whose model is built."""

    config: Config
    folder: RunFolder
    data: Data
    training: Training
    history: History
    status: dict[str, Any] = field(default_factory=dict)
    """The content of status.json. What is added here is written when the run ends."""
    started: float = field(default_factory=time.perf_counter)
    """The time at which this process began the run."""
    notes: tuple[str, ...] = ()
    """Messages for the user about the recipe, or about resuming."""
    changed: bool = False
    """Whether its configuration differs from its last checkpoint's."""
    begun: Beginning = field(default_factory=Beginning)
    """The weights with which training begins, where they are those of another model."""

    @cached_property
    def engine(self) -> EngineUsed:
        """What trains it."""
        return engine_used(self.training.model, self.training.recipe, self.data.parts["train"])

    def provenance(self) -> dict[str, Any]:
        splits = self.data.splits
        found = machine.provenance(self.data.device, self.engine.words, splits.fingerprint)
        return {**found, "division": division(splits, self.config.final_fit), **record_of(self.config)}

    def record(self) -> None:
        """Adds rollbacks and changes of the number of epochs to the status."""
        if self.training.rollbacks:
            self.status["rollbacks"] = [asdict(rollback) for rollback in self.training.rollbacks]
        if self.history.extended:
            self.status["extended"] = self.history.extended

    def info(self) -> RunInfo:
        splits = self.data.splits
        return RunInfo(
            self.config,
            self.training.model.parameter_count(),
            {name: len(part) for name, part in self.data.parts.items()},
            machine.device_in_words(self.data.device),
            self.engine,
            (*splits.notes, *self.notes),
            splits.warnings,
            self.training.epoch,
            self.training.so_far.seen,
        )


def complete_run(run: Run, watch: Watcher) -> Report:
    """Trains a run from its current state to its end, and writes its results."""
    watch.started(run.info())
    run.record()
    _record_training_sequences(run)

    def note(sentence: str) -> None:
        log.warning("%s", sentence)
        watch.note(sentence)

    with defer_signals() as waiting:
        saver = Saver(
            run.folder,
            run.config,
            run.data.splits,
            run.engine,
            run.training,
            run.history,
            run.started,
            waiting,
            note,
        )
        if run.changed:
            saver.save()
        saver.restore_files()
        _train_epochs(run, saver, watch)
        return _finished(run, saver)


def _record_training_sequences(run: Run) -> None:
    """Writes down which sequences the model has seen when the run has ended."""
    if (seen := run.data.splits.seen) and not run.folder.seen.exists():
        trained_on = seen["train"].together(seen["validation"]) if run.config.final_fit else seen["train"]
        write_atomically(run.folder.seen, trained_on.to_bytes())


def _train_epochs(run: Run, saver: Saver, watch: Watcher) -> None:
    """Trains until the last epoch, and saves and shows what each has brought."""
    training, history, parts = run.training, run.history, run.data.parts

    def on_rollback(rollback: Rollback) -> None:
        run.record()
        share = f"{rollback.factor:g} of the learning rate"
        saver.note(f"{rollback.reason}. Back to the start of epoch {training.epoch + 1}, with {share}.")

    def on_batch(progress: BatchProgress) -> None:
        parts["train"].refuse_changed()  # before anything is saved
        watch.batch(progress)
        saver.after_batch()

    def stop() -> str:
        return out_of_time(run.config, saver.seconds, training)

    for result in fit(training, parts["train"], parts["validation"], on_batch, on_rollback, stop):
        if run.config.protocol == "tutorial":
            with holding(training.model, training.result):
                result = replace(result, test=score_model(training.model, parts["test"]))
        if run.config.diagnose:  # before the checkpoint: a resumed run does not repeat the epoch
            record_diagnosis(run.folder.diagnosis, result.epoch, training, parts["train"])
        parts["train"].refuse_changed()
        is_best = saver.after_epoch(result)
        log.info("%s", result.in_words(run.config.epochs))
        watch.epoch(result, is_best)
        if (breaks := breaks_in(history.results)) and breaks[-1].epoch == result.epoch:
            saver.note(in_words(breaks[-1], run.config.clip))
        saver.save_and_stop_if_signalled()


def _finished(run: Run, saver: Saver) -> Report:
    """Calibrates the weights that are kept, fits them to all data if asked to, and writes the results."""
    training, history = run.training, run.history
    if training.stopped:
        saver.note(training.stopped)
    assert history.best is not None  # a recipe has at least one epoch
    if sentence := doubt(history.best.validation, run.data.shape[1], run.config.optimizer.lr):
        saver.note(sentence)
    history.restore_best(training.model)
    validation = evaluate_model(training.model, run.data.parts["validation"])
    saver.stop_if_signalled()
    calibration = calibrate(validation)
    saver.calibration = calibration
    if run.config.final_fit:
        _train_on_all(run, saver)
    else:
        saver.write_best()
    validation = replace(validation, temperature=calibration.temperature)
    return _write_results(run, saver, validation, calibration)


def _train_on_all(run: Run, saver: Saver) -> None:
    """Replaces the weights of the run, and those in its best checkpoint, by those of the final fit.

    A run that is interrupted here begins it again when it is resumed.
    """
    training, parts = run.training, run.data.parts
    assert run.history.best is not None  # a recipe has at least one epoch
    n = len(parts["train"]) + len(parts["validation"])
    saver.note(f"Training once more, on all {n:,} sequences of the training and the validation split.")
    model, stopped = fitted_to_all(
        run.config,
        recipe(run.config, run.data.with_validation()),
        parts["train"],
        parts["validation"],
        epochs_up_to(run.history.best, run.config, len(parts["train"])),
        lambda progress: saver.stop_if_signalled(),
        lambda: final_fit_out_of_time(run.config, saver.seconds),
        run.begun,
        grid=run.data.grid,
    )
    if stopped:
        saver.note(stopped)
    training.model.load_state_dict(model.state_dict())
    saver.write_best(training.model)


def _write_results(run: Run, saver: Saver, validation: Evaluation, calibration: Calibration) -> Report:
    """Evaluates the splits with the weights of the run, and writes the results.

    validation: the evaluation of that split by the weights of the best epoch, before a final fit.
    """
    trained = time.perf_counter()
    history, model = run.history, run.training.model
    assert history.best is not None  # a recipe has at least one epoch
    train = run.data.parts["train"]
    score = score_model(model, train, calibration.temperature)
    scores = {"train": score}
    metrics = {"train": {**score.to_dict(), "commonest_rate": commonest_share(train.y_N.cpu().numpy())}}
    saver.stop_if_signalled()
    evaluations: dict[str, Evaluation] = {}
    for name in SCORED:
        part, temperature = run.data.parts[name], calibration.temperature
        evaluation = validation if name == "validation" else evaluate_model(model, part, temperature)
        evaluations[name], scores[name] = evaluation, evaluation.score
        metrics[name] = with_recordings(evaluation)
        saver.stop_if_signalled()
    train.refuse_changed()
    write_predictions(run.folder.predictions, evaluations)
    earlier = history.seconds
    results = {
        **_description(run.config, model),
        "engine": asdict(run.engine),
        "epochs": len(history.results),
        "select": run.config.select,
        "best_epoch": history.best.epoch,
        "stopped": run.training.stopped,
        "final_fit": run.config.final_fit,
        **metrics,
        "calibration": calibration.summary(),
        "warnings": list(run.data.splits.warnings),
        "rollbacks": [asdict(rollback) for rollback in run.training.rollbacks],
        "breaks": history.breaks(run.config.clip),
        "shortfall": history.shortfall(run.config, score),
        "extended": history.extended,
        "epoch_seconds": [round(result.seconds, 4) for result in history.results],
        "train_seconds": round(earlier + trained - run.started, 3),
        "total_seconds": round(earlier + time.perf_counter() - run.started, 3),
    }
    write_json(run.folder.results, results)
    run.folder.drop_previous()
    diagnosed = None
    if run.config.diagnose:
        diagnosed = read_diagnosis(run.folder.diagnosis, run.config, training_doubts(results))
    return Report(run.folder, results, scores, evaluations, run.config.plots, diagnosed)


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
