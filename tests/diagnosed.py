"""What the tests of the diagnosis share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rnnclf.cells import Cell
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

B, T, K = 5, 9, 4
INPUTS = 3


def built(cell: Cell, **stack: object) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(cell, INPUTS, K, Stack(**stack)).double()  # type: ignore[arg-type]


def batch(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return scale * torch.randn(B, T, INPUTS, dtype=torch.float64), torch.arange(B) % K


# The spectral radius


def radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())
