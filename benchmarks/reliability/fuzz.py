"""Hostile files and words, by the ten thousand: each must give a right answer or one clear RnnclfError.

    python benchmarks/reliability/fuzz.py                         # 10,000 inputs for each target
    python benchmarks/reliability/fuzz.py checkpoint --count 500 --first 3000 --seed 7

Every input is drawn from (target, seed, number) alone, so that any of them can be repeated, and a long run
can be cut into pieces. What counts as a failure: an exception that is no RnnclfError; more than SECONDS; more
than MEMORY; a control character on the screen; anything run that the input named. Many inputs hold payloads
that would make a file or reach a resolver of OmegaConf, and Python's own audit hook tells of unpickling,
shells, programs and connections.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import gc
import io
import json
import logging
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SECONDS = 10.0  # of computing for one input; of waiting, six times as many
MEMORY = 1.5 * 2**30  # bytes beyond what the process has before the first input
CANARY = "canary"  # the file that a payload would make
SECRET = "jailbird-4711"  # what the environment variable FUZZ_SECRET holds
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")

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
OVERRIDES = [
    "hidden=5", "cell=gru", "cell=lstm", "cell.recurrent_init=glorot", "layers=2", "bidirectional=true",
    "dropout=0.1", "optimizer.lr=0.01", "optimizer=sgd", "schedule=cosine", "dataset=digits",
    "dataset.validation=0.2", "seed=1,2", "dataset.path=a.csv", "dataset=table", "epochs=3",
    "match_parameters=30k", "plugins=[]", "experiment=tutorial", "+new=1", "~clip", "++epochs=2",
    "seed=range(0,4)", "hidden=choice(1,2)", "optimizer.lr=interval(0,1)", "hydra.run.dir=x",
    "hydra/launcher=basic", "threads=auto", "device=cpu", "split=test", "augment=series",
    "checkpoint.every=30s",
]
PIECES = [
    "=", ",", "[", "]", "{", "}", "(", ")", ":", "'", '"', "\\", "$", "${", "${oc.env:FUZZ_SECRET}",
    "${canary:x}", "~", "+", "++", "@", "/", ".", "..", "_target_", "null", "nan", "inf", "-", "--", "1e400",
    "10000000000000000000000", "range(0,1000000000000)", "glob(*)", "sort(3,2)", "shuffle(1,2)",
    "extend_list(1)", "tag(a,1)", "str(", "é", "\x1b[2J", "\ud800", " ", "\t", "\n", "[" * 300, "{a:" * 60,
    "x" * 3000, "hydra.job.env_set={A:1}", "_self_", "cell._target_=os.system", "/dev/zero", "~nosuchuser",
    "hydra.callbacks.x._target_=os.system", "plugins=[no_such_module]",
]
YAML = [
    f"!!python/object/apply:os.system ['touch {CANARY}']", "!!python/name:os.system", "&a [*a]", "*nothing",
    "{", "- - - -", "? [", "!!binary x", "2026-99-99", "!!timestamp 1", "1_0:99", "0o9", "<<: *a", "!x",
    "%YAML 9", "---", "...", "\t", "${canary:x}", "'", "|\n  a", "~", ".inf", "[" * 400, "{" * 400,
    "- " * 400, "\x1b[2J", "&a0 [x,x]\nb: &a1 [*a0,*a0]", "!!set {a}", "!!omap [a: 1]", "=", "1e400",
    "9" * 5000,
]
# fmt: on


class Hang(BaseException):
    """An input took too long."""


class Executed(BaseException):
    """An input had something run."""


# What an input may come from: a seed, and small changes of anything valid


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


# The targets


@dataclass
class Ground:
    """A sweep folder with one run in it, and the valid contents from which inputs are made."""

    folder: Path
    checkpoints: list[bytes] = field(default_factory=list)
    records: dict[str, bytes] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    """Configuration and data of a run."""

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep"

    @property
    def run(self) -> Path:
        return self.sweep / "0"


def prepare(folder: Path) -> Ground:
    """Makes valid files by the code that makes those of users: small models, stopped and finished."""
    from omegaconf import OmegaConf

    from rnnclf.hydra_app import load_config
    from rnnclf.workflows.runs import RunFolder
    from rnnclf.workflows.train import Data, Watcher, train

    ground = Ground(folder)
    small = ["dataset=digits", "epochs=1", "hidden=4", "threads=1", "dataset.test=1500"]
    kinds = (
        ["cell=gru"],
        ["cell=lmu", "layers=2"],
        ["cell=s4d", "bidirectional=true", "checkpoint.every=1 steps"],
    )
    for number, words in enumerate(kinds):
        run = RunFolder(folder / "made" / str(number))
        run.path.mkdir(parents=True)
        config = load_config([*small, *words])
        train(config, run, overrides=[*small, *words])
        there = [file for file in (run.best, run.last, run.previous) if file.exists()]
        ground.checkpoints += [file.read_bytes() for file in there]
        if number == 0:
            ground.data |= {"config": config, "splits": Data.of(config, Watcher())}
            ground.run.mkdir(parents=True)
            for file in (run.status, run.results, run.epochs):
                ground.records[file.name] = file.read_bytes()
                (ground.run / file.name).write_bytes(file.read_bytes())
            (ground.run / run.best.name).write_bytes(run.best.read_bytes())
    OmegaConf.save(composed_sweep([*small, "seed=1,2"]), ground.sweep / "multirun.yaml")
    ground.records["multirun.yaml"] = (ground.sweep / "multirun.yaml").read_bytes()
    return ground


def composed_sweep(words: list[str]) -> Any:
    """What Hydra writes into multirun.yaml for these words."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from rnnclf.hydra_app.setup import conf_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN)


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


