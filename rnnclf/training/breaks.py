"""Detection of breaks: epochs in which training lost much of what it had learned. Torch-free.

A break is a matter of the training sequences themselves, so that overfitting, in which they are learned ever
better, is none; and of the validation sequences as well. Both accuracies must have fallen by more than chance
explains in sets of their size, which is what small sets do all the time. Accuracies are compared instead of
losses, because label smoothing, class weights and mixtures of sequences change the level of a loss.

benchmarks/reliability/breaks.py counts false alarms with these thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from rnnclf.metrics import Score

if TYPE_CHECKING:
    from rnnclf.training.loop import EpochResult

LOST = 0.03  # share of the training sequences by which accuracy falls
MORE_ERRORS = 1.5  # factor on the share of errors: the first epochs, in which there are many, may vary
TRAIN_Z, VALIDATION_Z = 4.0, 2.0  # standard errors of the fall of an accuracy
RECOVERED = 0.5  # of what was lost
VALIDATION_EPOCHS = 3  # up to the best of training, whose median is the level of validation
USUAL_EPOCHS = 5  # before a break, whose median is the usual largest norm of the gradients
SPIKE = 3.0  # a gradient norm of so many times its usual level would be cut by clipping at that level


@dataclass(frozen=True)
class Norms:
    """The largest norm of the gradients in a break, and the usual largest and mean ones before it."""

    largest: float
    usual_largest: float
    usual_mean: float


@dataclass(frozen=True)
class Break:
    """A break, and the levels before and in it.

    epoch: in which it was noticed. before, lowest: training accuracies, in the best epoch until then and in
    the worst until training recovered. highest_rate: the highest learning rate of all epochs up to it.
    norms: None if they are not known. recovered: the epoch in which half of what was lost had been learned
    again; None if it never was.
    """

    epoch: int
    before: float
    lowest: float
    validation_before: float
    validation_lowest: float
    learning_rate: float
    highest_rate: float
    norms: Norms | None
    recovered: int | None = None

    def followed_by(self, result: EpochResult) -> Break:
        """The break as it looks after a later epoch."""
        accuracy = result.train.accuracy
        if accuracy >= self.before - (1 - RECOVERED) * (self.before - self.lowest):
            return replace(self, recovered=result.epoch)
        return replace(
            self,
            lowest=min(self.lowest, accuracy),
            validation_lowest=min(self.validation_lowest, result.validation.accuracy),
        )

    def kept(self, best_epoch: int) -> str:
        """A sentence on the epoch that is the result."""
        if best_epoch < self.epoch:
            return f"The epoch that was kept, {best_epoch}, is from before."
        if self.recovered is None:
            return (
                f"Training did not recover; the epoch that was kept, {best_epoch}, is from after the break."
            )
        return f"The epoch that was kept, {best_epoch}, is from after training had recovered."

    def to_dict(self, best_epoch: int, clip: float | None) -> dict[str, Any]:
        """The break as stored in results.json. clip: the recipe's."""
        return {
            "epoch": self.epoch,
            "from": self.before,
            "to": self.lowest,
            "validation_from": self.validation_before,
            "validation_to": self.validation_lowest,
            "gradient_norm": None if self.norms is None else self.norms.largest,
            "gradient_norm_before": None if self.norms is None else self.norms.usual_largest,
            "learning_rate": self.learning_rate,
            "recovered": self.recovered,
            "words": in_words(self, clip, best_epoch),
        }


def breaks_in(results: Sequence[EpochResult]) -> list[Break]:
    """The breaks in a run, from the results of its epochs so far. An epoch that begins one is found as soon
    as it is the last."""
    found: list[Break] = []
    since = best = 0  # falls are measured from the best epoch since the end of the last break
    for place, result in enumerate(results):
        if found and found[-1].recovered is None:
            found[-1] = found[-1].followed_by(result)
            since = best = place
        elif _is_lost(results[best].train, result.train):
            recent = results[max(best + 1 - VALIDATION_EPOCHS, since) : best + 1]
            if new := _break(recent, results[: place + 1]):
                found.append(new)
        elif result.train.accuracy > results[best].train.accuracy:
            best = place
    return found


