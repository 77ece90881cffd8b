"""Compiles the machine code that the tests run, and keeps it: python -m tests.compile_all float32 [long]

With `long`, also what only the long tests run: two layers in one step, and whole steps in float64.
"""

import sys

import torch

from rnnclf.cells import CELLS
from rnnclf.data import padded_dataset
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.whole_step import WholeSteps
from rnnclf.training.recipe import CrossEntropy


def make(dtype: torch.dtype, layers: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    data = padded_dataset(torch.zeros(4, 3, 2), torch.zeros(4, dtype=torch.int64), ("a", "b", "c"))
    for name in ("basic", "lstm", "gru"):
        cell = CELLS[name](hidden_size=3)
        x_TBI = torch.zeros(3, 4, 2, dtype=dtype, requires_grad=True)
        unroll(cell.build(2).to(dtype), x_TBI, engine="compiled")[0].sum().backward()
        for number in layers:
            model = SequenceClassifier(cell, 2, 3, Stack(layers=number)).to(dtype)
            steps = WholeSteps(model, CrossEntropy.plain(3), data)
            steps(torch.arange(4))
            steps.close()


if __name__ == "__main__":
    kind = getattr(torch, sys.argv[1])
    most = (kind == torch.float32) + ("long" in sys.argv[2:])
    make(kind, tuple(range(1, most + 1)))
