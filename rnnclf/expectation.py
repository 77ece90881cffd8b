"""The expected accuracy and cost of an experiment: figures in its file that are not settings. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rnnclf.errors import ConfigError
from rnnclf.metrics import wilson_interval
from rnnclf.options import Options, as_typed, expected, option, types_of
from rnnclf.registry import did_you_mean
from rnnclf.statistics import LEAST_RUNS, Spread, mean_and_sd

KEY = "expected"
"""The key of the figures in the file of an experiment."""
CONFIDENCE = 0.99
"""The share of runs that are to be as expected, if nothing has changed."""


@dataclass
class Expectation(Options):
    """Figures measured with several runs of an experiment that differ in their seeds."""

    accuracy: float = option(
        0.0, "mean accuracy on the test split, as a fraction", low=0, high=1, required=True
    )
    sd: float | None = option(
        None, "standard deviation of the accuracy from seed to seed; none for one seed", low=0, high=1
    )
    seeds: int = option(1, "number of runs", low=1, required=True)
    seconds: float = option(0.0, "median time of a run", above=0, required=True)
    hardware: str = option("", "the machine, and how many threads a run had")
    commit: str = option("", "the version that was measured")
    words: str = option("", "words beside the experiment's, such as cell=lem")
    source: str = option("", "the file that holds the figures of each run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds == 1 and self.sd is not None:
            raise ConfigError(f"{KEY}.sd is the deviation between seeds, and there is one: leave it out.")
        if self.seeds > 1 and self.sd is None:
            raise ConfigError(f"{KEY}.sd is missing: {self.seeds} seeds have a standard deviation.")

    @property
    def share(self) -> str:
        """The accuracy as it is shown: 98.96 ± 0.05 %."""
        return mean_and_sd(Spread(self.seeds, self.accuracy, self.sd, None))

    @property
    def runs(self) -> str:
        """The number of seeds in words."""
        return "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"

    def bounds(self, sequences: int) -> tuple[float, float]:
        """The range in which the accuracy of one more run is as expected.

        Student's prediction interval for a value like those that were measured, and at least ± one sequence.
        After too few runs for that, it is the interval of their mean as a share of as many test sequences.
        """
        from scipy.special import stdtrit

        if self.sd is None or self.seeds < LEAST_RUNS:
            return wilson_interval(round(self.accuracy * sequences), sequences)
        t = float(stdtrit(self.seeds - 1, (1 + CONFIDENCE) / 2))
        half = max(t * self.sd * math.sqrt(1 + 1 / self.seeds), 1 / sequences)
        return max(self.accuracy - half, 0.0), min(self.accuracy + half, 1.0)


def from_plain(found: Any) -> list[Expectation]:
    """The figures in the file of an experiment, one entry for each set of words. Raises ConfigError."""
    if found is None:
        return []
    if not isinstance(found, list) or not found or not all(isinstance(entry, Mapping) for entry in found):
        raise ConfigError(
            f"{KEY} must be a list with entries such as '- {{accuracy: 0.98, seeds: 1, seconds: 90}}',"
            f" got {as_typed(found)}."
        )
    return [_entry(entry) for entry in found]


def _entry(found: Mapping[str, Any]) -> Expectation:
    known = {part.name: part for part in fields(Expectation)}
    for key in map(str, found):
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(f"{KEY} has no '{key}'.{hint} What it has: {', '.join(known)}.")
    for name, part in known.items():
        if name not in found and part.metadata["required"]:
            raise ConfigError(f"{KEY}.{name} is missing: {part.metadata['help']}.")
        if name in found and not _fits(found[name], types_of(Expectation)[name]):
            words = expected(Expectation, name)
            raise ConfigError(f"{KEY}.{name} must be {words}, got {as_typed(found[name])}.")
    try:
        return Expectation(**found)
    except ConfigError as error:  # a range, whose message has the name alone
        message = str(error)
        raise ConfigError(message if message.startswith(KEY) else f"{KEY}.{message}") from None


def _fits(value: Any, types: tuple[Any, ...]) -> bool:
    if isinstance(value, int) and not isinstance(value, bool) and float in types:
        return True
    return type(value) in types
