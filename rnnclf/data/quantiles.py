"""Values as ranks: a curve for each channel that spreads its training values evenly.

Shapes: B batch, T time, C channels, K knots of a channel, S steps of all sequences, … any batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from rnnclf.data.recordings import Array
from rnnclf.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

PIECES = 32  # of a curve; the ranks within a piece are interpolated
WIDTH = 2 * math.sqrt(3.0)  # of a uniform distribution with deviation 1
CLOSEST = 2.0**-20  # knots, as a share of their size: float32 hardly tells closer values apart
AT_ONCE = 2**16  # values


@dataclass(frozen=True)
class Curve:
    """A rising line through (knots, levels): quantiles of the training values, and their ranks, from -√3 to
    √3.

    So training values that differ get mean 0 and deviation 1, and an outlier lies no further out than its
    rank. Values that occur often get the mean of their ranks. Beyond the ends the line goes on with its mean
    slope, so that larger values stay larger.
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(a < b for line in (self.knots, self.levels) for a, b in pairwise(line))
        finite = all(map(math.isfinite, (*self.knots, *self.levels)))
        if not (len(self.knots) == len(self.levels) >= 2 and rises and finite):
            raise ConfigError("The preparation must have curves that rise through two points or more.")

    @property
    def slope(self) -> float:
        """The mean slope."""
        return (self.levels[-1] - self.levels[0]) / (self.knots[-1] - self.knots[0])

    @classmethod
    def through(cls, values_S: Array) -> Curve:
        """The curve of these values, leaving out NaN."""
        import numpy as np

        values_S = values_S[~np.isnan(values_S)].astype(np.float64)
        if len(values_S) == 0:
            return IDENTITY
        rank_K = np.linspace(0, 1, PIECES + 1)
        knots, places_K = np.unique(np.quantile(values_S, rank_K), return_inverse=True)
        rank = np.bincount(places_K, rank_K) / np.bincount(places_K)
        apart = np.diff(knots, prepend=-np.inf) > CLOSEST * np.abs(knots)
        knots, levels = knots[apart], WIDTH * (rank[apart] - 0.5)
        if len(knots) < 2:
            return IDENTITY
        return cls(tuple(knots.tolist()), tuple(levels.tolist()))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Curve:
        """The inverse of dataclasses.asdict. Raises KeyError, TypeError, ValueError or ConfigError."""
        return cls(tuple(map(float, plain["knots"])), tuple(map(float, plain["levels"])))


IDENTITY = Curve((0.0, 1.0), (0.0, 1.0))
"""That of a channel which has one value or none."""


class Pieces(NamedTuple):
    """Curves as sums of pieces, each of which rises from 0 between two knots:

        level + slope · (min(x - low, 0) + max(x - high, 0)) + Σ rise · clip((x - start) / width, 0, 1)

    No term is much larger than the sum, so float32 is exact enough. Arrays or tensors: the first four (C,),
    the others (K - 1, C), where K is that of the longest curve.
    """

    level_C: Any
    slope_C: Any
    low_C: Any
    high_C: Any
    start_KC: Any
    width_KC: Any
    rise_KC: Any

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Pieces:
        import numpy as np

        most = max((len(curve.knots) for curve in curves), default=1) - 1
        start_KC, width_KC, rise_KC = np.zeros((3, most, len(curves)))
        width_KC[:] = 1.0  # of the pieces that shorter curves lack, and that rise by 0
        for c, curve in enumerate(curves):
            own = slice(len(curve.knots) - 1)
            start_KC[own, c], width_KC[own, c] = curve.knots[:-1], np.diff(curve.knots)
            rise_KC[own, c] = np.diff(curve.levels)
        ends = [(curve.levels[0], curve.slope, curve.knots[0], curve.knots[-1]) for curve in curves]
        level_C, slope_C, low_C, high_C = np.array(ends).reshape(-1, 4).T
        return cls(level_C, slope_C, low_C, high_C, start_KC, width_KC, rise_KC)

    def like(self, x: Tensor) -> Pieces:
        """The same as tensors of the type of x, beside it."""
        return Pieces(*map(x.new_tensor, self))

    def at(self, x: Tensor) -> Tensor:
        """The values x (…, C) on the curves of their channels, all pieces at once. NaN stays NaN."""
        import torch

        share_KC = ((x.unsqueeze(-2) - self.start_KC) / self.width_KC).clamp(0, 1)
        y = self._line(x) + (self.rise_KC * share_KC).sum(-2)
        return torch.where(x.isnan(), x, y)  # in other runtimes, clamping removes NaN

    def at_many(self, x: Tensor) -> Tensor:
        """The same, one piece after another, in memory that is used again."""
        y, share = self._line(x), x.clone()
        for start_C, width_C, rise_C in zip(self.start_KC, self.width_KC, self.rise_KC, strict=True):
            y.add_(share.copy_(x).sub_(start_C).div_(width_C).clamp_(0, 1).mul_(rise_C))
        return y

    def _line(self, x: Tensor) -> Tensor:
        """The first level and, outside the knots, the line beyond."""
        import torch

        beyond = torch.clamp(x - self.low_C, max=0) + torch.clamp(x - self.high_C, min=0)
        line: Tensor = self.level_C + self.slope_C * beyond
        return line


def along(pieces: Pieces, x_BTC: Tensor) -> Tensor:
    """The values on the curves of their channels, some sequences at a time, which fit into the caches."""
    import torch

    some = max(AT_ONCE // max(x_BTC[:1].numel(), 1), 1)
    tensors = pieces.like(x_BTC)
    return torch.cat([tensors.at_many(part) for part in torch.split(x_BTC, some)])
