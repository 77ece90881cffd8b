"""The native engine: torch's own recurrent layers, which use oneDNN for LSTMs on a CPU, and cuDNN on a GPU.

Shapes: T time, B batch, I inputs, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnclf.cells.base import GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.plan import Plan


def native(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """One call of a torch layer. Returns what `unroll` does."""
    cell, p = module.cell, module.prepared()
    assert isinstance(cell, GatedCell)
    start = cell.initial_state(x_TBI[0]) if state is None else state
    layer = getattr(torch, cell.native_layer())
    weights = [p.input_weight, p.recurrent_weight, p.bias, recurrent_bias(p)]
    if x_TBI.device.type == "cuda":
        weights = _in_one_block(weights)
    settings = (weights, True, 1, 0.0, module.training, False)
    hx = [leaf.unsqueeze(0) for leaf in leaves(start)]
    if plan.lengths_B is None:
        y_TBH, *last = layer(x_TBI, hx if len(hx) > 1 else hx[0], *settings, False)
    else:
        y_TBH, *last = _run_ragged(layer, x_TBI, hx, settings, plan.lengths_B)
        y_TBH = plan.held(y_TBH)
    last = [leaf.squeeze(0) for leaf in last]
    output = y_TBH if plan.every_step else last[0]
    return output, type(start)(*last) if isinstance(start, tuple) else last[0]


def recurrent_bias(p: Parameters) -> Tensor:
    """torch adds a second bias to the product with the state; only the candidate of a GRU needs it."""
    bias_G = torch.zeros_like(p.bias)
    if not hasattr(p, "candidate_bias"):
        return bias_G
    return torch.cat((bias_G[: -len(p.candidate_bias)], p.candidate_bias))


def _in_one_block(weights: list[Tensor]) -> list[Tensor]:
    """The weights in one contiguous block of memory, as cuDNN expects them: otherwise torch copies them and
    warns."""
    block = torch.cat([weight.flatten() for weight in weights])
    parts = torch.split(block, [weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def _run_ragged(
    layer: Any, x_TBI: Tensor, hx: list[Tensor], settings: Any, lengths_B: Tensor
) -> list[Tensor]:
    """The outputs (T, B, H), zero after the end of each sequence, and the states (1, B, H) at their ends."""
    packed = pack_padded_sequence(x_TBI, lengths_B.cpu(), enforce_sorted=False)
    hx = [leaf[:, packed.sorted_indices] for leaf in hx]
    data, *last = layer(packed.data, packed.batch_sizes, hx if len(hx) > 1 else hx[0], *settings)
    outputs = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    y_TBH, _ = pad_packed_sequence(outputs, total_length=len(x_TBI))
    return [y_TBH, *(leaf[:, packed.unsorted_indices] for leaf in last)]
