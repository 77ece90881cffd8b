"""Of a mapped file that is read at random, what is announced is read, and nothing else."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.data.base import _tensor
from rnnclf.data.dataset import SequenceDataset
from rnnclf.data.npy import mapped
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.evaluation import evaluate_model, score_model

N, T, C = 256, 64, 64  # sequences of four pages each

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages are in memory")


def resident(values_SC: torch.Tensor) -> np.ndarray:
    """Whether each page of a mapped tensor is in memory."""
    first = values_SC.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = values_SC.data_ptr() + values_SC.nbytes - first
    found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    assert not ctypes.CDLL(None).mincore(
        ctypes.c_void_p(first), ctypes.c_size_t(size), found.ctypes.data_as(ctypes.c_void_p)
    )
    return (found & 1).astype(bool)


def settles(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def on_disk(tmp_path: Path) -> SequenceDataset:
    """Sequences of a file of which nothing is in memory."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(N * T * C, dtype=np.float32).reshape(N * T, C))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    array, source = mapped(path, "x.npy")
    lengths_N = torch.full((N,), T)
    data = SequenceDataset(
        _tensor(array), torch.arange(N) * T, lengths_N, torch.zeros(N, dtype=torch.long), ("a",),
        files=(source,),
    )  # fmt: skip
    if resident(data.x_SI).sum() > 8:  # the header was read, and what is around it
        pytest.skip("this file system keeps its files in memory")
    return data


def test_only_announced_sequences_are_read(on_disk: SequenceDataset) -> None:
    before, chosen_B = resident(on_disk.x_SI), torch.tensor([200, 40, 120])
    pages = T * C * 4 // mmap.PAGESIZE
    wanted = np.zeros_like(before)
    for n in chosen_B.tolist():
        wanted[n * pages : (n + 1) * pages + 1] = True  # the array begins within a page
    for first_B in on_disk.in_turn([torch.tensor([200]), torch.tensor([40, 120])]):
        if len(first_B) == 1:  # the second batch is announced, but not yet asked for
            assert settles(lambda: bool(resident(on_disk.x_SI)[wanted].all()))
        x_BTI = on_disk.batch(first_B).x_BTI
        assert (x_BTI.flatten(1)[:, 0] == first_B * T * C).all()
    assert not (resident(on_disk.x_SI) & ~before & ~wanted).any()


def test_scoring_reads_only_the_sequences_of_its_split(on_disk: SequenceDataset) -> None:
    before, part = resident(on_disk.x_SI), on_disk.subset(torch.tensor([200, 40, 120]))
    model = SequenceClassifier(CELLS["basic"](hidden_size=4), C, 1, Stack())
    for score in (score_model, evaluate_model):
        score(model, part)
    pages = T * C * 4 // mmap.PAGESIZE
    assert (resident(on_disk.x_SI) & ~before).sum() <= 3 * (pages + 1)


def test_outside_the_system_reads_ahead_again(on_disk: SequenceDataset) -> None:
    list(on_disk.in_turn([]))
    on_disk.batch(torch.tensor([100]))
    pages = T * C * 4 // mmap.PAGESIZE
    assert settles(lambda: bool(resident(on_disk.x_SI)[101 * pages + 2]))
