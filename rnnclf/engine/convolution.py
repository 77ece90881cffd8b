"""Causal convolutions, v_t = Σ_k kernel_k source_{t-k}.  Shapes: T time, B batch, S convolved signals.

Short ones are summed step by step, in machine code: O(T²), but from registers. Others go through the fast
Fourier transform: O(T log T). The gradients are correlations, ∂L/∂kernel_k = Σ_t g_t conj(source_{t-k}) and
alike for the source, that is, convolutions of what is reversed in time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.engine.choose import ENGINES

MOST_SUMMED = 800
"""Steps up to which summing takes no longer, in batches of 16. In larger ones, whose transforms exceed the
caches, it would be more. Measured."""


def convolve(kernel_TS: Tensor, source_TBS: Tensor) -> Tensor:
    """v_t = Σ_k kernel_k source_{t-k}: (T, B, S). Kernel and source must be both real or both complex."""
    operation = _Summed if _can_be_summed(source_TBS) else _Transformed
    return operation.apply(kernel_TS, source_TBS)  # type: ignore[no-any-return]


def _can_be_summed(source_TBS: Tensor) -> bool:
    if len(source_TBS) > MOST_SUMMED or not ENGINES["machine"].installed:
        return False
    from rnnclf.engine.machine.convolution import is_possible

    return is_possible(source_TBS)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel_TS: Tensor, source_TBS: Tensor) -> Tensor:
        from rnnclf.engine.machine.convolution import causal

        kernel_TS, source_TBS = kernel_TS.contiguous(), source_TBS.contiguous()
        ctx.save_for_backward(kernel_TS, source_TBS)
        return causal(kernel_TS.unsqueeze(1).expand_as(source_TBS), source_TBS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBS: Tensor) -> tuple[Tensor | None, ...]:
        from rnnclf.engine.machine.convolution import causal, causal_total

        kernel_TS, source_TBS = ctx.saved_tensors
        grad_TBS = grad_TBS.contiguous()
        grad_kernel = grad_source = None
        if ctx.needs_input_grad[0]:
            grad_kernel = causal_total(source_TBS, grad_TBS, backward=True)
        if ctx.needs_input_grad[1]:
            grad_source = causal(kernel_TS.unsqueeze(1).expand_as(grad_TBS), grad_TBS, backward=True)
        return grad_kernel, grad_source


class _Transformed(torch.autograd.Function):
    """Autograd would use transforms of complex numbers for the gradients, twice the work for real signals."""

    @staticmethod
    def forward(ctx: Any, kernel_TS: Tensor, source_TBS: Tensor) -> Tensor:
        ctx.steps = len(source_TBS)
        ctx.size = fast_length(2 * ctx.steps - 1)  # padded against wrap-around
        kernel_SF, source_BSF = (_spectrum(signal, ctx.size) for signal in (kernel_TS, source_TBS))
        ctx.save_for_backward(kernel_SF, source_BSF)
        ctx.real = not source_TBS.is_complex()
        return _signal(kernel_SF * source_BSF, ctx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBS: Tensor) -> tuple[Tensor | None, ...]:
        kernel_SF, source_BSF = ctx.saved_tensors
        grad_BSF = _spectrum(grad_TBS, ctx.size)
        grad_kernel = grad_source = None
        if ctx.needs_input_grad[0]:
            grad_kernel = _signal((grad_BSF * source_BSF.conj()).sum(0), ctx)
        if ctx.needs_input_grad[1]:
            grad_source = _signal(grad_BSF * kernel_SF.conj(), ctx)
        return grad_kernel, grad_source


def _spectrum(signal_TS: Tensor, size: int) -> Tensor:
    """The transform of (T, …, S), padded to this size: (…, S, F)."""
    signal_ST = signal_TS.movedim(0, -1)  # time last and contiguous: one transform per row
    transform = torch.fft.fft if signal_TS.is_complex() else torch.fft.rfft
    spectrum_SF: Tensor = transform(signal_ST, n=size)
    return spectrum_SF


def _signal(spectrum_SF: Tensor, ctx: Any) -> Tensor:
    """The first steps of what has the transform (…, S, F): (T, …, S)."""
    inverse = torch.fft.irfft if ctx.real else torch.fft.ifft
    signal_TS: Tensor = inverse(spectrum_SF, n=ctx.size)[..., : ctx.steps].movedim(-1, 0)
    return signal_TS.contiguous()  # which all that follows reads faster


def fast_length(at_least: int) -> int:
    """The smallest number of the form 2^a 3^b 5^c that is at least `at_least`: such transforms are fast."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(at_least, real=True))
