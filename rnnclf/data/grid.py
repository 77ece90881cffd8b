"""Sequences of one length as grids, which have two axes to read along: steps and columns.

Shapes: B batch, T time steps, P columns, I features of a step, D features of a column.
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
    values are missing, or the further steps of a patch.
    """

    steps: int
    columns: int
    values: int = 1
    kinds: int = 1

    @property
    def input_size(self) -> int:
        """I."""
        return self.kinds * self.columns * self.values

    @property
    def column_size(self) -> int:
        """D: the features of a column are all that is known of it at all steps."""
        return self.steps * self.kinds * self.values

    def across(self, x_TBI: Tensor) -> Tensor:
        """The sequences read across, (P, B, D): a step for each column."""
        x_TBKPV = x_TBI.reshape(*x_TBI.shape[:2], self.kinds, self.columns, self.values)
        return x_TBKPV.permute(3, 1, 0, 2, 4).flatten(2)


def grid_of(steps: int | None, preparation: Preparation, layout: PictureLayout | None) -> Grid:
    """The grid of sequences of so many steps, None if they differ; layout: that of pictures.

    Raises ConfigError for data that have no columns.
    """
    if preparation.vocabularies:
        raise ConfigError(
            f"axes=both reads numbers across the steps, and channel '{next(iter(preparation.vocabularies))}'"
            " holds names: leave it out of dataset.channels, or use axes=steps."
        )
    if preparation.missing == "drop":
        raise ConfigError(
            "axes=both needs all steps of a sequence, and dataset.missing=drop leaves out those that miss a"
            " value: use dataset.missing=interpolate or mask."
        )
    if steps is None:
        raise ConfigError(
            "axes=both reads sequences across their steps, so all must have the same number of steps, and"
            " these differ: dataset.window=N cuts them into windows of N steps; or use axes=steps."
        )
    if layout is None:
        channels = len(preparation.channels)
        return Grid(steps, channels, kinds=preparation.input_size // channels)
    return Grid(steps, preparation.input_size // layout.colours, layout.colours)


def refuse_layout(layout: PictureLayout | None) -> None:
    """Raises ConfigError for pictures of whose steps the features are not a row or a column."""
    if layout is not None and layout.sequence not in ("rows", "columns"):
        raise ConfigError(
            "axes=both reads the rows and the columns of pictures: it needs dataset.sequence=rows, got"
            f" {layout.sequence}."
        )


def other_length(steps: int, found: int | str) -> str:
    """The message on a sequence that a model with axes=both cannot read."""
    return (
        f"The model was trained with axes=both on sequences of {steps} steps, and can read no others; got"
        f" {found} steps."
    )
