"""How pictures lie in sequences.  Shapes: B batch, H height, W width, C colours, T steps, I features.

Torch-free but for the two methods that turn batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rnnclf.data.permutations import permutation
from rnnclf.data.recordings import Array

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 4  # pixels, the default


@dataclass(frozen=True)
class PictureLayout:
    """How pictures lie in sequences.

    rows: H steps of a row's W pixels, from the top; columns: W steps of a column's H pixels, from the left;
    pixels: H W steps of one pixel, row by row, or in the order of `permutation`; patches: squares of `patch`
    pixels, row by row, and so are the pixels of each. A pixel's colours follow each other always.
    """

    height: int
    width: int
    colours: int
    sequence: str = "rows"
    patch: int = PATCH
    permutation: str = "none"

    @cached_property
    def places_TI(self) -> Array:
        """For each value of a sequence its place in the flattened picture (H, W, C), int64."""
        import numpy as np

        h, w, c, p = self.height, self.width, self.colours, self.patch
        places_HWC = np.arange(h * w * c, dtype=np.int64).reshape(h, w, c)
        if self.sequence == "rows":
            return places_HWC.reshape(h, w * c)
        if self.sequence == "columns":
            return places_HWC.swapaxes(0, 1).reshape(w, h * c)
        if self.sequence == "patches":
            squares = places_HWC.reshape(h // p, p, w // p, p, c).swapaxes(1, 2)
            return squares.reshape(-1, p * p * c)
        places_TI = places_HWC.reshape(h * w, c)
        order = permutation(self.permutation, h * w)
        return places_TI if order is None else places_TI[order]

    def steps_of(self, x_NHWC: Array) -> Array:
        """All steps of some pictures one after the other, (N T, I); a view where the order is theirs."""
        import numpy as np

        t, i = self.places_TI.shape
        places = self.places_TI.ravel()
        flat = x_NHWC.reshape(len(x_NHWC), t * i)
        in_order = np.array_equal(places, np.arange(t * i))
        steps: Array = (flat if in_order else flat.take(places, axis=1)).reshape(-1, i)
        return steps

    def sequences(self, x_BCHW: Tensor) -> Tensor:
        """(B, T, I) of a batch of pictures (B, C, H, W); the inverse of `pictures`."""
        import torch

        flat = x_BCHW.permute(0, 2, 3, 1).flatten(1)
        places = torch.from_numpy(self.places_TI.ravel()).to(x_BCHW.device)
        return flat.index_select(1, places).view(len(x_BCHW), *self.places_TI.shape)

    def pictures(self, x_BTI: Tensor) -> Tensor:
        """(B, C, H, W) of a batch of sequences (B, T, I); the inverse of `sequences`."""
        import torch

        places = torch.from_numpy(self.places_TI.ravel().argsort()).to(x_BTI.device)
        flat = x_BTI.flatten(1).index_select(1, places)
        return flat.view(-1, self.height, self.width, self.colours).permute(0, 3, 1, 2)
