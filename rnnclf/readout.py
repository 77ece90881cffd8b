"""From the outputs of all steps to one vector per sequence.  Shapes: T time, B batch, H hidden.

A readout gets the outputs (T, B, H) of one direction of one layer, where the outputs after a sequence's
end repeat its last valid one, and the lengths (None where all sequences are whole). It returns (B, H).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.initializers import Fan, glorot, torch_default, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Readout:
    """One way to read a sequence. Its weights, where it has any, come as the argument `p`."""

    every_step: ClassVar[bool] = True
    """Whether it looks at all steps; if not, it gets the last valid outputs (B, H) alone."""

    def parameters(self, hidden: int) -> dict[str, ParameterSpec]:
        """The parameters for outputs of `hidden` numbers, by name."""
        return {}

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
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
    """The greatest value of each unit over the valid steps."""

    def read(self, p: Parameters, y: Tensor, lengths_B: Tensor | None) -> Tensor:
        return y.amax(dim=0)  # the repeats after the end of a sequence change nothing


class Attention(Readout):
    """A mean over the valid steps, weighted by a learned score of each output.

    e_t = v tanh(W y_t + b)
    w_t = exp(e_t) / Σ_s exp(e_s)
    result = Σ_t w_t y_t

    The pooling of Yang et al. 2016, https://aclanthology.org/N16-1174; each direction has its own.
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
    """True (T, B, 1) at the valid steps of each sequence."""
    import torch

    t_T1 = torch.arange(len(y_TBH), device=y_TBH.device).unsqueeze(-1)
    return (t_T1 < lengths_B).unsqueeze(-1)


READOUTS: Registry[Readout] = Registry(
    "readout", {"last": Last(), "mean": Mean(), "max": Max(), "attention": Attention()}
)
