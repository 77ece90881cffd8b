"""Saved checkpoints on a data set: accuracy, classes, confusions. Prints nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rnnclf import checkpoint
from rnnclf.config import Config, from_plain
from rnnclf.data import SPLITS, SplitName, Splits
from rnnclf.data.mnist import MNIST
from rnnclf.errors import CheckpointError, ConfigError, RnnclfError
from rnnclf.files import claim_folder, write_json
from rnnclf.hydra_app.compose import overridden, parsed
from rnnclf.hydra_app.setup import register
from rnnclf.metrics import Evaluation
from rnnclf.registry import did_you_mean
from rnnclf.training import evaluate as evaluate_model
from rnnclf.workflows import machine
from rnnclf.workflows.runs import RunFolder, checkpoints_in, read_json, write_csv
from rnnclf.workflows.train import build_model

FREE_KEYS = ("dataset", "device", "threads", "engine", "plugins")  # all else is fixed by the checkpoint


@dataclass(frozen=True)
class Evaluated:
    """One checkpoint on one split."""

    path: Path
    config: Config
    parameters: int
    epoch: int
    split: SplitName
    evaluation: Evaluation
    seconds: float
    recorded_correct: int | None
    """What results.json beside the checkpoint says, where it speaks of the same data."""
    other_data: bool
    """Whether the data differ from those of the training."""

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
            **self.evaluation.score.to_dict(),
            "macro": {"precision": precision, "recall": recall, "f1": f1},
            "classes": [row._asdict() for row in self.evaluation.by_class()],
            "confusion": [list(row) for row in self.evaluation.counts],
            "recorded_correct": self.recorded_correct,
            "other_data": self.other_data,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class _Loader:
    """Data sets by their options, so that a sweep's checkpoints share one reading."""

    loaded: dict[str, Splits] = field(default_factory=dict)

    def __call__(self, config: Config) -> Splits:
        key = repr(config.dataset)
        if key not in self.loaded:
            self.loaded[key] = config.dataset.load()
        return self.loaded[key]


def evaluate(paths: list[Path], words: list[str]) -> list[Evaluated]:
    """Scores every checkpoint that `paths` name, in their order.

    `words` are `split=…` and overrides of dataset, device, threads, engine and plugins. Raises an RnnclfError
    where a path holds no checkpoint, or its model does not fit the data.
    """
    split, overrides = _split_and_overrides(words)
    files = [file for path in paths for file in checkpoints_in(path)]
    load = _Loader()
    return [_evaluate_one(file, split, overrides, load) for file in files]


def save(results: list[Evaluated], base: Path) -> Path:
    """Writes the evaluation into a timestamped folder of its own under `base`, and returns it."""
    folder = claim_folder(base)
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


def _split_and_overrides(words: list[str]) -> tuple[SplitName, list[str]]:
    values = parsed(words)
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise ConfigError(
            f"split must be train, validation or test, got '{split}'.{did_you_mean(str(split), SPLITS)}"
        )
    for key in values:
        if key.split(".")[0] not in FREE_KEYS:
            raise ConfigError(
                f"'{key}' cannot be changed at evaluation: the checkpoint fixes it."
                f" Free are split, {', '.join(FREE_KEYS)}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])
    return split, [word for word in words if not word.startswith("split=")]


def _evaluate_one(file: Path, split: SplitName, overrides: list[str], load: _Loader) -> Evaluated:
    started = time.perf_counter()
    saved = checkpoint.load(file)
    config = overridden(_config_of(saved), overrides)
    device = machine.prepare(config)
    splits = load(config)
    input_size, classes = _fit_to_data(saved, splits)
    with torch.device("meta"):
        model = build_model(config, input_size, len(classes))
    checkpoint.fill(model, saved)
    evaluation = evaluate_model(model.to(device), splits[split].to(device))
    other_data = splits.fingerprint != saved.header["fingerprint"]
    recorded = read_json(RunFolder(file.parent).results) if file.name == "best.safetensors" else {}
    return Evaluated(
        path=file,
        config=config,
        parameters=model.parameter_count(),
        epoch=int(saved.header["epoch"]),
        split=split,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        recorded_correct=None if other_data else recorded.get(split, {}).get("correct"),
        other_data=other_data,
    )


def _config_of(saved: checkpoint.Checkpoint) -> Config:
    try:
        config = from_plain(saved.header["config"])
    except (RnnclfError, KeyError, TypeError, AttributeError) as error:
        own = " If it is your own, name its module: plugins=[my_module]." if "No cell" in str(error) else ""
        raise CheckpointError(f"{saved.path}: {error}{own}") from error
    if isinstance(config.dataset, MNIST) and config.dataset.root and not Path(config.dataset.root).is_dir():
        config.dataset.root = None  # trained on another machine: the files are the same everywhere
    if config.device not in ("auto", *machine.devices()):
        config.device = "auto"  # likewise
    return config


def _fit_to_data(saved: checkpoint.Checkpoint, splits: Splits) -> tuple[int, tuple[str, ...]]:
    input_size, classes = saved.header["input_size"], tuple(saved.header["classes"])
    data = splits.train
    if input_size != data.input_size:
        raise CheckpointError(
            f"{saved.path} was trained on sequences of {input_size} features a step;"
            f" these have {data.input_size}."
        )
    if classes != data.classes:
        raise CheckpointError(
            f"{saved.path} knows the classes {_listed(classes)}; these data have {_listed(data.classes)}."
        )
    return input_size, classes


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} … ({len(names)})" if len(names) > 12 else shown
