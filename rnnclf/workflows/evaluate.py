"""Evaluates saved checkpoints on a data set: accuracy, classes, confusions. Prints nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnnclf.config import Config
from rnnclf.data import SPLITS, SequenceDataset
from rnnclf.data.base import assembled
from rnnclf.data.splits import divide
from rnnclf.data.survey import digests
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import claim_folder, write_json
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.setup import register
from rnnclf.metrics import MANY_CLASSES, Evaluation
from rnnclf.registry import did_you_mean
from rnnclf.training.evaluation import evaluate_model
from rnnclf.workflows import machine
from rnnclf.workflows.loading import Loaded, load_model
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import checkpoints_in, run_of, write_csv

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
    notes: tuple[str, ...] = ()
    """What was inferred from other data, as sentences for the user."""

    @property
    def has_matrix(self) -> bool:
        """Whether the confusion matrix is written as a whole, with the pairs that do not occur."""
        return len(self.evaluation.classes) <= MANY_CLASSES

    @property
    def data(self) -> str:
        """The name of the data in tables."""
        return self.config.dataset.title_of(self.split)

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
            "data": self.data,
            "split": self.split,
            **self.evaluation.to_dict(),
            "macro": {"precision": precision, "recall": recall, "f1": f1},
            "classes": [row._asdict() for row in self.evaluation.by_class()],
            "confusion": [list(row) for row in self.evaluation.counts] if self.has_matrix else None,
            "recorded_correct": self.recorded_correct,
            "other_data": self.other_data,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


class _Data(NamedTuple):
    """The sequences to score, the split that they are, the fingerprint of all data that were read, and notes
    on them."""

    sequences: SequenceDataset
    split: str
    fingerprint: str
    notes: tuple[str, ...]


@dataclass
class _Loader:
    """Loads the requested split. Checkpoints with the same source options and preparation, such as those of
    a sweep, share one read of the data.

    split: None if none was requested: then the test split is scored or, of other data that were named and
        bring no test split, all sequences.
    """

    split: str | None
    loaded: dict[str, _Data] = field(default_factory=dict)

    def __call__(self, model: Loaded) -> _Data:
        key = repr((model.config.dataset, model.elsewhere, model.learned, model.checkpoint.fingerprint))
        if key not in self.loaded:
            self.loaded[key] = self._load(model)
        return self.loaded[key]

    def _load(self, model: Loaded) -> _Data:
        source, elsewhere = model.config.dataset, model.elsewhere
        recordings = source.recordings_for(model.learned)
        fingerprint = digests(recordings).fingerprint(recordings)
        split = self.split or "test"
        if elsewhere is not None and fingerprint != model.checkpoint.fingerprint:
            source = elsewhere
            has_test = recordings.given_N is not None and (recordings.given_N == SPLITS.index("test")).any()
            split = self.split or ("test" if has_test else ALL)
        sequences = assembled(recordings, model.learned)
        if split != ALL:
            parts = divide(recordings, source.plan())
            sequences = sequences.subset(torch.from_numpy(parts[split]))  # type: ignore[index]
        return _Data(sequences, split, fingerprint, recordings.notes)


AnyPath = str | os.PathLike[str]


def evaluate(paths: AnyPath | Sequence[AnyPath], words: Sequence[str] = ()) -> list[Evaluated]:
    """Evaluates all checkpoints in one path or several, in that order.

    `words` are `split=…` and overrides of dataset, device, threads, engine, precision and plugins. Other data
    that they name are scored as a whole, unless they bring a test split or a split is requested. Raises an
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
            {"checkpoint": str(result.path), **asdict(cell)}
            for result in results
            for cell in (result.evaluation.matrix() if result.has_matrix else result.evaluation.cells())
        ],
    )
    return folder


def _split_and_overrides(words: list[str]) -> tuple[str | None, list[str]]:
    """The requested split, None if none is, and the other words. Raises ConfigError."""
    values = parsed(words)
    split = str(values.pop("split")) if "split" in values else None
    if split is not None and split not in (*SPLITS, ALL):
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
    loaded = load_model(file, overrides)
    saved, config, model = loaded.checkpoint, loaded.config, loaded.model
    device = machine.prepare(config)
    try:
        data = load(loaded)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    machine.keep_freed_memory()
    evaluation = evaluate_model(model.to(device), data.sequences.to(device))
    other_data = data.fingerprint != saved.fingerprint
    recorded = run.read_results() if (run := run_of(file)) else {}
    return Evaluated(
        path=file,
        config=config,
        parameters=model.parameter_count(),
        epoch=saved.epoch,
        split=data.split,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        recorded_correct=None if other_data else recorded.get(data.split, {}).get("correct"),
        other_data=other_data,
        notes=data.notes if other_data else (),
    )
