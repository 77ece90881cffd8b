"""Classifies sequences that may have no labels, part by part, in the order in which they come.

Shapes: N sequences of a part, S steps of it, K classes, M models.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from rnnclf.calibration import probabilities
from rnnclf.data.base import assembled
from rnnclf.data.gaps import complete
from rnnclf.data.grid import other_length
from rnnclf.data.recordings import Array, Progress, Recordings, silent
from rnnclf.data.seen import Seen
from rnnclf.data.survey import chunks, digests, steps_of
from rnnclf.data.training_data import Likeness
from rnnclf.errors import CheckpointError, ConfigError, DataError, DivergedError
from rnnclf.export.reading import is_exported
from rnnclf.metrics import percent
from rnnclf.training.evaluation import EVALUATION_BATCH, evaluate_model
from rnnclf.workflows import machine
from rnnclf.workflows.checkpoints import checkpoints_in
from rnnclf.workflows.ensemble_file import read, verified
from rnnclf.workflows.ensemble_models import refuse_different
from rnnclf.workflows.exported import LoadedFile, load_file, logits_of, seen_by_model
from rnnclf.workflows.loading import Loaded, load_model, register_plugins_of
from rnnclf.workflows.mixture import weighted_mean
from rnnclf.workflows.sureness import ALWAYS_SURE, NOTHING_ASKED, Sureness, SureWords, sureness_of
from rnnclf.workflows.sweep_folder import is_ensemble

BATCHES = 50  # of a part, which is sorted by length before it is classified
VALUES = 2**22  # as read, of a part
STDIN = "-"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for some sequences.

    ids_N: text or numbers. probabilities_NK: at the temperature of the model; NaN for a sequence that cannot
        be read.
    logits_NK: of a single model alone.
    """

    ids_N: Array
    probabilities_NK: Array
    logits_NK: Array | None


