"""Augmentation: random changes to training batches, by their names on the command line.

All random numbers come from torch's generator on the device of the batch, so a seed makes a run repeatable.
Shapes: B batch, T time steps, I features, C channels (colours of a picture, or measured values of a step),
H height, W width, K knots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnclf import warping
from rnnclf.errors import ConfigError
from rnnclf.options import Component, option
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.layout import PictureLayout

KNOTS = 6  # of the speed in a time warp: both ends and four between them, as in Um et al.


@dataclass
class Augment(Component):
    """Base of every augmentation."""

    @property
    def active(self) -> bool:
        """Whether it changes anything at all."""
        raise NotImplementedError(f"{type(self).__name__} must define active.")

    @property
    def keeps_lengths(self) -> bool:
        """Whether every sequence keeps its number of steps. Sequences of equal length are then trained as
        such, which takes less time; False is always right."""
        return False

    def check_layout(self, layout: PictureLayout | None) -> None:
        """Raises ConfigError if it does not support data of this layout; None means no pictures."""

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
        codes: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """An augmented copy of the batch, float32, and its lengths.

        lengths_B: int64, or None if all sequences have the same length. Padding in x does not affect the
            valid steps of the result.
        values: C, if the features are C values, C masks (1 for measured, 0 for missing), and C times since
            the last measurement, as log(1 + intervals); None if all features are values.
        codes: the number of features behind all these that are codes of names, 0 for a missing one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__.")


@dataclass
class NoAugment(Augment):
    """No augmentation."""

    name: str = "none"

    @property
    def active(self) -> bool:
        return False

    @property
    def keeps_lengths(self) -> bool:
        return True

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
        codes: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        return x_BTI, lengths_B


@dataclass
class RandomAugment(Augment):
    """Base of those that change each sequence with some probability. Subclasses define `changed`."""

    share: float = option(
        1.0, "probability that a sequence is changed at all; the others stay as they are", above=0, high=1
    )

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
        codes: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        changed = self.changed(x_BTI, lengths_B, layout, values, codes)
        if self.share == 1:
            return changed
        picked_B = x_BTI.new_empty(len(x_BTI)).uniform_() < self.share
        return _mixed(picked_B, changed, (x_BTI, lengths_B))

    def changed(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None,
        values: int | None,
        codes: int,
    ) -> tuple[Tensor, Tensor | None]:
        """The batch with all its sequences changed; see `Augment`."""
        raise NotImplementedError(f"{type(self).__name__} must define changed.")


@dataclass
class ImageAugment(RandomAugment):
    """Pictures shifted, rotated, scaled, sheared, distorted and flipped at random.

    Each picture gets its own amounts, drawn uniformly between minus and plus the options. It is sheared and
    scaled, then rotated about its centre, then shifted, and resampled once, bilinearly. Pixels from outside
    the picture are 0, which is black unless dataset.normalise changes that.
    """

    name: str = "image"
    shift: float = option(1.0, "largest shift in each direction, in (fractional) pixels", low=0, high=1000)
    rotate: float = option(10.0, "largest angle of rotation, in degrees", low=0, high=180)
    scale: float = option(0.1, "largest change of size, as a fraction of it", low=0, below=1)
    shear: float = option(5.0, "largest slant of vertical lines, in degrees", low=0, high=60)
    elastic: float = option(
        0.0, "α of the elastic distortion of Simard et al. 2003, who use 34 for MNIST", low=0, high=10_000
    )
    elastic_sigma: float = option(
        4.0, "σ of the elastic distortion: smoothing of its field, in pixels", low=0.1, high=1000
    )
    flip: float = option(0.0, "probability that a picture is flipped left to right", low=0, high=1)

    @property
    def active(self) -> bool:
        return any((self.shift, self.rotate, self.scale, self.shear, self.elastic, self.flip))

    @property
    def keeps_lengths(self) -> bool:
        return True

    def check_layout(self, layout: PictureLayout | None) -> None:
        if layout is None:
            raise ConfigError(
                "augment=image needs pictures, and these data are not pictures:"
                " choose augment=series or none."
            )

    def changed(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None,
        values: int | None,
        codes: int,
    ) -> tuple[Tensor, Tensor | None]:
        import torch

        assert layout is not None
        x_BCHW = layout.pictures(x_BTI[..., :values])
        grid_B2HW = warping.grid(self._draw_maps(x_BCHW), *x_BCHW.shape[2:])
        if self.elastic:
            grid_B2HW += self._draw_field(x_BCHW)
        changed_BTI = layout.sequences(warping.sampled(x_BCHW, grid_B2HW))
        if values is not None:
            changed_BTI = torch.cat((changed_BTI, x_BTI[..., values:]), dim=-1)
        return changed_BTI, lengths_B

    def _draw_maps(self, x_BCHW: Tensor) -> Tensor:
        draws_6B = x_BCHW.new_empty(6, len(x_BCHW)).uniform_(-1, 1)
        turn_B, slant_B, size_B = draws_6B[:3].unbind()
        return warping.backward_maps(
            angle_B=turn_B * math.radians(self.rotate),
            slant_B=slant_B * math.radians(self.shear),
            size_B=1 + size_B * self.scale,
            mirrored_B=draws_6B[3] < 2 * self.flip - 1,
            shift_2B=draws_6B[4:] * self.shift,
        )

    def _draw_field(self, x_BCHW: Tensor) -> Tensor:
        """The displacements of elastic distortion (B, 2, H, W), in the units of a grid."""
        b, _, height, width = x_BCHW.shape
        pixel_21 = warping.frame(height, width, x_BCHW.dtype, x_BCHW.device).pixel_21
        noise_HB2W = warping.noise((height, b, 2, width), self.elastic * pixel_21)
        return warping.smoothed(noise_HB2W, self.elastic_sigma).movedim(0, 2)


