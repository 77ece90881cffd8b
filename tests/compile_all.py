"""Has the machine code of some cells made and kept: python -m tests.compile_all float32 basic lstm"""

import sys

import torch

from rnnclf.cells import CELLS
from rnnclf.data import padded_dataset
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from rnnclf.training.compiled_step import CompiledSteps
from rnnclf.training.recipe import CrossEntropy


def make(dtype: torch.dtype, names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        cell = CELLS[name](hidden_size=3)
        x_TBI = torch.zeros(3, 4, 2, dtype=dtype, requires_grad=True)
        unroll(cell.build(2).to(dtype), x_TBI, engine="compiled")[0].sum().backward()
        model = SequenceClassifier(cell, 2, 3).to(dtype)
        data = padded_dataset(torch.zeros(4, 3, 2), torch.zeros(4, dtype=torch.int64), ("a", "b", "c"))
        steps = CompiledSteps(model, CrossEntropy.plain(3), data)
        steps(torch.arange(4))
        steps.close()


if __name__ == "__main__":
    make(getattr(torch, sys.argv[1]), sys.argv[2:])
