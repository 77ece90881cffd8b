"""Hostile records of runs and sweeps: JSON, CSV and YAML."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import shutil
from collections.abc import Callable

import yaml

from benchmarks.reliability.hostile.changes import CANARY, NASTY, changed_bytes, changed_json, json_text
from benchmarks.reliability.hostile.ground import Ground, harmless, said, shown
from benchmarks.reliability.hostile.overrides import hostile_words

# fmt: off
YAML = [
    f"!!python/object/apply:os.system ['touch {CANARY}']", "!!python/name:os.system", "&a [*a]", "*nothing",
    "{", "- - - -", "? [", "!!binary x", "2026-99-99", "!!timestamp 1", "1_0:99", "0o9", "<<: *a", "!x",
    "%YAML 9", "---", "...", "\t", "${canary:x}", "'", "|\n  a", "~", ".inf", "[" * 400, "{" * 400,
    "- " * 400, "\x1b[2J", "&a0 [x,x]\nb: &a1 [*a0,*a0]", "!!set {a}", "!!omap [a: 1]", "=", "1e400",
    "9" * 5000,
]
# fmt: on


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
    ranking = rank_sweep(ground.sweep)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        show_sweep(ranking, ground.sweep)
    harmless(screen.getvalue())
    assert sweep_table(ranking, 120)
    return "done" if ranking.rows[0].done else "not done"


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
