"""`rnnclf stream`: the answers of the whole pass after each step, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rnnclf import checkpoint
from rnnclf.augment import NoAugment
from rnnclf.averaging import NoAverage
from rnnclf.cells import CELLS
from rnnclf.checkpoint import header_of
from rnnclf.cli import app
from rnnclf.config import Config
from rnnclf.data.preparation import Preparation
from rnnclf.data.table import Table
from rnnclf.optim import Adam, Constant
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.stream import Answer, Choice, Stream

CLASSES = ("calm", "hasty", "quick")
LENGTHS = {"a": 6, "b": 3, "c": 7, "d": 1}
CHOSEN: dict[str, Any] = {
    "optimizer": Adam(),
    "schedule": Constant(),
    "augment": NoAugment(),
    "average": NoAverage(),
    "threads": 1,
}
COLOURS = ("blue", "red")


def saved(
    folder: Path, cell: str = "gru", missing: str = "error", patch: int = 1, named: bool = False, **more: Any
) -> Path:
    """A checkpoint with random weights, as of a table with the channels u and v, `named`: and of a colour."""
    timed = missing == "mask"
    channels = ("u", "colour", "v") if named else ("u", "v")
    prepared = Preparation(
        channels,
        missing,
        (0.5, 0.0, -1.0) if named else (0.5, -1.0),
        (2.0, 1.0, 3.0) if named else (2.0, 3.0),
        1.5 if timed else 1.0,
        patch,
        (None, COLOURS, None) if named else (),
        timed,
    )
    source = {key: more.pop(key) for key in ("window", "step", "time") if key in more}
    table = Table(path=str(folder / "gone.csv"), missing=missing, patch=patch, **source)
    config = Config(cell=CELLS[cell](hidden_size=5), dataset=table, **CHOSEN, **more)
    torch.manual_seed(0)
    model = build_model(config, prepared.input_size, len(CLASSES), prepared.coded)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.5)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    header = header_of(
        config=config.to_plain(),
        classes=CLASSES,
        input_size=prepared.input_size,
        steps=7,
        preparation=prepared.to_plain(),
        reading=table.reading(),
        fingerprint="0",
        engine={},
        epoch=1,
        metrics={},
    )
    path = folder / "best.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint.save(path, header, tensors)
    return path


def drawn_steps(missing: str = "error", seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """The steps of each sequence, with gaps where these may be; times differ by what float32 can hold."""
    draw = np.random.default_rng(seed)
    found: dict[str, list[dict[str, str]]] = {}
    for name, length in LENGTHS.items():
        clock = 100 * draw.random(length).cumsum()
        found[name] = [
            {
                "id": name,
                "time": f"{clock[t]:.3f}",
                "u": f"{draw.normal():.4f}",
                "colour": ("red", "blue", "grey")[int(draw.integers(3))],
                "v": f"{draw.normal():.4f}",
            }
            for t in range(length)
        ]
        if missing != "error":
            for t, row in enumerate(found[name]):
                if draw.random() < 0.4 and (t or missing == "mask"):
                    row["u"] = ""
    return found


def interleaved(steps: dict[str, list[dict[str, str]]], seed: int = 0) -> list[dict[str, str]]:
    """All steps in a random order in which each sequence keeps its own."""
    draw = np.random.default_rng(seed)
    turns = draw.permutation([name for name, rows in steps.items() for _ in rows])
    rest = {name: iter(rows) for name, rows in steps.items()}
    return [next(rest[str(name)]) for name in turns]


def as_csv(rows: list[dict[str, str]]) -> list[bytes]:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return [line.encode() for line in text.getvalue().splitlines(keepends=True)]


def as_json(rows: list[dict[str, str]]) -> list[bytes]:
    return [f"{json.dumps({key: value or None for key, value in row.items()})}\n".encode() for row in rows]


def answers(path: Path, lines: list[bytes], notes: list[str] | None = None, **choice: Any) -> list[Answer]:
    stream = Stream(path, [], Choice(**choice), (notes if notes is not None else []).append)
    return list(stream.answers(enumerate(lines, start=1), "stdin"))


def whole_passes(path: Path, steps: dict[str, list[dict[str, str]]], named: bool) -> dict[tuple[str, int], Any]:
    """What `rnnclf eval` says of each beginning of each sequence, by its id and its number of steps."""
    rows = [
        {"id": f"{name}-{end}", "label": CLASSES[k % 3], **{k: v for k, v in row.items() if k != "id"}}
        for k, (name, own) in enumerate(steps.items())
        for end in range(1, len(own) + 1)
        for row in own[:end]
    ]
    for row in [] if named else rows:
        del row["colour"]
    table = path.parent / "beginnings.csv"
    table.write_bytes(b"".join(as_csv(rows)))
    [found] = evaluate(path, [f"dataset.path={table}", "split=all"])
    logits_NK = torch.from_numpy(np.array(found.evaluation.logits_NK))
    pairs = zip(found.evaluation.ids_N.tolist(), logits_NK.double().softmax(-1).numpy(), strict=True)
    return {(id.rsplit("-", 1)[0], int(id.rsplit("-", 1)[1])): row for id, row in pairs}


@pytest.mark.parametrize(
    ("cell", "missing", "patch", "named", "stack"),
    [
        ("gru", "error", 1, False, {}),
        ("lstm", "mask", 1, True, {"layers": 2, "readout": "attention", "norm": "batch", "residual": True}),
        ("slstm", "error", 3, True, {"readout": "max"}),
        ("lru", "mask", 2, False, {"readout": "mean", "layers": 2, "readout_layers": "all"}),
        ("basic", "drop", 1, False, {"readout": "mean", "norm": "layer", "zoneout": 0.2}),
    ],
)
def test_each_answer_is_that_of_eval_for_the_steps_so_far(tmp_path, cell, missing, patch, named, stack):
    path = saved(tmp_path, cell, missing, patch, named, **stack)
    steps = drawn_steps(missing)
    wanted = whole_passes(path, steps, named)
    lines = as_csv(interleaved(steps))
    found = answers(path, lines)
    complete = {
        (name, t + 1) for name, rows in steps.items() for t, row in enumerate(rows) if row["u"] or missing == "mask"
    }
    assert {(answer.id, answer.step) for answer in found} == complete
    for answer in found:
        expected = wanted[str(answer.id), answer.step]
        np.testing.assert_allclose(answer.probability_K, expected, atol=1e-5)
        assert answer.place == int(np.argmax(answer.probability_K))
    assert answers(path, as_json(interleaved(steps))) == found
    ends = {answer.id: answer for answer in found}  # the last one of each
    assert {answer.id: answer for answer in answers(path, lines, last=True)} == ends