@dataclass(eq=False)
class Prediction:
    """Data that are ready to be classified.

    notes: what was inferred from the data, as sentences; `remarks` has more when all is classified.
    weights: how often each model counts; once each if there are none.
    records: what each model was trained on; None where that is not known.
    skipped and the other numbers: of sequences so far.
    """

    models: list[Loaded | LoadedFile]
    recordings: Recordings
    notes: tuple[str, ...]
    whole_recordings: bool = False
    skip_bad: bool = False
    sure: Sureness = ALWAYS_SURE
    weights: tuple[int, ...] = ()
    records: tuple[Seen | None, ...] = ()
    skipped: int = 0
    classified: int = 0
    abstained: int = 0
    right: int = 0
    labelled: int = 0
    trained_on: int = 0
    right_where_sure: int = 0
    labelled_where_sure: int = 0
    likeness: Likeness = field(init=False)

    def __post_init__(self) -> None:
        learned = self.models[0].learned
        names = {*learned.preparation.vocabularies}
        self.likeness = Likeness(learned.training, learned.preparation.channels, names)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.models[0].learned.classes

    def refuse_no_logits(self) -> None:
        """Raises ConfigError if what is averaged are probabilities, so that there are no logits to show."""
        if len(self.models) > 1 or self.whole_recordings:
            what = "several models" if len(self.models) > 1 else "the windows of a recording"
            raise ConfigError(
                f"--logits needs a single answer of a single model: of {what}, probabilities are averaged."
            )

    def remarks(self) -> list[str]:
        """What was noticed on the way, as sentences for the user."""
        one = self.skipped == 1
        skipped = (
            f"{self.skipped:,} sequence{'' if one else 's'} could not be read and {'has' if one else 'have'}"
            " no class."
        )
        abstained = f"The model abstains on {self.abstained:,} of {self.classified:,} sequences."
        return [
            *([skipped] if self.skipped else []),
            *([abstained] if self.sure.may_abstain else []),
            *([self._score] if self.labelled else []),
            *self.likeness.remarks(),
        ]

    @property
    def _score(self) -> str:
        """How many of the labels that are in the data are the class of the answer."""
        one = self.labelled == 1
        words = (
            f"{self.labelled:,} sequence{' has a label' if one else 's have labels'}: {self.right:,} got"
            f" {'its' if one else 'their'} class (accuracy {percent(self.right / self.labelled)})"
        )
        if self.sure.may_abstain and (sure := self.labelled_where_sure):
            right = self.right_where_sure
            words += f"; where the model does not abstain, {right:,} of {sure:,} ({percent(right / sure)})"
        return f"{words}.{self._known}"

    @property
    def _known(self) -> str:
        """What the score is worth: how many of the labels the models have learned from."""
        if self.trained_on:
            return f" {self.trained_on:,} of them were trained on: the accuracy is too optimistic."
        if None in self.records:
            return " There is no record of which sequences were trained on: some of these may be among them."
        return ""

    def answers(self, progress: Progress = silent) -> Iterator[Answers]:
        """The answers, part by part. Raises DataError for a sequence that cannot be classified."""
        parts = self._of_sequences(progress)
        whole = _of_recordings(parts, self.recordings) if self.whole_recordings else (a for a, _ in parts)
        for answers in whole:
            self.classified += int((~np.isnan(answers.probabilities_NK[:, 0])).sum())
            self.abstained += int(self.sure.abstains(answers.probabilities_NK).sum())
            yield answers

    def _of_sequences(self, progress: Progress) -> Iterator[tuple[Answers, Array]]:
        """The answers for sequences, with their numbers."""
        recordings = self.recordings
        least = VALUES // (BATCHES * EVALUATION_BATCH)
        sizes_N = np.maximum(recordings.lengths_N * len(recordings.channels), least)
        device = machine.prepare(self.models[0].config)
        for model in self.models:
            if isinstance(model, Loaded):
                model.model.to(device)
        for first, last in chunks(sizes_N, VALUES):
            numbers_N = np.arange(first, last)
            yield self._answers(numbers_N, device), numbers_N
            progress("classifying", last / len(recordings))

    def _answers(self, numbers_N: Array, device: Any) -> Answers:
        part = _part(self.recordings, numbers_N)
        good_N = self._readable(part)
        self.skipped += int((~good_N).sum())
        k = len(self.classes)
        logits_MNK = np.full((len(self.models), len(numbers_N), k), np.nan)
        if good_N.any():
            sound = part if good_N.all() else _part(part, np.flatnonzero(good_N))
            self.likeness.add(sound.values_SC, sound.lengths_N)
            for m, loaded in enumerate(self.models):
                logits_MNK[m, good_N] = _logits(loaded, sound, device)
        ids_N = numbers_N if self.recordings.ids is None else self.recordings.ids(numbers_N)
        each_MNK = [
            probabilities(logits_NK, loaded.temperature)
            for loaded, logits_NK in zip(self.models, logits_MNK, strict=True)
        ]
        mean_NK = weighted_mean(each_MNK, self.weights or [1] * len(self.models))
        if self.recordings.truth_N is not None:
            self._score_part(mean_NK, part, numbers_N)
        return Answers(ids_N, mean_NK, logits_MNK[0] if len(self.models) == 1 else None)

    def _score_part(self, probabilities_NK: Array, part: Recordings, numbers_N: Array) -> None:
        """Counts the sequences that have a label, those of them whose most probable class that is, and those
        that a model was trained on."""
        assert self.recordings.truth_N is not None
        truth_N = self.recordings.truth_N[numbers_N]
        scored_N = ~np.isnan(probabilities_NK[:, 0]) & (truth_N != None)  # noqa: E711
        named_n = np.array(self.classes, dtype=object)[probabilities_NK[scored_N].argmax(axis=1)]
        right_n, sure_n = named_n == truth_N[scored_N], ~self.sure.abstains(probabilities_NK[scored_N])
        hashes_N = digests(part).digests_N
        known_MN = [seen.among(part, hashes_N) for seen in self.records if seen is not None]
        self.trained_on += int((np.any(known_MN, axis=0) & scored_N).sum()) if known_MN else 0
        self.labelled += len(right_n)
        self.right += int(right_n.sum())
        self.labelled_where_sure += int(sure_n.sum())
        self.right_where_sure += int((right_n & sure_n).sum())

    def _readable(self, part: Recordings) -> Array:
        """Which sequences can be classified, bool (N,). Raises DataError if one cannot, unless asked to skip
        it."""
        right_N = self._of_right_length(part)
        if part.values_SC.dtype.kind != "f":
            return right_N
        missing = {model.learned.preparation.missing for model in self.models}
        absent_S = np.isnan(part.values_SC).any(axis=1)
        infinite_N = _any(np.isinf(part.values_SC).any(axis=1), part)
        lacks_N = _any(absent_S, part) & ("error" in missing)
        empty_N = ~_any(~absent_S, part) & ("drop" in missing)
        bad_N = infinite_N | lacks_N | empty_N | ~right_N
        if bad_N.any() and not self.skip_bad:
            n = int(bad_N.argmax())
            begin, end = part.starts_N[n], part.starts_N[n] + part.lengths_N[n]
            way = " --skip-bad leaves such a sequence without a class."
            if empty_N[n]:
                raise DataError(
                    f"The sequence that begins at {part.place(int(begin))} has no step without missing"
                    f" values.{way}"
                )
            wrong = np.argwhere(~np.isfinite(part.values_SC[begin:end]))[0]
            place, channel = part.place(int(begin + wrong[0])), part.channels[wrong[1]]
            if infinite_N[n]:
                raise DataError(f"{place}: '{channel}' is infinite.{way}")
            raise DataError(
                f"{place}: '{channel}' is missing, and the model was trained without missing values.{way}"
            )
        return ~bad_N

    def _of_right_length(self, part: Recordings) -> Array:
        """Which sequences have the number of steps that all models read, bool (N,). Raises DataError if one
        has not, unless asked to skip it."""
        right_N = np.ones(len(part), bool)
        for model in self.models:
            if model.steps is None:
                continue
            steps_N = model.learned.preparation.steps_of(part.lengths_N)
            right_N &= steps_N == model.steps
            if not right_N.all() and not self.skip_bad:
                n = int(right_N.argmin())
                raise DataError(
                    f"The sequence that begins at {part.place(int(part.starts_N[n]))}:"
                    f" {other_length(model.steps, int(steps_N[n]))} --skip-bad leaves such a sequence without"
                    " a class."
                )
        return right_N


