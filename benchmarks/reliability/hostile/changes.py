"""Small changes of anything valid, drawn from a seed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
from collections.abc import Iterator
from typing import Any

CANARY = "canary"  # the file that a payload would make

# fmt: off
NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e-320, 1e308, math.nan, math.inf, 10**9, 2**31, 2**63, 2**64,
    10**30, -(10**18), 10**400, [], {}, "", " ", "none", "auto", "null", "nan", "1e999", "???", "${hidden}",
    "${oc.env:FUZZ_SECRET}", "${canary:x}", "${", "$", "os.system", "_target_", f"touch {CANARY}",
    "__class__", "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\u202eabc", "\ud800", "\0", "\r", "a\nb",
    "[/red]", "[bold", ":boom:", "~nosuchuser/x", "/dev/zero", "/proc/self/mem", "../../x", "a" * 5000,
    "é" * 300, "http://127.0.0.1:9/x.csv", "s3://bucket/x.parquet", "seed:" + "9" * 50, "torch5544", "gru",
    "lstm", "mask", "digits", "table", "arrays", {"_target_": "os.system", "_args_": [f"touch {CANARY}"]},
    {"name": "gru"}, {"name": "${canary:x}"}, [0] * 3000, ["x"] * 3000, {str(n): n for n in range(500)},
]
WORDS = [
    "_target_", "_args_", "_partial_", "name", "cell", "hidden", "hidden_size", "layers", "dataset", "path",
    "plugins", "defaults", "hydra", "__reduce__", "${canary:x}", "", "\x1b[2J", "a" * 3000, "format",
    "classes", "root", "engine", "validation", "test", "accuracy", "state", "overrides", "\ud800",
]
# fmt: on


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of JSON data."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def changed_json(rng: random.Random, value: Any) -> Any:
    """JSON data with one part of it replaced, left out, doubled, renamed, nested or put elsewhere."""
    try:
        value = json.loads(json.dumps(value))
        everywhere = list(places(value))
    except RecursionError:  # deep enough
        return value
    path = rng.choice(everywhere)
    if not isinstance(value, dict | list):
        return rng.choice(NASTY)
    if not path and isinstance(value, list):
        return [*value, rng.choice(NASTY)] * rng.choice([1, 2, 50])
    if not path:
        return rng.choice(NASTY) if rng.random() < 0.3 else {**value, rng.choice(WORDS): rng.choice(NASTY)}
    parent = at(value, path[:-1])
    key, part = path[-1], at(value, path)
    kind = rng.choice(["replace"] * 6 + ["delete", "swap", "add", "rename", "nest", "scale", "text"])
    if kind == "replace":
        parent[key] = rng.choice(NASTY)
    elif kind == "delete":
        del parent[key]
    elif kind == "swap":
        parent[key] = at(value, rng.choice(everywhere))
        try:
            return json.loads(json.dumps(value))
        except ValueError:  # a part of itself
            parent[key] = part
    elif kind == "add" and isinstance(part, dict):
        part[rng.choice(WORDS)] = rng.choice(NASTY)
    elif kind == "add" and isinstance(part, list):
        part += [rng.choice(NASTY)] * rng.choice([1, 2, 50])
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice(WORDS)] = parent.pop(key)
    elif kind == "nest":
        parent[key] = nested(rng.choice([2, 10, 40, 900, 3000]) if rng.random() < 0.3 else 3)
    elif kind == "scale" and isinstance(part, int | float) and not isinstance(part, bool):
        factor = rng.choice([-1, 2, 0.5, 1000, 10**6, 10**12])
        with contextlib.suppress(OverflowError):  # an integer beyond all floats, by 0.5
            parent[key] = part * factor
    else:
        parent[key] = str(part)
    return value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def deep_text(depth: int) -> str:
    return "[" * depth + "]" * depth


def json_text(rng: random.Random, value: Any) -> str:
    """The value as JSON text; rarely such as no writer of JSON gives."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        return deep_text(5000)
    if rng.random() < 0.05:
        start = rng.randrange(len(text) + 1)
        text = (
            text[:start]
            + rng.choice(["NaN", "1e999", ",", "{", '"a":1,"a":2', deep_text(99_999), "1" * 5000])
            + text[start:]
        )
    return text


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes with bits flipped, cut, spliced, repeated, overwritten."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        if not changed:
            break
        start = rng.randrange(len(changed))
        end = min(start + rng.choice([1, 1, 4, 8, 64, len(changed)]), len(changed))
        kind = rng.choice(["flip", "flip", "byte", "cut", "repeat", "insert", "end"])
        if kind == "flip":
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            changed[start] = rng.choice([0, 1, 9, 10, 13, 27, 34, 44, 127, 128, 255])
        elif kind == "cut":
            del changed[start:end]
        elif kind == "repeat":
            changed[start:start] = changed[start:end][:4096]
        elif kind == "insert":
            changed[start:start] = rng.choice(
                [
                    b"\xff\xfe",
                    b"\0" * 8,
                    b"${canary:x}",
                    b"\x1b[2J",
                    b'"',
                    b",",
                    b"\n",
                    b"1e999",
                    b"!!python/object/apply:os.system ['touch canary']",
                ]
            )
        else:
            del changed[start:]
    return bytes(changed)


class Payload:
    """Unpickling it makes the canary."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)
