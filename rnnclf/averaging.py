"""Averages of the weights over the steps of training, by their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from rnnclf.options import Component, option
from rnnclf.registry import Registry


@dataclass
class Average(Component):
    """Base of every average."""

    def share(self, step: int, total: int, count: int) -> float | None:
        """The share of the average that the weights after a step make up; the average so far is the rest.
        None if the step is not averaged. The first step that is averaged makes up all of it.

        step: counted from 0, of `total` steps. count: the number of steps that were averaged before.
        """
        raise NotImplementedError(f"{type(self).__name__} must define share(step, total, count).")


@dataclass
class NoAverage(Average):
    """The weights after the last step of an epoch, not averaged."""

    name: str = "none"

    def share(self, step: int, total: int, count: int) -> float | None:
        return None


@dataclass
class EMA(Average):
    """Exponential moving average: the last steps count most.

        average = d · average + (1 - d) · weights,   d = min(decay, (1 + n) / (10 + n))

    after each step; n is the number of steps averaged before. At first it averages about the last tenth of
    all steps, so the same decay suits short and long training. As ExponentialMovingAverage of TensorFlow
    with num_updates, https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """

    name: str = "ema"
    decay: float = option(
        0.999,
        "share of the average that is kept at each step: 0.999 averages about the last 1,000 steps; lower in"
        " the first steps",
        low=0,
        below=1,
    )

    def share(self, step: int, total: int, count: int) -> float | None:
        return 1 - min(self.decay, (1 + count) / (10 + count))


@dataclass
class SWA(Average):
    """Stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407): the mean of the
    weights over the last part of training.

    Differs from the paper: the weights after each step are averaged, not those after each epoch, and the
    learning rate is that of `schedule`.
    """

    name: str = "swa"
    start: float = option(
        0.75,
        "share of all steps after which averaging begins; until then nothing is averaged",
        low=0,
        below=1,
    )

    def share(self, step: int, total: int, count: int) -> float | None:
        return 1 / (count + 1) if step >= self.start * total else None


AVERAGES: Registry[type[Average]] = Registry("average", {"none": NoAverage, "ema": EMA, "swa": SWA})
