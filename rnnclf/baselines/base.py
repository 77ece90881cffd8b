"""What a baseline is: a well-known classifier with fixed settings. Torch-free.

Shapes: N sequences, C channels, T steps, K classes, F features.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import ClassVar

from rnnclf.data.recordings import Array
from rnnclf.durations import roughly
from rnnclf.errors import ConfigError, RnnclfError

SETTLING = 0.5  # seconds of work from which an estimate of the rest is believed


class LeftOutError(RnnclfError):
    """A baseline that is too much work for these data; the message goes on after its title: "takes …"."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Labelled sequences, ready for a classifier.

    x_N: for each sequence its values (C, T), float32 without gaps; T may differ.
    y_N: int64, indices of `classes` classes, not all of which need occur.
    """

    x_N: tuple[Array, ...]
    y_N: Array
    classes: int

    def __len__(self) -> int:
        return len(self.x_N)

    @property
    def longest(self) -> int:
        return max(int(x_CT.shape[1]) for x_CT in self.x_N)

    @property
    def ragged(self) -> bool:
        """Whether sequences differ in their number of steps."""
        return len({x_CT.shape[1] for x_CT in self.x_N}) > 1

    def and_(self, others: Sequences) -> Sequences:
        """These and the others, which belong to the same data set."""
        import numpy as np

        return replace(self, x_N=(*self.x_N, *others.x_N), y_N=np.concatenate((self.y_N, others.y_N)))


@dataclass(frozen=True)
class Clock:
    """Passes on how much of the work is done, and stops work that would take longer than `limit` seconds."""

    limit: float = float("inf")
    tell: Callable[[float], None] = lambda share: None
    first: float = 0.0
    last: float = 1.0
    began: float = field(default_factory=time.perf_counter)

    def between(self, first: float, last: float) -> Clock:
        """The clock of a part of the work: from `first` to `last` of the work that this one measures."""
        span = self.last - self.first
        return replace(self, first=self.first + first * span, last=self.first + last * span)

    def __call__(self, share: float) -> None:
        """Notes that this share of the work is done. Raises LeftOutError if all of it would take too long."""
        done = self.first + share * (self.last - self.first)
        self.tell(done)
        passed = time.perf_counter() - self.began
        if 0 < done < 1 and passed > SETTLING and passed / done > self.limit:
            whole = passed / done
            raise LeftOutError(
                f"would take about {roughly(whole)}: allow it with max_time={_limit_for(whole)}"
            )


def _limit_for(seconds: float) -> str:
    """A limit, as one would type it, that leaves room for an estimate that is too low."""
    minutes = max(round(1.5 * seconds / 60), 1)
    return f"{minutes}m" if minutes < 120 else f"{round(minutes / 60)}h"


@dataclass
class Baseline(ABC):
    """A classifier with fixed settings. seed: of its random numbers. threads: it computes with."""

    seed: int = 0
    threads: int = 1

    name: ClassVar[str]
    title: ClassVar[str]
    """The name in tables."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages that it needs, of the extra `archive`."""

    @classmethod
    def is_installed(cls) -> bool:
        return all(find_spec(package) is not None for package in cls.packages)

    @classmethod
    def refuse_missing(cls) -> None:
        """Raises ConfigError if a package that it needs is not installed."""
        if not cls.is_installed():
            raise ConfigError(
                f"The baseline {cls.name} needs {cls.packages[0]}: pip install 'rnnclf[archive]'."
            )

    def prepare(self, known: Sequences) -> None:  # noqa: B027 - most have nothing
        """Compiles what `logits` needs, so that the time of that does not count as its own."""

    def work(self, known: int, asked: int) -> float:
        """The work of `logits` for these numbers of sequences, in any unit."""
        return known + asked

    @abstractmethod
    def logits(self, known: Sequences, asked: Sequences, clock: Clock) -> Array:
        """Logits (N, K), float32, of the sequences `asked`, from those whose classes are `known`.

        Their largest is the predicted class. The same input gives the same result.
        Raises LeftOutError.
        """


def at_length(sequences: Sequences, steps: int) -> Array:
    """The sequences as (N, C, T) of `steps` steps, float32: longer ones are cut, shorter ones get zeros, the
    mean of a standardised channel, at their end."""
    import numpy as np

    x_NCT = np.zeros((len(sequences), sequences.x_N[0].shape[0], steps), np.float32)
    for place_CT, x_CT in zip(x_NCT, sequences.x_N, strict=True):
        length = min(steps, x_CT.shape[1])
        place_CT[:, :length] = x_CT[:, :length]
    return x_NCT


def in_columns(some_Nk: Array, known: Sequence[int], classes: int, others: float) -> Array:
    """Columns for the classes `known` as columns for all classes (N, K), float32; `others` for the rest."""
    import numpy as np

    found_NK = np.full((len(some_Nk), classes), others, np.float32)
    found_NK[:, list(known)] = some_Nk
    return found_NK
