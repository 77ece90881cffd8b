"""Neighbouring steps side by side, as the features of one step.

Shapes: B batch, T time steps, P steps in a patch, F features of a value, C values of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.data.recordings import Array

    Steps = TypeVar("Steps", int, Tensor, Array)


def side_by_side(x_BTFC: Tensor, lengths_B: Tensor, patch: int) -> Tensor:
    """Each `patch` steps as one, (B, ceil(T / P), F P C); the last step of a sequence is repeated after its
    end."""
    import torch

    patches = patches_of(x_BTFC.shape[1], patch)
    t_T = torch.arange(patches * patch, device=x_BTFC.device)
    t_BT = torch.minimum(t_T, lengths_B.to(x_BTFC.device).unsqueeze(-1) - 1)
    rows_B1 = torch.arange(len(x_BTFC), device=x_BTFC.device).unsqueeze(-1)
    x_BTFC = x_BTFC[rows_B1, t_BT]
    return x_BTFC.view(len(x_BTFC), patches, patch, *x_BTFC.shape[2:]).transpose(2, 3).flatten(2)


def apart(x_BTI: Tensor, patch: int, features: int) -> Tensor:
    """The steps that `side_by_side` made patches of, one after another: (B, T P, F C)."""
    b, patches, size = x_BTI.shape
    x_BTFPC = x_BTI.reshape(b, patches, features, patch, size // (features * patch))
    return x_BTFPC.transpose(2, 3).reshape(b, patches * patch, size // patch)


def by_feature(x_BTI: Tensor, features: int) -> Tensor:
    """The features of each step as (B, T, F, C)."""
    b, steps, size = x_BTI.shape
    return x_BTI.reshape(b, steps, features, size // features)


def patches_of(steps: Steps, patch: int) -> Steps:
    """The number of patches of so many steps; or the numbers, of a tensor of them."""
    return (steps + patch - 1) // patch
