"""Evaluates saved checkpoints on a data set: accuracy, classes, confusions. Prints nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnclf.config import Config
from rnnclf.data import SPLITS, Learned, SequenceDataset, Source
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import claim_folder, write_json
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.setup import register
from rnnclf.metrics import Evaluation
from rnnclf.registry import did_you_mean
from rnnclf.training.evaluation import evaluate_model
from rnnclf.workflows import machine
from rnnclf.workflows.loading import load_model
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import run_of, write_csv
from rnnclf.workflows.sweep_folder import checkpoints_in

FREE_KEYS = ("dataset", "device", "threads", "engine", "precision", "plugins")  # others are fixed
ALL = "all"  # the name of the split that contains all sequences


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of one checkpoint on one split."""

    path: Path
    config: Config
    parameters: int
    epoch: int
    split: str
    """train, validation, test, or all."""
    evaluation: Evaluation
    seconds: float
    recorded_correct: int | None
    """The number of correct predictions in results.json; None if that is missing or the data differ."""
    other_data: bool
    """Whether the data differ from the training run's."""

    def to_dict(self) -> dict[str, Any]:
        precision, recall, f1 = self.evaluation.macro()
        return {
            "checkpoint": str(self.path),
            "cell": self.config.cell.name,
            "hidden": self.config.cell.hidden_size,
            "parameters": self.parameters,
            "seed": self.config.seed,
            "epoch": self.epoch,
            "dataset": self.config.dataset.name,
            "split": self.split,
            **self.evaluation.to_dict(),
            "macro": {"precision": precision, "recall": recall, "f1": f1},
            "classes": [row._asdict() for row in self.evaluation.by_class()],
            "confusion": [list(row) for row in self.evaluation.counts],
            "recorded_correct": self.recorded_correct,
            "other_data": self.other_data,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class _Loader:
    """Loads the requested split. Checkpoints with the same source options and preparation, such as those of
    a sweep, share one read of the data."""

    split: str
    loaded: dict[str, tuple[SequenceDataset, str]] = field(default_factory=dict)

    def __call__(self, source: Source, learned: Learned) -> tuple[SequenceDataset, str]:
        """Returns the sequences, and the fingerprint of all data that were read."""
        key = repr((source, learned))
        if key not in self.loaded:
            if self.split == ALL:
                self.loaded[key] = source.load_whole(learned)
            else:
                splits = source.load(learned)
                self.loaded[key] = splits[self.split], splits.fingerprint  # type: ignore[index]
        return self.loaded[key]


AnyPath = str | os.PathLike[str]


def evaluate(paths: AnyPath | Sequence[AnyPath], words: Sequence[str] = ()) -> list[Evaluated]:
    """Evaluates all checkpoints in one path or several, in that order.

    `words` are `split=…` and overrides of dataset, device, threads, engine, precision and plugins. Raises an
    RnnclfError if a path holds no checkpoint, or a model does not fit the data.
    """
    split, overrides = _split_and_overrides(list(words))
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    files = [file for path in several for file in checkpoints_in(Path(path))]
    load = _Loader(split)
    return [_evaluate_one(file, overrides, load) for file in files]


def save(results: list[Evaluated], base: Path) -> Path:
    """Writes the evaluation into a new timestamped folder under `base`, and returns the folder."""
    folder = claim_folder(base)
    for number, result in enumerate(results):
        name = "predictions" if len(results) == 1 else f"predictions-{number}"
        write_predictions(folder / f"{name}.parquet", {result.split: result.evaluation})
    write_json(folder / "evaluation.json", [result.to_dict() for result in results])
    write_csv(
        folder / "classes.csv",
        [
            {"checkpoint": str(result.path), **row._asdict()}
            for result in results
            for row in result.evaluation.by_class()
        ],
    )
    write_csv(
        folder / "confusion.csv",
        [
            {"checkpoint": str(result.path), "true": true, "predicted": predicted, "count": count}
            for result in results
            for true, row in zip(result.evaluation.classes, result.evaluation.counts, strict=True)
            for predicted, count in zip(result.evaluation.classes, row, strict=True)
        ],
    )
    return folder


def _split_and_overrides(words: list[str]) -> tuple[str, list[str]]:
    values = parsed(words)
    split = str(values.pop("split", "test"))
    if split not in (*SPLITS, ALL):
        hint = did_you_mean(split, (*SPLITS, ALL))
        raise ConfigError(f"split must be train, validation, test or all, got '{split}'.{hint}")
    for key in values:
        if key.split(".")[0] not in FREE_KEYS:
            raise ConfigError(
                f"'{key}' cannot be changed at evaluation: the checkpoint fixes it."
                f" You can change split, {', '.join(FREE_KEYS)}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])
    return split, [word for word in words if not word.startswith("split=")]


def _evaluate_one(file: Path, overrides: list[str], load: _Loader) -> Evaluated:
    started = time.perf_counter()
    saved, config, learned, model = load_model(file, overrides)
    device = machine.prepare(config)
    try:
        data, fingerprint = load(config.dataset, learned)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    machine.keep_freed_memory()
    evaluation = evaluate_model(model.to(device), data.to(device))
    other_data = fingerprint != saved.fingerprint
    recorded = run.read_results() if (run := run_of(file)) else {}
    return Evaluated(
        path=file,
        config=config,
        parameters=model.parameter_count(),
        epoch=saved.epoch,
        split=load.split,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        recorded_correct=None if other_data else recorded.get(load.split, {}).get("correct"),
        other_data=other_data,
    )
