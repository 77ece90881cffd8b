"""Operations for which torch.onnx writes formulas with fewer digits than torch computes.

Found by scaling the inputs of every cell: with `Log(Sigmoid(x))` minlstm gives NaN, and slstm finite answers
that are wrong by 63 %. onnx and onnxscript are imported when a table is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def stable_translations() -> dict[Any, Callable[..., Any]]:
    """The translations to use instead of torch.onnx's, by torch's operation."""
    return {
        torch.ops.aten.log_sigmoid.default: _log_sigmoid,
        torch.ops.aten.expm1.default: _expm1,
        torch.ops.aten.silu.default: _silu,
    }


def _log_sigmoid(x: Any) -> Any:
    """-log(1 + exp(-x)); torch.onnx writes Log(Sigmoid(x)), which is -inf from x = -104 on."""
    from onnxscript import opset18 as op

    return op.Neg(op.Softplus(op.Neg(x)))


def _expm1(x: Any) -> Any:
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1); torch.onnx writes Exp(x) - 1, which has no digits left near
    0."""
    from onnxscript import opset18

    op: Any = opset18
    half = op.CastLike(op.Constant(value_float=0.5), x)
    one = op.CastLike(op.Constant(value_float=1.0), x)
    return op.Mul(op.Tanh(op.Mul(x, half)), op.Add(op.Exp(x), one))


def _silu(x: Any) -> Any:
    """x / (1 + exp(-x)). torch.onnx writes x Sigmoid(x), of which onnxruntime computes no more than 7 digits
    after the point: mamba multiplies it with large numbers, and was off by 1 %."""
    from onnxscript import opset18

    op: Any = opset18
    one = op.CastLike(op.Constant(value_float=1.0), x)
    return op.Div(x, op.Add(one, op.Exp(op.Neg(x))))
