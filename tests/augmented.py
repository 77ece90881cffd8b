"""What the tests of augmentation share."""

from __future__ import annotations

import torch

from rnnclf.augment import ImageAugment, SeriesAugment

STILL = {"shift": 0.0, "rotate": 0.0, "scale": 0.0, "shear": 0.0}
QUIET = {"jitter": 0.0, "scale": 0.0, "time_warp": 0.0}
STRONG = {
    "image": ImageAugment(shift=3, rotate=60, scale=0.4, shear=20, elastic=30, flip=0.5),
    "series": SeriesAugment(jitter=1, scale=0.5, time_warp=0.7, crop=0.4, time_mask=0.5, channel_drop=0.4),
}


class Rows:
    """Pictures of 6 rows and 9 columns, a row a step, with two colours."""

    height, width, colours = 6, 9, 2
    steps, size = height, width * colours

    def pictures(self, x_BTI):
        return x_BTI.reshape(-1, self.height, self.width, self.colours).permute(0, 3, 1, 2)

    def sequences(self, x_BCHW):
        return x_BCHW.permute(0, 2, 3, 1).reshape(-1, self.steps, self.size)


def pictures(b=5, height=6, width=9, colours=2):
    return torch.rand(b, colours, height, width, generator=torch.Generator().manual_seed(1)) + 0.1


def series(b=7, steps=12, size=3, seed=2):
    return torch.randn(b, steps, size, generator=torch.Generator().manual_seed(seed)) + 3


def with_gaps(b=7, steps=12, channels=3):
    """Values, masks and times since seen, of even steps; a third of the values are missing."""
    random = torch.Generator().manual_seed(3)
    seen_BTC = torch.rand(b, steps, channels, generator=random) > 0.33
    x_BTC = series(b, steps, channels).where(seen_BTC, 0)
    since_BTC = torch.zeros(b, steps, channels)
    for t in range(steps):
        earlier = since_BTC[:, t - 1] if t else -torch.ones(b, channels)
        since_BTC[:, t] = (earlier + 1).where(~seen_BTC[:, t], 0)
    return torch.cat((x_BTC, seen_BTC.float(), since_BTC.log1p()), dim=-1)


def changed(augmentation, x, lengths=None, layout=None, values=None, seed=0):
    torch.manual_seed(seed)
    return augmentation(x, lengths, layout, values=values)


# Series: missing values


def parts_of(x_BTI):
    return x_BTI.chunk(3, dim=-1)
