"""Readouts: reduce the outputs of all steps to one vector per sequence.  Shapes: T time, B batch, H hidden.

The input of a readout is the outputs (T, B, H) of one direction of one layer, in which the last valid output
is repeated after the end of a sequence, and the lengths (None if all are equal). The result is (B, H).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.initializers import Fan, glorot, torch_default, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Readout:
    """Base of every readout. Its weights, if it has any, are passed as the argument `p`."""

    every_step: ClassVar[bool] = True
    """Whether it needs all steps; otherwise it gets only the last valid outputs (B, H)."""

    def parameters(self, hidden: int) -> dict[str, ParameterSpec]:
        """The parameters for outputs of width `hidden`, by name."""
        return {}

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        """(T, B, H), or (B, H) without `every_step` → (B, H)."""
        raise NotImplementedError


class Last(Readout):
    """The output at the last valid step."""

    every_step = False

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        return y


class Mean(Readout):
    """The mean over the valid steps."""

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        if lengths_B is None:
            return y.mean(dim=0)
        return (y * valid_steps(y, lengths_B)).sum(dim=0) / lengths_B.unsqueeze(-1)


class Max(Readout):
    """The maximum of each unit over the valid steps."""

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        return y.amax(dim=0)  # repeated outputs after the end do not change the maximum


class Attention(Readout):
    """A mean over the valid steps, weighted by learned attention scores.

    e_t = v tanh(W y_t + b)
    w_t = exp(e_t) / Σ_s exp(e_s)
    result = Σ_t w_t y_t

    The attention pooling of Yang et al. 2016, https://aclanthology.org/N16-1174. Each direction has its own
    weights.
    """

    def parameters(self, hidden: int) -> dict[str, ParameterSpec]:
        fan = Fan(inputs=hidden, hidden=hidden, gates=1)
        return {
            "weight": ParameterSpec((hidden, hidden), lambda w: glorot(w, fan)),
            "bias": ParameterSpec((hidden,), zeros),
            "vector": ParameterSpec((hidden,), lambda v: torch_default(v, fan)),
        }

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        import torch

        scores_TB = torch.nn.functional.linear(y, p.weight, p.bias).tanh() @ p.vector
        if lengths_B is not None:
            scores_TB = scores_TB.masked_fill(~valid_steps(y, lengths_B).squeeze(-1), -torch.inf)
        return torch.einsum("tb,tbh->bh", scores_TB.softmax(dim=0), y)


def valid_steps(y_TBH: Tensor, lengths_B: Tensor) -> Tensor:
    """A mask (T, B, 1) that is true at the valid steps of each sequence."""
    import torch

    t_T1 = torch.arange(len(y_TBH), device=y_TBH.device).unsqueeze(-1)
    return (t_T1 < lengths_B).unsqueeze(-1)


READOUTS: Registry[Readout] = Registry(
    "readout", {"last": Last(), "mean": Mean(), "max": Max(), "attention": Attention()}
)
