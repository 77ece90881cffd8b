"""Cells for which ONNX has an operator of its own, and their weights in its order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf.cells.module import CellModule
from rnnclf.data.recordings import Array

OWN = ("basic", "irnn", "lstm", "gru")
"""The cells that an operator computes. LSTM with peepholes would be another, but a widely used runtime
(OpenVINO 2026.4) leaves its peepholes out without a word."""

ORDERS = {"lstm": ("iofg", "ifgo"), "gru": ("zrn", "rzn")}
"""The gates in ONNX's order and in ours."""


@dataclass(frozen=True)
class Operator:
    """An operator, its weights W (1, G H, I), R (1, G H, H) and B (1, 2 G H), and its attributes."""

    name: str
    weights: tuple[Array, Array, Array]
    attributes: dict[str, Any] = field(default_factory=dict)


def own_operator(module: CellModule) -> Operator | None:
    """The operator that computes this cell; None if there is none."""
    cell: Any = module.cell
    if cell.name not in OWN or not type(cell).__module__.startswith("rnnclf.cells."):
        return None
    p = module.weights()
    recurrent_bias = torch.zeros_like(p.bias)
    if cell.name == "gru" and cell.reset == "after":
        recurrent_bias[2 * cell.hidden_size :] = p.candidate_bias.detach()
    bias = np.concatenate([_in_order(cell.name, part) for part in (p.bias, recurrent_bias)], axis=1)
    weights = (_in_order(cell.name, p.input_weight), _in_order(cell.name, p.recurrent_weight), bias)
    if cell.name == "lstm":
        return Operator("LSTM", weights)
    if cell.name == "gru":
        return Operator("GRU", weights, {"linear_before_reset": int(cell.reset == "after")})
    return Operator("RNN", weights, {"activations": [cell.nonlinearity.capitalize()]})


def _in_order(cell: str, weight: Tensor) -> Array:
    """The blocks of a weight in ONNX's order, with a leading axis for the one direction."""
    theirs, ours = ORDERS.get(cell, ("", ""))
    blocks = dict(zip(ours, weight.detach().chunk(len(ours)), strict=True)) if ours else {}
    ordered = torch.cat([blocks[gate] for gate in theirs]) if ours else weight.detach()
    found: Array = ordered.unsqueeze(0).numpy()
    return found
