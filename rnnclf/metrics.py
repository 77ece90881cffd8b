"""The metrics of a classifier: a single table, used by results, console and sweep tables.

A new metric needs a function and an entry in METRICS.  Shapes: N sequences, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rnnclf.data.recordings import Array

Z95 = 1.959963984540054  # 97.5 % point of the normal distribution
CALIBRATION_BINS = 15
CHUNK = 2**20  # logits at a time, so that memory stays bounded
MANY_CLASSES = 500  # with more, nothing is written or shown for each pair of classes, or in a column for each
FEW_MEMBERS = 64  # a class with at most so many is compared with all sequences without sorting these


def wilson_interval(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95 % by default.

    Unlike p ± z·√(p(1-p)/n) it stays inside [0, 1], and it is accurate near 0 and 1, where good classifiers
    are. Raises ValueError for impossible counts.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"correct must be between 0 and total > 0, got {correct} of {total}.")
    share = correct / total
    spread = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    centre = share + z * z / (2 * total)
    scale = 1 + z * z / total
    # With all or no answers correct the bound is exactly 1 or 0; rounding could make it differ slightly.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Score:
    """The number of correctly classified sequences, the total, and the mean cross-entropy (nats)."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def interval95(self) -> tuple[float, float]:
        return wilson_interval(self.correct, self.total)

    def to_dict(self) -> dict[str, Any]:
        """The score as stored in results.json."""
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "interval95": list(self.interval95),
            "loss": self.loss,
        }


