"""An ensemble of the best runs, chosen on the validation split from the predictions that they saved.

Caruana et al. 2004, https://doi.org/10.1145/1015330.1015432: begin with the best run, then add the run, which
may be one that is in already, whose addition helps most, and keep the best of the ensembles on the way.

It is chosen by log loss, which has hardly any ties and takes only the probability of the true class of each
sequence, so that memory stays small for any number of classes. Of runs that help equally, the one with the
higher validation accuracy is added.

Prints nothing, imports no torch.  Shapes: R runs, N sequences, K classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from rnnclf import checkpoint
from rnnclf.data.recordings import Array
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.metrics import Evaluation
from rnnclf.registry import did_you_mean
from rnnclf.statistics import mcnemar_p, paired, paired_interval
from rnnclf.training.by_recording import with_recordings
from rnnclf.workflows.contenders import FoundRun, find_runs, names_of, refuse_no_run
from rnnclf.workflows.ensemble_file import MOST_MEMBERS
from rnnclf.workflows.mixture import LEAST, Mixture
from rnnclf.workflows.predictions import Predicted, read_predictions

MOST = 10  # members, counted as often as their weights say
SPLITS = ("validation", "test")  # those whose predictions a run saves
ENOUGH = 1e-9  # a log loss that falls by less is rounding

Scores = dict[str, dict[str, Any]]
"""The scores of each split, as in results.json."""


@dataclass(frozen=True)
class Single:
    """One run, and its scores."""

    run: Path
    words: str
    """What tells it from the others, as words."""
    scores: Scores


@dataclass(frozen=True)
class Member(Single):
    """A run that takes part in an ensemble."""

    checkpoint: Path
    sha256: str
    """Of its checkpoint."""
    weight: int
    """How often its probabilities count."""


@dataclass(frozen=True)
class Against:
    """The ensemble against the best single run, on the test split."""

    difference: float
    """Of the accuracies, in favour of the ensemble."""
    only_ensemble: int
    """The number of sequences that the ensemble alone classifies correctly."""
    only_single: int
    how: str
    """checkpoints: McNemar's exact test on the sequences. recordings: over the recordings of windows."""
    interval95: tuple[float, float] | None
    p: float | None
    """None if there are too few recordings to tell."""


@dataclass(frozen=True)
class Ensemble:
    """Members that were chosen on the validation split, and what came of it.

    The validation score is too optimistic, because the members were chosen by it; the test split had no part.
    """

    home: Path
    """The folder of the file that names the members, unless another is given."""
    data: str
    fingerprint: str
    sequences: int
    """The number of validation sequences."""
    candidates: int
    """The number of runs of which it was chosen."""
    most: int
    members: tuple[Member, ...]
    """Those with the largest weight first."""
    scores: Scores
    single: Single
    """The run with the best validation accuracy, which one would use without an ensemble."""
    against: Against | None
    """None if the best single run is the only member."""
    notes: tuple[str, ...]
    """What was left out and why, as sentences for the user."""

    def mean_of_members(self, split: str, key: str) -> float:
        """The mean of a score over the members, each counted once."""
        return fmean(member.scores[split][key] for member in self.members)


def most_of(words: Sequence[str]) -> int:
    """The largest number of members, from the words of the command: most=10. Raises ConfigError."""
    most = MOST
    for word in words:
        key, _, text = word.partition("=")
        if key != "most":
            hint = did_you_mean(key, ["most"])
            raise ConfigError(f"'{word}' is neither a path nor most=NUMBER.{hint}")
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST_MEMBERS):
            raise _wrong_most(text)
        most = int(text)
    return most


def _wrong_most(value: object) -> ConfigError:
    return ConfigError(f"most must be a number of members between 1 and {MOST_MEMBERS}, got '{value}'.")


