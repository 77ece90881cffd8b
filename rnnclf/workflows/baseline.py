"""The command `rnnclf baseline`: classifiers from the literature on the splits that `rnnclf train` uses.

Prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnclf.baselines import BASELINES, Baseline, Clock, Sequences
from rnnclf.baselines.base import LeftOutError
from rnnclf.config import Config
from rnnclf.data import SPLITS, SequenceDataset, Source, SplitName, Splits
from rnnclf.data.gaps import treatment
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import Array, Progress, silent
from rnnclf.durations import parse_time
from rnnclf.errors import ConfigError, DataError
from rnnclf.files import claim_folder, missing_folders, remove_empty, write_json
from rnnclf.hydra_app.compose import composed, new_words
from rnnclf.hydra_app.words import TOP, as_path, is_override
from rnnclf.metrics import Evaluation, Score
from rnnclf.registry import did_you_mean
from rnnclf.training.by_recording import with_recordings
from rnnclf.workflows import machine
from rnnclf.workflows.baseline_runs import division
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import OUTPUTS, RunFolder

OWN_WORDS = ("classifiers=", "max_time=")
FREE_KEYS = ("dataset", "seed", "final_fit", "recipe", "threads", "plugins")
"""The keys of `rnnclf train` that change what a baseline does."""
MAX_TIME = 600.0  # seconds for each baseline


@dataclass(frozen=True)
class Finished:
    """A baseline whose results are written. results: the content of results.json."""

    folder: RunFolder
    results: dict[str, Any]
    evaluations: dict[str, Evaluation]


@dataclass(frozen=True)
class Compared:
    """The outcome of several baselines on the same splits."""

    data: str
    """The name of the data."""
    known: int
    """The number of sequences that they learned from."""
    commonest: Score
    """The test score of always predicting the most frequent class of these."""
    occurring: int
    """The number of classes in the test split."""
    runs: tuple[Finished, ...]
    left_out: tuple[str, ...]
    """A sentence for each baseline that was not computed."""
    notes: tuple[str, ...]
    """What was inferred from the data, and reasons to doubt the scores."""


@dataclass(frozen=True)
class Request:
    """What the words of the command line ask for."""

    config: Config
    words: list[str]
    names: list[str]
    """Of the baselines."""
    seconds: float
    """The most that each baseline may take."""
    notes: list[str]


def compare_baselines(
    words: Sequence[str],
    output: Path | None = None,
    progress: Progress = silent,
    conclude: Callable[[Finished], None] = lambda run: None,
) -> Compared:
    """Computes baselines on the data and the splits that the words describe, and writes their run folders.

    Args:
        words: those of `rnnclf train` that choose the data, `classifiers=dtw,forest`, and `max_time=10m`.
        output: where run folders are created; outputs/ if None.
        conclude: called with each run before its status becomes done, to write further files.

    Raises an RnnclfError for wrong words and data, and if all baselines are too much work.
    """
    asked = requested(words)
    config = replace(asked.config, device="cpu")
    with machine.one_at_a_time:
        device = machine.prepare(config)
        task = _read(asked, device, progress)
        runs, left_out = [], []
        for name in asked.names:
            baseline = BASELINES[name](config.seed, torch.get_num_threads())
            try:
                runs.append(_run(baseline, task, output or Path(OUTPUTS), progress, conclude))
            except LeftOutError as reason:
                left_out.append(f"{baseline.title} {reason}.")
    if not runs:
        raise ConfigError(" ".join(left_out))
    guess = int(np.bincount(task.known.y_N).argmax())
    y_N = task.parts["test"].y_N
    return Compared(
        data=config.dataset.title(),
        known=len(task.known),
        commonest=Score(int((y_N == guess).sum()), len(y_N), float("nan")),
        occurring=len(np.unique(y_N)),
        runs=tuple(runs),
        left_out=tuple(left_out),
        notes=tuple(task.notes),
    )


def _read(asked: Request, device: torch.device, progress: Progress) -> _Task:
    """Reads and divides the data. Raises DataError or ConfigError."""
    splits, notes = _splits(asked.config.dataset, progress)
    provenance = machine.provenance(device, "", splits.fingerprint)
    provenance["division"] = division(splits, asked.config.final_fit)
    parts = {name: sequences_of(splits[name]) for name in SPLITS}
    return _Task(asked, splits, parts, provenance, [*asked.notes, *notes, *splits.notes, *splits.warnings])


def requested(words: Sequence[str]) -> Request:
    """Raises ConfigError for words that have no meaning here."""
    own = dict(word.split("=", 1) for word in words if word.startswith(OWN_WORDS))
    others = [as_path(word) for word in words if not word.startswith(OWN_WORDS)]
    for key in (word.split("=")[0] for word in others if is_override(word)):
        hint = did_you_mean(key, [word.removesuffix("=") for word in OWN_WORDS])
        if hint and key.split(".")[0] not in TOP:
            raise ConfigError(f"No key named '{key}'.{hint}")
        if key.split(".")[0] in TOP and key.split(".")[0] not in FREE_KEYS:
            raise ConfigError(
                f"'{key}' changes nothing in a baseline. These words do: classifiers, max_time,"
                f" {', '.join(FREE_KEYS)}."
            )
    others = new_words(others)
    config = composed(others)
    if config.recipe == "auto" and not any(word.startswith("dataset.normalise=") for word in others):
        # the recipe's ranks were chosen for networks
        config = replace(config, dataset=replace(config.dataset, normalise="standard"))
    notes = []
    if "classifiers" in own:
        names = list(dict.fromkeys(own["classifiers"].strip("[]").replace(" ", "").split(",")))
        for name in names:
            BASELINES[name].refuse_missing()
    else:
        missing = [kind.title for _, kind in BASELINES.items() if not kind.is_installed()]
        names = [name for name, kind in BASELINES.items() if kind.is_installed()]
        notes = [f"For {' and '.join(missing)}, pip install 'rnnclf[archive]'."] if missing else []
    seconds = parse_time(own["max_time"]) if "max_time" in own else MAX_TIME
    return Request(config, others, names, seconds, notes)


def _splits(source: Source, progress: Progress) -> tuple[Splits, list[str]]:
    """The splits of `rnnclf train`, without gaps or patches, and what the user should know about them."""
    recordings = source.sequences(progress)
    notes = []
    if treatment(recordings, source.missing) == "mask":
        source = replace(source, missing="interpolate")
        notes.append("Gaps are interpolated for baselines, which cannot be told where values are missing.")
    if isinstance(source, OwnData):
        source = replace(source, patch=1)
    return source.divided(recordings, source.plan(), progress=progress), notes


def sequences_of(data: SequenceDataset) -> Sequences:
    """A data set in the form that baselines take. Raises DataError if it is too large for memory."""
    if not data.fits:
        raise DataError("These data are too large for baselines, which hold all of them in memory.")
    data = data if data.preparation is None else data.prepared()
    x_SC = _numbers(data)
    bounds = zip(data.starts_N.tolist(), data.lengths_N.tolist(), strict=True)
    x_N = tuple(np.ascontiguousarray(x_SC[start : start + length].T) for start, length in bounds)
    return Sequences(x_N, data.y_N.numpy(), len(data.classes))


def _numbers(data: SequenceDataset) -> Array:
    """The steps of prepared data without patches (S, F): each code of a name becomes a 1 in its own place."""
    x_SI: Array = data.x_SI.numpy()
    if data.coded is None:
        return x_SI
    first = x_SI.shape[1] - data.coded.number
    one_hot = [
        x_SI[:, first + place, None] == np.arange(1, k + 1) for place, k in enumerate(data.coded.sizes)
    ]
    return np.concatenate([x_SI[:, :first], *one_hot], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class _Task:
    """The data of all baselines, and what is recorded of them."""

    asked: Request
    splits: Splits
    parts: dict[SplitName, Sequences]
    provenance: dict[str, Any]
    notes: list[str]

    @property
    def known(self) -> Sequences:
        """The sequences that the test split is predicted from: those of the final fit, if there is one."""
        train, validation = self.parts["train"], self.parts["validation"]
        return train.and_(validation) if self.asked.config.final_fit else train

    def logits(self, baseline: Baseline, clock: Clock) -> dict[SplitName, Array]:
        """Logits of the validation and the test split.

        The validation split is predicted from the training split alone.
        """
        train, validation, test = (self.parts[name] for name in SPLITS)
        if not self.asked.config.final_fit:
            both_NK = baseline.logits(train, validation.and_(test), clock)
            return {"validation": both_NK[: len(validation)], "test": both_NK[len(validation) :]}
        works = baseline.work(len(train), len(validation)), baseline.work(len(self.known), len(test))
        border = works[0] / sum(works)
        return {
            "validation": baseline.logits(train, validation, clock.between(0, border)),
            "test": baseline.logits(self.known, test, clock.between(border, 1)),
        }


def _run(
    baseline: Baseline, task: _Task, output: Path, progress: Progress, conclude: Callable[[Finished], None]
) -> Finished:
    """Computes one baseline into a run folder of its own. Raises LeftOutError, and then leaves nothing."""
    new_folders = missing_folders(output)
    folder = RunFolder(claim_folder(output, f"%Y-%m-%d/%H-%M-%S-{baseline.name}"))
    try:
        progress(f"compiling {baseline.title}", 0.0)
        baseline.prepare(task.known)
        began = time.perf_counter()
        clock = Clock(task.asked.seconds, lambda share: progress(baseline.title, share))
        logits = task.logits(baseline, clock)
        seconds = time.perf_counter() - began
    except BaseException:
        remove_empty([folder.path, folder.path.parent, *new_folders])
        raise
    run = Finished(folder, *_results(baseline, task, logits, seconds))
    facts = {
        "baseline": baseline.name,
        "overrides": task.asked.words,
        "configuration": {"dataset": asdict(task.asked.config.dataset), "seed": baseline.seed},
        "seconds": seconds,
    }
    versions = {package: version(package) for package in baseline.packages}
    own = {"engine": baseline.title, "versions": task.provenance["versions"] | versions}
    with folder.locked(), folder.tracked(facts):
        write_json(folder.provenance, task.provenance | own)
        write_predictions(folder.predictions, run.evaluations)
        write_json(folder.results, run.results)
        conclude(run)
    return run


def _results(
    baseline: Baseline, task: _Task, logits: dict[SplitName, Array], seconds: float
) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    """The content of results.json, and the evaluation of each split."""
    evaluations: dict[str, Evaluation] = {}
    for name, logits_NK in logits.items():
        split = task.splits[name]
        evaluations[name] = Evaluation(
            split.classes, task.parts[name].y_N, logits_NK, split.ids_N, split.recordings_N
        )
    return {
        **_description(baseline, task),
        **{name: with_recordings(evaluation) for name, evaluation in evaluations.items()},
        "warnings": list(task.splits.warnings),
        "train_seconds": round(seconds, 3),
        "total_seconds": round(seconds, 3),
    }, evaluations


def _description(baseline: Baseline, task: _Task) -> dict[str, Any]:
    """What results.json says besides scores, with the keys of a trained classifier's."""
    config = task.asked.config
    return {
        "format": 1,
        "baseline": baseline.name,
        "cell": baseline.name,
        "dataset": config.dataset.name,
        "data": config.dataset.title(),
        "reading": config.dataset.reading(),
        "hidden": 0,
        "parameters": 0,
        "seed": baseline.seed,
        "protocol": "standard",
        "epochs": 0,
        "select": "last",
        "best_epoch": 0,
        "final_fit": config.final_fit,
        "trained_on": len(task.known),
    }
