"""A small benchmark."""

from __future__ import annotations

import dataclasses

import pytest

from rnnclf.workflows import bench as module
from rnnclf.workflows.bench import (
    Bench,
)

SMALL = Bench(
    hidden=4, batch=3, inference_batch=5, length=6, inputs=2, seconds=0.001, device="cpu", threads=1
)
WORDS = [
    word
    for name, value in dataclasses.asdict(SMALL).items()
    for word in (f"--{name.replace('_', '-')}", str(value))
]


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setattr(module, "PRODUCT", (64, 32, 16))


def small(**changes: object) -> Bench:
    return dataclasses.replace(SMALL, **changes)