def choose(paths: Sequence[Path], most: int = MOST) -> Ensemble:
    """Chooses an ensemble of the finished runs below these paths: folders of runs and sweeps, checkpoints.

    most: the largest number of members, where one of weight 2 counts as two.

    Raises ConfigError for fewer than two runs and for runs that cannot be averaged or were not judged on the
    same sequences, CheckpointError for a path without a run.
    """
    if not 1 <= most <= MOST_MEMBERS:
        raise _wrong_most(most)
    runs, notes = _candidates(paths)
    label_RN = _labels_of(runs)
    weights_R, words_R = greedy_weights(label_RN, most), _words_of(runs)
    chosen = sorted((r for r, weight in enumerate(weights_R) if weight), key=lambda r: (-weights_R[r], r))
    mixed = _judgements([runs[r] for r in chosen], [weights_R[r] for r in chosen])
    single = _judgements(runs[:1], [1])
    members, headers = zip(*(_member(runs[r], words_R[r], weights_R[r]) for r in chosen), strict=True)
    _refuse_other_inputs(members, headers)
    if runs[0].row.results.get("final_fit"):
        notes.append(
            "final_fit=true trained the members once more, on the validation sequences, too: the weights and"
            " the validation scores come from the models before that."
        )
    return Ensemble(
        home=_home(paths, runs),
        data=runs[0].judged.title,
        fingerprint=runs[0].judged.fingerprint,
        sequences=label_RN.shape[1],
        candidates=len(runs),
        most=most,
        members=members,
        scores=mixed.scores(),
        single=Single(runs[0].folder.path, words_R[0], single.scores()),
        against=None if chosen == [0] else _against(mixed.test, single.test),
        notes=tuple(notes),
    )