@dataclass
class SeriesAugment(RandomAugment):
    """Time series cropped, time-warped, scaled, jittered and masked at random, each by its own amounts.

    The time warp follows Um et al. 2017, https://arxiv.org/abs/1706.00527, with a speed that is always
    positive; the time mask follows Park et al. 2019, https://arxiv.org/abs/1904.08779.

    With the features that dataset.missing=mask adds, scale, jitter and channel_drop change only measured
    values, and missing ones stay 0. The time warp interpolates between two measured values; otherwise values,
    and the added features in any case, are taken from the nearest step. A masked step counts as missing: the
    time since the last measurement is then counted in steps of the mean interval.
    """

    name: str = "series"
    jitter: float = option(
        0.05, "standard deviation of the noise added to each value, in units of the data", low=0
    )
    scale: float = option(0.1, "standard deviation of the logarithm of each channel's factor", low=0, high=3)
    time_warp: float = option(
        0.2, "standard deviation of the logarithm of the speed along time", low=0, high=1
    )
    crop: float = option(
        1.0, "smallest share of the steps kept by a random window; 1 keeps all", above=0, high=1
    )
    time_mask: float = option(0.0, "largest share of the steps in a block that is set to 0", low=0, below=1)
    channel_drop: float = option(
        0.0, "probability of setting a channel to 0; at least one always stays", low=0, high=1
    )

    @property
    def active(self) -> bool:
        strengths = (self.jitter, self.scale, self.time_warp, self.time_mask, self.channel_drop)
        return any(strengths) or self.crop < 1

    @property
    def keeps_lengths(self) -> bool:
        return self.crop == 1

    def changed(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None,
        values: int | None,
        codes: int,
    ) -> tuple[Tensor, Tensor | None]:
        import torch

        x_BTI, codes_BTK = x_BTI.tensor_split((x_BTI.shape[2] - codes,), dim=-1)
        b, steps, size = x_BTI.shape
        assert values is None or size == 3 * values
        ends_B = torch.full((b,), steps, device=x_BTI.device) if lengths_B is None else lengths_B
        if self.crop < 1 or self.time_warp:
            first_B, kept_B = self._draw_windows(x_BTI, ends_B)
            positions_BT = self._draw_positions(x_BTI, first_B, kept_B)
            x_BTI = _resampled(x_BTI, positions_BT, values)
            codes_BTK = _nearest(codes_BTK, positions_BT)
            ends_B = kept_B
        if size:
            x_BTI = self._with_changed_values(x_BTI, values)
        if self.channel_drop and codes:
            dropped_B1K = codes_BTK.new_empty(b, 1, codes).uniform_() < self.channel_drop
            codes_BTK = codes_BTK.masked_fill(dropped_B1K & bool(size), 0)
        if self.time_mask:
            masked_BT = self._draw_block(x_BTI, ends_B)
            x_BTI = _masked(x_BTI, masked_BT, values) if size else x_BTI
            codes_BTK = codes_BTK.masked_fill(masked_BT.unsqueeze(-1), 0)
        x_BTI = torch.cat((x_BTI, codes_BTK), dim=-1) if codes else x_BTI
        return x_BTI, ends_B if self.crop < 1 else lengths_B

    def _draw_windows(self, x_BTI: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Draws a window of each sequence: its first step (B,) and number of steps (B,)."""
        if self.crop == 1:
            return lengths_B.new_zeros(lengths_B.shape), lengths_B
        cut_2B = x_BTI.new_empty(2, len(x_BTI)).uniform_()
        least_B = (self.crop * lengths_B).ceil().long().clamp(min=1)
        lost_B = _random_integers(cut_2B[0], lengths_B - least_B)
        return _random_integers(cut_2B[1], lost_B), lengths_B - lost_B

    def _draw_positions(self, x_BTI: Tensor, first_B: Tensor, kept_B: Tensor) -> Tensor:
        """The position in the original sequence of each step (B, T); T is the largest number of steps
        kept."""
        import torch

        first_B1, last_B1 = first_B.unsqueeze(-1), kept_B.unsqueeze(-1) - 1
        steps = int(kept_B.max()) if self.crop < 1 else x_BTI.shape[1]
        t_T = torch.arange(steps, device=x_BTI.device)
        if not self.time_warp:
            return (first_B1 + t_T.minimum(last_B1)).to(x_BTI.dtype)
        speeds_BK = (self.time_warp * x_BTI.new_empty(len(x_BTI), KNOTS).normal_()).exp()
        left_BT = ((last_B1 - t_T) / last_B1.clamp(min=1)).clamp(min=0)
        return first_B1 + last_B1 * _distances(speeds_BK, 1 - left_BT)

    def _with_changed_values(self, x_BTI: Tensor, values: int | None) -> Tensor:
        import torch

        x_BTC = x_BTI[..., :values]
        b, _, channels = x_BTC.shape
        if self.scale:
            x_BTC = x_BTC * (self.scale * x_BTC.new_empty(b, 1, channels).normal_()).exp()
        if self.jitter:
            noise_BTC = self.jitter * torch.randn_like(x_BTC)
            x_BTC = x_BTC + (noise_BTC if values is None else noise_BTC * x_BTI[..., values : 2 * values])
        if self.channel_drop:
            random_B1C = x_BTC.new_empty(b, 1, channels).uniform_()
            x_BTC = x_BTC.where(_kept_channels(random_B1C, self.channel_drop), 0)
        return x_BTC if values is None else torch.cat((x_BTC, x_BTI[..., values:]), dim=-1)

    def _draw_block(self, x_BTI: Tensor, lengths_B: Tensor) -> Tensor:
        """Draws the masked steps, bool (B, T)."""
        import torch

        draws_2B1 = x_BTI.new_empty(2, len(x_BTI), 1).uniform_()
        lengths_B1 = lengths_B.unsqueeze(-1)
        width_B1 = _random_integers(draws_2B1[0], (self.time_mask * lengths_B1).long())
        first_B1 = _random_integers(draws_2B1[1], lengths_B1 - width_B1)
        t_T = torch.arange(x_BTI.shape[1], device=x_BTI.device)
        return (first_B1 <= t_T) & (t_T < first_B1 + width_B1)


def _mixed(
    picked_B: Tensor, changed: tuple[Tensor, Tensor | None], usual: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, Tensor | None]:
    """The changed sequences and lengths where picked, else the usual ones, which may have more steps."""
    from torch.nn import functional

    (changed_BTI, changed_B), (x_BTI, lengths_B) = changed, usual
    steps = x_BTI.shape[1]
    changed_BTI = functional.pad(changed_BTI, (0, 0, 0, steps - changed_BTI.shape[1]))
    mixed_BTI = changed_BTI.where(picked_B.view(-1, 1, 1), x_BTI)
    if changed_B is lengths_B:
        return mixed_BTI, lengths_B
    assert changed_B is not None
    mixed_B = changed_B.where(picked_B, steps if lengths_B is None else lengths_B)
    return mixed_BTI[:, : int(mixed_B.max())], mixed_B


def _random_integers(share_B: Tensor, most_B: Tensor) -> Tensor:
    """Integers from 0 to `most_B`, equally probable if share_B is drawn uniformly from [0, 1)."""
    return (share_B * (most_B + 1)).long().minimum(most_B)


def _distances(speeds_BK: Tensor, share_BT: Tensor) -> Tensor:
    """The share of the distance covered at each share of the time; the last of `share_BT` must be 1.

    Speeds are given at knots spread evenly over the time, and change linearly between them.
    """
    from torch.nn import functional

    last = speeds_BK.shape[1] - 1
    distance_BK = functional.pad((speeds_BK[:, :-1] + speeds_BK[:, 1:]).cumsum(dim=1) / 2, (1, 0))
    time_BT = share_BT * last
    knot_BT = time_BT.long().clamp(max=last - 1)
    since_BT = time_BT - knot_BT
    speed_BT = speeds_BK.gather(1, knot_BT)
    mean_BT = speed_BT + since_BT * (speeds_BK.gather(1, knot_BT + 1) - speed_BT) / 2
    distance_BT = distance_BK.gather(1, knot_BT) + since_BT * mean_BT
    return (distance_BT / distance_BT[:, -1:]).clamp(max=1)  # rounding may exceed 1


def _resampled(x_BTI: Tensor, positions_BT: Tensor, values: int | None = None) -> Tensor:
    """The sequences at `positions_BT`, linearly interpolated; see SeriesAugment for `values`."""
    import torch

    at = _picker(x_BTI)
    before_BTI, after_BTI = at(positions_BT.floor()), at(positions_BT.ceil())
    between_BT1 = positions_BT.frac().unsqueeze(-1)
    linear_BTI = before_BTI.lerp(after_BTI, between_BT1)
    if values is None:
        return linear_BTI
    nearest_BTI = before_BTI.where(between_BT1 < 0.5, after_BTI)
    both_BTC = (before_BTI * after_BTI)[..., values : 2 * values] > 0
    values_BTC = linear_BTI[..., :values].where(both_BTC, nearest_BTI[..., :values])
    return torch.cat((values_BTC, nearest_BTI[..., values:]), dim=-1)


def _nearest(x_BTI: Tensor, positions_BT: Tensor) -> Tensor:
    """The features of the steps nearest to `positions_BT`."""
    at = _picker(x_BTI)
    before_BTI, after_BTI = at(positions_BT.floor()), at(positions_BT.ceil())
    return before_BTI.where(positions_BT.frac().unsqueeze(-1) < 0.5, after_BTI)


def _picker(x_BTI: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from whole positions (B, t) to the steps there (B, t, I)."""
    import torch

    b, steps, size = x_BTI.shape
    x_SI = x_BTI.reshape(b * steps, size)
    first_B1 = steps * torch.arange(b, device=x_BTI.device).unsqueeze(-1)

    def at(steps_BT: Tensor) -> Tensor:
        return x_SI.index_select(0, (first_B1 + steps_BT.long()).flatten()).view(*steps_BT.shape, size)

    return at


def _kept_channels(random_B1C: Tensor, drop: float) -> Tensor:
    """The channels with a random number of at least `drop`; if there are none, the one with the largest."""
    return random_B1C >= random_B1C.amax(dim=-1, keepdim=True).clamp(max=drop)


def _masked(x_BTI: Tensor, masked_BT: Tensor, values: int | None = None) -> Tensor:
    """The sequences with masked steps set to 0; see SeriesAugment for `values`."""
    import torch

    masked_BT1 = masked_BT.unsqueeze(-1)
    if values is None:
        return x_BTI.masked_fill(masked_BT1, 0)
    x_BTC, measured_BTC, since_BTC = x_BTI.chunk(3, dim=-1)
    left_BTC = measured_BTC.masked_fill(masked_BT1, 0)
    t_T1 = torch.arange(x_BTI.shape[1], device=x_BTI.device).unsqueeze(-1)
    last_BTC, last_left_BTC = (t_T1.where(s > 0, -1).cummax(dim=1).values for s in (measured_BTC, left_BTC))
    steps_BTC = (t_T1 - last_left_BTC.clamp(min=0)).to(x_BTI.dtype)
    since_BTC = since_BTC.where(last_BTC == last_left_BTC, steps_BTC.log1p())
    return torch.cat((x_BTC.masked_fill(masked_BT1, 0), left_BTC, since_BTC), dim=-1)


AUGMENTS: Registry[type[Augment]] = Registry(
    "augment", {"none": NoAugment, "image": ImageAugment, "series": SeriesAugment}
)