def said(message: str, file: Path | None) -> None:
    """An error names the file, and goes to the screen without harm."""
    from rnnclf.console.screen import print_error

    assert file is None or str(file) in message, message
    with contextlib.redirect_stderr(io.StringIO()) as screen:
        print_error(message)
    harmless(screen.getvalue())


def shown(found: Any) -> None:
    from rnnclf.console.inspect import show_inspection
    from rnnclf.console.screen import print_json

    with contextlib.redirect_stdout(io.StringIO()) as screen:
        show_inspection(found)
        print_json(found.to_dict())
    harmless(screen.getvalue())
    screen.getvalue().encode()


def harmless(text: str) -> None:
    if found := CONTROL.search(text):
        raise AssertionError(f"{found[0]!r} reached the screen")
    if SECRET in text:
        raise Executed("the environment was read")


def hostile_record(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.3:
        return changed_bytes(rng, content)
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 6])):
        value = changed_json(rng, value) if isinstance(value, dict | list) else value
    return json_text(rng, value).encode()


def hostile_table(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.4:
        return changed_bytes(rng, content)
    rows = list(csv.reader(io.StringIO(content.decode()))) * rng.choice([1, 1, 3, 100])
    for _ in range(rng.choice([1, 1, 2, 6])):
        row = rng.choice(rows)
        if rng.random() < 0.7 and row:
            row[rng.randrange(len(row))] = str(rng.choice(NASTY))
        elif rng.random() < 0.5:
            row.append(str(rng.choice(NASTY)))
        else:
            rows.insert(rng.randrange(len(rows)), [str(rng.choice(NASTY))] * rng.randrange(9))
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def look_at(ground: Ground) -> str:
    """What reads the records of a run: inspect, and the table of its sweep."""
    from rnnclf.console.sweep import show_sweep, sweep_table
    from rnnclf.workflows.inspect import inspect
    from rnnclf.workflows.sweep import rank_sweep

    shown(inspect(ground.run))
    shown(inspect(ground.sweep))
    rows = rank_sweep(ground.sweep)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        show_sweep(rows, ground.sweep)
    harmless(screen.getvalue())
    assert sweep_table(rows, 120)
    return "done" if rows[0].done else "not done"


def take_up(ground: Ground) -> str:
    """That, and what resume takes from status.json where there is no checkpoint yet: the configuration."""
    from rnnclf.errors import RnnclfError
    from rnnclf.workflows.resume import _config
    from rnnclf.workflows.runs import RunFolder

    outcome, run = look_at(ground), RunFolder(ground.run)
    try:
        _config(run, None, run.read_status())
    except RnnclfError as error:
        said(str(error), None)
        return f"{outcome}, refused by resume"
    return outcome


def record_target(
    name: str, hostile: Callable[[random.Random, bytes], bytes], look: Callable[[Ground], str]
) -> Callable[[random.Random, Ground], str]:
    def attempt(rng: random.Random, ground: Ground) -> str:
        file = (ground.sweep if name == "multirun.yaml" else ground.run) / name
        try:
            file.write_bytes(hostile(rng, ground.records[name]))
            return look(ground)
        finally:
            file.write_bytes(ground.records[name])

    return attempt


def hostile_yaml(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.2:
        return changed_bytes(rng, content)
    if rng.random() < 0.3:
        value = yaml.safe_load(content)
        for _ in range(rng.choice([1, 1, 3])):
            value = changed_json(rng, value) if isinstance(value, dict | list) else value
        try:
            return yaml.safe_dump(value).encode("utf-8", "surrogatepass")
        except RecursionError:
            return content
    if rng.random() < 0.1:  # nine lists of nine lists of nine …: 10^9 parts when written out
        bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
        content = content.replace(b"task:", b"task: *a9\n    old:")
        return b"a0: &a0 [x, x]\n" + bomb.encode() + content
    lines = content.decode().splitlines()
    for _ in range(rng.choice([1, 1, 2, 6])):
        place = rng.randrange(len(lines))
        key, _, _ = lines[place].partition(":")
        choices = [
            *(
                f"{key}: {rng.choice(YAML)}",
                f"{key}: {rng.choice(NASTY)}",
                rng.choice(YAML),
                lines[place][2:],
            ),
            *(
                f"    - {rng.choice(hostile_words(rng))}",
                lines[place] + rng.choice(YAML),
                f"  {lines[place]}",
            ),
        ]
        lines[place] = rng.choice(choices)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def grow(ground: Ground) -> str:
    """What `resume SWEEP seed=3` takes from multirun.yaml: the launcher, and the words of the other jobs."""
    from rnnclf.errors import RnnclfError
    from rnnclf.workflows import ledger
    from rnnclf.workflows.inspect import inspect

    ledger.launching(ground.sweep, [])
    shown(inspect(ground.sweep))
    added = []
    try:
        added = ledger.add_points(ground.sweep, ["seed=3"])
        return f"{min(len(added), 2)} added" if len(added) < 2 else "more added"
    except RnnclfError as error:
        said(str(error), None)
        return "refused"
    finally:
        for run in ground.sweep.iterdir():
            if run.is_dir() and run != ground.run:
                shutil.rmtree(run)


def hostile_words(rng: random.Random) -> list[str]:
    words = rng.sample(OVERRIDES, rng.choice([1, 1, 2, 3]))
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(words))
        word, piece = words[place], rng.choice(PIECES)
        start = rng.randrange(len(word) + 1)
        key, _, value = word.partition("=")
        words[place] = rng.choice(
            [
                word[:start] + piece + word[start:],
                word[:start] + piece,
                f"{key}={piece}",
                f"{key}={rng.choice(NASTY)}",
                f"{piece}={value}",
                word[:start] + word[start + 1 :],
                piece,
                f"{key}.{rng.choice(WORDS)}={value}",
            ]
        )
    return words


def try_overrides(rng: random.Random, ground: Ground) -> str:
    """The words of train up to a checked config, and those of eval."""
    from rnnclf.errors import RnnclfError
    from rnnclf.hydra_app.bridge import flags_and_overrides
    from rnnclf.hydra_app.compose import load_config, parsed

    words = hostile_words(rng)
    outcome = "refused"
    for read in (lambda: load_config(flags_and_overrides(words)[1]), lambda: parsed(words)):
        try:
            read()
            outcome = "accepted"
        except RnnclfError as error:
            from rnnclf.console.screen import print_error

            with contextlib.redirect_stderr(io.StringIO()) as screen:
                print_error(str(error))
            assert not CONTROL.search(screen.getvalue()), screen.getvalue()
    return outcome


def good_data() -> dict[str, bytes]:
    """Small valid files of the user's data, by the path at which they are read."""
    import numpy as np
    from scipy.io import savemat, wavfile

    x, y = np.arange(60.0).reshape(6, 5, 2), np.array(["walk", "run"] * 3)
    packed, matlab, plain, sound = (io.BytesIO() for _ in range(4))
    np.savez_compressed(packed, x_train=x, y_train=y, x_test=x, y_test=y)
    savemat(matlab, {"X": x, "y": y}, do_compression=True)
    savemat(plain, {"X": x, "y": np.arange(6) % 2})
    wavfile.write(sound, 8000, np.arange(12, dtype=np.int16).reshape(6, 2))
    nested = "@relation a\n@attribute r relational\n@attribute t1 numeric\n@attribute t2 numeric\n@end r\n"
    nested += "@attribute c {walk,run}\n@data\n'1,2\\n3,4',walk\n'5,6\\n7,8',run\n"
    flat = "@relation a\n@attribute t1 numeric\n@attribute t2 real\n@attribute c {walk,run}\n@data\n"
    flat += "1,?,walk\n3,4,run\n"
    return {
        "a.npz": packed.getvalue(),
        "a.mat": matlab.getvalue(),
        "b.mat": plain.getvalue(),
        "a.arff": nested.encode(),
        "b.arff": flat.encode(),
        "a_TRAIN.tsv": b"1\t0.5\t1.5\n2\t2\t3\n",
        "sounds/walk/a.wav": sound.getvalue(),
        "pandas/walk/a.csv": b",date,x\n0,2024-01-01 10:00:00,2\n1,2024-01-01 10:00:01.5,3\n",
        "together/labels.csv": b"file,label\na.csv,walk\nb.csv,run\n",
    }


def try_data(rng: random.Random, ground: Ground) -> str:
    """What reads data of the user's own, with one file changed."""
    from rnnclf.data import DATASETS
    from rnnclf.errors import RnnclfError
    from rnnclf.hydra_app.sources import source_for

    if "good" not in ground.data:
        ground.data["good"] = good_data()
    name = rng.choice(sorted(ground.data["good"]))
    content, file = ground.data["good"][name], ground.folder / "own" / name
    top = ground.folder / "own" / name.partition("/")[0]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(changed_bytes(rng, content))
        options = {"path": str(top)}
        if name.startswith("together"):
            options["labels"] = str(file)
            for other in ("a.csv", "b.csv"):
                (top / other).write_text("1,2\n3,4\n")
        elif top != file:
            (top / "run").mkdir(exist_ok=True)
            (top / "run" / file.name).write_bytes(content)
        try:
            assert len(DATASETS[source_for(str(top))](**options).read())
            return f"{name} read"
        except RnnclfError as error:
            said(str(error), None)
            return f"{name} refused"
    finally:
        shutil.rmtree(ground.folder / "own", ignore_errors=True)


TARGETS: dict[str, Callable[[random.Random, Ground], str]] = {
    "checkpoint": try_checkpoint,
    "status.json": record_target("status.json", hostile_record, take_up),
    "results.json": record_target("results.json", hostile_record, look_at),
    "epochs.csv": record_target("epochs.csv", hostile_table, look_at),
    "multirun.yaml": record_target("multirun.yaml", hostile_yaml, grow),
    "overrides": try_overrides,
    "data": try_data,
}


# One input after the other, watched

WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
    "os.fork",
)
_executed: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in WATCHED:
        _executed.append(f"{event} {arguments!r}"[:200])


