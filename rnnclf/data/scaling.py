"""How each channel is rescaled, by the values of the training split.

Shapes: N sequences, S steps of some of them, C channels.
"""

from __future__ import annotations

import sys

from rnnclf.data.quantiles import IDENTITY, Curve
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.survey import Moments, moments, powers_of, steps_of

SAMPLE = 2**20  # steps; medians and quantiles are estimated from about this many
LARGE = 2.0**100  # float32, which goes up to 2 ** 128 and down to 2 ** -126, is used for scales well within


def scales(recordings: Recordings, train: Array, normalise: str) -> tuple[Array, Array]:
    """The shift and the scale (C,) of each channel; 0 and 1 for channels of names."""
    import numpy as np

    size = len(recordings.channels)
    shift_C, scale_C = np.zeros(size), np.full(size, recordings.unit)
    if normalise in ("robust", "quantiles"):
        shift_C, scale_C = _quartiles(recordings, train)
    elif normalise != "none":
        parts = moments(recordings)
        shift_C, scale_C = (spread if normalise == "standard" else _range)(parts, train)
    # a constant channel is not scaled, unless other values like it would not fit into float32
    is_name_C = np.array([name in recordings.categories for name in recordings.channels])
    shift_C, scale_C = np.where(is_name_C, 0.0, shift_C), np.where(is_name_C, 1.0, scale_C)
    constant_C = ~(np.isfinite(scale_C) & (scale_C >= sys.float_info.min))
    return shift_C, np.where(constant_C, np.where(np.abs(shift_C) > LARGE, np.abs(shift_C), 1.0), scale_C)


def spread(parts: Moments, train: Array) -> tuple[Array, Array]:
    """Mean and deviation (C,) over some sequences, pooled from the moments of each (Chan et al. 1983)."""
    import numpy as np

    count_NC, power_NC = parts.count_NC[train], parts.power_NC[train]
    total_C = np.maximum(count_NC.sum(axis=0), 1)
    power_C = powers_of(parts.peak_C(train))
    mean_NC = np.ldexp(parts.mean_NC[train], -power_C)
    squares_NC = np.ldexp(parts.squares_NC[train], 2 * (power_NC - power_C))
    mean_C = (count_NC * mean_NC).sum(axis=0) / total_C
    squares_C = squares_NC.sum(axis=0) + (count_NC * (mean_NC - mean_C) ** 2).sum(axis=0)
    return np.ldexp(mean_C, power_C), np.ldexp(np.sqrt(squares_C / total_C), power_C)


def _range(parts: Moments, train: Array) -> tuple[Array, Array]:
    import numpy as np

    low_C, high_C = parts.range_C(train)
    return np.where(np.isfinite(low_C), low_C, 0.0), _difference(high_C, low_C)


def _difference(high_C: Array, low_C: Array) -> Array:
    """high_C - low_C, at most the largest float64."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.minimum(high_C - low_C, np.finfo(np.float64).max)
    return found


def _quartiles(recordings: Recordings, train: Array) -> tuple[Array, Array]:
    """Medians and interquartile ranges (C,)."""
    import numpy as np

    values = _sample(recordings, train)
    empty_C = np.isnan(values).all(axis=0)
    low_C, middle_C, high_C = np.nanpercentile(np.where(empty_C, 0.0, values), (25, 50, 75), axis=0)
    return middle_C, _difference(high_C, low_C)


def curves(recordings: Recordings, train: Array, shift_C: Array, scale_C: Array) -> tuple[Curve, ...]:
    """The curves of the channels, those of names left as they are."""
    values_SC = (_sample(recordings, train) - shift_C) / scale_C
    return tuple(
        IDENTITY if name in recordings.categories else Curve.through(values_S)
        for name, values_S in zip(recordings.channels, values_SC.T, strict=True)
    )


def _sample(recordings: Recordings, train: Array) -> Array:
    """The values of the training sequences (S, C), float64; of every k-th one if there are too many steps."""
    import numpy as np

    every = max(int(recordings.lengths_N[train].sum()) // SAMPLE, 1)
    some = np.sort(train)[::every]
    steps = steps_of(recordings.starts_N[some], recordings.lengths_N[some])
    values_SC: Array = recordings.values_SC[steps].astype(np.float64)
    return values_SC
