"""Sequences of one length as grids, which have two axes to read along: rows and columns.

Shapes: B batch, T time steps, R rows, P columns, I features of a step, D features of a column, F of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnclf.data.layout import PictureLayout
from rnnclf.data.preparation import Preparation
from rnnclf.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """How the features of a step divide into columns: I = kinds × columns × values.

    A column is the place of a pixel in a row of a picture, or a channel of a series. values: the colours of a
    pixel, which are adjacent. kinds: what is known of each column and lies apart from it, such as which
    values are missing, or the further steps of a patch. one_by_one: each step is not a row of the grid but
    one of its places, row by row, as a pixel or a square of a picture.
    """

    steps: int
    columns: int
    values: int = 1
    kinds: int = 1
    one_by_one: bool = False

    @property
    def rows(self) -> int:
        """R."""
        return self.steps // self.columns if self.one_by_one else self.steps

    @property
    def input_size(self) -> int:
        """I."""
        return self.place_size if self.one_by_one else self.columns * self.place_size

    @property
    def place_size(self) -> int:
        """F: what is known of one column at one row."""
        return self.kinds * self.values

    @property
    def column_size(self) -> int:
        """D: the features of a column are all that is known of it at all steps."""
        return self.rows * self.place_size

    def across(self, x_TBI: Tensor) -> Tensor:
        """The sequences read across, (P, B, D): a step for each column."""
        return self.places(x_TBI).permute(1, 2, 0, 3).flatten(2)

    def places(self, x_TBI: Tensor) -> Tensor:
        """The sequences by row and column, (R, P, B, F)."""
        if self.one_by_one:
            return x_TBI.reshape(self.rows, self.columns, *x_TBI.shape[1:])
        x_TBKPV = x_TBI.reshape(*x_TBI.shape[:2], self.kinds, self.columns, self.values)
        return x_TBKPV.permute(0, 3, 1, 2, 4).flatten(3)


def grid_of(axes: str, steps: int | None, preparation: Preparation, layout: PictureLayout | None) -> Grid:
    """The grid of sequences of so many steps, None if they differ; layout: that of pictures.

    Raises ConfigError for data that cannot be read along these axes.
    """
    if preparation.vocabularies:
        raise ConfigError(
            f"axes={axes} reads numbers across the steps, and channel"
            f" '{next(iter(preparation.vocabularies))}' holds names: leave it out of dataset.channels, or use"
            " axes=steps."
        )
    if preparation.missing == "drop":
        raise ConfigError(
            f"axes={axes} needs all steps of a sequence, and dataset.missing=drop leaves out those that miss"
            " a value: use dataset.missing=interpolate or mask."
        )
    if steps is None:
        raise ConfigError(
            f"axes={axes} reads sequences across their steps, so all must have the same number of steps, and"
            " these differ: dataset.window=N cuts them into windows of N steps; or use axes=steps."
        )
    if layout is None:
        channels = len(preparation.channels)
        return Grid(steps, channels, kinds=preparation.input_size // channels)
    if layout.sequence in ("rows", "columns"):
        return Grid(steps, preparation.input_size // layout.colours, layout.colours)
    side = layout.patch if layout.sequence == "patches" else 1
    return Grid(steps, layout.width // side, preparation.input_size, one_by_one=True)


def refuse_layout(axes: str, layout: PictureLayout | None) -> None:
    """Raises ConfigError for pictures that cannot be read along these axes: with both, a step must be a row
    or a column; with alternating, it may also be a pixel or a patch, if they are in order."""
    if layout is None or layout.sequence in ("rows", "columns"):
        return
    if axes == "both":
        raise ConfigError(
            "axes=both reads the rows and the columns of pictures: it needs dataset.sequence=rows, got"
            f" {layout.sequence}."
        )
    if layout.permutation != "none":
        raise ConfigError(
            f"axes={axes} reads the rows and the columns of pictures, and"
            f" dataset.permutation={layout.permutation} leaves none: use dataset.permutation=none."
        )


def other_length(steps: int, found: int | str) -> str:
    """The message on a sequence that a model which reads across its steps cannot read."""
    return (
        f"The model was trained to read across sequences of {steps} steps, and can read no others; got"
        f" {found} steps."
    )