def watch() -> None:
    """From now on Python tells of what is run; resolvers that a file must not reach are there to be."""
    from omegaconf import OmegaConf

    from rnnclf.hydra_app.setup import register

    register([])
    sys.addaudithook(_audit)
    if not OmegaConf.has_resolver("canary"):
        OmegaConf.register_new_resolver("canary", lambda *_: _executed.append("a resolver"))
    os.environ["FUZZ_SECRET"] = SECRET


def _do_once() -> None:
    """Has what many inputs share, the parts that are not hostile, worked out but once: that is most of it.

    Changes modules for good, so it is for a process that does nothing else.
    """
    from hydra.core.config_store import ConfigStore

    from rnnclf.config import from_plain
    from rnnclf.hydra_app import checks, compose, setup
    from rnnclf.workflows import evaluate, ledger, resume

    def register(plugins: list[str]) -> None:
        if plugins:  # the others are known already
            setup.register(plugins)

    checks.register = compose.register = resume.register = register  # type: ignore[attr-defined]
    ledger.plan = _remembered(checks.plan)  # type: ignore[attr-defined]
    remembered = _remembered(from_plain)
    evaluate.from_plain = ledger.from_plain = resume.from_plain = remembered  # type: ignore[attr-defined]
    # Hydra copies its store of schemas for each composition, and what it reads there once more
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()  # torch's hundred thousand objects need not be looked through again and again


