"""Exported files in the place of a trained model: what their metadata say, and their answers. Prints nothing.

Shapes: N sequences, B batch, T time, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rnnclf import checkpoint
from rnnclf.calibration import Calibration
from rnnclf.checkpoint import Checkpoint
from rnnclf.config import Config
from rnnclf.data import Learned, Source
from rnnclf.data.grid import other_length
from rnnclf.data.own import OwnData
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.seen import Seen
from rnnclf.errors import CheckpointError, ConfigError, DataError
from rnnclf.export.reading import MOST_NUMBERS, read
from rnnclf.export.running import Runner
from rnnclf.training.evaluation import EVALUATION_BATCH, MOST_STEPS
from rnnclf.workflows import machine
from rnnclf.workflows.export_check import Batch, batch_of, elapsed_of
from rnnclf.workflows.loading import Loaded, config_for, config_of, learned_of
from rnnclf.workflows.runs import RunFolder, seen_by

FREE_KEYS = ("dataset", "threads", "plugins")
"""The keys that words may change: a file runs on the CPU, as it is."""
UNUSED = {"cell": "basic", "optimizer": "adam", "schedule": "constant", "augment": "none"}
"""Parts of a configuration that a file does not need, and does not hold."""


class LoadedFile(NamedTuple):
    """An exported file, ready to classify data that are read with its configuration.

    checkpoint: its metadata in the form of a checkpoint, without weights; the calibration is that of the
    model or, with int8, of the file itself. config: its dataset and final_fit alone mean something.
    elsewhere: see `Loaded`.
    """

    checkpoint: Checkpoint
    config: Config
    learned: Learned
    runner: Runner
    elsewhere: Source | None

    @property
    def temperature(self) -> float:
        return float(self.runner.file.facts["temperature"])

    def limit_of_sets(self, level: float, word: str) -> float:
        """See `Checkpoint.limit_of_sets`."""
        facts, path = self.runner.file.facts, self.checkpoint.path
        if "calibration" not in facts:
            raise CheckpointError(
                f"{word}: {path} does not hold the scores of validation, as files of this version do:"
                " export it again."
            )
        if facts["int8"] and (known := self.checkpoint.calibration) and not known.scores:
            way = "Train with final_fit=false." if self.config.final_fit else "Export it where the data are."
            raise ConfigError(
                f"{word}: int8 has changed the probabilities, and {path} was exported without validation"
                f" sequences that are new to the model, which would measure them again. {way}"
            )
        return self.checkpoint.limit_of_sets(level, word)

    @property
    def cell(self) -> str:
        return str(self.runner.file.facts["cell"])

    @property
    def steps(self) -> int | None:
        """As in `Loaded`."""
        found = self.runner.file.facts.get("steps")
        return found if type(found) is int else None

    def refuse_other_lengths(self, lengths_n: Array) -> None:
        """Raises DataError if a sequence does not have the number of steps that it must have."""
        steps_n = self.learned.preparation.steps_of(lengths_n)
        if self.steps is not None and (steps_n != self.steps).any():
            raise DataError(other_length(self.steps, int(steps_n[steps_n != self.steps][0])))

    def correct_before(self, split: str, total: int) -> int | None:
        """How many of so many sequences of a split were classified correctly before the export, if the file
        says so."""
        found = self.runner.file.facts.get("test")
        if split != "test" or not isinstance(found, dict) or found.get("total") != total:
            return None
        share = found.get("accuracy")
        return round(share * total) if isinstance(share, float) and 0 <= share <= 1 else None

    @property
    def hidden(self) -> int | None:
        found = self.runner.file.facts.get("hidden")
        return found if type(found) is int else None


def options_of(source: Source) -> dict[str, Any]:
    """The options of a source without those that name files of the user."""
    plain = {f.name: getattr(source, f.name) for f in fields(source) if f.name not in places_in(source)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def places_in(source: Source) -> set[str]:
    """The options of a source that name a file or a folder."""
    return {f.name for f in fields(source) if f.metadata.get("path")} | {*source.LOCATIONS}


def load_file(
    path: Path, words: Sequence[str] = (), data: Path | None = None, *, labelled: bool = False
) -> LoadedFile:
    """Loads an exported file, applies words to its configuration, and takes `data` for its data.

    labelled: whether these data must have labels. Nothing that the file names is opened. Raises
    CheckpointError or ConfigError.
    """
    _refuse_other_words(words)
    file = read(path)
    saved = Checkpoint(path, _header(path, file.facts), {})
    config, elsewhere = config_for(saved, list(words), data, labelled=labelled)
    if labelled and isinstance(config.dataset, OwnData) and config.dataset.path is None:
        raise ConfigError(f"Give the data after the file: rnnclf eval {path} DATA.")
    machine.prepare(config)
    runner = Runner(file, threads=torch.get_num_threads())
    return LoadedFile(saved, config, learned_of(saved, config), runner, elsewhere)


def seen_by_model(loaded: Loaded | LoadedFile) -> Seen | None:
    """What a model was trained on, by the record of its run; None if its file does not lie in the folder of
    its run, as an exported file need not."""
    path = loaded.checkpoint.path
    if isinstance(loaded, Loaded):
        return seen_by(path)
    best = RunFolder(path.parent).best
    try:
        is_its_own = checkpoint.describe(best).sha256 == loaded.runner.file.facts["checkpoint"]
    except CheckpointError:
        return None
    return seen_by(best) if is_its_own else None


def _refuse_other_words(words: Sequence[str]) -> None:
    if not words:
        return
    from rnnclf.hydra_app.compose import parsed

    for key in parsed(list(words)):
        if key.split(".")[0] not in FREE_KEYS:
            raise ConfigError(f"{key} has no effect on an exported file: leave it out.")


def _header(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a file as the header of a checkpoint. Raises CheckpointError."""
    for key in ("dataset", "training_data"):
        if not isinstance(facts.get(key), dict):
            raise CheckpointError(
                f"{path} does not say how its data are read, as files of this version do: export it again."
            )
    try:
        preparation = Preparation.from_plain(facts["preparation"])
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if preparation.vocabularies or list(preparation.channels) != facts["channels"]:
        raise CheckpointError(f"{path} is damaged: its metadata have no valid 'preparation'.")
    calibration = _calibration(path, facts)
    epoch = facts.get("epoch")
    config = {
        **{group: {"name": name} for group, name in UNUSED.items()},
        "dataset": facts["dataset"],
        "final_fit": facts.get("final_fit") is True,
    }
    saved = {
        "config": config,
        "input_size": preparation.input_size,
        "epoch": epoch if type(epoch) is int else 0,
        "in_files": facts.get("in_files") is True,
        **({} if calibration is None else {"calibration": calibration.to_plain()}),
        **{key: facts[key] for key in ("classes", "preparation", "reading", "fingerprint", "training_data")},
    }
    source = config_of(Checkpoint(path, saved, {})).dataset
    if places_in(source) & facts["dataset"].keys():
        raise CheckpointError(f"{path} is damaged: its metadata name files of their own.")
    return saved


