"""Turns values as read into model inputs: normalisation, missing values and patches, fitted on the training
split.

Shapes: B batch, T time steps, S steps in total, C channels as read, I features of the model, P steps in a
patch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rnnclf.data.recordings import Array, Ids, Recordings
from rnnclf.data.survey import Moments, chunks, moments, powers_of, steps_of
from rnnclf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 2**20  # steps; medians and quartiles are estimated from about this many
COPY_LIMIT = 2**30  # bytes that missing=drop may copy
LARGE = 2.0**100  # float32, which goes up to 2 ** 128 and down to 2 ** -126, is used for scales well within
BITS_LEFT = 8  # the differences of a channel are lost if fewer remain: float32 has 24, float64 53
COARSE = 2.0**12  # and for shifts of at most so many scales: of its 24 bits 12 are left


@dataclass(frozen=True)
class Preparation:
    """(x - shift) / scale for each channel, followed by the treatment of missing values and by patches.

    missing: mask gives 3 C features: the values, 0 if missing; 1 if present, else 0; and log(1 + time since
        the channel was last present, or since the start), in units of `interval`.
        interpolate fills gaps linearly between their neighbours, and with the nearest value at the ends.
    interval: the mean time between two steps of the training data; 1 if the data have no times.
    patch: P neighbouring steps become one, their features side by side: P times the features, and
        ceil(T / P) steps. A last patch that is not full repeats the last step.
    """

    channels: tuple[str, ...]
    missing: str
    shift_C: tuple[float, ...]
    scale_C: tuple[float, ...]
    interval: float = 1.0
    patch: int = 1

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.shift_C) == len(self.scale_C) >= 1:
            raise ConfigError("The preparation must have one shift and one scale per channel.")
        if not all(map(math.isfinite, self.shift_C)) or not all(
            map(_is_scale, (*self.scale_C, self.interval))
        ):
            raise ConfigError("The preparation must have finite shifts, and finite scales above 0.")
        if self.patch < 1:
            raise ConfigError("The preparation must have patches of at least one step.")

    @cached_property
    def fits_float32(self) -> bool:
        """Whether float32 is exact enough to shift and scale with."""
        return all(
            1 / LARGE <= scale <= LARGE and abs(shift) <= min(COARSE * scale, LARGE)
            for shift, scale in zip(self.shift_C, self.scale_C, strict=True)
        )

    @property
    def fills_gaps(self) -> bool:
        return self.missing in ("mask", "interpolate")

    @property
    def input_size(self) -> int:
        return self.values * (3 if self.missing == "mask" else 1)

    @property
    def values(self) -> int:
        """The number of features that are values; with missing=mask, the others follow them."""
        return len(self.channels) * self.patch

    def steps_of(self, lengths: Tensor) -> Tensor:
        """The numbers of steps of prepared sequences that were read with these lengths."""
        return lengths if self.patch == 1 else (lengths + self.patch - 1) // self.patch

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Preparation:
        """The inverse of `to_plain`. Raises ConfigError for anything else."""
        try:
            return cls(
                channels=tuple(map(str, plain["channels"])),
                missing=str(plain["missing"]),
                shift_C=tuple(map(float, plain["shift_C"])),
                scale_C=tuple(map(float, plain["scale_C"])),
                interval=float(plain["interval"]),
                patch=int(plain.get("patch", 1)),  # which earlier versions do not have
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"The preparation of the data is incomplete: {error}.") from error

    def __call__(self, x_BTC: Tensor, lengths_B: Tensor, times_BT: Tensor | None) -> Tensor:
        """The prepared batch (B, ceil(T / P), I), float32; values after the end of a sequence are
        arbitrary."""
        x_BTFC = self._filled(x_BTC, lengths_B, times_BT)
        return x_BTFC.flatten(2) if self.patch == 1 else _side_by_side(x_BTFC, lengths_B, self.patch)

    def _filled(self, x_BTC: Tensor, lengths_B: Tensor, times_BT: Tensor | None) -> Tensor:
        """The batch without patches, (B, T, F, C): F is 3 with missing=mask, otherwise 1."""
        import torch

        wide = x_BTC.dtype in (torch.float64, torch.int64, torch.int32)  # float32 would round these
        exact = torch.float32 if self.fits_float32 and not wide else torch.float64
        x_BTC = x_BTC.to(exact)
        if any(self.shift_C):
            x_BTC = x_BTC - _for_each(self.shift_C, x_BTC)
        x_BTC = (x_BTC / _for_each(self.scale_C, x_BTC)).float()
        if not self.fills_gaps:
            return x_BTC.unsqueeze(2)
        t_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
        seen_BTC = ~x_BTC.isnan() & (t_T < lengths_B.unsqueeze(-1)).unsqueeze(-1)
        times_BT = t_T.double().expand(x_BTC.shape[:2]) if times_BT is None else times_BT
        if self.missing == "interpolate":
            return _interpolated(x_BTC, seen_BTC, times_BT).unsqueeze(2)
        since_BTC = (_since_seen(seen_BTC, times_BT) / self.interval).log1p().float()
        return torch.stack((x_BTC.where(seen_BTC, 0), seen_BTC.float(), since_BTC), dim=2)


def _side_by_side(x_BTFC: Tensor, lengths_B: Tensor, patch: int) -> Tensor:
    """Each `patch` steps as one, (B, ceil(T / P), F P C); the last step of a sequence is repeated after its
    end."""
    import torch

    patches = -(-x_BTFC.shape[1] // patch)
    t_T = torch.arange(patches * patch, device=x_BTFC.device)
    t_BT = torch.minimum(t_T, lengths_B.to(x_BTFC.device).unsqueeze(-1) - 1)
    rows_B1 = torch.arange(len(x_BTFC), device=x_BTFC.device).unsqueeze(-1)
    x_BTFC = x_BTFC[rows_B1, t_BT]
    return x_BTFC.view(len(x_BTFC), patches, patch, *x_BTFC.shape[2:]).transpose(2, 3).flatten(2)


def _is_scale(number: float) -> bool:
    """Whether it is safe to divide by this number; a denormal one would be rounded to zero."""
    return sys.float_info.min <= number < math.inf


def _for_each(number_C: tuple[float, ...], x_BTC: Tensor) -> Tensor | float:
    """One number per channel, or a single one if all are equal: that takes a fifth of the time."""
    return number_C[0] if len(set(number_C)) == 1 else x_BTC.new_tensor(number_C)


def _last_seen(seen_BTC: Tensor) -> Tensor:
    """For each step, the last step so far with a value in the channel; -1 before the first."""
    import torch

    t_T1 = torch.arange(seen_BTC.shape[1], device=seen_BTC.device).unsqueeze(-1)
    return torch.where(seen_BTC, t_T1, -1).cummax(dim=1).values


def _at(parts_BT: Tensor, steps_BTC: Tensor) -> Tensor:
    """The times (B, T) at given steps (B, T, C)."""
    return parts_BT.unsqueeze(-1).expand_as(steps_BTC).gather(1, steps_BTC)


def _since_seen(seen_BTC: Tensor, times_BT: Tensor) -> Tensor:
    return times_BT.unsqueeze(-1) - _at(times_BT, _last_seen(seen_BTC).clamp(min=0))


def _interpolated(x_BTC: Tensor, seen_BTC: Tensor, times_BT: Tensor) -> Tensor:
    before_BTC = _last_seen(seen_BTC)
    after_BTC = x_BTC.shape[1] - 1 - _last_seen(seen_BTC.flip(1)).flip(1)  # T if none follows
    first_BTC = before_BTC.where(before_BTC >= 0, after_BTC).clamp(max=x_BTC.shape[1] - 1)
    second_BTC = after_BTC.where(after_BTC < x_BTC.shape[1], first_BTC)
    gap_BTC = _at(times_BT, second_BTC) - _at(times_BT, first_BTC)
    passed_BTC = times_BT.unsqueeze(-1) - _at(times_BT, first_BTC)
    share_BTC = (passed_BTC / gap_BTC.where(gap_BTC > 0, 1)).where(gap_BTC > 0, 0).float()
    values = x_BTC.gather(1, first_BTC).lerp(x_BTC.gather(1, second_BTC), share_BTC)
    return values.where(
        seen_BTC.any(dim=1, keepdim=True), 0
    )  # a channel with no values in a sequence becomes 0, the mean


def fitted(recordings: Recordings, train: Array, missing: str, normalise: str, patch: int = 1) -> Preparation:
    """The preparation for these recordings, fitted on the sequences at indices `train` only."""
    import numpy as np

    size = len(recordings.channels)
    shift_C, scale_C = np.zeros(size), np.full(size, recordings.unit)
    if normalise == "robust":
        shift_C, scale_C = _quartiles(recordings, train)
    elif normalise != "none":
        parts = moments(recordings)
        shift_C, scale_C = (spread if normalise == "standard" else _range)(parts, train)
    # a constant channel is not scaled, unless other values like it would not fit into float32
    constant_C = ~(np.isfinite(scale_C) & (scale_C >= sys.float_info.min))
    scale_C = np.where(constant_C, np.where(np.abs(shift_C) > LARGE, np.abs(shift_C), 1.0), scale_C)
    _refuse_out_of_range(recordings, normalise, shift_C, scale_C)
    return Preparation(
        channels=recordings.channels,
        missing=missing,
        shift_C=tuple(shift_C.tolist()),
        scale_C=tuple(scale_C.tolist()),
        interval=_interval(recordings, train),
        patch=patch,
    )


def _refuse_out_of_range(recordings: Recordings, normalise: str, shift_C: Array, scale_C: Array) -> None:
    """Raises DataError for a channel that is lost in float32 once it is prepared."""
    import numpy as np

    dtype = recordings.values_SC.dtype
    if dtype.kind != "f" and dtype.itemsize < 4:  # float32 holds these
        return
    limits = np.finfo(np.float32)
    low_C, high_C = moments(recordings).range_C(np.arange(len(recordings)))
    with np.errstate(over="ignore", invalid="ignore"):
        reach_C = np.maximum(np.abs(low_C - shift_C), np.abs(high_C - shift_C)) / scale_C
    lost_C = (low_C <= high_C) & ((reach_C > limits.max) | ((reach_C < limits.tiny) & (reach_C > 0)))
    if lost_C.any():
        c = int(lost_C.argmax())
        size = "small" if reach_C[c] < 1 else "large"
        way = "set dataset.normalise=standard" if normalise == "none" else "rescale or remove them"
        raise DataError(
            f"Channel '{recordings.channels[c]}' has values from {low_C[c]:.3g} to {high_C[c]:.3g}, which are"
            f" too {size} for 32 bits{'' if normalise == 'none' else ' next to the others'}: {way}."
        )
    _refuse_lost_digits(recordings, normalise, (low_C, high_C))


def _refuse_lost_digits(recordings: Recordings, normalise: str, bounds_C: tuple[Array, Array]) -> None:
    """Raises DataError for a channel whose values differ in digits that are rounded away."""
    import numpy as np

    (low_C, high_C), dtype = bounds_C, recordings.values_SC.dtype
    peak_C = np.maximum(np.abs(low_C), np.abs(high_C))
    with np.errstate(over="ignore", invalid="ignore"):
        range_C = high_C - low_C
        varies_C, share_C = range_C > 0, range_C / peak_C
    if dtype.kind in "iu":
        for c in np.flatnonzero(~varies_C & (peak_C > 2.0**53)):  # float64 may have made them equal
            varies_C[c] = _varies(recordings, int(c))
        lost_C = varies_C & (share_C < 2.0 ** (BITS_LEFT - 53))
        if lost_C.any():
            raise DataError(_loses_digits(recordings, int(lost_C.argmax()), bounds_C, 64))
    if normalise == "none" and dtype != np.float32:
        lost_C = varies_C & (share_C < 2.0 ** (BITS_LEFT - 24))
        if lost_C.any():
            raise DataError(_loses_digits(recordings, int(lost_C.argmax()), bounds_C, 32))


def _varies(recordings: Recordings, c: int) -> bool:
    """Whether the channel has two different values, compared in its own type."""
    values_S = recordings.values_SC[:, c]
    first = values_S[recordings.starts_N[0]]
    return any(
        (values_S[steps_of(recordings.starts_N[begin:end], recordings.lengths_N[begin:end])] != first).any()
        for begin, end in chunks(recordings.lengths_N)
    )


def _loses_digits(recordings: Recordings, c: int, bounds_C: tuple[Array, Array], bits: int) -> str:
    whole = recordings.values_SC.dtype.kind in "iu"
    low, high = (f"{bound[c]:.0f}" if whole else f"{bound[c]:.10g}" for bound in bounds_C)
    values = f"values from {low} to {high}" if low != high else f"values near {low}"
    way = "" if bits == 64 else "set dataset.normalise=standard, or "
    return (
        f"Channel '{recordings.channels[c]}' has {values}, whose differences are lost in {bits} bits:"
        f" {way}subtract a constant before you save them."
    )


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
    """Medians and interquartile ranges (C,); of every k-th sequence if there are too many steps."""
    import numpy as np

    every = max(int(recordings.lengths_N[train].sum()) // SAMPLE, 1)
    some = np.sort(train)[::every]
    steps = steps_of(recordings.starts_N[some], recordings.lengths_N[some])
    values = recordings.values_SC[steps].astype(np.float64)
    empty_C = np.isnan(values).all(axis=0)
    low_C, middle_C, high_C = np.nanpercentile(np.where(empty_C, 0.0, values), (25, 50, 75), axis=0)
    return middle_C, _difference(high_C, low_C)


def _interval(recordings: Recordings, train: Array) -> float:
    if recordings.times_S is None:
        return 1.0
    first = recordings.starts_N[train]
    last = first + recordings.lengths_N[train] - 1
    steps = int((last - first).sum())
    passed = float((recordings.times_S[last] - recordings.times_S[first]).sum())
    return passed / steps if steps and passed > 0 else 1.0


def treatment(recordings: Recordings, missing: str) -> str:
    """The treatment of missing values; auto becomes mask if there are any, otherwise error."""
    if missing != "auto":
        return missing
    return "mask" if _missing_C(recordings).any() else "error"


def _missing_C(recordings: Recordings) -> Array:
    """The number of missing values of each channel, int64."""
    import numpy as np

    if not np.issubdtype(recordings.values_SC.dtype, np.floating):  # integers have no NaN
        return np.zeros(len(recordings.channels), np.int64)
    return moments(recordings).missing_C(recordings.lengths_N)


def without_gaps(recordings: Recordings, missing: str) -> Recordings:
    """The recordings with `missing=drop` or `missing=error` applied; the others act on batches.

    drop removes the steps with a missing value. Raises DataError for a missing value with error, and for a
    sequence or a channel without any value.
    """
    missing_C = _missing_C(recordings)
    if not missing_C.any():
        return recordings
    found = moments(recordings)
    _refuse_empty(recordings, found)
    if missing == "error":
        listed = ", ".join(
            f"{name} {count:,}" for name, count in zip(recordings.channels, missing_C, strict=True) if count
        )
        raise DataError(
            f"{missing_C.sum():,} values are missing ({_short(listed)}), the first at"
            f" {_first_gap(recordings, found)}. Choose dataset.missing=mask, interpolate or drop."
        )
    return _complete(recordings) if missing == "drop" else recordings


def _refuse_empty(recordings: Recordings, found: Moments) -> None:
    empty_C = found.count_NC.sum(axis=0) == 0
    if empty_C.any():
        name = recordings.channels[int(empty_C.argmax())]
        raise DataError(f"Channel '{name}' has no values at all: leave it out.")
    empty_N = found.count_NC.sum(axis=1) == 0
    if empty_N.any():
        place = recordings.place(int(recordings.starts_N[int(empty_N.argmax())]))
        more = f" (and {empty_N.sum() - 1:,} more)" if empty_N.sum() > 1 else ""
        raise DataError(f"The sequence that begins at {place} has no values at all{more}: leave it out.")


def _first_gap(recordings: Recordings, found: Moments) -> str:
    import numpy as np

    gaps_N = (found.count_NC < recordings.lengths_N[:, None]).any(axis=1)
    n = int(gaps_N.argmax())
    start, length = int(recordings.starts_N[n]), int(recordings.lengths_N[n])
    step = int(np.isnan(recordings.values_SC[start : start + length]).any(axis=1).argmax())
    return recordings.place(start + step)


def _complete(recordings: Recordings) -> Recordings:
    """The recordings without steps that have missing values, and without sequences that would be empty."""
    import numpy as np

    values_SC = recordings.values_SC
    if values_SC.nbytes > COPY_LIMIT:
        raise ConfigError(
            f"dataset.missing=drop would copy {values_SC.nbytes / 2**30:.1f} GiB:"
            " use mask or interpolate, which work batch by batch."
        )
    valid_S = np.zeros(len(values_SC), bool)
    for first, last in chunks(recordings.lengths_N):
        steps = steps_of(recordings.starts_N[first:last], recordings.lengths_N[first:last])
        valid_S[steps] = ~np.isnan(values_SC[steps]).any(axis=1)
    before_S = np.concatenate(([0], np.cumsum(valid_S)))
    starts_N = before_S[recordings.starts_N]
    lengths_N = before_S[recordings.starts_N + recordings.lengths_N] - starts_N
    kept_N, kept_S = lengths_N > 0, np.flatnonzero(valid_S)
    lost = int((~kept_N).sum())
    notes = (
        (f"{lost:,} of {len(kept_N):,} sequences have no step without missing values and were left out.",)
        if lost
        else ()
    )
    return recordings.copied(
        values_SC[kept_S],
        starts_N=starts_N[kept_N],
        lengths_N=lengths_N[kept_N],
        labels_N=recordings.labels_N[kept_N],
        times_S=None if recordings.times_S is None else recordings.times_S[kept_S],
        groups_N=None if recordings.groups_N is None else recordings.groups_N[kept_N],
        given_N=None if recordings.given_N is None else recordings.given_N[kept_N],
        notes=(*recordings.notes, *notes),
        locate=lambda step: recordings.place(int(kept_S[step])),
        ids=_of_kept(recordings.ids, np.flatnonzero(kept_N)),
        origins=None if recordings.origins is None else _of_kept(recordings.origins, np.flatnonzero(kept_N)),
    )


def _of_kept(ids: Ids | None, kept_n: Array) -> Ids:
    """Maps the new numbers of the kept sequences to their ids."""
    return lambda numbers: kept_n[numbers] if ids is None else ids(kept_n[numbers])


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most].rsplit(',', 1)[0]} …"
