"""What an answer says where a model is not sure: sets of classes, and abstaining. Prints nothing.

Shapes: N sequences, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rnnclf.calibration import class_sets, level_of
from rnnclf.checkpoint import Checkpoint
from rnnclf.config import Config
from rnnclf.data.recordings import Array
from rnnclf.errors import ConfigError
from rnnclf.metrics import percent


@dataclass(frozen=True)
class SureWords:
    """What the user asked for; None: nothing. Raises ConfigError for values that mean nothing.

    sets: the share of sets that should contain the true class.
    abstain: the same of the sets that must have exactly one class, or the answer has none.
    min_probability: of the most probable class, or the answer is marked.
    """

    sets: float | None = None
    abstain: float | None = None
    min_probability: float | None = None

    def __post_init__(self) -> None:
        for word, level in self.levels.items():
            level_of(level, word)
        least = self.min_probability
        if least is not None and not 0 < least <= 1:
            raise ConfigError(f"--min-probability must be a probability above 0 such as 0.9, got {least:g}.")
        if least is not None and self.abstain is not None:
            raise ConfigError("--abstain and --min-probability do not go together: leave one out.")

    @property
    def levels(self) -> dict[str, float]:
        """The levels of sets, by the option that asks for them."""
        named = {"--sets": self.sets, "--abstain": self.abstain}
        return {word: level for word, level in named.items() if level is not None}


class Calibrated(Protocol):
    """A model of which validation may say how large its sets have to be: see `Checkpoint`."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def config(self) -> Config: ...

    def limit_of_sets(self, level: float, word: str) -> float: ...


def refuse_of_average(word: str) -> None:
    """Raises ConfigError for a word that asks an average of models for sets."""
    raise ConfigError(
        f"{word} needs a single model: how often the sets of an average are right was not measured."
    )


@dataclass(frozen=True)
class Sureness:
    """The limits by which a model names a class, several, or none; None where that was not asked for.

    set_limit, abstain_limit: the highest score of a class in a set, see `calibration.class_sets`.
    notes: what such sets covered on validation, as sentences for the user.
    """

    set_limit: float | None = None
    abstain_limit: float | None = None
    min_probability: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def may_abstain(self) -> bool:
        return self.abstain_limit is not None or self.min_probability is not None

    def sets(self, probability_NK: Array) -> Array:
        """The classes in the set of each sequence, bool (N, K)."""
        assert self.set_limit is not None
        return class_sets(probability_NK, self.set_limit)

    def abstains(self, probability_NK: Array) -> Array:
        """Whether the model does not decide, bool (N,); False for sequences without probabilities."""
        import numpy as np

        if self.abstain_limit is not None:
            undecided_N = class_sets(probability_NK, self.abstain_limit).sum(axis=1) != 1
        elif self.min_probability is not None:
            undecided_N = probability_NK.max(axis=1) < self.min_probability
        else:
            undecided_N = np.zeros(len(probability_NK), bool)
        found: Array = undecided_N & ~np.isnan(probability_NK[:, 0])
        return found


NOTHING_ASKED = SureWords()
ALWAYS_SURE = Sureness()


def sureness_of(words: SureWords, models: Sequence[Calibrated], whole_recordings: bool) -> Sureness:
    """The limits for these models, whose probabilities are averaged if there are several.

    Raises ConfigError or CheckpointError where nothing is known of how often such sets would be right.
    """
    limits: dict[str, float] = {}
    notes: dict[str, None] = {}
    for word, level in words.levels.items():
        if len(models) > 1:
            refuse_of_average(word)
        if whole_recordings:
            raise ConfigError(
                f"{word} is for windows, of which validation tells how often their sets are right:"
                " leave out --recordings."
            )
        limits[word] = models[0].limit_of_sets(level, f"{word} {level:g}")
        calibration = models[0].checkpoint.calibration
        assert calibration is not None  # which `limit_of_sets` needs
        share = percent(calibration.coverage(limits[word]))
        those = f"the {calibration.sequences:,} validation sequences"
        if models[0].config.final_fit:
            note = (
                f"The sets of {100 * level:g} % are approximate: on {those}, {share} of those of the model"
                " before its final fit contain the true class; the final model was trained on these."
            )
        else:
            note = (
                f"On {those}, {share} of the sets of {100 * level:g} % contain the true class; on data unlike"
                " these it may be fewer."
            )
        notes[note] = None
    return Sureness(limits.get("--sets"), limits.get("--abstain"), words.min_probability, tuple(notes))
