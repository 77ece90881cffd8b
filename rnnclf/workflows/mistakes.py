"""The sequences that a classifier gets wrong, the most confident ones first.

Shapes: N sequences, T steps, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rnnclf.data.recordings import Array, Recordings
from rnnclf.metrics import Evaluation

FIRST_STEP = ", step 0 (counted from 0)"


@dataclass(frozen=True)
class Mistake:
    """A sequence whose predicted class is not its own."""

    id: int | str
    place: str
    """Where it was read: a file and the line of its first step, or its number."""
    label: str
    predicted: str
    probability: float
    """Of the predicted class."""
    probability_of_label: float
    number: int
    """The number of the sequence in the recordings."""

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "number"}


@dataclass(frozen=True, eq=False)
class Mistakes:
    """All mistakes among the sequences of an evaluation.

    places_N: the number of each evaluated sequence in the recordings.
    """

    evaluation: Evaluation
    recordings: Recordings
    places_N: Array

    @property
    def channels(self) -> tuple[str, ...]:
        return self.recordings.channels

    def __len__(self) -> int:
        return self.evaluation.score.total - self.evaluation.score.correct

    def __iter__(self) -> Iterator[Mistake]:
        """The mistakes, the highest probability of the wrong class first; ties in the order of the data."""
        import numpy as np

        found = self.evaluation
        wrong_n = np.flatnonzero(found.predicted_N != found.y_N)
        order_n = wrong_n[np.argsort(-found.confidence_N[wrong_n], kind="stable")]
        for n in order_n.tolist():
            number, k = int(self.places_N[n]), int(found.y_N[n])
            (id_,) = found.ids_N[n : n + 1].tolist()
            yield Mistake(
                id=id_,
                place=place_of(self.recordings, number),
                label=found.classes[k],
                predicted=found.classes[int(found.predicted_N[n])],
                probability=float(found.confidence_N[n]),
                probability_of_label=float(found.probabilities_of(k, n, n + 1)[0]),
                number=number,
            )

    def values(self, mistake: Mistake) -> Array:
        """The sequence as read, (T, C) float64, NaN for missing values."""
        return self.recordings.sequence(mistake.number)


def place_of(recordings: Recordings, number: int) -> str:
    """Where a sequence was read: a file and the line of its first step, or its number."""
    return recordings.place(int(recordings.starts_N[number])).removesuffix(FIRST_STEP)


def common_scale(values: Sequence[Array]) -> tuple[float, float]:
    """The range of a channel over some sequences; missing values do not count."""
    import numpy as np

    there = np.concatenate(values)
    there = there[~np.isnan(there)]
    return (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
