"""Shortfalls: the weights that are kept know the training sequences less well than training did. Torch-free.

Usually they know them better: during an epoch the weights are still those of earlier steps, some units are
dropped, and augmented sequences are harder. There are two reasons why not. Augmented sequences may be so
unlike the data that the network has not learned the data themselves; and the last steps of an epoch may have
gone wrong, which the accuracy of that epoch does not show.
"""

from __future__ import annotations

from typing import Any

from rnnclf.augment import Augment, NoAugment, RandomAugment
from rnnclf.metrics import Score, percent
from rnnclf.training.breaks import fall

MORE_ERRORS = 1.25  # factor on the share of errors
Z = 4.0  # standard errors of the fall of the accuracy


def shortfall(
    epoch: int, during: Score, kept: Score, rate: float, augment: Augment | None = None
) -> dict[str, Any] | None:
    """The shortfall as stored in results.json, None if there is none.

    during: the score of training in the epoch whose weights are kept. kept: that of those weights on the same
    sequences, as they are. rate, augment: the options optimizer.lr and augment.
    """
    more_errors = 1 - kept.accuracy >= MORE_ERRORS * (1 - during.accuracy)
    if not more_errors or fall(during, kept) < Z:
        return None
    return {
        "epoch": epoch,
        "in_training": during.accuracy,
        "kept": kept.accuracy,
        "words": _in_words(epoch, during, kept, rate, augment or NoAugment()),
    }


def _in_words(epoch: int, during: Score, kept: Score, rate: float, augment: Augment) -> str:
    begin = f"The network classifies {percent(kept.accuracy)} of the training sequences correctly"
    then = f"{percent(during.accuracy)} of them"
    if augment.active:
        share = f"augment.share={augment.share / 2:g} or " if isinstance(augment, RandomAugment) else ""
        return (
            f"{begin} as they are, but {then} as they were augmented in epoch {epoch}: augmented"
            f" sequences look too unlike the data. Try {share}weaker changes."
        )
    return (
        f"{begin}, but during epoch {epoch}, after which these weights were kept, {then}: the last"
        f" steps of the epoch undid some of what it had learned. Try optimizer.lr={rate / 2:g}."
    )
