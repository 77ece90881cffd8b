"""Small classifiers, sequences with gaps, and exported files as they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.data.grid import Grid
from rnnclf.data.preparation import Preparation
from rnnclf.data.quantiles import Curve
from rnnclf.data.recordings import Array
from rnnclf.data.training_data import TrainingData
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

CLASSES, CHANNELS = ("calm", "hasty", "quick"), ("u", "v")
LENGTHS = torch.tensor([1, 4, 7, 3])
NAN = float("nan")


def needs_onnx() -> None:
    """Skips the tests of a file that need the extra."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra: pip install 'rnnclf[export]'")


CURVES = (Curve((-1.0, -0.2, 0.0, 0.4, 3.0), (-1.7, -0.6, 0.3, 0.5, 1.6)), Curve((-0.5, 0.5), (-1.0, 2.0)))


def preparation(missing: str = "error", **more: Any) -> Preparation:
    usual = {"shift_C": (0.5, -1.0), "scale_C": (2.0, 3.0), "interval": 1.5}
    return Preparation(channels=CHANNELS, missing=missing, **{**usual, **more})


def classifier(
    cell: str, inputs: int, hidden: int = 5, grid: Grid | None = None, **stack: Any
) -> SequenceClassifier:
    """In float32, with biases and statistics that are not their initial ones."""
    torch.manual_seed(0)
    of_cell = CELLS[cell](hidden_size=hidden)
    model = SequenceClassifier(of_cell, inputs, len(CLASSES), Stack(**stack), grid=grid)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


def as_read(missing: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences (B, T, C) with NaN where a value is missing and after their ends, and the time of each step.

    First and last steps are missing, too, and one channel of one sequence as a whole.
    """
    draw = torch.Generator().manual_seed(seed)
    t = int(LENGTHS.max())
    x_BTC = torch.randn(len(LENGTHS), t, len(CHANNELS), generator=draw)
    if missing in ("mask", "interpolate"):
        x_BTC[torch.rand(x_BTC.shape, generator=draw) < 0.4] = NAN
        x_BTC[2, 0, 0] = x_BTC[2, -1, 1] = x_BTC[1, :, 0] = NAN
    x_BTC[torch.arange(t) >= LENGTHS.unsqueeze(-1)] = NAN
    return x_BTC, (torch.rand(len(LENGTHS), t, generator=draw) + 0.1).cumsum(1)


def since_before(times_BT: torch.Tensor) -> torch.Tensor:
    return torch.diff(times_BT, dim=1, prepend=times_BT[:, :1])


def with_gaps(x_BTC: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The sequences with steps put in that miss a value, and their lengths then."""
    draw = np.random.default_rng(seed)
    wide = torch.full((len(x_BTC), x_BTC.shape[1] + 3, x_BTC.shape[2]), NAN)
    for row, length in enumerate(LENGTHS.tolist()):
        wide[row, np.sort(draw.permutation(length + 3)[:length])] = x_BTC[row, :length]
        wide[row, : length + 3, 1].nan_to_num_(0)  # one value of two is missing
        wide[row, : length + 3, 1][wide[row, : length + 3, 0].isnan()] = 7.0
    return wide, LENGTHS + 3


def logits_of(model: Any, feed: dict[str, Any], runtime: str = "onnxruntime") -> Array:
    """The logits of an ONNX model; `feed` may name inputs that it does not take."""
    arrays = {name: np.asarray(value) for name, value in feed.items()}
    names = {port.name: port.type.tensor_type.elem_type for port in model.graph.input}
    taken = {n: arrays[n].astype({1: np.float32, 7: np.int64, 11: np.float64}[k]) for n, k in names.items()}
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        [found] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(["logits"], taken)
    else:
        from onnx.reference import ReferenceEvaluator

        with np.errstate(all="ignore"):
            [found] = ReferenceEvaluator(model).run(["logits"], taken)
    return found


def assert_equal_logits(found: Any, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Relative to the largest logit."""
    wanted = wanted.detach()
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=tolerance * float(wanted.abs().max()))


FACTS = {
    "rnnclf": "0.1.0",
    "format": 1,
    "kind": "sequences",
    "classes": list(CLASSES),
    "channels": list(CHANNELS),
    "preparation": preparation().to_plain(),
    "reading": {},
    "dataset": {"name": "table"},
    "training_data": TrainingData().to_plain(),
    "cell": "gru",
    "temperature": 1.0,
    "int8": False,
    "checkpoint": "0" * 64,
    "fingerprint": "1" * 64,
}
"""The metadata of a file."""


def written(path: Path, model: Any, **changed: Any) -> Path:
    """A file with these metadata; None leaves one out."""
    import json

    del model.metadata_props[:]
    for key, value in {**FACTS, **changed}.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = (
                key,
                value if isinstance(value, str) and value[:1] == "!" else json.dumps(value),
            )
    path.write_bytes(model.SerializeToString())
    return path
