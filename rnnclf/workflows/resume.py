"""Going on with a run that was interrupted, so that it ends as if it had not been. Prints nothing."""

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
from rnnclf.config import Config, from_plain
from rnnclf.errors import CheckpointError, ConfigError, OutputError, RnnclfError
from rnnclf.files import write_json
from rnnclf.hydra_app.setup import register
from rnnclf.training.state import Training
from rnnclf.workflows import machine
from rnnclf.workflows.loading import build_model, config_of
from rnnclf.workflows.runs import RunFolder, facts_of, read_json
from rnnclf.workflows.saving import history_of
from rnnclf.workflows.train import (
    Conclusion,
    Data,
    Report,
    Run,
    Watcher,
    begin,
    carry_out,
    recipe,
)

log = logging.getLogger("rnnclf")

# What decides the last digits beside the configuration, and where provenance.json has it.
CIRCUMSTANCES = {
    "threads": ("threads",),
    "device": ("device",),
    "torch": ("versions", "torch"),
    "processor": ("hardware", "cpu"),
}


def resume_run(
    folder: RunFolder,
    epochs: int | None = None,
    watch: Watcher | None = None,
    conclude: Conclusion = lambda report: None,
) -> Report | None:
    """Goes on in a run folder, from its last checkpoint, or from the start where it has none yet.

    The configuration is that of the checkpoint; modules that its `plugins` name are imported, so a folder
    of a stranger's is not to be resumed.

    Args:
        epochs: the number of epochs that the run is to have in the end; None: as it was.
        conclude: what else is to be written of the report before the run counts as done.

    Returns:
        What came of it, or None where the run was finished already.

    Raises an RnnclfError where there is nothing to go on with, the data are not those of the run, another
    process trains in the folder, or training itself ends with one.
    """
    if not folder.path.is_dir():
        raise CheckpointError(f"{folder.path} does not exist: give the folder of a run.")
    if not any(path.exists() for path in (folder.status, folder.last, folder.previous)):
        raise CheckpointError(f"{folder.path} is no run folder: it has no {folder.status.name}.")
    if epochs is None and _done(folder):
        return None
    watch, began = watch or Watcher(), time.perf_counter()
    with folder.locked(), _log_of(folder):
        status = folder.read_status()
        saved, notes = _newest(folder)
        config = _config(folder, saved, status)
        if _done(folder) and epochs in (None, config.epochs):
            return None
        if epochs is not None:
            config = replace(config, epochs=epochs)
        # what can be wrong with that is found here, while the records are as they were
        run = None if saved is None else _restored(saved, config, folder, watch, notes)
        reading = time.perf_counter() - began
        with folder.tracked(_facts(config, status, reading)) as tracked:
            if run is None:
                report = begin(config, folder, watch, tracked)
            else:
                run.status = tracked
                report = carry_out(run, watch)
            conclude(report)
    return report


def _done(folder: RunFolder) -> bool:
    return folder.read_status().get("state") == "done" and bool(folder.read_results())


