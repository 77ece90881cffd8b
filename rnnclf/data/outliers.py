"""Values that probably mark missing ones: far from all others, and written again and again. Torch-free.

Shapes: N sequences, S steps, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.survey import Moments, chunks, steps_of

SENTINELS = (9.0, 99.0, 999.0, 9999.0, 99999.0, 1e6 - 1, 1e20, 1e30, 32767.0, 32768.0, 65535.0)
"""Values that some instruments and programs write, with either sign, for a missing value: one is enough."""
OFTEN = 3  # any other value must occur so many times
MOST = 0.5  # and at no more than this share of the steps
OUTLYING = 1.0  # further from all other values than their range times this
LEVELS = 10  # the others must be measured rather than coded: so many different values
PER_CHANNEL = 3  # such values of a channel


class Outlying(NamedTuple):
    """A value of a channel, how many steps have it, and the range of the values at all others."""

    channel: int
    value: float
    steps: int
    low: float
    high: float


def outlying(recordings: Recordings, found: Moments) -> list[Outlying]:
    """The outlying values of each channel, the ones furthest out first.

    Reads the values again, but only of channels whose ranges in each sequence allow that there are any.
    """
    return [
        far
        for c, name in enumerate(recordings.channels)
        if name not in recordings.categories
        for far in _of_channel(recordings, c, found.low_NC[:, c], found.high_NC[:, c])
    ]


def _of_channel(recordings: Recordings, c: int, low_N: Array, high_N: Array) -> list[Outlying]:
    known: list[Outlying] = []
    while len(known) < PER_CHANNEL:
        far = _next(recordings, c, low_N, high_N, [each.value for each in known])
        if far is None:
            break
        known.append(far)
    # the last range is that of the values without any of them
    return [far._replace(low=known[-1].low, high=known[-1].high) for far in known]


def _next(recordings: Recordings, c: int, low_N: Array, high_N: Array, known: list[float]) -> Outlying | None:
    """The lowest or the highest value of a channel, without the known ones, if it is outlying."""
    for edge_N, other_N, sign in ((low_N, high_N, 1.0), (-high_N, -low_N, -1.0)):
        edge_N, other_N = edge_N[~_among(edge_N * sign, known)], other_N[~_among(other_N * sign, known)]
        if not len(edge_N) or not len(other_N):
            continue
        edge, furthest = float(edge_N.min()), float(other_N.max())
        # the others lie in the half that is further away, as they do in each sequence without such a value
        if ((edge_N > edge) & (edge_N <= (edge + furthest) / 2)).any() or edge == furthest:
            continue
        if far := _measured(recordings, c, edge * sign, known):
            return far
    return None


def _measured(recordings: Recordings, c: int, value: float, known: list[float]) -> Outlying | None:
    """How often a channel has this value, if it is outlying."""
    import numpy as np

    count, of, low, high = 0, 0, np.inf, -np.inf
    levels: Array = np.empty(0)
    for first, last in chunks(recordings.lengths_N):
        steps = steps_of(recordings.starts_N[first:last], recordings.lengths_N[first:last])
        x_S = recordings.values_SC[steps, c].astype(np.float64)
        is_value_S = x_S == value
        others = x_S[~is_value_S & ~np.isnan(x_S) & ~_among(x_S, known)]
        count, of = count + int(is_value_S.sum()), of + len(x_S)
        low, high = min(low, others.min(initial=np.inf)), max(high, others.max(initial=-np.inf))
        if min(abs(value - low), abs(value - high)) <= OUTLYING * (high - low):
            return None
        if len(levels) < LEVELS:
            levels = np.union1d(levels, others[: 100 * LEVELS])
    is_sentinel = abs(value) in SENTINELS
    if is_sentinel:
        fits = min(abs(value - low), abs(value - high)) > OUTLYING * max(high - low, 1.0)
    else:
        fits = OFTEN <= count <= MOST * of and len(levels) >= LEVELS
    return Outlying(c, value, count, float(low), float(high)) if fits and high >= low else None


def _among(values: Array, known: list[float]) -> Array:
    import numpy as np

    return np.isin(values, known) if known else np.zeros(values.shape, bool)
