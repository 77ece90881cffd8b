"""`rnnclf predict` and `rnnclf eval` of an exported file: what it answers is what is deployed."""

from __future__ import annotations

import builtins
import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rnnclf.data.recordings import Array
from rnnclf.errors import RnnclfError
from rnnclf.export.whole import Answers, whole_model
from rnnclf.workflows.exported import load_file, logits_of
from tests.export.exporting import CLASSES, FACTS, classifier, needs_onnx, preparation, written

needs_onnx()

LENGTHS = (3, 5, 5, 1, 4, 2, 5, 3)
TEMPERATURE = 0.5


@pytest.fixture(scope="module")
def trained():
    return classifier("gru", 2)


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> Path:
    """A folder with `model.onnx`, `equal.onnx`, which takes no lengths, and `data.csv`."""
    folder = tmp_path_factory.mktemp("exported")
    facts = {"temperature": TEMPERATURE, "cell": "mine", "hidden": 5, "epoch": 3}
    for name, ragged in {"model": True, "equal": False}.items():
        model = whole_model(trained, preparation(), Answers(CLASSES), ragged=ragged, own_operators=True)
        written(folder / f"{name}.onnx", model, **facts)
    rows = np.random.default_rng(0).normal(size=(sum(LENGTHS), 2))
    ids = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    steps = {"label": np.array(CLASSES)[ids % 3], "id": ids, "v": rows[:, 1], "u": rows[:, 0]}
    pl.DataFrame({**steps, "other": 1.5}).write_csv(folder / "data.csv")
    return folder


def wanted(trained, files) -> Array:
    """The probabilities by the classifier itself."""
    table = pl.read_csv(files / "data.csv")
    logits = []
    for sequence in table.partition_by("id", maintain_order=True):
        x_BTC = torch.tensor(sequence.select("u", "v").to_numpy())[None]
        length_B = torch.tensor([len(sequence)])
        logits.append(trained(preparation()(x_BTC, length_B, None), length_B).detach())
    found: Array = torch.softmax(torch.cat(logits) / TEMPERATURE, dim=1).numpy()
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", ["model", "equal"])
def test_predict_runs_the_file_itself(trained, files, cli, name):
    done = cli("predict", files / f"{name}.onnx", files / "data.csv", "dataset.form=long")
    assert done.exit_code == 0, done.output
    assert "the model was not trained on other" in done.stderr
    found = pl.read_csv(io.StringIO(done.stdout))
    assert found["id"].to_list() == list(range(len(LENGTHS)))
    shares = found.select(f"p_{name}" for name in CLASSES).to_numpy()
    np.testing.assert_allclose(shares, wanted(trained, files), atol=2e-6)


@pytest.mark.long
def test_eval_scores_the_file_itself(trained, files, cli):
    done = cli("eval", files / "model.onnx", files / "data.csv", "dataset.form=long", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    right = (wanted(trained, files).argmax(axis=1) == np.arange(len(LENGTHS)) % 3).sum()
    assert (found["correct"], found["total"], found["split"]) == (right, len(LENGTHS), "all")
    assert (found["cell"], found["hidden"], found["epoch"]) == ("mine", 5, 3)
    assert "mine 5, epoch 3, exported" in done.stderr
    assert "not all the data of its training run" in " ".join(done.stderr.split())


def test_many_sequences_are_answered_in_batches(trained, files, monkeypatch):
    from rnnclf.workflows import exported

    loaded = load_file(files / "model.onnx", ["dataset.form=long"], files / "data.csv")
    recordings = loaded.config.dataset.recordings_to_predict(files / "data.csv", loaded.learned)
    places_n = np.arange(len(LENGTHS))[::-1]
    whole = logits_of(loaded, recordings, places_n)
    sizes = []
    run = exported._whole
    monkeypatch.setattr(exported, "_whole", lambda r, b: (sizes.append(b.x_BTC.shape), run(r, b))[1])
    monkeypatch.setattr(exported, "MOST_STEPS", 9)
    np.testing.assert_allclose(logits_of(loaded, recordings, places_n), whole, atol=1e-6)
    assert [shape[0] * shape[1] for shape in sizes] == [9, 8, 5, 5, 5]  # 1 2 3 | 3 4 | 5 | 5 | 5


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "model.onnx"], "Give the data after the file: rnnclf eval model.onnx DATA."),
        (["eval", "model.onnx", "data.csv", "sets=0.9"], "sets=0.9: model.onnx does not hold the scores of"),
        (["eval", "model.onnx", "data.csv", "early=true"], "early=true needs a run or a checkpoint"),
        (
            ["predict", "model.onnx", "data.csv", "--sets", "0.9"],
            "--sets 0.9: model.onnx does not hold the",
        ),
        (
            ["predict", "model.onnx", "data.csv", "engine=loop"],
            "engine has no effect on an exported file: leave it out.",
        ),
        (["predict", "model.onnx", "none.csv"], "none.csv does not exist."),
        (["predict", "none.onnx", "data.csv"], "none.onnx does not exist"),
        (["predict", "model.onnx", "u.csv"], "u.csv has no 'v': the model was trained on a column"),
    ],
)
def test_what_a_file_cannot_do_is_told_in_a_sentence(files, cli, monkeypatch, words, message):
    monkeypatch.chdir(files)
    Path("u.csv").write_text("id,u\n0,1\n")
    done = cli(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert message in done.stderr


CRAFTED = [
    ({"dataset": {"name": "table", "path": "secret.csv"}}, "its metadata name files of their own"),
    ({"dataset": {"name": "mnist", "root": "."}}, "its metadata name files of their own"),
    ({"dataset": {"name": "table", "missing": "${oc.env:HOME}"}}, "which is not a plain value"),
    ({"dataset": {"name": "nothing"}}, "No dataset named 'nothing'."),
    ({"dataset": {"name": "table", "test": "all"}}, "dataset.test must be a number above 0, got 'all'."),
    ({"dataset": None}, "does not say how its data are read, as files of this version do"),
    ({"training_data": {}}, "is damaged: The facts about the training data are not valid"),
    ({"preparation": {}}, "is damaged: The preparation of the data is incomplete"),
    (
        {"preparation": {**FACTS["preparation"], "channels": ["u", "w"]}},
        "is damaged: its metadata have no valid 'preparation'.",
    ),
    ({"reading": {"window": 7}}, "was trained with window 7 of the data; these are read with window None."),
]


@pytest.mark.parametrize(("changed", "message"), CRAFTED)
def test_crafted_metadata_are_refused_without_opening_another_file(
    files, monkeypatch, tmp_path, changed, message
):
    import onnx

    written(tmp_path / "model.onnx", onnx.load(files / "model.onnx"), **changed)
    opened, opens = list[str](), builtins.open
    monkeypatch.setattr(builtins, "open", lambda *a, **k: (opened.append(str(a[0])), opens(*a, **k))[1])
    with pytest.raises(RnnclfError, match=re.escape(message)):
        load_file(Path("model.onnx"), data=files / "data.csv")
    assert not [name for name in opened if "secret" in name]


@pytest.mark.long
@pytest.mark.parametrize("command", ["inspect", "predict", "eval"])
def test_the_file_of_another_producer_is_refused_by_every_command(files, cli, tmp_path, command):
    import onnx

    model = onnx.load(files / "model.onnx")
    del model.metadata_props[:]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    Path("text.onnx").write_text("no model")
    more = [] if command == "inspect" else [files / "data.csv"]
    for name, message in {"model": "was not written by rnnclf export", "text": "is not an ONNX file"}.items():
        done = cli(command, f"{name}.onnx", *more)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.output
        assert message in done.stderr
