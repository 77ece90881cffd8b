"""`rnnclf stream`: the answers of the whole pass after each step, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
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
from rnnclf.errors import ConfigError, DataError, RnnclfError
from rnnclf.optim import Adam, Constant
from rnnclf.workflows.early import remembered
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.stream import Answer, Choice, Stream

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

CLASSES = ("calm", "hasty", "quick")
LENGTHS = {"a": 6, "b": 3, "c": 7, "d": 1}
CHOSEN: dict[str, Any] = {
    "optimizer": Adam(),
    "schedule": Constant(),
    "augment": NoAugment(),
    "average": NoAverage(),
    "threads": 1,
}
also = partial(pytest.param, marks=pytest.mark.long)
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
    return [answer for due in stream.answers(arriving(lines), "stdin") for answer in due]


def arriving(lines: list[bytes], seed: int = 0) -> Iterator[list[tuple[int, bytes]]]:
    """The lines with their numbers, a few at a time, as they may arrive."""
    draw, rest = np.random.default_rng(seed), [*enumerate(lines, start=1)]
    while rest:
        many = int(draw.integers(1, 12))
        yield rest[:many]
        rest = rest[many:]


def whole_passes(
    path: Path, steps: dict[str, list[dict[str, str]]], named: bool
) -> dict[tuple[str, int], Any]:
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
        also("slstm", "error", 3, True, {"readout": "max"}),
        also("lru", "mask", 2, False, {"readout": "mean", "layers": 2, "readout_layers": "all"}),
        also("basic", "drop", 1, False, {"readout": "mean", "norm": "layer", "zoneout": 0.2}),
    ],
)
def test_each_answer_is_that_of_eval_for_the_steps_so_far(tmp_path, cell, missing, patch, named, stack):
    path = saved(tmp_path, cell, missing, patch, named, **stack)
    steps = drawn_steps(missing)
    wanted = whole_passes(path, steps, named)
    lines = as_csv(interleaved(steps))
    found = answers(path, lines)
    complete = {
        (name, t + 1)
        for name, rows in steps.items()
        for t, row in enumerate(rows)
        if row["u"] or missing == "mask"
    }
    assert {(answer.id, answer.step) for answer in found} == complete
    for answer in found:
        expected = wanted[str(answer.id), answer.step]
        np.testing.assert_allclose(answer.probability_K, expected, atol=1e-5)
        assert answer.place == int(np.argmax(answer.probability_K))
    assert answers(path, as_json(interleaved(steps))) == found
    ends = {answer.id: answer for answer in found}  # the last one of each
    assert {answer.id: answer for answer in answers(path, lines, last=True)} == ends


def test_windows_are_answered_when_they_are_full(tmp_path):
    path = saved(tmp_path, "lstm", window=3, step=2)
    rows = drawn_steps()["c"]
    alone = whole_passes(saved(tmp_path, "lstm"), {"c": rows[:3], "d": rows[2:5], "e": rows[4:7]}, False)
    path = saved(tmp_path, "lstm", window=3, step=2)
    found = answers(path, as_csv(rows))
    assert [answer.step for answer in found] == [3, 5, 7]
    for name, answer in zip("cde", found, strict=True):
        np.testing.assert_allclose(answer.probability_K, alone[name, 3], atol=1e-5)


def test_without_ids_an_empty_line_ends_a_sequence(tmp_path):
    path = saved(tmp_path)
    lines = [b"v,u\n", b"1,2\n", b"3,4\n", b"\n", b"\n", b"1,2\n"]
    first, second, third = answers(path, lines)
    assert [(a.id, a.step) for a in (first, second, third)] == [(0, 1), (0, 2), (1, 1)]
    assert third.probability_K == first.probability_K != second.probability_K


def test_the_sequence_that_has_waited_longest_is_dropped_and_that_is_told(tmp_path):
    path, notes = saved(tmp_path), list[str]()
    lines = [b"id,u,v\n", *(f"{name},1,2\n".encode() for name in "abaca")]
    found = answers(path, lines, notes, sequences=2)
    assert [(answer.id, answer.step) for answer in found] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("c", 1),
        ("a", 3),
    ]
    assert any("'b', which has waited longest for a step, is dropped" in note for note in notes)
    assert [a.id for a in answers(path, lines, last=True, sequences=2)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("missing", "lines", "words"),
    [
        ("error", [b"id,u,v\n", b"a,1,2\n", b"a,x,2\n"], "stdin, line 3, column 'u': 'x' is not a number."),
        ("error", [b"id,u,v\n", b"a,1,2\n", b"a,1\n"], "line 3 has 2 fields, but the header has 3 columns"),
        ("error", [b"id,u,v\n", b"a,1,2\n", b"a,,2\n"], "line 3, column 'u' has no value: the model"),
        ("error", [b'{"u": 1, "v": 2}', b'{"u": [1], "v": 2}'], "line 2: 'u' is no single value"),
        ("error", [b'{"u": 1, "v": 2}', b'{"u": 1, "v"'], "line 2 is not a JSON object such as"),
        ("mask", [b"time,u,v\n", b"5,1,2\n", b"4,1,2\n"], "line 3: the time is before that of the last step"),
        ("mask", [b"time,u,v\n", b"2024-01-05,1,2\n", b"no,1,2\n"], "line 3, column 'time': 'no' is not"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_named_and_can_be_left_out(tmp_path, missing, lines, words):
    path, notes = saved(tmp_path, missing=missing), list[str]()
    with pytest.raises(DataError, match=re.escape(words)):
        answers(path, lines)
    last = lines[-2]  # once more, where a time may stay the same
    found = answers(path, [*lines, last], notes, skip_bad=True)
    assert [answer.step for answer in found] == [1, 2]
    assert "1 line was left out; the first: stdin, line" in notes[-1]


def test_an_answer_that_is_not_finite_is_refused_and_leaves_the_state_alone(tmp_path):
    path = saved(tmp_path, "irnn")
    with pytest.raises(DataError, match="line 3: the answer is not finite"):
        answers(path, [b"u,v\n", b"1,2\n", b"1e39,2\n"])
    found = answers(path, [b"u,v\n", b"1,2\n", b"1e39,2\n", b"3,4\n"], skip_bad=True)
    assert found == answers(path, [b"u,v\n", b"1,2\n", b"3,4\n"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "stdin is empty: it needs a line for each step."),
        ([b"u,v\n"], "stdin has a header but no steps."),
        ([b"1,2\n", b"3,4\n"], "line 1 seems to hold values: the first line must name the columns."),
        ([b"id,u,w\n"], "line 1 has no 'v', which the model was trained on."),
        ([b"id,case,u,v\n"], "id, case could each be the id. Choose dataset.id=id."),
        ([b"u;v\n", b"1,234;2\n"], "'1,234' may be a decimal number or have a separator of thousands."),
    ],
)
def test_what_cannot_be_read_at_all_is_refused(tmp_path, lines, words):
    with pytest.raises(RnnclfError, match=re.escape(words)):
        answers(saved(tmp_path), lines)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bidirectional": True}, "train with bidirectional=false"),
        ({"missing": "interpolate"}, "train with dataset.missing=mask"),
        ({"window": "2s"}, "dataset.window=2s, a duration"),
    ],
)
def test_a_model_that_cannot_answer_step_by_step_is_refused(tmp_path, more, words):
    with pytest.raises(ConfigError, match=words):
        Stream(saved(tmp_path, **more), [], Choice())


def test_dates_count_as_their_seconds(tmp_path):
    path = saved(tmp_path, missing="mask")
    gap = [b"time,u,v\n", b"%s,1,2\n", b"%s,,2\n"]
    dates = [b"2024-01-01 23:59:58", b"2024-01-02T00:00:01.500Z"]
    numbers = [b"10", b"13.5"]
    by_date, by_number = (
        answers(path, [gap[0], gap[1] % times[0], gap[2] % times[1]]) for times in (dates, numbers)
    )
    assert by_date == by_number


def test_a_sure_answer_needs_to_have_been_measured(tmp_path):
    path = saved(tmp_path)
    steps = drawn_steps()
    with pytest.raises(ConfigError, match="early=true"):
        Stream(path, [], Choice(when=0.6))
    table = tmp_path / "own.csv"
    rows = [
        {"id": name, "label": CLASSES[k % 3], **{k: row[k] for k in ("time", "u", "v")}}
        for k, (name, own) in enumerate(steps.items())
        for row in own
    ]
    table.write_bytes(b"".join(as_csv(rows)))
    words = [f"dataset.path={table}", "split=all"]
    [found] = evaluate(path, [*words, "early=true"])
    assert "--when" in found.notes[-1]  # other data: not kept
    assert found.early is not None
    assert found.early.correct_P[-1] == found.evaluation.score.correct
    all_answers = answers(path, as_csv(interleaved(steps)))
    labels = dict(zip(steps, (0, 1, 2, 0), strict=True))
    for number, correct in zip(found.early.steps_P, found.early.correct_P, strict=True):
        so_far = {a.id: a.place for a in all_answers if a.step <= number}
        assert correct == sum(labels[id] == place for id, place in so_far.items())
    remembered(checkpoint.load(path), replace(found.early, split="validation"), other_data=False)
    notes: list[str] = []
    sure = answers(path, as_csv(interleaved(steps)), notes, when=0.6)
    assert "On the validation split" in notes[0]
    first = {a.id: a for a in reversed(all_answers) if a.probability_K[a.place] >= 0.6}
    ends = {a.id: a for a in all_answers}
    assert {a.id: a for a in sure} == {**ends, **first}
    assert len(sure) == len(steps)
    level = found.early.levels_L[1]
    assert (level.probability, level.decided) == (0.6, len(first))
    assert level.correct == sum(labels[id] == answer.place for id, answer in first.items())


def test_the_command_writes_a_line_for_each_answer(tmp_path):
    path, steps = saved(tmp_path), tmp_path / "steps.csv"
    steps.write_bytes(b'id,u,v,note\n"a,b",1,2,x\nc,3,4,y\n')
    done = CliRunner().invoke(app, ["stream", str(path), str(steps)])
    assert done.exit_code == 0, done.output
    header, first, _ = csv.reader(io.StringIO(done.stdout))
    assert header == ["id", "step", "class", "probability", "p_calm", "p_hasty", "p_quick"]
    assert first[:2] == ["a,b", "1"]
    assert float(first[3]) == max(map(float, first[4:]))
    assert "left out note" in done.stderr
    done = CliRunner().invoke(app, ["stream", str(path), "-", "--json"], input="u,v\n1,2\n3,\n")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["step"] == 1  # written before the line that cannot be read
    assert "stdin, line 3" in done.stderr
