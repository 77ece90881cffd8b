"""How weights get into machine code, and gradients out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.cells.base import GatedCell

pytest.importorskip("llvmlite")

from rnnclf.engine.machine.blocks import blocks_of
from rnnclf.engine.machine.driver.layer import LayerWeights, layer_code
from rnnclf.engine.machine.driver.part import CopyOptions, Piece, copies
from rnnclf.engine.machine.driver.tables import Move
from rnnclf.engine.machine.graph import UncoveredError


def filled(blocks, numbers, shape):
    """What the driver makes of blocks."""
    found = np.full((shape[0], shape[1] if len(shape) == 2 else 1), -1)
    for b in blocks:
        for i in range(b.rows):
            for j in range(b.columns):
                found[b.row + i, j] = numbers[b.first + i * b.row_step + j * b.column_step]
    return found.reshape(shape)


@pytest.mark.parametrize(
    "positions",
    [
        np.arange(12).reshape(3, 4),
        np.arange(12).reshape(3, 4).T,
        np.concatenate([np.arange(12).reshape(3, 4), 30 + np.arange(12).reshape(4, 3).T]),
        np.array([5, 6, 7, 20, 22, 24]),
        np.array([[3]]),
        np.array([4]),
        np.arange(12).reshape(3, 4)[::-1],
    ],
)
def test_blocks_say_where_each_number_of_a_gradient_lies(positions):
    blocks = blocks_of(positions)
    np.testing.assert_array_equal(filled(blocks, np.arange(100), positions.shape), positions)
    assert all(block.row_step >= 0 and block.column_step >= 0 for block in blocks)  # as torch's strides


def test_numbers_in_no_order_are_no_blocks():
    assert blocks_of(np.array([[0, 1, 3]])) is None
    assert blocks_of(np.array([[3, 2, 1]])) is None
    assert blocks_of(np.arange(2000) ** 2) is None


@pytest.mark.parametrize("name", ["basic", pytest.param("lem", marks=pytest.mark.long)])
def test_gradients_that_are_only_moved_need_no_torch(name):
    weights = LayerWeights(CELLS[name](hidden_size=3).build(2))
    assert not weights.needs_torch
    assert {id(w) for w in weights.trained} == {id(w) for w in weights.module.parameters()}


@pytest.mark.long
def test_a_gradient_that_is_made_of_several_sums_is_left_to_torch():
    assert layer_code(CELLS["urgru"](hidden_size=3).build(2)).blocks is None


def test_only_prepared_weights_are_copied():
    weights = LayerWeights(CELLS["indrnn"](hidden_size=3).build(2))
    assert weights.copied == ["u"]  # clamped
    with torch.no_grad():
        for weight in weights.module.parameters():
            weight.add_(0.25)
    weights.refresh()
    expected = vars(weights.module.prepared())
    for name, found in zip(weights.names, weights.prepared, strict=True):
        torch.testing.assert_close(found, expected[name].detach())


def test_a_start_that_depends_on_the_inputs_is_refused():
    @dataclass
    class FromInputs(GatedCell):
        name: str = "from_inputs"
        gates = ("h",)

        def initial_state(self, x_BI):
            return x_BI.new_zeros(len(x_BI), self.hidden_size) + x_BI.mean(-1, keepdim=True)

        def step(self, p, z, h):
            h = (z + h @ p.recurrent_weight.t()).tanh()
            return h, h

    with pytest.raises(UncoveredError, match="its initial state depends on the inputs"):
        layer_code(FromInputs(hidden_size=3).build(2))


def test_copies_are_of_what_two_cuts_have_in_common():
    whole = [Piece(0, 10, 1000, 100, 50)]
    cut = [Piece(0, 4, 2000, 200, 60), Piece(4, 10, 3000, 300, 70)]
    first, second = copies(whole, cut, 4, CopyOptions())
    assert (first.source, first.target, first.width) == (1000, 2000, 16)
    assert (second.source, second.target, second.width) == (1016, 3000, 24)
    assert [c.source for c in copies(cut, whole, 4, CopyOptions())] == [2000, 3000]


@pytest.mark.long
def test_moves_reach_every_number_of_every_gradient():
    weights = LayerWeights(CELLS["lem"](hidden_size=3).build(2))
    targets = [torch.zeros_like(weight) for weight in weights.trained]
    sums = np.zeros(weights.layer.code.plan.sums, np.float32)
    moves = list(weights.moves(sums, targets))
    assert all(isinstance(move, Move) for move in moves)
    assert sum(move.rows * move.columns for move in moves) == sum(target.numel() for target in targets)
