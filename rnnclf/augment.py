"""Augmentation: training batches changed at random, anew each time they are drawn, by the names used on
the command line.

All draws come from torch's random generator of the batch's device, so a seed repeats a run.
Shapes: B batch, T time steps, I features, C channels (colours of a picture, or measured values of a step),
H height, W width, K knots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnclf.errors import ConfigError
from rnnclf.options import Component, option
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.layout import PictureLayout

KNOTS = 6  # of the speed in a time warp: the ends and four between them, as Um et al. have it


@dataclass
class Augment(Component):
    """Base of every augmentation."""

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        raise NotImplementedError(f"{type(self).__name__} must define active.")

    def refuse_what_does_not_fit(self, layout: PictureLayout | None) -> None:
        """Raises ConfigError where this cannot be done with data of that layout; None: no pictures."""

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """A changed copy of the batch, float32, and its lengths.

        lengths_B: int64, None where all sequences are whole. What x holds behind a sequence's end has no
            influence on what comes back before it.
        values: C, where the features are C values, C times 1 or 0 for there or missing, and C times
            since when, log(1 + intervals); None: all features are values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__.")


@dataclass
class NoAugment(Augment):
    """Batches stay as they are."""

    name: str = "none"

    @property
    def active(self) -> bool:
        return False

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        return x_BTI, lengths_B


@dataclass
class ImageAugment(Augment):
    """Pictures moved, turned, scaled, sheared, bent and mirrored, each by its own draw.

    Every draw is even between minus and plus the strength. A picture is sheared and scaled first, then
    turned about its centre, then moved, and sampled once, bilinearly. What comes in from outside is 0: black,
    unless dataset.normalise gives 0 another meaning.
    """

    name: str = "image"
    shift: float = option(1.0, "greatest way to each side, in pixels and parts of them", low=0, high=1000)
    rotate: float = option(10.0, "greatest angle, in degrees", low=0, high=180)
    scale: float = option(0.1, "greatest change of size, as a share of it", low=0, below=1)
    shear: float = option(5.0, "greatest slant of upright lines, in degrees", low=0, high=60)
    elastic: float = option(
        0.0, "α of elastic distortion (Simard et al. 2003), 34 for MNIST there", low=0, high=10_000
    )
    elastic_sigma: float = option(4.0, "pixels over which its field is smoothed", low=0.1, high=1000)
    flip: float = option(0.0, "probability of a mirror image, left to right", low=0, high=1)

    @property
    def active(self) -> bool:
        return any((self.shift, self.rotate, self.scale, self.shear, self.elastic, self.flip))

    def refuse_what_does_not_fit(self, layout: PictureLayout | None) -> None:
        if layout is None:
            raise ConfigError(
                "augment=image changes pictures, and these data are none: choose augment=series or none."
            )

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        import torch

        assert layout is not None
        x_BCHW = layout.pictures(x_BTI[..., :values])
        grid_BHW2 = _grid(self._drawn_maps(x_BCHW), *x_BCHW.shape[2:])
        if self.elastic:
            grid_BHW2 = grid_BHW2 + self._drawn_field(x_BCHW)
        changed_BTI = layout.sequences(_sampled(x_BCHW, grid_BHW2))
        if values is not None:
            changed_BTI = torch.cat((changed_BTI, x_BTI[..., values:]), dim=-1)
        return changed_BTI, lengths_B

    def _drawn_maps(self, x_BCHW: Tensor) -> Tensor:
        import torch

        turn_B, slant_B, size_B, *shift_2B = x_BCHW.new_empty(5, len(x_BCHW)).uniform_(-1, 1)
        mirrored_B = x_BCHW.new_empty(len(x_BCHW)).uniform_() < self.flip
        return _backward_maps(
            angle_B=torch.deg2rad(self.rotate * turn_B),
            slant_B=torch.deg2rad(self.shear * slant_B),
            size_B=1 + self.scale * size_B,
            mirrored_B=mirrored_B,
            shift_B2=self.shift * torch.stack(shift_2B, dim=-1),
        )

    def _drawn_field(self, x_BCHW: Tensor) -> Tensor:
        """The displacements of elastic distortion (B, H, W, 2), in the units of a grid."""
        b, _, height, width = x_BCHW.shape
        noise_B2HW = x_BCHW.new_empty(b, 2, height, width).uniform_(-1, 1)
        pixels_BHW2 = self.elastic * _smoothed(noise_B2HW, self.elastic_sigma).movedim(1, -1)
        return pixels_BHW2 * pixels_BHW2.new_tensor((2 / width, 2 / height))