def _is_lost(before: Score, now: Score) -> bool:
    """Whether training has lost much between these epochs, by its own scores."""
    return (
        before.accuracy - now.accuracy >= LOST
        and 1 - now.accuracy >= MORE_ERRORS * (1 - before.accuracy)
        and now.loss > before.loss
        and fall(before, now) >= TRAIN_Z
    )


def _break(recent: Sequence[EpochResult], results: Sequence[EpochResult]) -> Break | None:
    """The break that the last epoch begins if validation has fallen, too. recent: the best epoch of training
    and those just before it."""
    *_, previous, now = results
    before = sorted((r.validation for r in recent), key=lambda score: score.accuracy)[len(recent) // 2]
    # an epoch whose last steps go wrong shows it in validation, and only the next one in training
    lowest = min(previous.validation, now.validation, key=lambda score: score.accuracy)
    if fall(before, lowest) < VALIDATION_Z:
        return None
    return Break(
        epoch=now.epoch,
        before=recent[-1].train.accuracy,
        lowest=now.train.accuracy,
        validation_before=before.accuracy,
        validation_lowest=lowest.accuracy,
        learning_rate=now.learning_rate,
        highest_rate=max(result.learning_rate for result in results),
        norms=_norms(results),
    )


def fall(before: Score, now: Score) -> float:
    """The fall of an accuracy in standard errors. Each count is taken as if it had one more sequence of
    either outcome, so that an accuracy of 1 has an error, too (Agresti & Caffo 2000)."""
    shares = [((score.correct + 1) / (score.total + 2), score.total + 2) for score in (before, now)]
    error = math.sqrt(sum(share * (1 - share) / total for share, total in shares))
    return (shares[0][0] - shares[1][0]) / error


def _norms(results: Sequence[EpochResult]) -> Norms | None:
    """The norms in and before the last epoch of these; None if they are not known."""
    *earlier, now = results
    known = [result.gradients for result in earlier if result.gradients is not None]
    if now.gradients is None or not known:
        return None
    *usual, last = known  # its last steps may have been the cause
    recent = (usual or [last])[-USUAL_EPOCHS:]
    return Norms(
        max(now.gradients.largest, last.largest),
        median(norms.largest for norms in recent),
        median(norms.mean for norms in usual or [last]),
    )


def in_words(found: Break, clip: float | None, best_epoch: int | None = None) -> str:
    """What happened, and what may help. clip: the recipe's; best_epoch: the one that is the result, if that
    is known."""
    before, lowest = f"{100 * found.before:.1f}", f"{100 * found.lowest:.1f}"
    validation = f"{100 * found.validation_before:.1f} to {100 * found.validation_lowest:.1f} %"
    gradient = ""
    if found.norms is not None:
        gradient = f", when the largest gradient norm was {found.norms.largest:.2g}"
        gradient += f" (before: {found.norms.usual_largest:.2g})"
    kept = "" if best_epoch is None else f"{found.kept(best_epoch)} "
    return (
        f"Training broke in epoch {found.epoch}: training accuracy fell from {before} to {lowest} %,"
        f" validation accuracy from {validation}{gradient} at a learning rate of {found.learning_rate:.2g}."
        f" {kept}Try {' or '.join(_levers(found, clip))}."
    )


def _levers(found: Break, clip: float | None) -> list[str]:
    """Half of the highest learning rate so far; and clipping at the usual norm, if gradients were much larger
    than before."""
    levers = [f"optimizer.lr={found.highest_rate / 2:.2g}"]
    if found.norms is not None and found.norms.largest >= SPIKE * found.norms.usual_largest:
        usual = float(f"{found.norms.usual_mean:.1g}")
        levers += [f"clip={usual:g}"] if 0 < usual < (clip or math.inf) else []
    return levers
