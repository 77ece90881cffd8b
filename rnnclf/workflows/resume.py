"""Resumes an interrupted run, with the same result as without the interruption. Prints nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rnnclf import checkpoint
from rnnclf.checkpoint import Checkpoint
from rnnclf.config import Config
from rnnclf.config_reading import from_plain
from rnnclf.errors import CheckpointError, ConfigError, OutputError, RnnclfError
from rnnclf.escaping import LogFormatter
from rnnclf.files import write_json
from rnnclf.hydra_app.setup import register
from rnnclf.training.state import Training
from rnnclf.workflows import machine
from rnnclf.workflows.beginning import Beginning, beginning
from rnnclf.workflows.loading import build_model, config_of
from rnnclf.workflows.recipe_of import recipe
from rnnclf.workflows.runs import RunFolder, config_record, read_json
from rnnclf.workflows.saving import history_of
from rnnclf.workflows.train import (
    Conclusion,
    Data,
    Report,
    Run,
    Watcher,
    complete_run,
    start_run,
)

log = logging.getLogger("rnnclf")

# What affects the last digits of results, besides the configuration, and its keys in provenance.json.
ENVIRONMENT = {
    "threads": ("threads",),
    "device": ("device",),
    "engine": ("engine",),
    "torch": ("versions", "torch"),
    "processor": ("hardware", "cpu"),
}


def resume_run(
    folder: RunFolder,
    epochs: int | None = None,
    watch: Watcher | None = None,
    conclude: Conclusion = lambda report: None,
) -> Report | None:
    """Resumes a run from its last checkpoint, or from the start if it has none yet.

    The configuration comes from the checkpoint, and the modules named in its `plugins` are imported: do not
    resume a folder from an untrusted source.

    Args:
        epochs: the new total number of epochs; None leaves it unchanged.
        conclude: called with the report before the run's status becomes done, to write further files.

    Returns:
        The report, or None if the run had already finished.

    Raises an RnnclfError if there is nothing to resume, if the data have changed, if another process trains
    in the folder, or if training raises one.
    """
    if not folder.path.is_dir():
        raise CheckpointError(f"{folder.path} does not exist: give the folder of a run.")
    if not any(path.exists() for path in (folder.status, folder.last, folder.previous)):
        raise CheckpointError(f"{folder.path} is not a run folder: it has no {folder.status.name}.")
    if epochs is None and folder.is_finished():
        return None
    watch, began = watch or Watcher(), time.perf_counter()
    with machine.one_at_a_time, folder.locked(), _logging_to(folder):
        status = folder.read_status()
        saved, notes = _latest_checkpoint(folder)
        config = _config(folder, saved, status)
        if folder.is_finished() and epochs in (None, config.epochs):
            return None
        if epochs is not None:
            config = replace(config, epochs=epochs)
        # most errors are raised here, before any record is changed
        run = None if saved is None else _restored(saved, config, folder, watch, notes)
        reading = time.perf_counter() - began
        with folder.tracked(_resumed_status(config, status, reading, saved)) as tracked:
            if run is None:
                report = start_run(config, folder, watch, tracked)
            else:
                run.status = tracked
                report = complete_run(run, watch)
            conclude(report)
    return report


def _latest_checkpoint(folder: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """The last intact checkpoint, and notes about it for the user; None if there is none yet."""
    if not folder.last.exists():  # the process may have died between the two renames of a save
        return checkpoint.load(folder.previous) if folder.previous.exists() else None, []
    try:
        return checkpoint.load(folder.last), []
    except CheckpointError as error:
        if not folder.previous.exists():
            raise
        saved = checkpoint.load(folder.previous)
        _move(folder.last, folder.damaged)  # else the next save would replace the intact one by it
        return saved, [f"{error} Using the previous checkpoint instead: {folder.previous}."]


def _move(path: Path, to: Path) -> None:
    try:
        os.replace(path, to)
    except OSError as error:
        raise OutputError(f"Cannot rename {path}: {error.strerror}.") from error


def _config(folder: RunFolder, saved: Checkpoint | None, status: Mapping[str, Any]) -> Config:
    plain = saved.config if saved else status.get("configuration")
    if not isinstance(plain, dict):
        raise CheckpointError(
            f"{folder.path} holds no checkpoint, and its {folder.status.name} no configuration."
        )
    plugins = plain.get("plugins")
    register([str(name) for name in plugins] if isinstance(plugins, list) else [])
    if saved is not None:
        return config_of(saved)
    try:
        return from_plain(plain)
    except RnnclfError as error:
        raise CheckpointError(f"{folder.status}: {error}") from error


def _resumed_status(
    config: Config, status: Mapping[str, Any], seconds: float, saved: Checkpoint | None
) -> dict[str, Any]:
    """The new content of status.json; `seconds` is the time spent since resuming began."""
    resumed_status = {**status, **config_record(config, status.get("overrides", [])), "state": "running"}
    if saved is not None:  # otherwise it begins
        resumed = status.get("resumed", 0)
        resumed_status["resumed"] = (resumed if isinstance(resumed, int) else 0) + 1
    resumed_status["seconds"] = status.get("seconds", 0.0) + seconds
    resumed_status.pop("error", None)
    return resumed_status


def _restored(
    saved: Checkpoint,
    config: Config,
    folder: RunFolder,
    watch: Watcher,
    notes: list[str],
) -> Run:
    """The run in its state at the checkpoint. Raises CheckpointError or ConfigError."""
    started = time.perf_counter()
    history = history_of(saved)
    data = Data.of(config, watch)
    if data.splits.fingerprint != saved.fingerprint:
        raise CheckpointError(f"These are not the data that {folder.path} was trained on: they have changed.")
    training = _training(saved, config, data)
    # training goes on from its own weights; a final fit begins again
    begun = beginning(config, data.splits.learned) if config.final_fit else Beginning()
    run = Run(config, folder, data, training, history, started=started, begun=begun)
    extension = _record_extension(saved, run)
    run.notes = (_position(training), *notes, *extension, *_record_provenance(run))
    run.changed = bool(extension)
    for sentence in run.notes:
        log.info("%s", sentence)
    return run


def _position(training: Training) -> str:
    epoch, batches = training.epoch, training.so_far.batches
    return (
        f"Resuming in epoch {epoch + 1} after batch {batches}."
        if batches
        else f"Resuming after epoch {epoch}."
    )


def _training(saved: Checkpoint, config: Config, data: Data) -> Training:
    """The training state of a checkpoint. Tensors are copied into a newly built model, so that their memory
    is laid out as in an uninterrupted run: the last digits of a product may depend on alignment."""
    with torch.device("meta"):
        checkpoint.fill(
            build_model(config, *data.shape), saved
        )  # raises CheckpointError if the shapes do not match
    torch.manual_seed(config.seed)
    training = Training(build_model(config, *data.shape).to(data.device), recipe(config, data))
    try:
        training.restore(saved.tensors, saved.resumable.training)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{saved.path} cannot be resumed from: {error}.") from error
    return training


def _record_extension(saved: Checkpoint, run: Run) -> list[str]:
    """Records a changed number of epochs in the history, and returns notes on its consequences."""
    training, schedule, average = run.training, run.config.schedule, run.config.average
    before, now = saved.config["epochs"], run.config.epochs
    if now == before:
        return []
    least = training.epoch + bool(training.so_far.batches)
    if now < least:
        raise ConfigError(f"epochs must be at least {least}: that many have already started. Got {now}.")
    if training.stopped:
        raise ConfigError(f"epochs={now} does not prolong a run that was stopped early. {training.stopped}")
    run.history.extended.append({"at": training.epoch, "from": before, "to": now})
    notes = [f"The run now has {now} epochs instead of {before}."]
    if any(schedule.factor(step, before) != schedule.factor(step, now) for step in range(before)):
        notes.append(
            f"schedule={schedule.name} depends on the number of epochs: from here on it follows {now}, so"
            f" the result differs from a run with epochs={now} from the start."
        )
    steps = range(0, 100 * before, before)  # as if an epoch had a hundred
    if any(average.share(step, 100 * before, 1) != average.share(step, 100 * now, 1) for step in steps):
        notes.append(
            f"average={average.name} begins after a share of all epochs: from here on, all are {now}, so the"
            f" result differs from a run with epochs={now} from the start."
        )
    return notes


def _record_provenance(run: Run) -> list[str]:
    """Adds this process to provenance.json, and returns a note on how it differs from the previous one."""
    file = run.folder.provenance
    now = run.provenance()
    recorded = read_json(file)
    earlier = recorded.get("resumed", [])
    earlier = earlier if isinstance(earlier, list) else []
    before = earlier[-1] if earlier else recorded
    write_json(file, {**recorded, "resumed": [*earlier, now]} if recorded else now)
    differences = [
        f"{what} {there} instead of {then}"
        for what, keys in ENVIRONMENT.items()
        if (then := _at(before, keys)) is not None and then != (there := _at(now, keys))
    ]
    if not differences:
        return []
    return [f"The run resumes with {', '.join(differences)}: its result may differ in the last digits."]


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class _Log(logging.FileHandler):
    """A log file that ignores write errors: a full disk is reported when a checkpoint cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def _logging_to(folder: RunFolder) -> Iterator[None]:
    """Appends log records to train.log, unless a handler does so already. Raises OutputError."""
    target = os.path.abspath(folder.log)
    handlers = [*log.handlers, *(logging.getLogger().handlers if log.propagate else [])]
    if any(getattr(handler, "baseFilename", None) == target for handler in handlers):
        yield
        return
    try:
        handler = _Log(target, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write {folder.log}: {error.strerror}.") from error
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    except RnnclfError as error:
        log.error("%s", error)
        raise
    except Exception:
        log.exception("The run failed.")
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)
        log.propagate = propagate
