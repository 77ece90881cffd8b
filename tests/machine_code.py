"""Has the machine code of the workhorses made and kept for a type: python -m tests.machine_code float32"""

import sys

import torch

from rnnclf.cells import CELLS
from rnnclf.engine import unroll


def make(dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    for name in ("basic", "lstm", "gru"):
        cell = CELLS[name](hidden_size=3).build(2).to(dtype)
        x_TBI = torch.zeros(3, 4, 2, dtype=dtype, requires_grad=True)
        unroll(cell, x_TBI, engine="compiled")[0].sum().backward()


if __name__ == "__main__":
    make(getattr(torch, sys.argv[1]))