def greedy_weights(label_RN: Array, most: int) -> list[int]:
    """How often each run counts in the ensemble that forward selection with replacement finds.

    label_RN: the probability that each run gives to the true class of each sequence; of runs that help
        equally, the first is taken. The weights have no common divisor, and their sum is at most `most`.
    """
    total_N = np.zeros(label_RN.shape[1])
    picks: list[int] = []
    best, kept = math.inf, 0
    for size in range(1, most + 1):
        losses = [-np.log(np.maximum(total_N + p_N, LEAST) / size).mean() for p_N in label_RN]
        pick = int(np.argmin(losses))
        picks.append(pick)
        total_N += label_RN[pick]
        if losses[pick] < best - ENOUGH:
            best, kept = float(losses[pick]), size
    weights_R = np.bincount(picks[:kept], minlength=len(label_RN))
    found: list[int] = (weights_R // np.gcd.reduce(weights_R)).tolist()
    return found


def _candidates(paths: Sequence[Path]) -> tuple[list[FoundRun], list[str]]:
    """The runs that can be averaged, best validation accuracy first, and what was left out."""
    for path in paths:
        refuse_no_run(path)
    found = find_runs(paths, trials=True)
    trained = [run for run in found.runs if "baseline" not in run.row.results]
    ready = [run for run in trained if run.folder.predictions.is_file() and run.folder.best.is_file()]
    left = {
        "not done": found.unfinished,
        "a baseline, which has no checkpoint": len(found.runs) - len(trained),
        "without predictions.parquet or a checkpoint": len(trained) - len(ready),
    }
    notes = [f"{n} {'run is' if n == 1 else 'runs are'} left out: {why}." for why, n in left.items() if n]
    for run in ready:
        if run.row.folds is not None:
            raise ConfigError(
                f"{run.folder.path} is a fold of a cross-validation, and each fold was judged on other"
                " sequences: an ensemble takes runs on the same splits, such as those of several seeds."
            )
    for other in ready[1:]:
        if words := ready[0].judged.unlike(other.judged):
            raise ConfigError(
                f"{ready[0].folder.path} and {other.folder.path} cannot be averaged: one has {words[0]}, the"
                f" other {words[1]}."
            )
    if len(ready) < 2:
        rest = f" ({' '.join(notes)})" if notes else ""
        count = "only one finished run" if ready else "no finished run"
        raise ConfigError(
            f"An ensemble takes at least two runs: {' '.join(map(str, paths))} holds {count} with predictions"
            f" and a checkpoint.{rest}"
        )
    return sorted(ready, key=_place), notes


def _place(run: FoundRun) -> tuple[float, float]:
    """Orders runs by validation accuracy and, if equal, by validation loss, as the table of a sweep does."""
    return -run.row.accuracy("validation"), float(run.row.results["validation"]["loss"])


def _words_of(runs: Sequence[FoundRun]) -> list[str]:
    """For each run the words in which it differs from others, with its seed if that does."""
    unique = {run.key: run.options for run in runs}
    names = dict(zip(unique, names_of(list(unique.values())), strict=True)) if len(unique) > 1 else {}
    seeds = len({run.row.seed for run in runs}) > 1
    return [
        " ".join(filter(None, [names.get(run.key, ""), f"seed={run.row.seed}" if seeds else ""]))
        or run.folder.path.name
        for run in runs
    ]


def _predicted(run: FoundRun, split: str) -> Predicted:
    """Raises ConfigError."""
    found = read_predictions(run.folder.predictions, split)
    if isinstance(found, str):
        raise ConfigError(f"{run.folder.path} cannot be part of an ensemble: {found}.")
    return found


def _labels_of(runs: Sequence[FoundRun]) -> Array:
    """The probability (R, N) that each run gives to the true class of each validation sequence.

    Raises ConfigError for runs of other classes or sequences than the first.
    """
    first, rows = _predicted(runs[0], "validation"), []
    for run in runs:
        found = _predicted(run, "validation")
        _refuse_unlike(first, found, runs[0], run)
        rows.append(found.probability_KN[found.y_N, np.arange(len(found))])
    return np.stack(rows)


def _refuse_unlike(first: Predicted, other: Predicted, one: FoundRun, two: FoundRun) -> None:
    """Raises ConfigError unless both are about the same sequences."""
    what = None
    if first.classes != other.classes:
        what = "classes"
    elif not (np.array_equal(first.ids_N, other.ids_N) and np.array_equal(first.y_N, other.y_N)):
        what = "sequences"
    if what is not None:
        raise ConfigError(
            f"{one.folder.path} and {two.folder.path} cannot be averaged: their predictions are of different"
            f" {what}."
        )


class _Judgements(NamedTuple):
    """The evaluation of each split by one run or by an ensemble."""

    validation: Evaluation
    test: Evaluation

    def scores(self) -> Scores:
        return {name: with_recordings(found) for name, found in self._asdict().items()}


def _judgements(runs: Sequence[FoundRun], weights: Sequence[int]) -> _Judgements:
    """The evaluations by the weighted mean of these runs. Raises ConfigError."""
    found = []
    for split in SPLITS:
        mixture, first = Mixture(), _predicted(runs[0], split)
        for run, weight in zip(runs, weights, strict=True):
            predicted = _predicted(run, split)
            _refuse_unlike(first, predicted, runs[0], run)
            mixture.add(predicted.probability_KN, weight)
        found.append(mixture.evaluation(first.classes, first.y_N, first.ids_N, first.recordings_N))
    return _Judgements(*found)


def _member(run: FoundRun, words: str, weight: int) -> tuple[Member, dict[str, Any]]:
    """A member, and the header of its checkpoint. Raises CheckpointError if that is damaged."""
    there = checkpoint.describe(run.folder.best)
    if not there.intact:
        raise CheckpointError(checkpoint.mismatch(run.folder.best))
    scores = _judgements([run], [1]).scores()
    return Member(run.folder.path, words, scores, run.folder.best, there.sha256, weight), there.header


def _refuse_other_inputs(members: Sequence[Member], headers: Sequence[dict[str, Any]]) -> None:
    """Raises ConfigError for models that do not take the same channels."""
    channels = [header["preparation"].get("channels") for header in headers]
    for member, own in zip(members, channels, strict=True):
        if own != channels[0]:
            raise ConfigError(
                f"{members[0].run} and {member.run} cannot be averaged: they were trained on different"
                " channels."
            )


def _against(ensemble: Evaluation, single: Evaluation) -> Against:
    """Of the test split."""
    first_N, second_N = (found.predicted_N == found.y_N for found in (ensemble, single))
    both, only_first = int((first_N & second_N).sum()), int((first_N & ~second_N).sum())
    only_second, neither = int((~first_N & second_N).sum()), int((~first_N & ~second_N).sum())
    plain = Against(
        difference=ensemble.score.accuracy - single.score.accuracy,
        only_ensemble=only_first,
        only_single=only_second,
        how="checkpoints",
        interval95=paired_interval(both, only_first, only_second, neither),
        p=mcnemar_p(only_first, only_second),
    )
    if ensemble.recordings_N is None:
        return plain
    _, place_N = np.unique(ensemble.recordings_N, return_inverse=True)
    place_N = place_N.reshape(-1)
    recordings = int(place_N.max()) + 1
    scale = recordings / len(place_N)  # so that the mean stays that of windows
    found = paired((np.bincount(place_N, first_N.astype(float) - second_N) * scale).tolist())
    known = found is not None and not found.is_sure
    return replace(
        plain,
        how="recordings",
        interval95=found.interval95 if found is not None and known else None,
        p=found.p if found is not None and known else None,
    )


def _home(paths: Sequence[Path], runs: Sequence[FoundRun]) -> Path:
    """The one folder that was named, or the innermost one that holds all runs."""
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0]
    parents = [os.path.abspath(run.folder.path.parent) for run in runs]
    try:
        return Path(os.path.commonpath(parents))
    except ValueError as error:  # on several drives
        raise ConfigError("The members of an ensemble must lie below one folder; these do not.") from error
