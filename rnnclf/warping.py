"""Pictures moved, turned and distorted: affine maps, smooth random fields, and resampling.

Shapes: B batch, C colours, H height, W width. A grid (B, 2, H, W) holds the position in the
original of each pixel: x to the right, then y down.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def backward_maps(
    angle_B: Tensor, slant_B: Tensor, size_B: Tensor, mirrored_B: Tensor, shift_2B: Tensor
) -> Tensor:
    """Affine maps (B, 2, 3) from a pixel of the augmented picture to its position in the original.

    Positions are (x to the right, y down) from the centre of the picture, in pixels. angle_B (radians)
    rotates anticlockwise; slant_B (radians) shears the lower part to the right; shift_2B is (right, down).
    """
    import torch

    cos, sin, slope = angle_B.cos(), angle_B.sin(), slant_B.tan()
    lower_2B = torch.stack((sin, cos))
    upper_2B = torch.stack((cos, -sin)).addcmul_(lower_2B, slope, value=-1)
    upper_2B = upper_2B.where(~mirrored_B, -upper_2B)
    linear_22B = torch.stack((upper_2B, lower_2B)) / size_B
    offset_21B = -(linear_22B * shift_2B).sum(dim=1, keepdim=True)
    return torch.cat((linear_22B, offset_21B), dim=1).movedim(-1, 0)


class Frame(NamedTuple):
    """Where the pixels of a picture are.

    x_W, y_H: the positions of its columns and rows, in pixels from its centre. pixel_21: the width and height
    of a pixel in the units of a grid, in which the edges of the picture are at -1 and 1.
    """

    x_W: Tensor
    y_H: Tensor
    pixel_21: Tensor


@lru_cache
def frame(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Frame:
    """Made once, since the host would wait for each copy to a GPU."""
    import torch

    x_W, y_H = (torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2 for n in (width, height))
    return Frame(x_W, y_H, torch.tensor(((2 / width,), (2 / height,)), dtype=dtype, device=device))


def grid(maps_B23: Tensor, height: int, width: int) -> Tensor:
    """The position in the original of each pixel of the augmented picture (B, 2, H, W): x, then y, from -1 to
    1 across the picture.

    Each is the sum of a term of its column and one of its row. torch's affine_grid multiplies small matrices
    instead: on a CPU that takes many times as long, and a GPU may round the factors to tf32.
    """
    x_W, y_H, pixel_21 = frame(height, width, maps_B23.dtype, maps_B23.device)
    by_column_B21, by_row_B21, offset_B21 = (maps_B23 * pixel_21).tensor_split(3, dim=-1)
    rows_B2H = offset_B21 + by_row_B21 * y_H
    return (by_column_B21 * x_W).unsqueeze(2) + rows_B2H.unsqueeze(3)


def sampled(x_BCHW: Tensor, grid_B2HW: Tensor) -> Tensor:
    """The pictures at the positions of a grid, interpolated bilinearly."""
    from torch.nn import functional

    return functional.grid_sample(x_BCHW, grid_B2HW.movedim(1, -1), "bilinear", "zeros", align_corners=False)


def noise(shape: tuple[int, ...], most: Tensor) -> Tensor:
    """Random numbers spread evenly between minus and plus `most`, which is broadcast to `shape`.

    On a CPU, where drawing them would take longer than resampling the pictures, each has 16 random bits, not
    32.
    """
    import torch

    if most.device.type != "cpu":
        return most.new_empty(shape).uniform_(-1, 1).mul_(most)
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return bits.view(torch.int16)[:count].view(shape) * (most * 2.0**-15)


def smoothed(x_HBCW: Tensor, sigma: float) -> Tensor:
    """Smooths pictures with a Gaussian of `sigma` pixels. Since their rows are the first dimension and their
    columns the last, each direction is a single product of matrices."""
    import torch

    def weights(size: int) -> Tensor:
        position = torch.arange(size, dtype=x_HBCW.dtype, device=x_HBCW.device)
        return (-((position - position.unsqueeze(-1)) ** 2) / (2 * sigma**2)).softmax(dim=-1)

    height, width = x_HBCW.shape[0], x_HBCW.shape[-1]
    along_columns = weights(height) @ x_HBCW.flatten(1)
    return (along_columns.view(-1, width) @ weights(width).T).view(x_HBCW.shape)
