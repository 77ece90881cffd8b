"""Evaluates saved checkpoints on a data set: accuracy, classes, confusions. Prints nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rnnclf.calibration import Calibration, SetsFound, level_of, reliability, sets_found
from rnnclf.config import Config
from rnnclf.data import SPLITS
from rnnclf.errors import CheckpointError, ConfigError, DivergedError, OutputError, RnnclfError
from rnnclf.export.reading import is_exported
from rnnclf.files import claim_folder, write_json
from rnnclf.metrics import MANY_CLASSES, Evaluation
from rnnclf.registry import did_you_mean
from rnnclf.training.by_recording import with_recordings
from rnnclf.workflows import early, machine
from rnnclf.workflows.checkpoints import checkpoints_in, no_checkpoint
from rnnclf.workflows.early import Early
from rnnclf.workflows.ensemble_file import EnsembleFile, read
from rnnclf.workflows.ensemble_models import load_members
from rnnclf.workflows.evaluation_data import ALL, Loader, evaluated_on
from rnnclf.workflows.exported import LoadedFile, load_file, seen_by_model
from rnnclf.workflows.loading import Loaded, load_model, register_plugins_of
from rnnclf.workflows.mistakes import Mistakes
from rnnclf.workflows.mixture import Mixture, columns_of
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import (
    EVALUATIONS,
    OUTPUTS,
    RunFolder,
    evaluation_record,
    fits,
    run_of,
    write_csv,
)
from rnnclf.workflows.sureness import refuse_of_average
from rnnclf.workflows.sweep_folder import is_ensemble, is_sweep


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of one checkpoint, or of an ensemble, on one split."""

    path: Path
    config: Config
    cell: str
    hidden: int | None
    parameters: int | None
    """None of an exported file; those of all members of an ensemble."""
    epoch: int | None
    """None of an ensemble."""
    split: str
    """train, validation, test, or all."""
    evaluation: Evaluation
    seconds: float
    recorded_correct: int | None
    """The number of correct predictions in results.json, or before the export; None if that is unknown or the
    data differ."""
    other_data: bool
    """Whether the data differ from the training run's."""
    trained_on: int | None = None
    """The number of sequences that are among those that the model was trained on; None if that is unknown."""
    notes: tuple[str, ...] = ()
    """What was inferred from other data, or reasons to doubt scores on its own, as sentences for the user."""
    mistakes: Mistakes | None = None
    overrides: tuple[str, ...] = ()
    """The words of its training run."""
    calibration: Calibration | None = None
    """Of the checkpoint; None if it is that of an unfinished run or of an older version."""
    sets: SetsFound | None = None
    """The sets of classes, if they were requested."""
    early: Early | None = None
    """The accuracy by step, if it was requested."""
    ensemble: EnsembleFile | None = None
    """If it is one; then `config` is that of its first member."""

    @property
    def has_matrix(self) -> bool:
        """Whether the confusion matrix is written as a whole, with the pairs that do not occur."""
        return len(self.evaluation.classes) <= MANY_CLASSES

    @property
    def data(self) -> str:
        """The name of the data in tables."""
        return self.config.dataset.title_of(self.split)

    def to_dict(self, errors: int = 0) -> dict[str, Any]:
        """The evaluation for JSON; errors: with so many of the most confident mistakes."""
        precision, recall, f1 = self.evaluation.macro()
        shown = [mistake.to_dict() for mistake in islice(self.mistakes or (), errors)]
        return {
            "checkpoint": str(self.path),
            "cell": self.cell,
            "hidden": self.hidden,
            "parameters": self.parameters,
            "seed": self.config.seed if self.ensemble is None else None,
            "overrides": self.overrides,
            "epoch": self.epoch,
            "dataset": self.config.dataset.name,
            "data": self.data,
            "split": self.split,
            **with_recordings(self.evaluation),
            "macro": {"precision": precision, "recall": recall, "f1": f1},
            "classes": [row._asdict() for row in self.evaluation.by_class()],
            "confusion": [list(row) for row in self.evaluation.counts] if self.has_matrix else None,
            "temperature": self.evaluation.temperature,
            "reliability": [asdict(row) for row in reliability(self.evaluation)],
            **({} if self.sets is None else {"sets": self.sets.to_dict()}),
            "recorded_correct": self.recorded_correct,
            "other_data": self.other_data,
            "trained_on": self.trained_on,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            **({"errors": shown} if errors else {}),
            **({} if self.early is None else {"early": self.early.to_plain()}),
            **({} if self.ensemble is None else {"members": self.ensemble.members_as_plain()}),
        }


AnyPath = str | os.PathLike[str]


