"""An exported file may come from anybody: it is described without being run, and without opening another."""

from __future__ import annotations

import builtins
import json
import os

import numpy as np
import pytest

from rnnclf.errors import CheckpointError
from rnnclf.export.reading import read
from rnnclf.export.running import Runner
from rnnclf.export.whole import Answers, whole_model
from tests.export.exporting import CLASSES, classifier, needs_onnx, preparation, written

needs_onnx()


@pytest.fixture(scope="module")
def sound():
    """A model of two channels, without what torch traces."""
    return whole_model(classifier("gru", 2), preparation(), Answers(CLASSES), own_operators=True)


@pytest.fixture
def model(sound):
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(sound)
    return copy


def test_a_sound_file_says_what_it_is_and_runs(cli, model, tmp_path):
    path = written(tmp_path / "model.onnx", model, test={"accuracy": 0.5})
    done = cli("inspect", path)
    assert done.exit_code == 0, done.output
    assert "model.onnx  ONNX, whole sequences," in done.stdout
    assert "x (batch, time, 2) float32" in done.stdout
    assert "50.00 % before the export" in done.stdout
    answer = json.loads(cli("inspect", path, "--json").stdout)
    assert (answer["kind"], answer["opset"], answer["ir"]) == ("export", 18, 10)
    assert answer["metadata"]["classes"] == list(CLASSES)
    path.rename(tmp_path / "COPY.ONNX")
    assert cli("inspect", tmp_path / "COPY.ONNX").exit_code == 0
    [logits] = Runner.load(tmp_path / "COPY.ONNX").answers(np.ones((1, 4, 2)))
    assert logits.shape == (1, 3)


def elsewhere(model):
    """Weights that lie in a file beside this one."""
    weight = model.graph.initializer[0]
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../secret"
    weight.data_location = 1
    weight.ClearField("raw_data")


def inside_a_node(model):
    node = model.graph.node.add(op_type="Constant", output=["planted"])
    attribute = node.attribute.add(name="value", type=4)
    attribute.t.data_location = 1
    attribute.t.dims.append(1)


def huge(model):
    model.graph.initializer[0].dims[:] = [2**31 - 1, 2**31 - 1]


def negative(model):
    model.graph.initializer[0].dims[:] = [-1]


def huge_array(model):
    from onnx import numpy_helper

    weight = numpy_helper.from_array(np.array([2**40]), "shape")
    model.graph.initializer.append(weight)
    model.graph.node.add(op_type="ConstantOfShape", input=["shape"], output=["large"])


def foreign_operator(model):
    model.graph.node.add(op_type="Run", domain="com.example", input=["x"], output=["planted"])


def context_elsewhere(model):
    """An operator of onnxruntime that reads another file."""
    node = model.graph.node.add(op_type="EPContext", domain="com.microsoft", output=["planted"])
    node.attribute.add(name="ep_cache_context", type=3, s=b"../secret")


def endless(model):
    model.graph.node.add(op_type="Loop", output=["planted"])


def unknown_input(model):
    model.graph.input[1].name = "secret"


def lacking_input(model):
    del model.graph.input[0]


def other_channels(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 3


def other_classes(model):
    for port in model.graph.output:
        port.type.tensor_type.shape.dim[1].dim_value = 2


def a_function(model):
    model.functions.add(name="planted")


def huge_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


DAMAGE = [
    (elsewhere, "keeps weights in other files, which rnnclf does not read"),
    (inside_a_node, "keeps weights in other files, which rnnclf does not read"),
    (huge, "do not fill their shape"),
    (negative, "have no valid shape"),
    (huge_array, "asks for an array of a size that rnnclf export does not write"),
    (foreign_operator, r"needs the operator 'com\.example\.Run', which rnnclf export does not write"),
    (context_elsewhere, r"needs the operator 'com\.microsoft\.EPContext', which rnnclf export"),
    (endless, "needs the operator 'Loop', which rnnclf export does not write"),
    (unknown_input, "is damaged: it asks for 'secret'"),
    (lacking_input, "is damaged: it does not ask for 'x'"),
    (other_channels, "is damaged: 'x' has no valid shape"),
    (other_classes, "is damaged: it does not give 'logits'"),
    (a_function, "holds parts that rnnclf export does not write"),
    (huge_input, "'x' has no valid shape"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=lambda part: getattr(part, "__name__", ""))
def test_what_could_open_a_file_or_fill_the_memory_is_refused(model, tmp_path, monkeypatch, damage, words):
    damage(model)
    path, opened = written(tmp_path / "model.onnx", model), []
    (tmp_path.parent / "secret").write_text("secret")
    opens = builtins.open
    monkeypatch.setattr(builtins, "open", lambda *a, **k: (opened.append(str(a[0])), opens(*a, **k))[1])
    with pytest.raises(CheckpointError, match=words):
        read(path)
    assert not [name for name in opened if "secret" in name]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rnnclf": None}, "was not written by rnnclf export"),
        ({"format": 2}, "has metadata of format 2; this version of rnnclf reads format 1"),
        ({"classes": "!["}, "its metadata cannot be read"),
        ({"classes": "![" * 5000}, "its metadata cannot be read"),
        ({"classes": [1, 2]}, "have no valid 'classes'"),
        ({"channels": []}, "have no valid 'channels'"),
        ({"temperature": True}, "have no valid 'temperature'"),
        ({"temperature": 0}, "have no valid 'kind' or 'temperature'"),
        ({"kind": "other"}, "have no valid 'kind' or 'temperature'"),
        ({"preparation": None}, "have no valid 'preparation'"),
    ],
)
def test_bad_metadata_are_refused(model, tmp_path, changed, words):
    with pytest.raises(CheckpointError, match=words):
        read(written(tmp_path / "model.onnx", model, **changed))


@pytest.mark.parametrize("content", [b"", b"\x08", b"no ONNX at all" * 99, os.urandom(3000)])
def test_what_is_no_onnx_file_is_refused_in_a_sentence(cli, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    done = cli("inspect", path)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "model.onnx" in done.stderr


def test_a_cut_or_changed_file_is_refused_or_described_but_never_crashes(model, tmp_path):
    import random

    content, path = written(tmp_path / "whole.onnx", model).read_bytes(), tmp_path / "model.onnx"
    draw, refused = random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(content[: draw.randrange(1, len(content))])
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            read(path)
        except CheckpointError:  # anything else would end in a traceback
            refused += 1
    assert refused >= 50


def test_a_file_that_cannot_be_run_is_told_in_a_sentence(model, tmp_path):
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(CheckpointError, match=r"model\.onnx cannot be run: "):
        Runner.load(written(tmp_path / "model.onnx", model))


def test_without_the_extra_the_command_that_installs_it_is_named(cli, model, tmp_path, monkeypatch):
    import importlib.util

    path, find = written(tmp_path / "model.onnx", model), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "onnx" else find(n, *a))
    done = cli("inspect", path)
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: Reading {path} needs onnx: pip install 'rnnclf[export]'.\n",
    )