class ClassScore(NamedTuple):
    """One class: the share of its predictions that are correct, the share of its members that were found."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """`count` sequences of class `true` were classified as `predicted`."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's predictions for each sequence of a dataset, and everything computed from them.

    y_N: int64, indices into `classes`.
    logits_NK: float32, possibly mapped from a file; of an ensemble float64.
    ids_N: the id of each sequence, a number or a string.
    recordings_N: the id of the recording that each sequence is a window of; None if they are no windows.
    temperature: by which logits are divided before they become probabilities (`calibration.py`).
    """

    classes: tuple[str, ...]
    y_N: Array
    logits_NK: Array
    ids_N: Array
    recordings_N: Array | None = None
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.y_N)

    @cached_property
    def predicted_N(self) -> Array:
        """The class with the largest logit, int64; in case of a tie, the first."""
        import numpy as np

        found: Array = np.concatenate([logits_nK.argmax(axis=1) for logits_nK in self._chunks()])
        return found

    @cached_property
    def score(self) -> Score:
        correct = int((self.predicted_N == self.y_N).sum())
        return Score(correct, len(self), log_loss(self))

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Each of METRICS by its key; None if it is undefined or a logit is not finite."""
        usable = math.isfinite(self.score.loss)
        return {metric.key: metric.compute(self) if usable else None for metric in METRICS}

    def to_dict(self) -> dict[str, Any]:
        """The evaluation of a split as stored in results.json."""
        return {**self.score.to_dict(), **self.metrics}

    @cached_property
    def counts(self) -> tuple[tuple[int, ...], ...]:
        """The confusion matrix (K, K): counts[i][j] sequences of class i were classified as class j."""
        import numpy as np

        k = len(self.classes)
        pairs = np.bincount(self.y_N * k + self.predicted_N, minlength=k * k).reshape(k, k)
        return tuple(map(tuple, pairs.tolist()))

    @cached_property
    def totals_3K(self) -> Array:
        """For each class the number of correct predictions, of predictions and of members; int64 (3, K)."""
        import numpy as np

        k, right_N = len(self.classes), self.predicted_N == self.y_N
        parts = (self.y_N[right_N], self.predicted_N, self.y_N)
        return np.stack([np.bincount(part, minlength=k) for part in parts])

    def by_class(self) -> list[ClassScore]:
        """Precision, recall, F1 and support of each class; 0 if the denominator is 0."""
        return class_scores(self.classes, self.totals_3K)

    def matrix(self) -> list[Confusion]:
        """All cells of the confusion matrix, row by row."""
        return [
            Confusion(true, predicted, count)
            for true, row in zip(self.classes, self.counts, strict=True)
            for predicted, count in zip(self.classes, row, strict=True)
        ]

    def cells(self) -> list[Confusion]:
        """All pairs of a class and a predicted class that occur, row by row of the confusion matrix."""
        import numpy as np

        k = len(self.classes)
        pairs, counts = np.unique(self.y_N * k + self.predicted_N, return_counts=True)
        return [
            Confusion(self.classes[pair // k], self.classes[pair % k], count)
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        ]

    def confusions(self, most: int) -> list[Confusion]:
        """The `most` most frequent confusions of two classes, in descending order."""
        wrong = [cell for cell in self.cells() if cell.true != cell.predicted]
        return sorted(wrong, key=lambda cell: -cell.count)[:most]

    def macro(self) -> tuple[float, float, float]:
        """Unweighted means of precision, recall and F1 over classes, as in scikit-learn: of recall over the
        classes that occur, of the others over those that occur or were predicted."""
        import numpy as np

        right_K, predicted_K, support_K = self.totals_3K
        there_K = predicted_K + support_K > 0
        precision_K = right_K[there_K] / np.maximum(predicted_K[there_K], 1)
        return (
            float(precision_K.mean()),
            _mean_share(right_K, support_K),
            _mean_share(2 * right_K, predicted_K + support_K),
        )

    @cached_property
    def normaliser_N(self) -> Array:
        """The logarithm of the sum of the exponentials of the logits at this temperature, float64."""
        import numpy as np

        parts = []
        for logits_nK in map(self._tempered, self._chunks()):
            top_n1 = logits_nK.max(axis=1, keepdims=True)
            with np.errstate(invalid="ignore"):  # infinite logits, which make the loss NaN
                sum_n = np.exp(logits_nK - top_n1).sum(axis=1)
            parts.append(np.log(sum_n) + top_n1[:, 0])
        found: Array = np.concatenate(parts)
        return found

    @cached_property
    def confidence_N(self) -> Array:
        """The probability of the predicted class, float64."""
        import numpy as np

        logit_N = self._tempered(self.logits_NK[np.arange(len(self)), self.predicted_N])
        found: Array = np.exp(logit_N - self.normaliser_N)
        return found

    @cached_property
    def loss_N(self) -> Array:
        """The cross-entropy of each sequence, float64, in nats."""
        import numpy as np

        with np.errstate(invalid="ignore"):
            found: Array = self.normaliser_N - self._tempered(self.logits_NK[np.arange(len(self)), self.y_N])
        return found

    def probabilities_of(self, k: int, first: int = 0, last: int | None = None) -> Array:
        """The probability of class k for the sequences from `first` up to `last`, float64."""
        import numpy as np

        here = slice(first, last)
        found: Array = np.exp(self._tempered(self.logits_NK[here, k]) - self.normaliser_N[here])
        return found

    def probability_chunks(self) -> Iterator[Array]:
        """The probabilities (n, K), float64, of a bounded number of sequences at a time, in order."""
        import numpy as np

        first = 0
        for logits_nK in self._chunks():
            last = first + len(logits_nK)
            yield np.exp(self._tempered(logits_nK) - self.normaliser_N[first:last, None])
            first = last

    def _tempered(self, logits: Array) -> Array:
        """These logits divided by the temperature, float64; a temperature of 1 changes no bit."""
        import numpy as np

        found: Array = np.divide(logits, self.temperature, dtype=np.float64)
        return found

    def _chunks(self) -> Iterator[Array]:
        rows = max(CHUNK // len(self.classes), 1)
        for first in range(0, len(self), rows):
            yield self.logits_NK[first : first + rows]


def class_scores(classes: Sequence[str], totals_3K: Array) -> list[ClassScore]:
    """The scores of each class from the numbers that `Evaluation.totals_3K` holds."""
    rows = []
    for name, (right, predicted, support) in zip(classes, totals_3K.T.tolist(), strict=True):
        f1 = _share(2 * right, support + predicted)
        rows.append(ClassScore(name, _share(right, predicted), _share(right, support), f1, support))
    return rows


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _mean_share(parts_K: Array, wholes_K: Array) -> float:
    """The mean of parts / wholes over the classes whose whole is not 0."""
    there = wholes_K > 0
    return float((parts_K[there] / wholes_K[there]).mean())


# The metrics


def commonest_share(y_N: Array) -> float:
    """The share of the most frequent class among labels, int64."""
    import numpy as np

    return int(np.bincount(y_N).max()) / len(y_N)


def commonest_rate(found: Evaluation) -> float:
    """The share of the most frequent class: the accuracy of always guessing it."""
    return commonest_share(found.y_N)


def balanced_accuracy(found: Evaluation) -> float:
    """The mean recall of the classes that occur."""
    return found.macro()[1]


def macro_f1(found: Evaluation) -> float:
    """The mean F1 of the classes that occur or were predicted."""
    return found.macro()[2]


def auroc(found: Evaluation) -> float | None:
    """The area under the ROC curve of the second class; with more than two classes, the mean over the
    classes that occur of the area for each class against the rest. None if only one class occurs."""
    import numpy as np

    classes = np.flatnonzero(found.totals_3K[2]).tolist()
    if len(classes) < 2:
        return None
    if len(found.classes) == 2:
        classes = classes[1:]
    return float(np.mean(list(_areas(found, classes))))


def _areas(found: Evaluation, classes: list[int]) -> Iterator[float]:
    """The area under the ROC curve of each of these classes against the rest."""
    import numpy as np

    width = max(CHUNK // len(found), 1)
    for first in range(0, len(classes), width):
        some = classes[first : first + width]  # together, because logits are stored row by row
        probability_kN = np.ascontiguousarray(
            np.exp(found._tempered(found.logits_NK[:, some]) - found.normaliser_N[:, None]).T
        )
        for k, score_N in zip(some, probability_kN, strict=True):
            yield _area(score_N, found.y_N == k)


def _area(score_N: Array, is_member_N: Array) -> float:
    """The share of pairs of a member and another in which the member scores higher; ties count as half."""
    import numpy as np

    members = int(is_member_N.sum())
    pairs = members * (len(is_member_N) - members)
    if members <= FEW_MEMBERS:
        others_n = score_N[~is_member_N]
        won = sum(
            int((others_n < score).sum()) + int((others_n == score).sum()) / 2
            for score in score_N[is_member_N]
        )
        return won / pairs
    _, place_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(count) - (count - 1) / 2)[place_N]
    return float((rank_N[is_member_N].sum() - members * (members + 1) / 2) / pairs)


def log_loss(found: Evaluation) -> float:
    """The mean cross-entropy of labels and probabilities, in nats."""
    return float(found.loss_N.mean())


def calibration_error(found: Evaluation) -> float:
    """The expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599): the mean distance
    of confidence and accuracy over 15 bins of equal width."""
    import numpy as np

    confidence_N = found.confidence_N
    bins_N = np.ceil(confidence_N * CALIBRATION_BINS).astype(np.int64).clip(1, CALIBRATION_BINS)
    gap_N = confidence_N - (found.predicted_N == found.y_N)
    return float(np.abs(np.bincount(bins_N, gap_N)).sum() / len(found))


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.2f} – {100 * bounds[1]:.2f}"


def four_digits(value: float) -> str:
    return f"{value:.4f}"


@dataclass(frozen=True)
class Metric:
    """A metric besides accuracy and log loss: its key in files, its title in tables, the function that
    computes it, whose docstring defines it, and its format in tables."""

    key: str
    title: str
    compute: Callable[[Evaluation], float | None]
    format: Callable[[float], str]

    def of(self, score: Mapping[str, Any]) -> str:
        """The metric as text, from a split of results.json; a dash if it is missing."""
        value = score.get(self.key)
        return self.format(value) if isinstance(value, int | float) else "–"


METRICS = (
    Metric("commonest_rate", "guessing", commonest_rate, percent),
    Metric("balanced_accuracy", "balanced accuracy", balanced_accuracy, percent),
    Metric("macro_f1", "macro F1", macro_f1, percent),
    Metric("auroc", "AUROC", auroc, four_digits),
    Metric("calibration_error", "calibration error", calibration_error, four_digits),
)
