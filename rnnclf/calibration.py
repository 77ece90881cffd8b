"""How far the probabilities of a classifier can be trusted, measured on its validation sequences.

At the end of training one number is fitted, the temperature, by which all logits are divided (Guo et al.
2017, https://arxiv.org/abs/1706.04599): above 1 it makes a model less sure of itself, below 1 surer. It never
changes the predicted class. The same sequences say which classes an answer must name to contain the right one
as often as asked for: split conformal prediction (Sadinle et al. 2019, https://arxiv.org/abs/1609.00451).

Shapes: N sequences, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from rnnclf.errors import ConfigError
from rnnclf.metrics import Evaluation, calibration_error, log_loss

if TYPE_CHECKING:
    from rnnclf.data.recordings import Array

COLDEST, HOTTEST = 0.01, 100.0  # the range of temperatures
FITTED_LOGITS = 2**18  # at most so many are used to fit one number, so that this takes milliseconds
NEWTON_STEPS = 60
SCORES = 1000  # at most so many are kept in a checkpoint
SCORE_UNIT = 1e-6  # scores are rounded up to a multiple of this
EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)  # of the ranges of probabilities that are told apart


@dataclass(frozen=True)
class Calibration:
    """What validation says about the probabilities of a model, as stored in its checkpoint.

    temperature: divides the logits; 1 where no other one helped.
    sequences: the number of validation sequences.
    ece_before, ece_after: their expected calibration error without and with the temperature.
    scores: up to 1,000 quantiles of 1 - probability of the true class, ascending. After a final fit they
        are those of the model before it, which had not seen the validation sequences, or none in older
        checkpoints.
    """

    temperature: float
    sequences: int
    ece_before: float
    ece_after: float
    scores: tuple[float, ...] = ()

    @classmethod
    def from_plain(cls, plain: Any) -> Calibration:
        """Reads what `to_plain` returns. Raises ValueError for anything else."""
        names = cls.__dataclass_fields__.keys()
        if not isinstance(plain, Mapping) or plain.keys() != names or not isinstance(plain["scores"], list):
            raise ValueError("not a calibration")
        shares = [plain["ece_before"], plain["ece_after"], *plain["scores"]]
        sound = all(_is_number(share) and 0 <= share <= 1 for share in shares)
        sound = sound and _is_number(plain["temperature"]) and COLDEST <= plain["temperature"] <= HOTTEST
        count, scores = plain["sequences"], plain["scores"]
        sound = sound and type(count) is int and count >= 1 and len(scores) in (0, min(count, SCORES))
        if not sound or sorted(scores) != scores:
            raise ValueError("not a calibration")
        return cls(**{**plain, "scores": tuple(scores)})

    def to_plain(self) -> dict[str, Any]:
        return {**asdict(self), "scores": list(self.scores)}

    def summary(self) -> dict[str, Any]:
        """The same without the scores, for results.json."""
        return {key: value for key, value in asdict(self).items() if key != "scores"}

    def without_scores(self) -> Calibration:
        """For probabilities that are no longer those of the model, such as with weights of 8 bits."""
        return replace(self, scores=())

    def limit(self, level: float, word: str) -> float:
        """The highest score, 1 - probability, of a class that belongs to a set (`class_sets`), so that a
        share `level` of the sets contain the true class, on average over sequences like those of validation.
        It is a little optimistic, because validation has also chosen the epoch and the temperature.

        word: what the user typed, such as `--sets 0.95`, for messages. Raises ConfigError if there are too
        few validation sequences for that level.
        """
        if not self.scores:
            raise ConfigError(
                f"{word} needs the scores of sequences that the model was not trained on, which earlier"
                " versions did not keep with final_fit=true: train it again."
            )
        if self.sequences < (least := sequences_for(level)):
            raise ConfigError(
                f"{word} needs at least {least:,} validation sequences, but the model was trained with"
                f" {self.sequences:,}."
            )
        rank = math.ceil((self.sequences + 1) * _exact(level))
        return self.scores[math.ceil(Fraction(rank * len(self.scores), self.sequences)) - 1]

    def coverage(self, limit: float) -> float:
        """The share of the validation sequences whose set contains the true class."""
        return sum(score <= limit for score in self.scores) / len(self.scores)


def calibrate(found: Evaluation) -> Calibration:
    """Fits the temperature of a model on its evaluation on the validation split, at temperature 1."""
    return measured(replace(found, temperature=helpful_temperature(found)))


def measured(found: Evaluation) -> Calibration:
    """The calibration of a model whose temperature is that of its evaluation on validation sequences."""
    import numpy as np

    score_N = np.sort(-np.expm1(-found.loss_N))
    kept = min(len(found), SCORES)
    last_n = -(-np.arange(1, kept + 1) * len(found) // kept)  # of each of `kept` parts of about equal size
    scores_n = np.ceil(score_N[last_n - 1].clip(0, 1) / SCORE_UNIT) * SCORE_UNIT
    return Calibration(
        found.temperature,
        len(found),
        calibration_error(replace(found, temperature=1.0)),
        calibration_error(found),
        tuple(scores_n.round(6).clip(0, 1).tolist()),
    )


def helpful_temperature(found: Evaluation) -> float:
    """The temperature fitted on these sequences, or 1 unless it would have helped: fitted on each half of
    them it must lower the cross-entropy of the other half."""
    import numpy as np

    most = max(FITTED_LOGITS // len(found.classes), 2)
    part = _part(found, np.random.default_rng(0).permutation(len(found))[:most])
    halves = [_part(part, np.flatnonzero(_half_N(part) == half)) for half in (0, 1)]
    if not all(map(len, halves)):
        return 1.0
    for one, other in (halves, halves[::-1]):
        fitted = fitted_temperature(one.logits_NK, one.y_N)
        if not log_loss(replace(other, temperature=fitted)) < log_loss(other):
            return 1.0
    return float(f"{fitted_temperature(part.logits_NK, part.y_N):.4g}")  # further digits would be noise


def _part(found: Evaluation, places_n: Array) -> Evaluation:
    names = ("y_N", "logits_NK", "ids_N", *(() if found.recordings_N is None else ("recordings_N",)))
    return replace(found, **{name: getattr(found, name)[places_n] for name in names})


def _half_N(found: Evaluation) -> Array:
    """The half, 0 or 1, that each sequence belongs to. The windows of a recording, which are alike, are in
    the same one, and each class is spread evenly over both."""
    import numpy as np

    units_N = np.arange(len(found)) if found.recordings_N is None else found.recordings_N
    _, first_R, unit_N = np.unique(units_N, return_index=True, return_inverse=True)
    order_R = np.random.default_rng(0).permutation(len(first_R))
    order_R = order_R[np.argsort(found.y_N[first_R[order_R]], kind="stable")]
    half_R = np.empty(len(order_R), np.int64)
    half_R[order_R] = np.arange(len(order_R)) % 2
    found_N: Array = half_R[unit_N.reshape(-1)]
    return found_N


def fitted_temperature(logits_NK: Array, y_N: Array) -> float:
    """The temperature with the lowest cross-entropy, by Newton's method on its inverse, in which that is
    convex.

    Each label counts as (N + 1) / (N + 2) of a sequence and the rest is spread over the other classes, as
    Platt (1999) does it: after N sequences that are all classified correctly, nothing is certain yet.
    """
    import numpy as np

    n, k = logits_NK.shape
    z_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    label_N = z_NK[np.arange(n), y_N]
    other_N = (z_NK.sum(axis=1) - label_N) / max(k - 1, 1)
    wanted = float(((n + 1) * label_N + other_N).mean()) / (n + 2)
    # by hand: importing scipy.optimize would add a third of a second to the end of every training
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(NEWTON_STEPS):
        p_NK = np.exp(inverse * z_NK)
        p_NK /= p_NK.sum(axis=1, keepdims=True)
        mean_N = (p_NK * z_NK).sum(axis=1)
        slope = float(mean_N.mean()) - wanted
        curvature = float((p_NK * (z_NK - mean_N[:, None]) ** 2).sum(axis=1).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        following = inverse - slope / curvature if curvature > 0 else inverse
        if not low <= following <= high:
            following = math.sqrt(low * high)
        if abs(following - inverse) < 1e-9 * inverse:
            break
        inverse = following
    return min(max(1 / inverse, COLDEST), HOTTEST)


def probabilities(logits_NK: Array, temperature: float) -> Array:
    """The probabilities (N, K), float64, of logits as the model gives them."""
    import numpy as np

    z_NK = np.divide(logits_NK, temperature, dtype=np.float64)
    p_NK = np.exp(z_NK - z_NK.max(axis=1, keepdims=True))
    found: Array = p_NK / p_NK.sum(axis=1, keepdims=True)
    return found


# Answers that name several classes, or none


def level_of(value: Any, word: str) -> float:
    """The share that the user asked for by `word`, such as `sets`. Raises ConfigError unless it is one."""
    if not _is_number(value) or not 0 < value < 1:
        given = f"{value:g}" if isinstance(value, float) else value
        raise ConfigError(f"{word} must be a share between 0 and 1 such as 0.95, got {given}.")
    return float(value)


def sequences_for(level: float) -> int:
    """The least number of validation sequences from which sets of this level can be made: 19 for 0.95."""
    return math.ceil(_exact(level) / (1 - _exact(level)))


def class_sets(probability_NK: Array, limit: float) -> Array:
    """For each sequence the classes of its set, bool (N, K); limit: by `Calibration.limit`.

    A set may be empty. With exactly one class, that is the most probable one: an answer that abstains at the
    same level names a class only then.
    """
    found: Array = 1 - probability_NK <= limit
    return found


@dataclass(frozen=True)
class SetsFound:
    """Sets of classes for the sequences of an evaluation.

    covered: how many contain the true class. classes: their sizes, added up. single: how many have exactly
    one class. single_correct: how many of these have the true one.
    """

    level: float
    limit: float
    total: int
    covered: int
    classes: int
    single: int
    single_correct: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "coverage": self.covered / self.total, "mean_size": self.classes / self.total}


def sets_found(found: Evaluation, level: float, limit: float) -> SetsFound:
    """Makes the set of each sequence, at the temperature of the evaluation."""
    import numpy as np

    counts, first = np.zeros(4, np.int64), 0
    for probability_nK in found.probability_chunks():
        set_nK, n = class_sets(probability_nK, limit), np.arange(len(probability_nK))
        right_n, size_n = set_nK[n, found.y_N[first + n]], set_nK.sum(axis=1)
        counts += [right_n.sum(), size_n.sum(), (size_n == 1).sum(), (right_n & (size_n == 1)).sum()]
        first += len(n)
    return SetsFound(level, limit, len(found), *counts.tolist())


# Reliability


@dataclass(frozen=True)
class Range:
    """The sequences whose predicted class has a probability from `low` up to `high`.

    probability: its mean. correct: the number of sequences whose predicted class is the true one.
    """

    low: float
    high: float
    sequences: int
    probability: float
    correct: int


def reliability(found: Evaluation) -> list[Range]:
    """How often the predicted class is right, for each range of its probability that occurs."""
    return ranges_of(found.confidence_N, found.predicted_N == found.y_N)


def ranges_of(confidence_N: Array, right_N: Array) -> list[Range]:
    """The same of probabilities of predicted classes, and whether these are the true ones."""
    import numpy as np

    place_N = np.searchsorted(EDGES[1:-1], confidence_N, side="right")
    return [
        Range(
            EDGES[i],
            EDGES[i + 1],
            int((place_N == i).sum()),
            float(confidence_N[place_N == i].mean()),
            int(right_N[place_N == i].sum()),
        )
        for i in np.unique(place_N).tolist()
    ]


def _exact(level: float) -> Fraction:
    """The decimal number that was typed: 0.95 is 19/20, not the nearest float."""
    return Fraction(repr(level))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