def evaluate(paths: AnyPath | Sequence[AnyPath], words: Sequence[str] = ()) -> list[Evaluated]:
    """Evaluates all checkpoints in one path or several, in that order.

    `words` are `split=…`, `sets=…`, `early=true`, and overrides of dataset, device, threads, engine,
    precision and plugins. Other data that they name are scored as a whole, unless they bring a test split or
    a split is requested. Raises an RnnclfError if a path holds no checkpoint, or a model does not fit the
    data.
    """
    results = []
    for found in _each(paths, words):
        if isinstance(found, Failure):
            raise found.error
        results.append(found)
    return results


class Failure(NamedTuple):
    """A checkpoint, or a path without one, that could not be evaluated."""

    path: Path
    error: RnnclfError

    @property
    def message(self) -> str:
        message = str(self.error)
        return message if str(self.path) in message else f"{self.path}: {message}"


def evaluate_all(paths: Sequence[Path], words: Sequence[str] = ()) -> tuple[list[Evaluated], list[Failure]]:
    """Evaluates as `evaluate` does, but a checkpoint that fails does not stop the others.

    Raises an RnnclfError for wrong words, and if nothing could be evaluated.
    """
    found = list(_each(paths, words))
    results = [each for each in found if isinstance(each, Evaluated)]
    failures = [each for each in found if isinstance(each, Failure)]
    if failures and not results:
        first, *others = failures
        more = sum(str(failure.error) != str(first.error) for failure in others)
        rest = f" ({more} more could not be evaluated.)" if more else ""
        raise type(first.error)(f"{first.error}{rest}")
    return results, failures


def _each(paths: AnyPath | Sequence[AnyPath], words: Sequence[str]) -> Iterator[Evaluated | Failure]:
    by_step, words = early.without_word(words)
    asked = _asked(words)
    load = Loader(asked.split)
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    models, data = with_data([Path(path) for path in given])
    for path in models:
        try:
            files = checkpoints_in(path, ensembles=True)
        except RnnclfError as error:
            yield Failure(path, error)
            continue
        for file in files:
            try:
                with machine.one_at_a_time:
                    one = _evaluate_ensemble if is_ensemble(file) else _evaluate_one
                    evaluated = one(file, data, asked, load, by_step)
            except RnnclfError as error:
                run = run_of(file)
                yield Failure(file if run is None else run.path, error)
            else:
                yield evaluated


