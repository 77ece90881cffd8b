"""From the outputs of all steps to one vector per sequence.  Shapes: T time, B batch, H hidden.

A readout gets the T outputs (B, H) of one direction, where the outputs after a sequence's end repeat
its last valid one, and the lengths (None where all sequences are whole). It returns (B, H).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Readout: TypeAlias = "Callable[[Sequence[Tensor], Tensor | None], Tensor]"


def last(outputs: Sequence[Tensor], lengths_B: Tensor | None) -> Tensor:
    """The output at the last valid step."""
    return outputs[-1]


def mean(outputs: Sequence[Tensor], lengths_B: Tensor | None) -> Tensor:
    """The mean over the valid steps."""
    import torch

    y_TBH = torch.stack(tuple(outputs))
    if lengths_B is None:
        return y_TBH.mean(dim=0)
    valid_TB1 = (torch.arange(len(outputs), device=y_TBH.device)[:, None] < lengths_B).unsqueeze(-1)
    return (y_TBH * valid_TB1).sum(dim=0) / lengths_B.unsqueeze(-1)


def max(outputs: Sequence[Tensor], lengths_B: Tensor | None) -> Tensor:
    """The greatest value of each unit over the valid steps."""
    # the repeats after the end of a sequence change nothing
    import torch

    return torch.stack(tuple(outputs)).amax(dim=0)


READOUTS: Registry[Readout] = Registry("readout", {"last": last, "mean": mean, "max": max})
