"""Converts between pictures and sequences.

Shapes: B batch, H height, W width, C colours, T steps, I features.  Torch-free except for the
conversion of batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rnnclf.data.permutations import permutation
from rnnclf.data.recordings import Array

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 4  # pixels, the default side of a patch


@dataclass(frozen=True)
class PictureLayout:
    """The order in which a sequence runs through the values of a picture.

    rows: H steps, each a row of W pixels, from the top; columns: W steps, each a column of H pixels, from the
    left; pixels: H W steps of one pixel, row by row or in the order of `permutation`; patches: one square of
    `patch` × `patch` pixels per step, row by row, its pixels also row by row. The colours of a pixel are
    always adjacent.
    """

    height: int
    width: int
    colours: int
    sequence: str = "rows"
    patch: int = PATCH
    permutation: str = "none"

    @cached_property
    def places_TI(self) -> Array:
        """The index into the flattened picture (H, W, C) of each value of a sequence, int64."""
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
        """The steps of all pictures (N, H, W, C) as (N T, I); a view if the order does not change."""
        import numpy as np

        t, i = self.places_TI.shape
        index = self.places_TI.ravel()
        flat = x_NHWC.reshape(len(x_NHWC), t * i)
        in_order = np.array_equal(index, np.arange(t * i))
        steps: Array = (flat if in_order else flat.take(index, axis=1)).reshape(-1, i)
        return steps

    def picture(self, x_TI: Array) -> Array:
        """The picture (H, W, C) that a sequence encodes."""
        import numpy as np

        flat = np.empty(self.height * self.width * self.colours)
        flat[self.places_TI.ravel()] = x_TI.ravel()
        return flat.reshape(self.height, self.width, self.colours)

    @cached_property
    def _orders(self) -> tuple[Tensor, Tensor] | None:
        """The indices that turn flattened pictures (H, W, C) into flattened sequences, and those that turn
        them back; None if both have the same order."""
        import numpy as np
        import torch

        places = self.places_TI.ravel()
        if np.array_equal(places, np.arange(len(places))):
            return None
        return torch.from_numpy(places), torch.from_numpy(places.argsort())

    def sequences(self, x_BCHW: Tensor) -> Tensor:
        """Converts a batch of pictures (B, C, H, W) to sequences (B, T, I); the inverse of `pictures`."""
        flat = x_BCHW.permute(0, 2, 3, 1).flatten(1)
        if self._orders is not None:
            flat = flat.index_select(1, self._orders[0].to(flat.device))
        return flat.view(len(flat), *self.places_TI.shape)

    def pictures(self, x_BTI: Tensor) -> Tensor:
        """Converts a batch of sequences (B, T, I) to pictures (B, C, H, W); the inverse of `sequences`. Gives
        a view if the order does not change."""
        flat = x_BTI.flatten(1)
        if self._orders is not None:
            flat = flat.index_select(1, self._orders[1].to(flat.device))
        return flat.view(-1, self.height, self.width, self.colours).permute(0, 3, 1, 2)