def with_data(paths: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """The paths of models and, if the last of several is none, that of the data to score them on."""
    *models, last = paths
    if not models or not last.exists():
        return [*paths], None
    run = RunFolder(last)
    named = last.suffix == run.best.suffix or is_exported(last) or is_ensemble(last)
    is_model = is_sweep(last) or any(
        file.exists() for file in (run.status, run.best, evaluation_record(last))
    )
    return ([*paths], None) if named or is_model else (models, last)


def claim_evaluation(paths: Sequence[Path], output: Path | None) -> tuple[Path, str | None]:
    """Creates the folder of an evaluation of `paths`, with a note for the user if it is not the usual one.

    The folder is below `output` if that is given; else inside the folder of the run or the sweep that was
    evaluated; else, for several of them or a checkpoint alone, below outputs/.
    """
    home = None if output is not None else _home(paths)
    if home is None:
        return claim_folder(Path(OUTPUTS) if output is None else output), None
    try:
        return claim_folder(home / EVALUATIONS, "%Y-%m-%d_%H-%M-%S"), None
    except OutputError:
        note = f"Nothing can be written into {home}: the evaluation is saved below {OUTPUTS} instead."
        return claim_folder(Path(OUTPUTS)), note


def _home(paths: Sequence[Path]) -> Path | None:
    """The run or the sweep that holds all of these, if there is one."""
    homes = {path if path.is_dir() else path.parent for path in paths}
    if len(homes) > 1:
        homes = {next((above for above in home.parents if is_sweep(above)), home) for home in homes}
    home = homes.pop()
    return home if not homes and (is_sweep(home) or RunFolder(home).status.exists()) else None


def save(results: list[Evaluated], folder: Path, mistakes: bool = False) -> None:
    """Writes the evaluation into a folder that was claimed for it; mistakes: with a table of these."""
    if mistakes:
        write_csv(
            folder / "errors.csv",
            [
                {"checkpoint": str(result.path), **mistake.to_dict()}
                for result in results
                for mistake in result.mistakes or ()
            ],
        )
    for number, result in enumerate(results):
        name = "predictions" if len(results) == 1 else f"predictions-{number}"
        write_predictions(folder / f"{name}.parquet", {result.split: result.evaluation})
    write_json(evaluation_record(folder), [result.to_dict() for result in results])
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


class _Asked(NamedTuple):
    """What the words ask for: a split, sets of classes at a level, and overrides; None for what is left
    out."""

    split: str | None
    level: float | None
    overrides: list[str]


def _asked(words: list[str]) -> _Asked:
    """Raises ConfigError."""
    values = register_plugins_of(words, "at evaluation", ["split", "sets", "early"])
    level = level_of(values.pop("sets"), "sets") if "sets" in values else None
    split = str(values.pop("split")) if "split" in values else None
    if split is not None and split not in (*SPLITS, ALL):
        hint = did_you_mean(split, (*SPLITS, ALL))
        raise ConfigError(f"split must be train, validation, test or all, got '{split}'.{hint}")
    return _Asked(split, level, [word for word in words if not word.startswith(("split=", "sets="))])


def _evaluate_one(
    file: Path, data_at: Path | None, asked: _Asked, load: Loader, by_step: bool = False
) -> Evaluated:
    started = time.perf_counter()
    if not file.exists():
        raise no_checkpoint(file)
    loading = load_file if is_exported(file) else load_model
    loaded = loading(file, asked.overrides, data_at, labelled=True)
    saved, config = loaded.checkpoint, loaded.config
    limit = _limit(loaded, asked.level, by_step)
    try:
        data = load(loaded)
        machine.keep_freed_memory()
        evaluation = evaluated_on(loaded, data)
        data.sequences.refuse_changed()
        found = None
        if by_step and isinstance(loaded, Loaded):
            found = early.measured(loaded, data.recordings, data.places_N, data.split)
    except (CheckpointError, DivergedError) as error:
        raise CheckpointError(f"{file}: {error}") from error
    other_data = data.fingerprint != saved.fingerprint
    notes = data.notes if other_data else ()
    if found is not None:
        notes = (*notes, *early.remembered(saved, found, other_data))
    run = run_of(file)
    recorded = run.read_results() if run else {}
    before = recorded.get(data.split, {}).get("correct")
    if isinstance(loaded, LoadedFile):
        before = loaded.correct_before(data.split, len(evaluation))
    warnings = recorded.get("warnings", [])
    doubts = tuple(warnings) if fits(warnings, [str]) else ()
    return Evaluated(
        path=file,
        config=config,
        cell=loaded.cell,
        hidden=loaded.hidden,
        parameters=loaded.model.parameter_count() if isinstance(loaded, Loaded) else None,
        epoch=saved.epoch,
        split=data.split,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        recorded_correct=None if other_data else before,
        other_data=other_data,
        trained_on=data.trained_on(seen_by_model(loaded)),
        notes=notes if other_data else (*doubts, *notes),
        mistakes=Mistakes(evaluation, data.recordings, data.places_N),
        overrides=tuple(run.read_status().get("overrides", ())) if run else (),
        calibration=saved.calibration,
        sets=None if asked.level is None or limit is None else sets_found(evaluation, asked.level, limit),
        early=found,
    )


def _evaluate_ensemble(
    file: Path, data_at: Path | None, asked: _Asked, load: Loader, by_step: bool
) -> Evaluated:
    started = time.perf_counter()
    found = read(file)
    if by_step:
        raise ConfigError("early=true needs a run or a checkpoint, not an ensemble.")
    if asked.level is not None:
        refuse_of_average(f"sets={asked.level:g}")
    models = load_members(found, asked.overrides, data_at, labelled=True)
    mixture, trained_on = Mixture(), []
    for model, member in zip(models, found.members, strict=True):
        try:
            data = load(model)
            machine.keep_freed_memory()
            evaluation = evaluated_on(model, data)
            data.sequences.refuse_changed()
        except (CheckpointError, DivergedError) as error:
            raise CheckpointError(f"{member.checkpoint}: {error}") from error
        mixture.add(columns_of(evaluation), member.weight)
        trained_on.append(data.trained_on(seen_by_model(model)))
    y_N, ids_N, recordings_N = evaluation.y_N, evaluation.ids_N, evaluation.recordings_N
    other_data = any(data.fingerprint != model.checkpoint.fingerprint for model in models)
    recorded = {} if other_data else found.scores.get(data.split, {})
    known = [number for number in trained_on if number is not None]
    return Evaluated(
        path=file,
        config=models[0].config,
        cell=found.title,
        hidden=None,
        parameters=sum(model.model.parameter_count() for model in models),
        epoch=None,
        split=data.split,
        evaluation=(mixed := mixture.evaluation(evaluation.classes, y_N, ids_N, recordings_N)),
        seconds=time.perf_counter() - started,
        recorded_correct=recorded.get("correct"),
        other_data=other_data,
        trained_on=max(known) if len(known) == len(models) else None,
        notes=data.notes if other_data else found.doubts(data.split),
        mistakes=Mistakes(mixed, data.recordings, data.places_N),
        ensemble=found,
    )


def _limit(loaded: Loaded | LoadedFile, level: float | None, by_step: bool) -> float | None:
    """The limit of sets of this level. Raises an RnnclfError for what the model does not know."""
    if isinstance(loaded, LoadedFile) and by_step:
        raise ConfigError("early=true needs a run or a checkpoint, not an exported file.")
    return None if level is None else loaded.limit_of_sets(level, f"sets={level}")
