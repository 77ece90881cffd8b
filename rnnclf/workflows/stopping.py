"""When training ends before its last epoch: out of patience, or out of time."""

from __future__ import annotations

import math

from rnnclf.config import Config
from rnnclf.durations import parse_patience, parse_time
from rnnclf.training.loop import EpochResult
from rnnclf.training.state import Training


def steps_per_epoch(config: Config, sequences: int) -> int:
    """The number of training steps in an epoch of so many sequences."""
    if config.protocol == "tutorial":
        return max(sequences // config.batch_size, 1)
    return math.ceil(sequences / config.batch_size)


def out_of_patience(config: Config, epoch: int, best: int, sequences: int) -> str:
    """Why training ends after an epoch, as a sentence; '' if it goes on.

    It depends on these numbers alone, so a resumed run ends where it would have ended anyway.

    Args:
        best: the best epoch so far.
        sequences: the size of the training split.
    """
    if config.patience is None or epoch == config.epochs:
        return ""
    patience, waited = parse_patience(config.patience), epoch - best
    steps = waited * steps_per_epoch(config, sequences)
    if waited < (patience.epochs or math.inf) and steps < (patience.steps or math.inf):
        return ""
    return (
        f"Stopped at epoch {epoch} of {config.epochs}: the validation score has not improved since epoch"
        f" {best} (patience={config.patience})."
    )


def out_of_time(config: Config, seconds: float, training: Training) -> str:
    """Why training ends after so many seconds of it, as a sentence; '' if it goes on.

    A final fit takes about as long as the training before it, which therefore has half of max_time.
    """
    if config.max_time is None or seconds < parse_time(config.max_time) / (1 + config.final_fit):
        return ""
    spent = f"max_time={config.max_time} has passed"
    if config.final_fit:
        spent = f"half of max_time={config.max_time} has passed, the rest is for the final fit"
    stopped = f"Stopped at epoch {training.epoch} of {config.epochs}: {spent}."
    now, end = (config.schedule.factor(n - 1, config.epochs) for n in (training.epoch, config.epochs))
    if now == end:
        return stopped
    advice = f"epochs={training.epoch} takes about as long and lets the learning rate reach its end."
    return f"{stopped} schedule={config.schedule.name} is laid out for {config.epochs} epochs: {advice}"


def epochs_up_to(result: EpochResult, config: Config, sequences: int) -> float:
    """The number of epochs up to the end of one, which may have been cut short."""
    if config.protocol == "tutorial":  # its score is that of a batch
        return result.epoch
    return result.epoch - 1 + min(result.train.total / sequences, 1)


def final_fit_out_of_time(config: Config, seconds: float) -> str:
    """The same for the final fit, which has all of max_time that is left."""
    if config.max_time is None or seconds < parse_time(config.max_time):
        return ""
    return f"The final fit was stopped early: max_time={config.max_time} has passed."
