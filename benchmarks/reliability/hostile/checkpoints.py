"""Hostile checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import struct
from typing import Any

from benchmarks.reliability.hostile.changes import Payload, changed_bytes, changed_json, deep_text, json_text
from benchmarks.reliability.hostile.ground import Ground, said, shown


def hostile_checkpoint(rng: random.Random, ground: Ground) -> bytes:
    from rnnclf.checkpoint import PLACEHOLDER, sealed

    content = rng.choice(ground.checkpoints)
    kind = rng.choice(["bytes", "header", "header", "header", "headers", "table", "table", "other"])
    if kind == "bytes":
        return changed_bytes(rng, content)
    if kind == "other":
        return rng.choice(
            [
                pickle.dumps(Payload()),
                b"\x80\x04" + content,
                b"PK\x03\x04" + content,
                b"",
                content[:8],
                os.urandom(99),
                struct.pack("<Q", rng.choice([0, 2**20, 2**40, 2**63, 2**64 - 1])) + content[8:],
                struct.pack("<Q", 2) + b"{}",
                struct.pack("<Q", 10**6) + deep_text(10**5).encode(),
            ]
        )
    length = struct.unpack("<Q", content[:8])[0]
    table, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header = json.loads(table.pop("__metadata__")["rnnclf"])
    header["sha256"] = PLACEHOLDER
    if kind.startswith("header"):
        for _ in range(1 if kind == "header" else rng.choice([2, 5, 20])):
            part = rng.choice(["config", "config", "preparation", "reading", "classes", "metrics", None])
            if not isinstance(header, dict):
                break
            if part in header:
                header[part] = changed_json(rng, header[part])
            else:
                header = changed_json(rng, header)
    else:
        for _ in range(rng.choice([1, 1, 3])):
            table = changed_json(rng, table) if isinstance(table, dict) else table
        data = data if rng.random() < 0.7 else changed_bytes(rng, data)
    if not isinstance(table, dict):
        table = {}
    text = json_text(rng, header)
    raw = json_text(rng, {"__metadata__": {"rnnclf": text}, **table}).encode()
    raw += b" " * (-len(raw) % 8)
    whole = struct.pack("<Q", len(raw)) + raw + data
    return sealed(whole) if PLACEHOLDER.encode() in whole else whole


def try_checkpoint(rng: random.Random, ground: Ground) -> str:
    """Eval's way up to the model being filled, that of resume up to the next batch, and inspect."""
    from rnnclf.errors import RnnclfError
    from rnnclf.workflows.inspect import inspect
    from rnnclf.workflows.loading import load_model

    file = ground.folder / "received.safetensors"
    file.write_bytes(hostile_checkpoint(rng, ground))
    outcome = "accepted"
    try:
        loaded = load_model(file, [])
        if "random.cpu" in loaded.checkpoint.tensors:
            go_on(loaded.checkpoint, loaded.config, ground)
            outcome = "accepted with its training"
    except RnnclfError as error:
        outcome = "refused"
        said(str(error), file)
    with contextlib.suppress(RnnclfError):
        shown(inspect(file))
    return outcome


def go_on(saved: Any, config: Any, ground: Ground) -> None:
    """What `resume` takes from a checkpoint."""
    from rnnclf.workflows.resume import _training
    from rnnclf.workflows.saving import history_of

    history_of(saved)
    dataset, data = ground.data["config"].dataset, ground.data["splits"]
    if config.dataset == dataset and len(saved.header["classes"]) == data.shape[1]:
        _training(saved, config, data).draw_batches(data.parts["train"])
