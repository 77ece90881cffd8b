"""The sequence classifier.  Shapes: B batch, T time, I inputs, H hidden, D directions × H, K classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnclf.cells import Cell
from rnnclf.cells.module import CellModule
from rnnclf.engine import unroll
from rnnclf.readout import READOUTS


class RecurrentLayer(nn.Module):
    """One layer of a cell, run forward in time or, `bidirectional`, forward and backward."""

    def __init__(self, cell: Cell, input_size: int, bidirectional: bool) -> None:
        super().__init__()
        names = ("forward", "backward") if bidirectional else ("forward",)
        self.directions = nn.ModuleDict({f"{name}_cell": cell.build(input_size) for name in names})

    def forward(self, x_TBI: Tensor, lengths_B: Tensor | None) -> list[list[Tensor]]:
        """Each direction's T outputs (B, H), in the order in which that direction sees time."""
        outputs = []
        for name, module in self.directions.items():
            assert isinstance(module, CellModule)
            seen_TBI = x_TBI if name == "forward_cell" else reversed_in_time(x_TBI, lengths_B)
            outputs.append(unroll(module, seen_TBI, lengths_B=lengths_B)[0])
        return outputs


class SequenceClassifier(nn.Module):
    """Layers of one cell, a readout, a linear head.

    Args:
        cell: the cell of every layer.
        input_size: features of one step.
        classes: number of classes.
        layers: recurrent layers on top of each other.
        bidirectional: whether each layer also runs backward in time, with weights of its own.
        readout: how the top layer's outputs become one vector, a name of READOUTS.
        dropout: share of values dropped between layers and before the head while training.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        classes: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}.")
        self.input_size = input_size
        self.readout = READOUTS[readout]
        self.dropout = nn.Dropout(dropout)
        width = cell.hidden_size * (2 if bidirectional else 1)
        sizes = [input_size] + [width] * (layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(cell, size, bidirectional) for size in sizes)
        self.head = nn.Linear(width, classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BTI: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits (B, K) of whole sequences, or of those with `lengths_B` valid steps each."""
        if x_BTI.ndim != 3 or x_BTI.shape[2] != self.input_size:
            expected = f"(batch, time, {self.input_size})"
            raise ValueError(f"x must have shape {expected}, got {tuple(x_BTI.shape)}.")
        x_TBI = x_BTI.transpose(0, 1)
        if lengths_B is not None:
            # a NaN in the padding would survive every mask: its gradient is 0 · NaN
            x_TBI = x_TBI.masked_fill(_padding(x_TBI, lengths_B), 0)
        directions: list[list[Tensor]] = []
        for index, layer in enumerate(self.layers):
            if index > 0:
                x_TBI = self.dropout(_side_by_side(directions, lengths_B))
            directions = layer(x_TBI, lengths_B)
        features = [self.readout(outputs, lengths_B) for outputs in directions]
        logits_BK: Tensor = self.head(self.dropout(torch.cat(features, dim=-1)))
        return logits_BK

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def reversed_in_time(x_TBI: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Each sequence's valid steps back to front; its padding stays behind them."""
    if lengths_B is None:
        return x_TBI.flip(0)
    t_T1 = torch.arange(x_TBI.shape[0], device=x_TBI.device).unsqueeze(-1)
    source_TB = torch.where(t_T1 < lengths_B, lengths_B - 1 - t_T1, t_T1)
    return x_TBI.gather(0, source_TB.unsqueeze(-1).expand_as(x_TBI))


def _padding(x_TBI: Tensor, lengths_B: Tensor) -> Tensor:
    """True (T, B, 1) at the steps after the end of each sequence."""
    t_T1 = torch.arange(x_TBI.shape[0], device=x_TBI.device).unsqueeze(-1)
    return (t_T1 >= lengths_B).unsqueeze(-1)


def _side_by_side(directions: list[list[Tensor]], lengths_B: Tensor | None) -> Tensor:
    """The outputs (T, B, D) of all directions, joined where they belong to the same step."""
    forward_TBH = torch.stack(directions[0])
    if len(directions) == 1:
        return forward_TBH
    return torch.cat((forward_TBH, reversed_in_time(torch.stack(directions[1]), lengths_B)), dim=-1)
