"""Turns values as read into model inputs: normalisation, missing values, names and patches, fitted on the
training split.

Shapes: B batch, T time steps, S steps in total, C channels as read, N those of numbers, K those of names,
I features of the model, P steps in a patch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from rnnclf.data.categories import CodedFeatures, vocabulary
from rnnclf.data.patches import patches_of, side_by_side
from rnnclf.data.quantiles import Curve, Pieces, along
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.scaling import LARGE, curves, scales
from rnnclf.data.survey import chunks, moments, steps_of
from rnnclf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.patches import Steps

T = TypeVar("T")

BITS_LEFT = 8  # the differences of a channel are lost if fewer remain: float32 has 24, float64 53
COARSE = 2.0**12  # and for shifts of at most so many scales: of its 24 bits 12 are left


@dataclass(frozen=True)
class Preparation:
    """(x - shift) / scale for each channel, on its curve if there are curves, followed by the treatment of
    missing values and by patches.

    Channels of names become the last features: their codes, see rnnclf.data.categories.

    missing: mask gives 3 N features: the values, 0 if missing; 1 if present, else 0; and log(1 + time since
        the channel was last present, or since the start), in units of `interval`. Names need none: that
        they are missing has a code of its own.
        interpolate fills gaps linearly between their neighbours, and with the nearest value at the ends;
        those of names with the nearest one.
    interval: the mean time between two steps of the training data; 1 if the data have no times.
    patch: P neighbouring steps become one, their features side by side: P times the features, and
        ceil(T / P) steps. A last patch that is not full repeats the last step.
    vocabulary_C: the names that a channel had in the training split, None for a channel of numbers; () if
        all are of numbers.
    timed: whether the training data had times; None in checkpoints that do not say.
    curve_C: where each channel's shifted and scaled values go, see rnnclf.data.quantiles; () leaves them.
    """

    channels: tuple[str, ...]
    missing: str
    shift_C: tuple[float, ...]
    scale_C: tuple[float, ...]
    interval: float = 1.0
    patch: int = 1
    vocabulary_C: tuple[tuple[str, ...] | None, ...] = ()
    timed: bool | None = None
    curve_C: tuple[Curve, ...] = ()
    places: tuple[tuple[int, ...], ...] = field(default=(), repr=False, compare=False)
    """For each channel of names, the place in its vocabulary of each code of the data at hand; see `reading`.
    """

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.shift_C) == len(self.scale_C) >= 1:
            raise ConfigError("The preparation must have one shift and one scale per channel.")
        if not all(map(math.isfinite, self.shift_C)) or not all(
            map(_is_scale, (*self.scale_C, self.interval))
        ):
            raise ConfigError("The preparation must have finite shifts, and finite scales above 0.")
        if self.curve_C and len(self.curve_C) != len(self.channels):
            raise ConfigError("The preparation must have one curve or none per channel.")
        if self.patch < 1:
            raise ConfigError("The preparation must have patches of at least one step.")
        if self.vocabulary_C and len(self.vocabulary_C) != len(self.channels):
            raise ConfigError("The preparation must have one vocabulary or none per channel.")
        if any(len(set(names)) != len(names) or not names for names in self.vocabularies.values()):
            raise ConfigError("The preparation must have different names in each vocabulary.")

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

    @cached_property
    def vocabularies(self) -> dict[str, tuple[str, ...]]:
        """The vocabulary of each channel of names."""
        known = self.vocabulary_C or (None,) * len(self.channels)
        return {name: own for name, own in zip(self.channels, known, strict=True) if own is not None}

    @cached_property
    def coded(self) -> CodedFeatures | None:
        """The features that are codes; None if there are none."""
        sizes = tuple(map(len, self.vocabularies.values()))
        return CodedFeatures(sizes, self.patch) if sizes else None

    @cached_property
    def _numbers(self) -> list[int]:
        """The places of the channels of numbers."""
        return [c for c, name in enumerate(self.channels) if name not in self.vocabularies]

    def of_numbers(self, each_C: tuple[T, ...]) -> tuple[T, ...]:
        """What belongs to the channels of numbers."""
        return tuple(each_C[c] for c in self._numbers) if self.vocabularies else each_C

    @cached_property
    def _pieces(self) -> Pieces:
        """The curves of the channels of numbers."""
        return Pieces.of(self.of_numbers(self.curve_C))

    @property
    def input_size(self) -> int:
        return self.values * (3 if self.missing == "mask" else 1) + (self.coded.number if self.coded else 0)

    @property
    def values(self) -> int:
        """The number of features that are values; with missing=mask, masks and times follow them."""
        return len(self._numbers) * self.patch

    def reading(self, recordings: Recordings) -> Preparation:
        """The preparation for data that number their names as these recordings do."""
        if not self.vocabularies:
            return self
        found = []
        for channel, known in self.vocabularies.items():
            place_of = {name: place for place, name in enumerate(known, start=1)}
            found.append(tuple(place_of.get(n, len(known) + 1) for n in recordings.categories[channel]))
        return replace(self, places=tuple(found))

    def steps_of(self, lengths: Steps) -> Steps:
        """The numbers of steps of prepared sequences that were read with these lengths."""
        return lengths if self.patch == 1 else patches_of(lengths, self.patch)

    def to_plain(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "places"}

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
                patch=int(plain.get("patch", 1)),  # which earlier versions do not have, nor what follows
                vocabulary_C=tuple(
                    None if names is None else tuple(map(str, names))
                    for names in plain.get("vocabulary_C", ())
                ),
                timed=None if plain.get("timed") is None else bool(plain["timed"]),
                curve_C=tuple(map(Curve.from_plain, plain.get("curve_C", ()))),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"The preparation of the data is incomplete: {error}.") from error

    def __call__(self, x_BTC: Tensor, lengths_B: Tensor, times_BT: Tensor | None) -> Tensor:
        """The prepared batch (B, ceil(T / P), I), float32; values after the end of a sequence are
        arbitrary."""
        if not self.vocabularies:
            return self._patched(self._filled(x_BTC, lengths_B, times_BT), lengths_B)
        import torch

        numbers, names = self._numbers, [self.channels.index(name) for name in self.vocabularies]
        values_BTFN = self._filled(x_BTC[..., numbers], lengths_B, times_BT)
        codes_BTFK = self._coded(x_BTC[..., names], lengths_B, times_BT).unsqueeze(2)
        return torch.cat([self._patched(part, lengths_B) for part in (values_BTFN, codes_BTFK)], dim=-1)

    def _patched(self, x_BTFC: Tensor, lengths_B: Tensor) -> Tensor:
        return x_BTFC.flatten(2) if self.patch == 1 else side_by_side(x_BTFC, lengths_B, self.patch)

    def _coded(self, x_BTK: Tensor, lengths_B: Tensor, times_BT: Tensor | None) -> Tensor:
        """Codes of names as places in the vocabulary (B, T, K), float32."""
        import torch

        assert self.places, "the preparation must be made for the recordings by reading()"
        parts = []
        for k, places in enumerate(self.places):
            place_of = torch.tensor((0, *places), device=x_BTK.device)
            code_BT = (x_BTK[..., k].nan_to_num(-1.0) + 1).long()
            parts.append(place_of[code_BT.clamp(0, len(places))])  # what is behind an end may be any number
        place_BTK = torch.stack(parts, dim=-1).float()
        if self.missing != "interpolate":
            return place_BTK
        seen_BTK = _seen(place_BTK > 0, lengths_B)
        return _interpolated(place_BTK, seen_BTK, _clock(times_BT, place_BTK), nearest=True)

    def _filled(self, x_BTC: Tensor, lengths_B: Tensor, times_BT: Tensor | None) -> Tensor:
        """The batch without patches, (B, T, F, C): F is 3 with missing=mask, otherwise 1."""
        import torch

        shift_C, scale_C = (self.of_numbers(each) for each in (self.shift_C, self.scale_C))
        wide = x_BTC.dtype in (torch.float64, torch.int64, torch.int32)  # float32 would round these
        exact = torch.float32 if self.fits_float32 and not wide else torch.float64
        x_BTC = x_BTC.to(exact)
        if any(shift_C):
            x_BTC = x_BTC - _for_each(shift_C, x_BTC)
        x_BTC = (x_BTC / _for_each(scale_C, x_BTC)).float()
        if self.curve_C:
            x_BTC = along(self._pieces, x_BTC)
        if not self.fills_gaps:
            return x_BTC.unsqueeze(2)
        seen_BTC, times_BT = _seen(~x_BTC.isnan(), lengths_B), _clock(times_BT, x_BTC)
        if self.missing == "interpolate":
            return _interpolated(x_BTC, seen_BTC, times_BT).unsqueeze(2)
        since_BTC = (_since_seen(seen_BTC, times_BT) / self.interval).log1p().float()
        return torch.stack((x_BTC.where(seen_BTC, 0), seen_BTC.float(), since_BTC), dim=2)


def _seen(present_BTC: Tensor, lengths_B: Tensor) -> Tensor:
    """Which values are present, and not behind the end of a sequence."""
    import torch

    t_T = torch.arange(present_BTC.shape[1], device=present_BTC.device)
    return present_BTC & (t_T < lengths_B.unsqueeze(-1)).unsqueeze(-1)


def _clock(times_BT: Tensor | None, x_BTC: Tensor) -> Tensor:
    """The times, or the numbers of the steps if there are none."""
    import torch

    t_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
    return t_T.double().expand(x_BTC.shape[:2]) if times_BT is None else times_BT


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


def _interpolated(x_BTC: Tensor, seen_BTC: Tensor, times_BT: Tensor, nearest: bool = False) -> Tensor:
    before_BTC = _last_seen(seen_BTC)
    after_BTC = x_BTC.shape[1] - 1 - _last_seen(seen_BTC.flip(1)).flip(1)  # T if none follows
    first_BTC = before_BTC.where(before_BTC >= 0, after_BTC).clamp(max=x_BTC.shape[1] - 1)
    second_BTC = after_BTC.where(after_BTC < x_BTC.shape[1], first_BTC)
    gap_BTC = _at(times_BT, second_BTC) - _at(times_BT, first_BTC)
    passed_BTC = times_BT.unsqueeze(-1) - _at(times_BT, first_BTC)
    share_BTC = (passed_BTC / gap_BTC.where(gap_BTC > 0, 1)).where(gap_BTC > 0, 0).float()
    if nearest:
        share_BTC = share_BTC.round()  # a tie is even, and goes to the earlier one
    values = x_BTC.gather(1, first_BTC).lerp(x_BTC.gather(1, second_BTC), share_BTC)
    return values.where(
        seen_BTC.any(dim=1, keepdim=True), 0
    )  # a channel with no values in a sequence becomes 0, the mean


def fitted(recordings: Recordings, train: Array, missing: str, normalise: str, patch: int = 1) -> Preparation:
    """The preparation for these recordings, fitted on the sequences at indices `train` only."""
    shift_C, scale_C = scales(recordings, train, normalise)
    _refuse_out_of_range(recordings, normalise, shift_C, scale_C)
    return Preparation(
        channels=recordings.channels,
        missing=missing,
        shift_C=tuple(shift_C.tolist()),
        scale_C=tuple(scale_C.tolist()),
        interval=mean_interval(recordings, train),
        patch=patch,
        vocabulary_C=tuple(
            vocabulary(recordings, train, name) if name in recordings.categories else None
            for name in recordings.channels
        )
        if recordings.categories
        else (),
        timed=recordings.times_S is not None,
        curve_C=curves(recordings, train, shift_C, scale_C) if normalise == "quantiles" else (),
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


def mean_interval(recordings: Recordings, train: Array) -> float:
    """The mean time between two steps of the sequences at `train`; 1 if there are no times."""
    if recordings.times_S is None:
        return 1.0
    first = recordings.starts_N[train]
    last = first + recordings.lengths_N[train] - 1
    steps = int((last - first).sum())
    passed = float((recordings.times_S[last] - recordings.times_S[first]).sum())
    return passed / steps if steps and passed > 0 else 1.0