def _logits(loaded: Loaded | LoadedFile, part: Recordings, device: Any) -> Array:
    """The logits (N, K) of sequences that can be classified. Raises CheckpointError."""
    if isinstance(loaded, LoadedFile):
        return logits_of(loaded, part, np.arange(len(part)))
    drops = loaded.learned.preparation.missing == "drop"
    data = assembled(complete(part) if drops else part, loaded.learned).to(device)
    try:
        return evaluate_model(loaded.model, data).logits_NK
    except DivergedError as error:
        raise CheckpointError(f"{loaded.checkpoint.path}: {error}") from error


def _any(of_S: Any, part: Recordings) -> Array:
    """Whether any step of each sequence is so, bool (N,); the sequences are stored back to back."""
    found: Array = np.logical_or.reduceat(of_S, part.starts_N)
    return found


def _part(recordings: Recordings, numbers_n: Array) -> Recordings:
    """Some of the sequences, copied and stored back to back. Raises DataError if a file has changed."""
    starts_n, lengths_n = recordings.starts_N[numbers_n], recordings.lengths_N[numbers_n]
    steps, begins_n = steps_of(starts_n, lengths_n), np.cumsum(lengths_n) - lengths_n

    def locate(step: int) -> str:
        n = int(np.searchsorted(begins_n, step, side="right")) - 1
        return recordings.place(int(starts_n[n] + step - begins_n[n]))

    times_S = recordings.times_S
    return recordings.copied(
        np.array(recordings.values_SC[steps]),
        starts_N=begins_n,
        lengths_N=lengths_n,
        labels_N=np.zeros(len(numbers_n), np.int64),
        labels_S=None,
        times_S=None if times_S is None else np.array(times_S[steps]),
        groups_N=None,
        given_N=None,
        locate=locate,
        ids=None,
        origins=None,
        truth_N=None,
    )


def _of_recordings(parts: Iterator[tuple[Answers, Array]], recordings: Recordings) -> Iterator[Answers]:
    """The answers for recordings, from those for their windows: the mean of the probabilities."""
    assert recordings.origins is not None
    name: Any = None
    total_K, count = np.zeros(0), 0
    for answers, numbers_N in parts:
        ids: list[Any] = []
        means: list[Array] = []
        origins = recordings.origins(numbers_N)
        for origin, of_window_K in zip(origins.tolist(), answers.probabilities_NK, strict=True):
            if origin != name and name is not None:
                ids.append(name)
                means.append(_mean(total_K, count))
            if origin != name:
                name, total_K, count = origin, np.zeros(len(of_window_K)), 0
            if not np.isnan(of_window_K[0]):
                total_K, count = total_K + of_window_K, count + 1
        if ids:
            yield Answers(np.array(ids, origins.dtype), np.array(means), None)
    last = np.array([name], object if isinstance(name, str) else np.int64)
    yield Answers(last, _mean(total_K, count)[None], None)