def _newest(folder: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """The last checkpoint that is whole, and what has to be said of it; None where there was none yet."""
    if not folder.last.exists():  # there is one before it where the process died between two renames
        return checkpoint.load(folder.previous) if folder.previous.exists() else None, []
    try:
        return checkpoint.load(folder.last), []
    except CheckpointError as error:
        if not folder.previous.exists():
            raise
        saved = checkpoint.load(folder.previous)
        _put_aside(folder.last, folder.damaged)  # or the next checkpoint would replace the good one by it
        return saved, [f"{error} The one before it is used: {folder.previous}."]


def _put_aside(path: Path, to: Path) -> None:
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


def _facts(config: Config, status: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What status.json says from now on; `seconds` were spent since the run was taken up again."""
    resumed = status.get("resumed", 0)
    facts = {**status, **facts_of(config, status.get("overrides", [])), "state": "running"}
    facts["resumed"] = (resumed if isinstance(resumed, int) else 0) + 1
    facts["seconds"] = status.get("seconds", 0.0) + seconds
    facts.pop("error", None)
    return facts


def _restored(
    saved: Checkpoint,
    config: Config,
    folder: RunFolder,
    watch: Watcher,
    notes: list[str],
) -> Run:
    """The run as it was when the checkpoint was taken."""
    started = time.perf_counter()
    history = history_of(saved)
    data = Data.of(config, watch)
    if data.splits.fingerprint != saved.fingerprint:
        raise CheckpointError(
            f"The data are not those that {folder.path} was trained on: they have changed, or are others."
        )
    training = _training(saved, config, data)
    run = Run(config, folder, data, training, history, started=started)
    extension = _extension(saved, run)
    run.notes = (_place(training), *notes, *extension, *_other_circumstances(run))
    run.changed = bool(extension)
    for sentence in run.notes:
        log.info("%s", sentence)
    return run


def _place(training: Training) -> str:
    epoch, batches = training.epoch, training.so_far.batches
    return (
        f"Going on in epoch {epoch + 1} after batch {batches}."
        if batches
        else f"Going on after epoch {epoch}."
    )


def _training(saved: Checkpoint, config: Config, data: Data) -> Training:
    """A model as it was. It gets memory of its own, laid out as in a run that was never interrupted: the
    last digits of a product may depend on where numbers begin."""
    with torch.device("meta"):
        checkpoint.fill(build_model(config, *data.shape), saved)  # raises where the shapes do not fit
    torch.manual_seed(config.seed)
    training = Training(build_model(config, *data.shape).to(data.device), recipe(config, data))
    try:
        training.restore(saved.tensors, saved.resumable.training)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{saved.path} does not say how to go on: {error}.") from error
    return training


def _extension(saved: Checkpoint, run: Run) -> list[str]:
    """Takes a changed number of epochs into the history, and says what it means."""
    training, schedule = run.training, run.config.schedule
    before, now = saved.config["epochs"], run.config.epochs
    if now == before:
        return []
    least = training.epoch + bool(training.so_far.batches)
    if now < least:
        raise ConfigError(f"epochs must be at least {least}: so many have begun already. Got {now}.")
    run.history.extended.append({"at": training.epoch, "from": before, "to": now})
    notes = [f"It is to have {now} epochs now instead of {before}."]
    if any(schedule.factor(step, before) != schedule.factor(step, now) for step in range(before)):
        notes.append(
            f"schedule={schedule.name} depends on the number of epochs: from here on it is that of {now}, and"
            f" the result is not that of a run with epochs={now} from the start."
        )
    return notes


def _other_circumstances(run: Run) -> list[str]:
    """Takes this process into provenance.json, and says what differs from the one before."""
    file = run.folder.provenance
    now = machine.provenance(run.data.device, run.data.splits.fingerprint)
    recorded = read_json(file)
    earlier = recorded.get("resumed", [])
    earlier = earlier if isinstance(earlier, list) else []
    before = earlier[-1] if earlier else recorded
    write_json(file, {**recorded, "resumed": [*earlier, now]} if recorded else now)
    differences = [
        f"{what} {there} instead of {then}"
        for what, keys in CIRCUMSTANCES.items()
        if (then := _at(before, keys)) is not None and then != (there := _at(now, keys))
    ]
    if not differences:
        return []
    return [f"The run goes on with {', '.join(differences)}: its result may differ in the last digits."]


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class _Log(logging.FileHandler):
    """A log that may fail: of a full disk the checkpoint tells that cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def _log_of(folder: RunFolder) -> Iterator[None]:
    """What is logged goes on in train.log, where nobody else sees to that."""
    target = os.path.abspath(folder.log)
    handlers = [*log.handlers, *(logging.getLogger().handlers if log.propagate else [])]
    if any(getattr(handler, "baseFilename", None) == target for handler in handlers):
        yield
        return
    try:
        handler = _Log(target, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write {folder.log}: {error.strerror}.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