def without_temperature(calibration: Calibration | None) -> dict[str, Any] | None:
    """The calibration as metadata, which hold the temperature already."""
    if calibration is None:
        return None
    return {key: value for key, value in calibration.to_plain().items() if key != "temperature"}


def _calibration(path: Path, facts: dict[str, Any]) -> Calibration | None:
    """Reads what `without_temperature` returns. Raises CheckpointError."""
    found = facts.get("calibration")
    if found is None:
        return None
    try:
        return Calibration.from_plain({**found, "temperature": facts["temperature"]})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata have no valid 'calibration'.") from error


def logits_of(loaded: LoadedFile, recordings: Recordings, places_n: Array) -> Array:
    """The logits (n, K), float32, of the sequences at `places_n`, as they are read.

    Raises CheckpointError if the file cannot be run, or its answers are no numbers.
    """
    runner, path = loaded.runner, loaded.checkpoint.path
    loaded.refuse_other_lengths(recordings.lengths_N[places_n])
    found_nK = np.empty((len(places_n), len(loaded.learned.classes)), np.float32)
    for part_B in _batches(recordings.lengths_N[places_n], runner):
        batch = batch_of(recordings, places_n[part_B])
        logits_BK = answered_by(runner, batch)
        if logits_BK.shape != (len(part_B), found_nK.shape[1]):
            raise CheckpointError(f"{path} is damaged: it does not answer with a number for each class.")
        if not np.isfinite(logits_BK).all():
            raise CheckpointError(f"{path}: The model's outputs are not finite: it cannot classify.")
        found_nK[part_B] = logits_BK
    return found_nK


def _batches(lengths_n: Array, runner: Runner) -> Iterator[Array]:
    """The places of sequences to classify together: of about the same length or, if the file takes no
    lengths, of exactly the same."""
    order_n = np.argsort(lengths_n, kind="stable")
    sorted_n = lengths_n[order_n]
    alike = not runner.is_step and "lengths" not in runner.takes
    most = min(EVALUATION_BATCH, MOST_NUMBERS // runner.width) if runner.is_step else EVALUATION_BATCH
    first = 0
    while first < len(order_n):
        some_n = sorted_n[first : first + most]
        steps_n = np.arange(1, len(some_n) + 1) * some_n  # a batch is as long as its longest
        last = first + max(int(np.searchsorted(steps_n, MOST_STEPS, side="right")), 1)
        if alike:
            last = min(last, first + int(np.searchsorted(some_n, some_n[0], side="right")))
        yield order_n[first:last]
        first = last


def answered_by(runner: Runner, batch: Batch) -> Array:
    """The logits (B, K) of a file for a batch."""
    return _stepwise(runner, batch) if runner.is_step else _whole(runner, batch)


def _whole(runner: Runner, batch: Batch) -> Array:
    [logits_BK] = runner.answers(batch.x_BTC, batch.lengths_B, elapsed_of(batch))
    return logits_BK


def _stepwise(runner: Runner, batch: Batch) -> Array:
    """The logits after the last step of each sequence, by a file of one step."""
    x_BTC, elapsed_BT = batch.x_BTC, elapsed_of(batch)
    state_BS = np.zeros((len(x_BTC), runner.width), np.float32)
    last_BK = np.full((len(x_BTC), len(runner.file.classes)), np.nan, np.float32)
    for t in range(x_BTC.shape[1]):
        logits_BK, state_BS = runner.step(x_BTC[:, t], state_BS, elapsed_BT[:, t])
        ends_B = batch.lengths_B == t + 1
        if logits_BK.shape != last_BK.shape:
            return logits_BK
        last_BK[ends_B] = logits_BK[ends_B]
    return last_BK
