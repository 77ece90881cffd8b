"""A short causal convolution in front of a linear recurrence.  Shapes: K width, W channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def convolved(weight_KW: Tensor, bias_W: Tensor, x: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    """bias + Σ_k weight_k * x_{t-k}, channel by channel: (…, W).

    `past` holds x_{t-1}, x_{t-2}, …, as passed to a linear cell's `signals`.
    """
    y = bias_W
    for weight, earlier in zip(weight_KW, (x, *past), strict=True):
        y = y.addcmul(weight, earlier)
    return y
