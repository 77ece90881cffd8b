"""Operations of torch, written in simpler ones.

Torch has a table of decompositions too, and an operation that is not listed here is looked up there. But the
table's first use imports sympy, which takes 0.4 s, so what the cells of this package use is listed here.
Each function takes the arguments of the operation in `torch.ops.aten`, and may leave a variant of it to
torch's table by returning NotImplemented.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _scaled(a: Any, factor: float) -> Any:
    return a if factor == 1 else a * factor


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return x.sum(dim, keepdim=keepdim) * (1 / math.prod(x.shape[d] for d in dim or range(x.ndim)))


def _var_mean(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    mean, numbers = x.mean(dim, keepdim=True), math.prod(x.shape[d] for d in dim or range(x.ndim))
    squares = (x - mean).square().sum(dim, keepdim=keepdim)
    return squares / (numbers - (1 if correction is None else correction)), x.mean(dim, keepdim=keepdim)


def _layer_norm(x: Tensor, shape: Any, gain: Any, bias: Any, eps: float) -> Any:
    dims = list(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(dims, keepdim=True)
    rstd = ((x - mean).square().mean(dims, keepdim=True) + eps).rsqrt()
    y = (x - mean) * rstd
    y = y if gain is None else y * gain
    return y if bias is None else y + bias, mean, rstd


def _layer_norm_backward(
    dy: Tensor, x: Tensor, shape: Any, mean: Tensor, rstd: Tensor, gain: Any, bias: Any, wanted: list[bool]
) -> Any:
    """The gradients of the three inputs, those that are wanted. With n = (x − mean) · rstd and g = dy · gain:

    dx = rstd · (g − mean(g) − n · mean(g · n))
    """
    outer = list(range(x.ndim - len(shape)))
    inner = list(range(x.ndim - len(shape), x.ndim))
    normalised = (x - mean) * rstd
    dx = d_gain = d_bias = None
    if wanted[0]:
        g = dy if gain is None else dy * gain
        centred = g - g.mean(inner, keepdim=True)
        dx = rstd * (centred - normalised * (g * normalised).mean(inner, keepdim=True))
    if wanted[1] and gain is not None:
        d_gain = (dy * normalised).sum(outer)
    if wanted[2] and bias is not None:
        d_bias = dy.sum(outer)
    return dx, d_gain, d_bias


def _clamp(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """Both limits are numbers or tensors."""
    for limit, within in ((low, torch.maximum), (high, torch.minimum)):
        if limit is not None:
            x = within(x, limit if isinstance(limit, Tensor) else torch.full_like(x, limit))
    return x


def _pad(x: Tensor, pad: list[int], value: float = 0.0) -> Tensor:
    """pad: numbers before and after, from the last dimension on; negative ones cut off."""
    for n, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = x.ndim - 1 - n
        x = x.narrow(dim, max(-before, 0), x.shape[dim] + min(before, 0) + min(after, 0))
        for size, first in ((before, True), (after, False)):
            if size > 0:
                more = x.new_full((*x.shape[:dim], size, *x.shape[dim + 1 :]), value)
                x = torch.cat((more, x) if first else (x, more), dim)
    return x


def _silu_backward(g: Tensor, x: Tensor) -> Tensor:
    y = x.sigmoid()
    return g * (y + x * (y - y * y))


def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    return NotImplemented if approximate != "none" else x * _normal_cdf(x)


def _gelu_backward(g: Tensor, x: Tensor, *, approximate: str = "none") -> Any:
    if approximate != "none":
        return NotImplemented
    density = (x * x * -0.5).exp() / math.sqrt(2 * math.pi)
    return g * (_normal_cdf(x) + x * density)


def _normal_cdf(x: Tensor) -> Tensor:
    return (x * math.sqrt(0.5)).erf() * 0.5 + 0.5


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _glu_backward(g: Tensor, x: Tensor, dim: int) -> Tensor:
    value, gate = x.chunk(2, dim)
    y = gate.sigmoid()
    return torch.cat((g * y, g * value * (y - y * y)), dim)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    scaled = _scaled(x, beta)
    return torch.where(scaled > threshold, x, _scaled(scaled.exp().log1p(), 1 / beta))


def _softplus_backward(g: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    scaled = _scaled(x, beta)
    return torch.where(scaled > threshold, g, g * scaled.sigmoid())


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    # products
    "addmm": lambda c, a, b, beta=1, alpha=1: _scaled(c, beta) + _scaled(a.mm(b), alpha),
    "addmv": lambda c, a, b, beta=1, alpha=1: _scaled(c, beta) + _scaled((a * b).sum(1), alpha),
    "baddbmm": lambda c, a, b, beta=1, alpha=1: _scaled(c, beta) + _scaled(a.bmm(b), alpha),
    "mv": lambda a, b: (a * b).sum(1),
    # arithmetic
    "addcmul": lambda a, b, c, value=1: a + _scaled(b * c, value),
    "addcdiv": lambda a, b, c, value=1: a + _scaled(b / c, value),
    "rsub": lambda a, b, alpha=1: _scaled(a, alpha).neg() + b,
    "square": lambda x: x.pow(2),
    "ceil": lambda x: x.neg().floor().neg(),
    "trunc": lambda x: x.sign() * x.abs().floor(),
    "clamp": _clamp,
    "clamp_min": lambda x, low: _clamp(x, low),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "masked_fill": lambda a, chosen, value: torch.where(chosen, value, a),
    "constant_pad_nd": _pad,
    "stack": lambda tensors, dim=0: torch.cat([t.unsqueeze(dim) for t in tensors], dim),
    # activations
    "tanh_backward": lambda g, y: g - g * y * y,
    "sigmoid_backward": lambda g, y: g * (y - y * y),
    "threshold_backward": lambda g, x, threshold: torch.where(x <= threshold, 0.0, g),
    "silu": lambda x: x * x.sigmoid(),
    "silu_backward": _silu_backward,
    "gelu": _gelu,
    "gelu_backward": _gelu_backward,
    "glu": _glu,
    "glu_backward": _glu_backward,
    "softplus": _softplus,
    "softplus_backward": _softplus_backward,
    "log_sigmoid_forward": lambda x: (
        x.minimum(x.new_zeros(())) - x.abs().neg().exp().log1p(),
        x.new_zeros(0),
    ),
    "log_sigmoid_backward": lambda g, x, _: g * x.neg().sigmoid(),
    # reductions
    "mean": _mean,
    "var": lambda *args, **kwargs: _var_mean(*args, **kwargs)[0],
    "var_mean": _var_mean,
    "amin": lambda x, *args, **kwargs: x.neg().amax(*args, **kwargs).neg(),
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
}
