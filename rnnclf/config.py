"""The configuration of a run: one typed tree of dataclasses.

rnnclf/config_reading.py makes it from what Hydra composes, or from the JSON of a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from rnnclf.augment import AUGMENTS, Augment
from rnnclf.averaging import AVERAGES, Average
from rnnclf.cells import CELLS, Cell
from rnnclf.data import DATASETS, Source
from rnnclf.durations import PATIENCE, TIME, Duration, parse_interval, parse_patience, parse_time
from rnnclf.errors import ConfigError
from rnnclf.files import refuse_odd_run_name
from rnnclf.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from rnnclf.options import Component, Options, expected, option
from rnnclf.registry import Registry, did_you_mean
from rnnclf.sizing import parse_count
from rnnclf.stack import Stack
from rnnclf.synonyms import SYNONYMS

GROUPS: dict[str, Registry[Any]] = {
    "cell": CELLS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "dataset": DATASETS,
    "augment": AUGMENTS,
    "average": AVERAGES,
}
LATER_GROUPS = {"average": "none"}
"""The choice in groups that checkpoints of older versions do not name."""


@dataclass
class Checkpointing(Options):
    """How often to save the state from which a run can be resumed."""

    every: str = option(
        "epoch",
        "how often the state that resume needs is saved: epoch, a time such as 30s or 5m, or '200 steps'",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.interval()

    def interval(self) -> Duration:
        """The parsed value of `every`. Raises ConfigError."""
        return parse_interval(self.every)


@dataclass
class Config(Stack):
    """Everything that decides the outcome of a run, and its name."""

    cell: Cell = MISSING
    optimizer: Optimizer = MISSING
    schedule: Schedule = MISSING
    dataset: Source = MISSING
    augment: Augment = MISSING
    average: Average = MISSING
    hidden: int = option(150, "number of units of each recurrent layer", low=1, high=1_000_000)
    match_parameters: int | float | str | None = option(
        None,
        "choose hidden so that the model has about this many parameters: 30000, 30k, 1.5M",
        expects="a number such as 30000, 30k or 1.5M",
    )
    epochs: int = option(20, "number of passes over the training data", low=1)
    updates: int | None = option(
        None,
        "least number of training steps: epochs is raised to as many as they take, which depends on the"
        " number of sequences",
        low=1,
    )
    patience: int | str | None = option(
        None,
        "end training when the validation score has not improved for so many epochs (20) or training steps"
        " ('500 updates'); the best epoch is kept, and the schedule is still laid out for `epochs`",
        expects=PATIENCE,
    )
    max_time: str | None = option(
        None,
        "end training after this time, 30s, 10m or 1h, of which a final fit has half; the schedule is still"
        " laid out for `epochs`, and such a run cannot be repeated bit for bit",
        expects=TIME,
    )
    select: str = option(
        "best",
        "the epoch whose weights are the result: the one with the best validation accuracy (best), or the"
        " last one, where few sequences are left for validation (last)",
        choices=("best", "last"),
    )
    final_fit: bool = option(
        False,
        "train once more at the end, on the training and the validation sequences together, for as many"
        " steps; that model is saved, and scored on the test split",
    )
    recipe: str = option(
        "plain",
        "the settings that you leave out: those of all data (plain), or ones chosen for your own data"
        " (auto, which they get unless you set plain)",
        choices=("plain", "auto"),
    )
    batch_size: int = option(150, "number of sequences per training step", low=1)
    clip: float | None = option(
        1.0, "largest norm of the gradients, which are scaled down to it; null: no clipping", above=0
    )
    label_smoothing: float = option(
        0.0, "fraction of each label that is spread over all classes", low=0, below=1
    )
    class_weights: str = option(
        "none",
        "weights of the classes in the loss; balanced: inversely proportional to their frequency",
        choices=("none", "balanced"),
    )
    focal: float = option(
        0.0,
        "γ of the focal loss, for sequences that are hard to classify; 0: plain cross-entropy",
        low=0,
        high=20,
    )
    sampling: str = option(
        "shuffled",
        "what an epoch trains on: each sequence once, in whole batches and a rest (shuffled) or in batches of"
        " about equal size (even), or as many draws with every class equally likely (balanced)",
        choices=("shuffled", "even", "balanced"),
    )
    protocol: str = option(
        "standard",
        "when the test split is scored: at the end only (standard), or after every epoch, as in the tutorial,"
        " which also trains on whole batches only (tutorial)",
        choices=("standard", "tutorial"),
    )
    on_divergence: str = option(
        "stop",
        "what to do if the loss becomes NaN or infinite: stop, or go back to the start of the epoch and halve"
        " the learning rate (rollback)",
        choices=("stop", "rollback"),
    )
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    diagnose: bool = option(
        False, "measure after each epoch whether gradients reach the first steps; writes diagnosis.csv"
    )
    plots: str = option(
        "auto",
        "draw learning curves, confusions, classes and calibration into the run folder, as SVG and PNG, which"
        " takes a few seconds; auto: after a run of at least 30 s",
        choices=("auto", "true", "false"),
    )
    seed: int = option(
        0, "random seed of the weights, the order of the batches and dropout", low=0, high=2**63 - 1
    )
    graph: bool = option(
        True, "on an NVIDIA GPU, replay the training step as a CUDA graph where possible, which is faster"
    )
    device: str = option(
        "auto", "device to train on; auto: a GPU if there is one", choices=("auto", "cpu", "cuda", "mps")
    )
    threads: int | str = option(
        "auto",
        "number of CPU threads; auto: one per core, or OMP_NUM_THREADS",
        low=1,
        high=4096,
        expects="auto or a whole number of at least 1 and at most 4096",
    )
    init: str | None = option(
        None,
        "run folder or checkpoint file of a trained model: training begins with its weights, and takes cell,"
        " hidden and the other words of the model from it unless you type them",
        path=True,
    )
    init_sha256: str | None = option(
        None, "checksum that the checkpoint of init must have; filled in when a run begins"
    )
    freeze: str = option(
        "none",
        "which weights of init stay as they are: none, or those of the recurrent layers, so that only the"
        " head is trained (cell)",
        choices=("none", "cell"),
    )
    name: str | None = option(
        None,
        "what to call the run or the sweep: part of its folder's name, and stands for it wherever a run is"
        " named; of several with one name, the newest is meant",
    )
    plugins: list[str] = field(
        default_factory=list, metadata={"help": "Python modules with your own cells and data sets"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.threads, str) and self.threads != "auto":
            raise ConfigError(f"threads must be {expected(Config, 'threads')}, got '{self.threads}'.")
        if not all(isinstance(name, str) for name in self.plugins):
            raise ConfigError(f"plugins must be a list of module names, got {self.plugins}.")
        if self.name is not None:
            refuse_odd_run_name(self.name)
        if self.match_parameters is not None:
            parse_count(self.match_parameters)
        if self.init is None and self.freeze != "none":
            raise ConfigError(
                f"freeze={self.freeze} keeps the weights of a trained model: name it with init=RUN."
            )
        if self.freeze != "none" and self.diagnose:
            raise ConfigError(
                f"diagnose measures the gradients of the recurrent layers, which freeze={self.freeze} does"
                " not train: leave out one of the two."
            )
        if self.init is None and self.init_sha256 is not None:
            raise ConfigError("init_sha256 is the checksum of init: give that, too, or leave it out.")
        if self.init is not None and self.match_parameters is not None:
            raise ConfigError("init takes hidden from a trained model: leave out match_parameters.")
        if self.max_time is not None:
            parse_time(self.max_time)
        if self.patience is not None:
            parse_patience(self.patience)
            if self.select == "last":
                raise ConfigError(
                    f"patience={self.patience} ends training some time after its best epoch, which"
                    " select=last does not keep: use select=best."
                )
        if isinstance(self.cell, Cell):  # it is MISSING while the schema is built
            self.check_cell(self.cell)
            if self.match_parameters is None:
                self.cell.check_size()
        if isinstance(self.dataset, Source):
            self.check_data(self.dataset.layout(), getattr(self.augment, "crop", 1.0))

    def stack(self) -> Stack:
        """The options of the layers around the cell."""
        return Stack(**{stack_field.name: getattr(self, stack_field.name) for stack_field in fields(Stack)})

    def to_plain(self) -> dict[str, Any]:
        """The configuration as JSON-ready data; `from_plain` reads it back."""
        return asdict(self)

    def digest(self) -> str:
        """A short hash of everything in the configuration but its name."""
        plain = {key: value for key, value in self.to_plain().items() if key != "name"}
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


NESTED: dict[str, type[Options]] = {
    "checkpoint": Checkpointing
}  # options nested below a key that is not a group


def unknown_key(key: str, kind: Any = None) -> str:
    """The message for an unknown key; `kind` is the class whose options were searched."""
    group, _, name = key.rpartition(".")
    if group in GROUPS and isinstance(kind, type) and issubclass(kind, Component):
        options = [option_field.name for option_field in fields(kind) if option_field.name != "name"]
        hint = did_you_mean(name, options)
        known = f"Its options: {', '.join(options)}." if options else "It has none at all."
        return f"{group}={kind.name} has no option '{name}'.{hint} {known}"
    if key in NESTED:
        return f"{key} holds options: write {' or '.join(f'{key}.{o.name}=…' for o in fields(NESTED[key]))}."
    if key == "experiment":
        return "The file of an experiment of your own must begin with the line '# @package _global_'."
    return f"No key named '{key}'.{nearest_key(key)}"


def nearest_key(key: str) -> str:
    """' Did you mean 'hidden'?' for the known key that is meant, '' if none is near."""
    elsewhere = [known for known in known_keys() if known.rpartition(".")[2] == key]
    meant = SYNONYMS.get(key.lower()) or next(iter(elsewhere), None)
    return f" Did you mean '{meant}'?" if meant else did_you_mean(key, known_keys())


def kinds_of(group: str) -> list[type]:
    """The classes that have the options below a key: all cells for `cell`, Config for the top level, ''."""
    if group in GROUPS:
        return [kind for _, kind in GROUPS[group].items()]
    return [Config] if not group else [NESTED[group]] if group in NESTED else []


def known_keys() -> list[str]:
    """All keys, of all components."""
    keys = [option_field.name for option_field in fields(Config) if option_field.name not in NESTED]
    keys += ["experiment", "seeds", "folds", "tracker"]
    keys += [f"{name}.{o.name}" for name, kind in NESTED.items() for o in fields(kind)]
    for group, registry in GROUPS.items():
        for _, kind in registry.items():
            keys += [f"{group}.{o.name}" for o in fields(kind) if f"{group}.{o.name}" not in keys]
    return keys