def _backward_maps(
    angle_B: Tensor, slant_B: Tensor, size_B: Tensor, mirrored_B: Tensor, shift_B2: Tensor
) -> Tensor:
    """Affine maps (B, 2, 3) from a pixel of the changed picture to where it is sampled in the old one.

    Both are (x to the right, y down) from the centre of the picture, in pixels. angle_B (radians) turns
    anticlockwise; slant_B (radians) leans what is below to the right; shift_B2 is (right, down).
    """
    import torch

    cos, sin, slope = angle_B.cos(), angle_B.sin(), slant_B.tan()
    mirror = 1 - 2 * mirrored_B.to(cos.dtype)
    rows = (mirror * (cos - slope * sin), -mirror * (sin + slope * cos), sin, cos)
    linear_B22 = (torch.stack(rows) / size_B).T.reshape(-1, 2, 2)
    return torch.cat((linear_B22, -linear_B22 @ shift_B2.unsqueeze(-1)), dim=-1)


def _grid(maps_B23: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel is sampled (B, H, W, 2), as shares from -1 to 1 of the picture."""
    from torch.nn import functional

    units_23 = maps_B23.new_tensor(((1, height / width, 2 / width), (width / height, 1, 2 / height)))
    return functional.affine_grid(maps_B23 * units_23, [len(maps_B23), 1, height, width], align_corners=False)


def _sampled(x_BCHW: Tensor, grid_BHW2: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.grid_sample(x_BCHW, grid_BHW2, "bilinear", "zeros", align_corners=False)


def _smoothed(x_BCHW: Tensor, sigma: float) -> Tensor:
    """Each pixel's mean over its surroundings, weighted by a Gaussian of `sigma` pixels."""
    import torch

    def weights(size: int) -> Tensor:
        place = torch.arange(size, dtype=x_BCHW.dtype, device=x_BCHW.device)
        return (-((place - place.unsqueeze(-1)) ** 2) / (2 * sigma**2)).softmax(dim=-1)

    height, width = x_BCHW.shape[2:]
    return weights(height) @ x_BCHW @ weights(width).T


@dataclass
class SeriesAugment(Augment):
    """Series cut, warped in time, scaled, made noisy, with channels and steps hidden, each by its own draw.

    The warp is Um et al. 2017, https://arxiv.org/abs/1706.00527, with a speed that is always positive;
    the hidden block is the time mask of Park et al. 2019, https://arxiv.org/abs/1904.08779.

    Where dataset.missing=mask adds features, scale, jitter and dropped channels change measured values
    alone, and what is missing stays 0. A warp interpolates between two values that are both there; else
    values, and always the added features, are those of the nearest step. A hidden step is a missing one:
    its time since a value was seen is counted in steps of the mean interval.
    """

    name: str = "series"
    jitter: float = option(0.05, "deviation of the noise on each value, in units of the data", low=0)
    scale: float = option(0.1, "deviation of the logarithm of each channel's factor", low=0, high=3)
    time_warp: float = option(0.2, "deviation of the logarithm of the speed along time", low=0, high=1)
    crop: float = option(1.0, "least share of the steps that is kept, a window; 1: all", above=0, high=1)
    time_mask: float = option(0.0, "greatest share of the steps set to 0, a block", low=0, below=1)
    channel_drop: float = option(
        0.0, "probability for each channel of values to be 0; one always stays", low=0, high=1
    )

    @property
    def active(self) -> bool:
        strengths = (self.jitter, self.scale, self.time_warp, self.time_mask, self.channel_drop)
        return any(strengths) or self.crop < 1

    def __call__(
        self,
        x_BTI: Tensor,
        lengths_B: Tensor | None,
        layout: PictureLayout | None = None,
        values: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        import torch

        b, steps, size = x_BTI.shape
        assert values is None or size == 3 * values
        ends_B = torch.full((b,), steps, device=x_BTI.device) if lengths_B is None else lengths_B
        if self.crop < 1 or self.time_warp:
            first_B, kept_B = self._drawn_windows(x_BTI, ends_B)
            x_BTI = _resampled(x_BTI, self._drawn_positions(x_BTI, first_B, kept_B), values)
            ends_B = kept_B
        x_BTI = self._revalued(x_BTI, values)
        if self.time_mask:
            x_BTI = _hidden(x_BTI, self._drawn_block(x_BTI, ends_B), values)
        return x_BTI, ends_B if self.crop < 1 else lengths_B

    def _drawn_windows(self, x_BTI: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """The first step (B,) and the number of steps (B,) that are kept of each sequence."""
        if self.crop == 1:
            return lengths_B.new_zeros(lengths_B.shape), lengths_B
        cut_2B = x_BTI.new_empty(2, len(x_BTI)).uniform_()
        least_B = (self.crop * lengths_B).ceil().long().clamp(min=1)
        lost_B = _whole(cut_2B[0], lengths_B - least_B)
        return _whole(cut_2B[1], lost_B), lengths_B - lost_B

    def _drawn_positions(self, x_BTI: Tensor, first_B: Tensor, kept_B: Tensor) -> Tensor:
        """Where in its sequence each step is taken from (B, T), T the most steps kept."""
        import torch

        first_B1, last_B1 = first_B.unsqueeze(-1), kept_B.unsqueeze(-1) - 1
        steps = int(kept_B.max()) if self.crop < 1 else x_BTI.shape[1]
        t_T = torch.arange(steps, device=x_BTI.device)
        if not self.time_warp:
            return (first_B1 + t_T.minimum(last_B1)).to(x_BTI.dtype)
        speeds_BK = (self.time_warp * x_BTI.new_empty(len(x_BTI), KNOTS).normal_()).exp()
        left_BT = ((last_B1 - t_T) / last_B1.clamp(min=1)).clamp(min=0)
        return first_B1 + last_B1 * _travelled(speeds_BK, 1 - left_BT)

    def _revalued(self, x_BTI: Tensor, values: int | None) -> Tensor:
        import torch

        x_BTC = x_BTI[..., :values]
        b, _, channels = x_BTC.shape
        if self.scale:
            x_BTC = x_BTC * (self.scale * x_BTC.new_empty(b, 1, channels).normal_()).exp()
        if self.jitter:
            noise_BTC = self.jitter * torch.randn_like(x_BTC)
            x_BTC = x_BTC + (noise_BTC if values is None else noise_BTC * x_BTI[..., values : 2 * values])
        if self.channel_drop:
            luck_B1C = x_BTC.new_empty(b, 1, channels).uniform_()
            x_BTC = x_BTC.where(_staying(luck_B1C, self.channel_drop), 0)
        return x_BTC if values is None else torch.cat((x_BTC, x_BTI[..., values:]), dim=-1)

    def _drawn_block(self, x_BTI: Tensor, lengths_B: Tensor) -> Tensor:
        """Which steps are hidden, bool (B, T)."""
        import torch

        draws_2B1 = x_BTI.new_empty(2, len(x_BTI), 1).uniform_()
        lengths_B1 = lengths_B.unsqueeze(-1)
        width_B1 = _whole(draws_2B1[0], (self.time_mask * lengths_B1).long())
        first_B1 = _whole(draws_2B1[1], lengths_B1 - width_B1)
        t_T = torch.arange(x_BTI.shape[1], device=x_BTI.device)
        return (first_B1 <= t_T) & (t_T < first_B1 + width_B1)


def _whole(share_B: Tensor, most_B: Tensor) -> Tensor:
    """Whole numbers from 0 to `most_B`, all equally probable where shares are drawn evenly from 0 to 1."""
    return (share_B * (most_B + 1)).long().minimum(most_B)


def _travelled(speeds_BK: Tensor, share_BT: Tensor) -> Tensor:
    """Which share of the way is behind one at each share of the time; the last of `share_BT` must be 1.

    Speeds hold at knots spread evenly over the time, and change linearly between them.
    """
    from torch.nn import functional

    last = speeds_BK.shape[1] - 1
    way_BK = functional.pad((speeds_BK[:, :-1] + speeds_BK[:, 1:]).cumsum(dim=1) / 2, (1, 0))
    time_BT = share_BT * last
    knot_BT = time_BT.long().clamp(max=last - 1)
    passed_BT = time_BT - knot_BT
    speed_BT = speeds_BK.gather(1, knot_BT)
    mean_BT = speed_BT + passed_BT * (speeds_BK.gather(1, knot_BT + 1) - speed_BT) / 2
    way_BT = way_BK.gather(1, knot_BT) + passed_BT * mean_BT
    return (way_BT / way_BT[:, -1:]).clamp(max=1)  # rounding may go a little too far


def _resampled(x_BTI: Tensor, positions_BT: Tensor, values: int | None = None) -> Tensor:
    """The sequences at `positions_BT`, between two steps linearly; see SeriesAugment for `values`."""
    import torch

    b, steps, size = x_BTI.shape
    x_SI = x_BTI.reshape(-1, size)
    first_B1 = steps * torch.arange(b, device=x_BTI.device).unsqueeze(-1)

    def at(steps_BT: Tensor) -> Tensor:
        return x_SI.index_select(0, (first_B1 + steps_BT.long()).flatten()).view(b, -1, size)

    before_BTI, after_BTI = at(positions_BT.floor()), at(positions_BT.ceil())
    between_BT1 = positions_BT.frac().unsqueeze(-1)
    linear_BTI = before_BTI.lerp(after_BTI, between_BT1)
    if values is None:
        return linear_BTI
    nearest_BTI = before_BTI.where(between_BT1 < 0.5, after_BTI)
    both_BTC = (before_BTI * after_BTI)[..., values : 2 * values] > 0
    values_BTC = linear_BTI[..., :values].where(both_BTC, nearest_BTI[..., :values])
    return torch.cat((values_BTC, nearest_BTI[..., values:]), dim=-1)


def _staying(luck_B1C: Tensor, drop: float) -> Tensor:
    """The channels whose luck, drawn evenly from [0, 1), is at least `drop`; where none is so, the best."""
    return luck_B1C >= luck_B1C.amax(dim=-1, keepdim=True).clamp(max=drop)


def _hidden(x_BTI: Tensor, hidden_BT: Tensor, values: int | None = None) -> Tensor:
    """The sequences with some steps set to 0; see SeriesAugment for `values`."""
    import torch

    hidden_BT1 = hidden_BT.unsqueeze(-1)
    if values is None:
        return x_BTI.masked_fill(hidden_BT1, 0)
    x_BTC, seen_BTC, since_BTC = x_BTI.chunk(3, dim=-1)
    left_BTC = seen_BTC.masked_fill(hidden_BT1, 0)
    t_T1 = torch.arange(x_BTI.shape[1], device=x_BTI.device).unsqueeze(-1)
    last_BTC, last_left_BTC = (t_T1.where(s > 0, -1).cummax(dim=1).values for s in (seen_BTC, left_BTC))
    steps_BTC = (t_T1 - last_left_BTC.clamp(min=0)).to(x_BTI.dtype)
    since_BTC = since_BTC.where(last_BTC == last_left_BTC, steps_BTC.log1p())
    return torch.cat((x_BTC.masked_fill(hidden_BT1, 0), left_BTC, since_BTC), dim=-1)


AUGMENTS: Registry[type[Augment]] = Registry(
    "augment", {"none": NoAugment, "image": ImageAugment, "series": SeriesAugment}
)
