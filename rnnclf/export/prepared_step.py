"""The preparation of one time step, as a pure function of tensors.

Shapes: B batch, C channels as read, N those of numbers, M those of names, F features of a number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnclf.data.preparation import Preparation
from rnnclf.data.quantiles import Pieces

COARSE = 16.0
"""Shifts of more than so many scales are subtracted in float64: float32 has 24 bits, and here 4 would go."""


def needs_float64(preparation: Preparation) -> bool:
    """Whether values as read have to be given in float64, because shifting them in float32 would lose
    digits."""
    pairs = zip(preparation.shift_C, preparation.scale_C, strict=True)  # 0 and 1 for channels of names
    return not preparation.fits_float32 or any(abs(shift) > COARSE * scale for shift, scale in pairs)


class PreparedStep(nn.Module):
    """One step as read → the features of a step: x (B, C), time since the step before (B), step number (B,
    1), time since each channel of numbers was seen (B, N) → features (B, F N + M), that time after the step.

    With missing=mask F is 3; otherwise it is 1, and the time is not used. Of the M channels of names, which
    are the last features, x holds the places in their vocabularies, NaN where one is missing.
    """

    def __init__(self, preparation: Preparation, dtype: torch.dtype) -> None:
        super().__init__()
        self.masks, self.interval, self.dtype = preparation.missing == "mask", preparation.interval, dtype
        exact = torch.float64 if needs_float64(preparation) else dtype
        named = [name in preparation.vocabularies for name in preparation.channels]
        self.names_M = [c for c, is_name in enumerate(named) if is_name]
        self.numbers_N = [c for c, is_name in enumerate(named) if not is_name]
        self.shifts = any(preparation.shift_C)
        self.scales = any(scale != 1 for scale in preparation.scale_C)
        self.shift_C: Tensor
        self.scale_C: Tensor
        for key, values in (("shift_C", preparation.shift_C), ("scale_C", preparation.scale_C)):
            self.register_buffer(key, torch.tensor(preparation.of_numbers(values), dtype=exact))
        self.curved = bool(preparation.curve_C)
        if self.curved:
            pieces = Pieces.of(preparation.of_numbers(preparation.curve_C))
            for key, values in pieces._asdict().items():
                self.register_buffer(key, torch.tensor(values, dtype=dtype))

    def forward(
        self, x: Tensor, elapsed: Tensor, count: Tensor, since: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.names_M:
            return self._of_numbers(x, elapsed, count, since)
        places = x[..., self.names_M].nan_to_num(0.0).to(self.dtype)
        features, since = self._of_numbers(x[..., self.numbers_N], elapsed, count, since)
        return torch.cat((features, places), -1), since

    def _of_numbers(
        self, x: Tensor, elapsed: Tensor, count: Tensor, since: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        x = x - self.shift_C if self.shifts else x
        x = (x / self.scale_C if self.scales else x).to(self.dtype)
        x = Pieces(*(getattr(self, key) for key in Pieces._fields)).at(x) if self.curved else x
        if since is None:
            return x, None
        there = ~x.isnan()
        since = torch.where(there | (count == 0), 0.0, since + elapsed.unsqueeze(-1))
        return torch.cat(
            (torch.where(there, x, 0.0), there.to(x.dtype), (since / self.interval).log1p()), -1
        ), since
