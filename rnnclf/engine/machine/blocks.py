"""Where the gradients of weights lie among the sums over all steps and sequences: in evenly spaced blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

MOST_BLOCKS = 256
"""If the gradient of a weight consists of more blocks, torch assembles it."""


class Block(NamedTuple):
    """Part of a weight's gradient, rows `row` to `row + rows`, that lies evenly spaced among the sums: the
    element (i, j) of the block at `first + i * row_step + j * column_step`."""

    row: int
    rows: int
    columns: int
    first: int
    row_step: int
    column_step: int


def blocks_of(positions: Any) -> list[Block] | None:
    """An array of positions (N, M) as blocks, which never go backwards; None if there are too many, or if
    rows are not evenly spaced."""
    index = positions if positions.ndim == 2 else positions.reshape(-1, 1)
    columns = index.shape[1]
    column_step = index[:, 1] - index[:, 0] if columns > 1 else np.ones(len(index), np.int64)
    if not (index == index[:, :1] + column_step[:, None] * np.arange(columns)).all() or column_step.min() < 0:
        return None
    # a block ends where the distance to the next row, or between columns, changes
    blocks: list[Block] = []
    begin, first = 0, index[:, 0].tolist()
    while begin < len(first):
        if len(blocks) == MOST_BLOCKS:
            return None
        end = begin + 1
        row_step = max(first[end] - first[begin], 0) if end < len(first) else 0
        while (
            end < len(first)
            and first[end] - first[end - 1] == row_step
            and column_step[end] == column_step[begin]
        ):
            end += 1
        blocks.append(Block(begin, end - begin, columns, first[begin], row_step, int(column_step[begin])))
        begin = end
    return blocks


def gradient_of(blocks: list[Block], sums: Tensor, like: Tensor) -> Tensor:
    """A gradient of the shape of another tensor, copied from the sums: weights with equal gradients have the
    same blocks, but clipping and optimizers change each gradient in place."""
    whole = sums.new_empty(like.shape if like.ndim == 2 else (like.numel(), 1))
    for block in blocks:
        steps = (block.row_step, block.column_step)
        whole[block.row : block.row + block.rows] = sums.as_strided(
            (block.rows, block.columns), steps, block.first
        )
    return whole.view(like.shape)
