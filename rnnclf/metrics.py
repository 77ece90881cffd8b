"""Accuracy with its interval, and what the confusion counts tell.  Shapes: K classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Z95 = 1.959963984540054  # 97.5 % point of the normal distribution


def wilson_interval(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95 % by default.

    Unlike p ± z·√(p(1-p)/n) it stays inside [0, 1] and is right near the ends, where good
    classifiers are.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"correct must be between 0 and total > 0, got {correct} of {total}.")
    share = correct / total
    spread = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    centre = share + z * z / (2 * total)
    scale = 1 + z * z / total
    # The ends are exact where every answer is right or wrong; rounding would leave them beside it.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Score:
    """How many of how many sequences were classified rightly, and the mean cross-entropy (nats)."""

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
        """The form in which results.json holds a score."""
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "interval95": list(self.interval95),
            "loss": self.loss,
        }


class ClassScore(NamedTuple):
    """One class: share of its predictions that are right, share of its members that were found."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """`count` sequences of class `true` were taken for class `predicted`."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a model on one split.

    counts[i][j] is the number of sequences of class i that were taken for class j, (K, K).
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    loss: float

    @property
    def score(self) -> Score:
        correct = sum(self.counts[k][k] for k in range(len(self.classes)))
        return Score(correct, sum(map(sum, self.counts)), self.loss)

    def by_class(self) -> list[ClassScore]:
        """Precision, recall, F1 and support of each class; a share of nothing is 0."""
        rows = []
        for k, name in enumerate(self.classes):
            right, support = self.counts[k][k], sum(self.counts[k])
            predicted = sum(row[k] for row in self.counts)
            f1 = _share(2 * right, support + predicted)
            rows.append(ClassScore(name, _share(right, predicted), _share(right, support), f1, support))
        return rows

    def confusions(self, most: int) -> list[Confusion]:
        """The pairs of classes that were confused most often, strongest first."""
        pairs = [
            Confusion(true, predicted, self.counts[i][j])
            for i, true in enumerate(self.classes)
            for j, predicted in enumerate(self.classes)
            if i != j and self.counts[i][j] > 0
        ]
        return sorted(pairs, key=lambda pair: -pair.count)[:most]

    def macro(self) -> tuple[float, float, float]:
        """Unweighted means over the classes of precision, recall and F1."""
        rows: Sequence[ClassScore] = self.by_class()
        k = len(rows)
        return (
            sum(row.precision for row in rows) / k,
            sum(row.recall for row in rows) / k,
            sum(row.f1 for row in rows) / k,
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