def _mean(total_K: Array, count: int) -> Array:
    return total_K / count if count else np.full(len(total_K), np.nan)


@contextmanager
def prediction(
    runs: Sequence[Path],
    data: str,
    words: Sequence[str] = (),
    *,
    ensemble: bool = False,
    whole_recordings: bool = False,
    skip_bad: bool = False,
    sure: SureWords = NOTHING_ASKED,
    stdin: IO[bytes] | None = None,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Opens data to be classified by one model or, with `ensemble`, by the mean of several.

    Args:
        runs: checkpoint files, exported files, run folders or sweep folders, or a single file of an ensemble.
        data: a file or folder, or - for `stdin`.
        words: overrides of dataset, device, threads, engine, precision and plugins.
        whole_recordings: a row for each recording, not for each of its windows.
        skip_bad: a sequence that cannot be read is left without a class.
        sure: what to say where the model is not sure.

    Raises an RnnclfError for runs without a checkpoint, models that do not go together, and data that they
    cannot read.
    """
    register_plugins_of(words, "for a prediction")
    files, weights = _files_of(runs, ensemble)
    with _spooled(data, stdin) as path:
        models = [_loaded(file, path, list(words)) for file in files]
        refuse_different(models)
        first = models[0]
        source = first.config.dataset
        if whole_recordings and getattr(source, "window", None) is None:
            raise ConfigError("--recordings needs a model that was trained on windows (dataset.window).")
        limits = sureness_of(sure, models, whole_recordings)
        with machine.one_at_a_time:
            recordings = source.recordings_to_predict(path, first.learned, progress, skip_bad)
            notes = (*recordings.notes, *limits.notes)
            records = tuple(map(seen_by_model, models))
            yield Prediction(models, recordings, notes, whole_recordings, skip_bad, limits, weights, records)


def _files_of(runs: Sequence[Path], ensemble: bool) -> tuple[list[Path], tuple[int, ...]]:
    """The models to average, and how often each counts; no weights if each counts once."""
    files = [file for run in runs for file in checkpoints_in(run, ensembles=True)]
    if found := next(filter(is_ensemble, files), None):
        if len(files) > 1:
            raise ConfigError(f"{found} says itself which models to average: name it alone.")
        read_file = read(found)
        return [verified(read_file, member) for member in read_file.members], read_file.weights
    if len(files) > 1 and not ensemble:
        raise ConfigError(
            f"These are {len(files)} models: name one of them, or add --ensemble to average their"
            " probabilities."
        )
    return files, ()


def _loaded(file: Path, data: Path, words: list[str]) -> Loaded | LoadedFile:
    """The model of a checkpoint or an exported file, and its configuration with other data."""
    loaded = load_file(file, words, data) if is_exported(file) else load_model(file, words, data)
    source = loaded.config.dataset
    if getattr(source, "block", None) is not None:  # blocks only serve to divide recordings into splits
        source = replace(source, block=None)  # type: ignore[call-arg]
    return loaded._replace(config=replace(loaded.config, dataset=source))


@contextmanager
def _spooled(data: str, stdin: IO[bytes] | None) -> Iterator[Path]:
    """The path of the data; what comes on stdin is kept in a temporary file until the end, because rows of a
    sequence may lie apart."""
    if data != STDIN or stdin is None:
        yield Path(data)
        return
    with tempfile.TemporaryDirectory(prefix="rnnclf-", ignore_cleanup_errors=True) as folder:
        raw = Path(folder) / "raw"
        try:
            with open(raw, "wb") as file:
                shutil.copyfileobj(stdin, file)
        except OSError as error:
            raise DataError(
                f"What comes on stdin cannot be kept in {folder}: {error.strerror or error}."
                " Set TMPDIR=DIR to use another folder."
            ) from error
        yield raw.rename(Path(folder) / f"stdin{_suffix_of(raw)}")


def _suffix_of(path: Path) -> str:
    """The suffix that a table should have, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"PAR1"):
        return ".parquet"
    return ".jsonl" if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else ".csv"
