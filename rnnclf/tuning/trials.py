"""A trial: one point of a search, and what became of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, TypeAlias

from rnnclf.tuning.space import Point

State: TypeAlias = Literal["running", "done", "pruned", "failed"]
Select: TypeAlias = Literal["best", "last"]
"""The epoch whose weights are the result of a run, as in the option of this name."""


@dataclass(frozen=True)
class Trial:
    """A point of the space and its run so far."""

    number: int
    """Counted from 0, in the order in which the points were proposed."""
    point: Point
    state: State = "running"
    curve: tuple[float, ...] = ()
    """The validation score after each epoch; higher is better."""

    @property
    def best_so_far(self) -> tuple[float, ...]:
        """The best validation score up to each epoch."""
        return judged(self.curve, "best")

    def value(self, select: Select = "best") -> float | None:
        """The score of the epoch that is the result; None before the end of the first epoch."""
        return judged(self.curve, select)[-1] if self.curve else None


def judged(curve: Sequence[float], select: Select) -> tuple[float, ...]:
    """For each epoch, the score that the run would have if it ended there."""
    return tuple(accumulate(curve, max)) if select == "best" else tuple(curve)
