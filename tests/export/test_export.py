"""`rnnclf export`: the file, what is said of it, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.export.running import Runner
from tests.cli_runs import SMALL
from tests.conftest import logging_restored
from tests.export.exporting import needs_onnx

needs_onnx()
pytestmark = pytest.mark.long


def invoked(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    with logging_restored():
        done = invoked("train", "cell=gru", *SMALL, f"hydra.run.dir={folder}")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def exported(run):
    """What the command says, and the file."""
    done = invoked("export", run, "labels=true")
    assert done.exit_code == 0, done.output
    return done.stdout, run / "model.onnx"


def test_the_file_is_checked_and_described(exported, run):
    text, path = exported
    assert "on 180 validation sequences" in text
    assert "all get the same class" in " ".join(text.split())
    accuracy = json.loads((run / "results.json").read_text())["validation"]["accuracy"]
    assert f"{100 * accuracy:.2f} % by the file, {100 * accuracy:.2f} % by rnnclf" in text
    facts = json.loads(invoked("inspect", path, "--json").stdout)["metadata"]
    checkpoint = json.loads(invoked("inspect", run / "best.safetensors", "--json").stdout)
    assert facts["checkpoint"] == checkpoint["sha256"]
    assert facts["classes"] == [str(digit) for digit in range(10)]
    assert facts["check"]["on"] == "validation"
    assert facts["check"]["difference"] < 1e-5


def test_the_program_that_it_prints_runs_as_it_is(exported):
    lines = exported[0].rpartition("\n\n")[2].splitlines()
    assert max(map(len, lines)) <= 80 or "InferenceSession" in max(lines, key=len)
    lines = [line.replace('"model.onnx"', f'"{exported[1]}"') for line in lines]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec("\n".join(lines), {})
    assert said.getvalue().startswith("{'0': ")


@pytest.fixture(scope="module")
def stepped(run, tmp_path_factory):
    """What the command says of a file of one step, as JSON, and the file."""
    path = tmp_path_factory.mktemp("stepped") / "step.onnx"
    done = invoked("export", run, "step=true", "-o", path, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), path


def test_the_step_file_answers_at_the_end_as_the_whole_file(exported, stepped):
    answer, path = stepped
    assert answer["relative_difference"] < 1e-5
    assert [port["name"] for port in answer["inputs"]] == ["x", "state"]
    x = np.random.default_rng(0).uniform(0, 16, (5, 8, 8)).astype(np.float32)
    [wanted] = Runner.load(exported[1]).answers(x)
    step = Runner.load(path)
    state = np.zeros((5, step.width), np.float32)
    for t in range(8):
        logits, state = step.step(x[:, t], state)
    np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_eval_of_a_file_scores_the_splits_of_its_run(exported, stepped, run, tmp_path):
    """It holds how the data were divided, and what the run had on the test split."""
    expected = json.loads((run / "results.json").read_text())["test"]
    for _, path in (exported, stepped):
        done = invoked("eval", path, "--json", "--output", tmp_path / "scored")
        (found,) = json.loads(done.stdout)
        assert (found["split"], found["correct"], found["trained_on"]) == ("test", expected["correct"], 0)
        assert found["recorded_correct"] == expected["correct"]
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_int8_reaches_into_the_body_and_both_accuracies_are_told(run, tmp_path):
    done = invoked("export", run, "int8=true", "-o", tmp_path / "small.onnx", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert set(answer["accuracy"]) == {"rnnclf", "file"}
    assert answer["metadata"]["int8"] is True
    found = json.loads(invoked("inspect", tmp_path / "small.onnx", "--json").stdout)
    assert found["operators"]["MatMulInteger"] >= 3  # inputs, the step's own product, the head
    assert (found["opset"], found["ir"]) == (18, 10)


def test_a_file_that_differs_is_not_written(run, tmp_path, monkeypatch):
    from rnnclf.export import operators

    monkeypatch.setitem(operators.ORDERS, "gru", ("rzn", "rzn"))
    done = invoked("export", run, "operators=own", "-o", tmp_path / "wrong.onnx")
    assert done.exit_code == 1
    assert "wrong.onnx was not written: of 180 sequences, a logit of the file differs by" in done.stderr
    assert not list(tmp_path.glob("*.onnx*"))


def test_without_the_data_random_sequences_are_compared(run, tmp_path, monkeypatch):
    from rnnclf.data.images.digits import Digits
    from rnnclf.errors import DataError

    def gone(self, progress):
        raise DataError("the files are gone.")

    monkeypatch.setattr(Digits, "load_pictures", gone)
    done = invoked("export", run, "operators=own", "-o", tmp_path / "model.onnx")
    assert done.exit_code == 0, done.output
    assert "on 64 random sequences" in done.stdout
    assert "the files are gone." in done.stdout
    assert "accuracy" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stpe=true"], "Did you mean 'step'?"),
        (["int8=3"], "int8 must be true or false, got 3."),
        (["operators=mine"], "operators must be scan or own, got 'mine'."),
        (["hidden=3"], "'hidden' cannot be changed in an export: the checkpoint fixes it."),
        (
            ["step=true", "operators=own"],
            "operators=own computes whole sequences: leave it out with step=true.",
        ),
        (["-o", "model.txt"], "The name of the file must end in .onnx, got model.txt."),
        (["-o", "nowhere/model.onnx"], "the folder nowhere does not exist."),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(run, words, message):
    done = invoked("export", run, *words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert message in done.stderr


def test_without_the_extra_the_command_that_installs_it_is_named(run, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "onnxscript" else find(n, *a))
    done = invoked("export", run)
    assert (done.exit_code, done.stderr) == (
        2,
        "error: rnnclf export needs onnxscript: pip install 'rnnclf[export]'.\n",
    )


def test_an_output_file_without_its_option_is_told(run):
    done = invoked("export", run, "model.onnx")
    assert done.exit_code == 2
    assert f"Give the file to write with -o: rnnclf export {run} -o model.onnx" in " ".join(
        done.output.split()
    )
