"""Whether a run is worth another epoch, judged by what the others had come to at the same epoch.

Only the epochs up to that one count, so it does not matter how far the others have come since: a search that
was cut off and goes on decides as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal, TypeAlias

from rnnclf.tuning.trials import Select, judged

Rule: TypeAlias = Literal["none", "halving", "median"]
Curve: TypeAlias = Sequence[float]
"""The validation score after each epoch; higher is better."""

FACTOR = 3
"""Of successive halving: one run in so many goes on, until so many times the epochs."""
FIRST_LOOK = 2  # epoch, or a later one of a long run; before it, scores say little about the end
PART = 27  # of a long run: successive halving then looks at it three times, the last after a third
FEWEST = 5  # other runs of which a median is taken


def first_look(epochs: int) -> int:
    """The first epoch after which a run of so many may end."""
    return max(FIRST_LOOK, round(epochs / PART))


def why_prune(
    rule: Rule, curve: Curve, others: Sequence[Curve], select: Select = "best", first: int = FIRST_LOOK
) -> str | None:
    """Why a run is to end after its last epoch so far, as a sentence for the log; None: it goes on.

    Ask after each epoch but the last. Runs that have not reached the epoch have no say, and a run that is as
    good as another is never worse: the best so far always goes on.

    Args:
        curve: of the run in question, at least one epoch.
        others: the curves of all other runs that have begun, in any order.
        first: the first epoch after which a run may end.
    """
    epoch = len(curve)
    if epoch < first or (rule == "halving" and not is_rung(epoch, first)):
        return None
    score = judged(curve, select)[-1]
    return RULES[rule](epoch, score, [judged(c[:epoch], select)[-1] for c in others if len(c) >= epoch])


def is_rung(epoch: int, first: int = FIRST_LOOK) -> bool:
    """Whether successive halving looks at runs after this epoch: with 2 as the first, 2, 6, 18 …"""
    rung = first
    while rung < epoch:
        rung *= FACTOR
    return rung == epoch


def _halving(epoch: int, score: float, others: list[float]) -> str | None:
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934): at each rung the
    best third goes on. Nobody waits for the others, so the first runs go on with few to be compared with."""
    if len(others) + 1 < FACTOR:
        return None
    better = sum(other > score for other in others)
    if better < (len(others) + 1) // FACTOR:
        return None
    return f"{better} of {len(others)} others were better at epoch {epoch}, where the best third goes on"


def _median(epoch: int, score: float, others: list[float]) -> str | None:
    """The median stopping rule (Golovin et al. 2017, https://doi.org/10.1145/3097983.3098043), with the
    scores at this epoch instead of their running averages."""
    if len(others) < FEWEST or score >= (middle := median(others)):
        return None
    return f"{score:.2%} is below {middle:.2%}, the median of {len(others)} others at epoch {epoch}"


RULES: dict[Rule, Callable[[int, float, list[float]], str | None]] = {
    "none": lambda epoch, score, others: None,
    "halving": _halving,
    "median": _median,
}