def _remembered(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of plain data, which returns a copy of what it returned for the same data before. What it
    raises is not remembered."""
    known: dict[str, Any] = {}

    def call(plain: Any) -> Any:
        try:
            key = json.dumps(plain)
        except (TypeError, ValueError, RecursionError):
            return function(plain)
        if key not in known:
            if len(known) > 500 or len(key) > 20_000:
                return function(plain)
            known[key] = function(plain)
        return copy.deepcopy(known[key])

    return call


def once(target: str, number: int, seed: int, ground: Ground) -> str:
    """What came of one input; raises for anything that must not happen."""
    global _watching
    rng = random.Random(f"{target} {seed} {number}")
    _executed.clear()
    _watching = target != "overrides"  # a user's own words may name a program or a resolver
    before = signal.signal(signal.SIGALRM, Limit().look)
    signal.setitimer(signal.ITIMER_REAL, SECONDS / 10)
    try:
        outcome = TARGETS[target](rng, ground)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _watching = False
    if Path(CANARY).exists() or (_executed and target != "overrides"):
        raise Executed(", ".join(_executed) or "the canary was made")
    return outcome


@dataclass
class Limit:
    """Ends an input that takes too long. Other processes of a busy machine are not its fault."""

    waited: float = field(default_factory=time.monotonic)
    computed: float = field(default_factory=time.process_time)

    def look(self, *_: Any) -> None:
        computed, waited = time.process_time() - self.computed, time.monotonic() - self.waited
        if computed > SECONDS or waited > 6 * SECONDS:
            raise Hang(f"{computed:.1f} s of computing, {waited:.1f} s in all")
        signal.setitimer(signal.ITIMER_REAL, SECONDS / 10)


def limit_memory(extra: float) -> None:
    """From here on the process may take that many bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = int(pages * os.sysconf("SC_PAGE_SIZE") + extra)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all if left out")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        ground = prepare(Path(folder))
        watch()
        _do_once()
        limit_memory(MEMORY)
        for target in given.targets or TARGETS:
            outcomes: Counter[str] = Counter()
            started, slowest = time.perf_counter(), 0.0
            for number in range(given.first, given.first + given.count):
                begun = time.perf_counter()
                try:
                    outcomes[once(target, number, given.seed, ground)] += 1
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:
                    outcomes["FAILED"] += 1
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    failures[place := f"{where.filename}:{where.lineno} {type(error).__name__}"] += 1
                    if failures[place] == 1:  # others of its kind have the same cause
                        print(f"{target} --seed {given.seed} --first {number} --count 1", file=sys.stderr)
                        traceback.print_exception(error, limit=-8, file=sys.stderr)
                    Path(CANARY).unlink(missing_ok=True)
                slowest = max(slowest, time.perf_counter() - begun)
                if (number + 1 - given.first) % 1000 == 0:
                    print(f"{target}: {number + 1:,}", file=sys.stderr, flush=True)
            listed = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
            seconds = time.perf_counter() - started
            print(
                f"{target}: {given.count:,} inputs in {seconds:.0f} s, slowest {slowest:.2f} s: {listed}",
                flush=True,
            )
    for place, count in failures.most_common():
        print(f"{count:,} times {place}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
