"""Checkpoints that are intact but cannot classify: eval refuses them instead of reporting their accuracy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rnnclf import checkpoint
from tests.workflows.test_safe_files import changed, refusal


@pytest.mark.parametrize(
    ("key", "value"), [("scale_C", 0.0), ("scale_C", 1e-320), ("scale_C", -1.0), ("interval", 0.0)]
)
def test_a_scale_that_nothing_can_be_divided_by_is_refused(cli, best, key, value):
    def replaced(header, table):
        old = header["preparation"][key]
        header["preparation"][key] = [value] * len(old) if isinstance(old, list) else value

    assert "finite scales above 0" in refusal(cli, changed(best, replaced))


def with_weights(path: Path, change) -> Path:
    """The checkpoint with `change(weight)` for each weight, and a checksum that is right."""
    saved = checkpoint.load(path)
    checkpoint.save(path, saved.header, {name: change(tensor) for name, tensor in saved.tensors.items()})
    return path


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(cli, best, value):
    message = refusal(cli, with_weights(best, lambda tensor: torch.full_like(tensor, value)))
    assert f"{best} has values in head.bias that are not finite" in message


def test_weights_whose_outputs_are_not_finite_are_refused(cli, best):
    message = refusal(cli, with_weights(best, lambda tensor: torch.full_like(tensor, -3e38)))
    assert "outputs are not finite" in message
