"""init: training begins with the weights of a trained model, on other data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.reliability.kill import differences
from rnnclf import RNNClassifier, checkpoint, load
from rnnclf.cells import CELLS
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.hydra_app.compose import load_config
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import step_obstacle
from rnnclf.training.evaluation import evaluate_model
from rnnclf.workflows.beginning import Beginning, _input_weights, _parts, beginning
from rnnclf.workflows.loading import build_model, load_model
from rnnclf.workflows.pretrained import continued
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.train import Data, Watcher, train
from tests.workflows.killed_runs import Kill, Witness

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

INPUTS = "layers.0.directions.forward_cell.input_weight"
SMALL = ("recipe=plain", "epochs=1", "batch_size=8", "threads=1")


def table(path: Path, channels: str, classes: str, gaps: bool = False) -> Path:
    """48 sequences of 6 steps; a column's values depend on its name alone. Column 'page' holds names."""
    columns = {"id": np.repeat(np.arange(48), 6), "label": np.repeat(np.resize(classes.split(), 48), 6)}
    for name in channels.split():
        random = np.random.default_rng(sum(name.encode()))
        values = np.round(random.normal(size=288), 3).astype(str)
        if name == "page":
            values = np.array([f"p{number}" for number in random.permutation(np.arange(288) % 20)])
        columns[name] = np.where(random.random(288) < 0.2, "", values) if gaps and name != "page" else values
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a run on channels x0, x1 and classes a, b, and tables of other data."""
    folder = tmp_path_factory.mktemp("base")
    words = [f"dataset.path={table(folder / 'old.csv', 'x0 x1', 'a b')}", "dataset=table", *SMALL]
    model = ("cell=gru", "hidden=4", "layers=2", "norm=batch", "dropout=0.1")
    train(load_config([*words, *model]), folder / "run")
    table(folder / "new.csv", "x1 z", "b c")
    table(folder / "same.csv", "x1 x0", "b a")
    return folder


@pytest.fixture(scope="module")
def config(base):
    return load_config(["dataset=table", f"dataset.path={base / 'new.csv'}", f"init={base / 'run'}", *SMALL])


def begun(config, words=()):
    """The settled config, what it begins with, a model filled with that, and its data."""
    config = continued(config, words)
    data = Data.of(config, Watcher())
    found = beginning(config, data.splits.learned)
    torch.manual_seed(0)
    return config, found, found.filled(build_model(config, *data.shape)), data


def on(config, path):
    return replace(config, dataset=replace(config.dataset, path=str(path)))


# What is taken over


def test_weights_are_those_of_the_run_where_channels_and_classes_have_the_same_names(base, config):
    settled, found, model, data = begun(config)
    assert (settled.cell.name, settled.hidden, settled.layers, settled.dropout) == ("gru", 4, 2, 0.1)
    old = load_model(RunFolder(base / "run").best, []).model.state_dict()
    torch.manual_seed(0)
    drawn, new = build_model(settled, *data.shape).state_dict(), model.state_dict()
    for name, weight in new.items():
        if name == INPUTS:
            assert torch.equal(weight[:, 0], old[name][:, 1])
            assert torch.equal(weight[:, 1], drawn[name][:, 1])
        elif name.startswith("head."):
            assert torch.equal(weight[0], old[name][1])
            assert torch.equal(weight[1], drawn[name][1])
        else:
            assert torch.equal(weight, old[name]), name
    assert found.notes == (
        f"Training begins with the weights of {base}/run/best.safetensors: cell=gru hidden=4 layers=2,"
        " trained on old.csv.",
        "Channel 'z' is new to it: its input weights are drawn anew.",
        "Channel 'x0' is not in these data: its input weights are left out.",
        "Of the head, class 'b' is taken over, class 'c' is new, class 'a' is left out.",
        "The preparation is fitted anew, to the training sequences of these data: dataset.patch=1"
        " dataset.normalise=standard dataset.missing=error.",
    )


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        pytest.param("x0 x1", "", marks=pytest.mark.long),
        ("x0 x1 x2", "dataset.missing=mask dataset.patch=2"),
        pytest.param("x0 x1 page", "dataset.missing=interpolate dataset.patch=3", marks=pytest.mark.long),
    ],
)
def test_a_model_gives_the_same_answers_where_only_the_order_of_columns_differs(tmp_path, channels, words):
    names = [channels, " ".join(reversed(channels.split()))]
    paths = [table(tmp_path / f"{k}.csv", names[k], "a b", bool(words)) for k in (0, 1)]
    old = load_config(["dataset=table", f"dataset.path={paths[0]}", "hidden=4", *SMALL, *words.split()])
    train(old, tmp_path / "run")
    config = replace(
        on(load_config([*SMALL, "dataset=table", f"dataset.path={paths[1]}"]), paths[1]),
        init=str(tmp_path / "run"),
    )
    _, _, model, data = begun(config)
    before = load_model(tmp_path / "run" / "best.safetensors", []).model
    was = evaluate_model(before, Data.of(old, Watcher()).splits.test).logits_NK
    now = evaluate_model(model, data.splits.test).logits_NK
    torch.testing.assert_close(torch.as_tensor(now), torch.as_tensor(was))


@pytest.mark.parametrize("name", CELLS.names())
def test_a_channel_of_zeros_changes_nothing(name):
    cell = CELLS[name](hidden_size=8)
    old, new = (SequenceClassifier(cell, size, 2).eval() for size in (2, 3))
    both = [0, 1], [0, 1]
    parts, misfits = _parts(old, new, ([0, 2], [0, 1]), both, {})
    assert not misfits
    assert _input_weights(new)
    model = Beginning(tuple(parts)).filled(new)
    x_BTI = torch.randn(3, 5, 2)
    wider_BTI = torch.stack((x_BTI[..., 0], torch.zeros(3, 5), x_BTI[..., 1]), dim=-1)
    torch.testing.assert_close(model(wider_BTI), old(x_BTI))


def test_channels_without_names_are_matched_by_number(base, config):
    x, y = np.random.default_rng(0).normal(size=(40, 6, 3)), ["a", "b"] * 20
    model = RNNClassifier(init=str(base / "run"), epochs=1, threads=1).fit(x, y)
    assert model.config_.cell.name == "gru"
    assert model.notes_[1:4] == (
        "Channels are matched by their order, since those of these data have no names.",
        "Channel '2' is new to it: its input weights are drawn anew.",
        "The head is taken over: the classes are the same.",
    )
    with pytest.raises(ValueError, match=r"^hidden=5 does not fit the weights of "):
        RNNClassifier(init=str(base / "run"), hidden=5, threads=1).fit(x, y)
    model.save("saved")
    again = load("saved")
    assert again.init == f"{base}/run/best.safetensors"
    assert again.get_params() == again.fit(x, y).get_params()
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


def test_a_run_of_an_earlier_version_can_be_begun_with(base, config):
    saved = checkpoint.load(RunFolder(base / "run").best)
    plain = {
        key: value for key, value in saved.config.items() if key not in ("init", "init_sha256", "freeze")
    }
    checkpoint.save(Path("old"), {**saved.header, "config": plain}, saved.tensors)
    assert continued(replace(config, init="old"), []).cell.name == "gru"


@pytest.mark.long
def test_new_names_and_new_gaps_are_said(base, tmp_path):
    old = table(Path("old.csv"), "x0 page", "a b")
    train(load_config(["dataset=table", f"dataset.path={old}", "hidden=4", *SMALL]), Path("run"))
    text = table(Path("new.csv"), "x0 page", "a b", gaps=True).read_text()
    Path("new.csv").write_text(text.replace(",p3", ",p33"))
    config = load_config(
        ["dataset=table", "dataset.path=new.csv", "dataset.missing=mask", "init=run", *SMALL]
    )
    _, found, _, _ = begun(config, ["dataset.missing=mask"])
    assert found.notes[1:3] == (
        "Channel 'page' has names that are new to it: their weights are drawn anew.",
        "It was not told where values are missing: the input weights for that are drawn anew.",
    )
    with pytest.raises(ConfigError, match="has none for names of channel 'page': leave out freeze"):
        begun(replace(config, freeze="cell"), ["dataset.missing=mask"])


# Words


@pytest.mark.parametrize(
    ("key", "value", "there"),
    [
        ("axes", "both", "steps"),
        ("layers", 1, 2),
        ("norm", "none", "batch"),
        ("readout", "attention", "last"),
        ("readout_layers", "all", "top"),
        ("bidirectional", True, "false"),
        ("hidden", 5, 4),
        ("cell", "lstm", "gru"),
        ("dataset.patch", 2, 1),
    ],
)
def test_a_word_that_cannot_fit_is_refused(base, config, key, value, there):
    changes = {key: value}
    if key in ("hidden", "cell"):
        name, size = ("gru", 5) if key == "hidden" else ("lstm", 150)
        changes = {"cell": CELLS[name](hidden_size=size)}
    if key == "dataset.patch":
        changes = {"dataset": replace(config.dataset, patch=2)}
    typed = "true" if value is True else value
    with pytest.raises(ConfigError) as error:
        continued(replace(config, **changes), [f"{key}={typed}"])
    assert str(error.value) == (
        f"{key}={typed} does not fit the weights of {base}/run, which was trained with {key}={there}:"
        f" leave out {key}."
    )


def test_no_model_and_data_of_another_kind_are_refused(base, config):
    with pytest.raises(
        CheckpointError, match=r"^nowhere does not exist: give a checkpoint file, a run folder"
    ):
        continued(replace(config, init="nowhere"), [])
    pictures = replace(config, dataset=load_config(["dataset=digits"]).dataset)
    with pytest.raises(ConfigError) as error:
        continued(pictures, [])
    assert str(error.value) == (
        f"{base}/run was trained on series (old.csv): it cannot go on with pictures (digits)."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": None, "freeze": "cell"}, "freeze=cell keeps the weights of a trained model: name it with"),
        ({"init": None, "init_sha256": "0"}, "init_sha256 is the checksum of init: give that, too, or leave"),
        (
            {"freeze": "cell", "diagnose": True},
            "diagnose measures the gradients of the recurrent layers, which",
        ),
        ({"match_parameters": "3k"}, "init takes hidden from a trained model: leave out match_parameters."),
    ],
)
def test_words_that_contradict_each_other_are_refused(config, changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        replace(config, **changes)


def test_words_that_fit_win(base, config):
    words = ["dropout=0.5", "readout=mean", "cell.recurrent_init=identity"]
    typed = replace(config, dropout=0.5, readout="mean", cell=CELLS["gru"](recurrent_init="identity"))
    found = continued(typed, words)
    assert (found.dropout, found.readout, found.cell.recurrent_init) == (0.5, "mean", "identity")
    assert (found.layers, found.cell.hidden_size) == (2, 4)
    assert continued(found, words) == found
    assert found.digest() != continued(config, []).digest()


@pytest.mark.long
def test_a_cell_of_other_shape_is_named(base, config):
    table(Path("wide.csv"), "x0 x1 x2 x3", "a b")
    words = [*SMALL, "dataset=table", f"dataset.path={base / 'old.csv'}", "cell=sru", "hidden=4"]
    train(load_config(words), Path("sru"))
    settled = continued(replace(on(config, "wide.csv"), init="sru"), [])
    with pytest.raises(
        ConfigError,
        match=r"^cell=sru has other weights for 4 inputs than for 2, with which ",
    ):
        beginning(settled, Data.of(settled, Watcher()).splits.learned)


def test_a_damaged_checkpoint_and_one_that_changed_are_refused(base, config):
    content = bytearray(RunFolder(base / "run").best.read_bytes())
    content[-3] ^= 1
    Path("damaged").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: its content does not match its checksum"):
        continued(replace(config, init="damaged"), [])
    with pytest.raises(CheckpointError, match=r"has changed since the run began with it"):
        continued(replace(config, init_sha256="0" * 64), [])


def test_refusals_leave_nothing_behind(base, cli):
    words = ["train", base / "new.csv", f"init={base / 'run'}", *SMALL]
    result = cli(*words, "freeze=cell")
    assert result.exit_code == 2
    assert (
        result.stderr.replace("\n", " ")
        .strip()
        .endswith(
            "error: freeze=cell leaves the input weights as they are, but"
            f" {base}/run/best.safetensors has none for channel 'z': leave out freeze."
        )
    )
    assert not list(Path("outputs").glob("*/*"))
    result = cli(*words, "-m", "seed=0,1", "hidden=5")
    assert result.exit_code == 2
    assert "hidden=5 does not fit" in result.stderr
    assert "no job was started" in result.stderr.replace("\n", " ")


# Training


def test_frozen_layers_stay_as_they_are(base, config):
    train(replace(on(config, base / "same.csv"), freeze="cell"), Path("run"))
    old, new = (load_model(RunFolder(path).best, []).model for path in (base / "run", Path("run")))
    weights, before = new.state_dict(), dict(old.state_dict())
    before[INPUTS] = before[INPUTS][:, [1, 0]]  # the columns of the table are the other way round
    changed = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
    # how many batches the statistics are from is the same for as many sequences
    own = {name for name in weights if name.startswith("head") and not name.endswith("num_batches_tracked")}
    assert changed - {"head_norm.norm.num_batches_tracked"} == own
    bare = SequenceClassifier(CELLS["lstm"](hidden_size=4), 2, 2)
    bare.freeze()
    assert step_obstacle(bare, Data.of(config, Watcher()).splits.train) == (
        "whole steps train all weights, in float32"
    )
    recorded = json.loads(Path("run/provenance.json").read_text())["init"]
    assert recorded == {
        "path": f"{base}/run/best.safetensors",
        "sha256": checkpoint.describe(RunFolder(base / "run").best).sha256,
    }


@pytest.mark.parametrize(
    "more", [pytest.param({"freeze": "none"}, marks=pytest.mark.long), {"freeze": "cell"}]
)
def test_a_killed_run_ends_as_if_it_had_not_been_killed(base, config, more):
    config = replace(on(config, base / "same.csv"), final_fit=True, epochs=3, select="last", **more)
    train(config, Path("peace"))
    with pytest.raises(Kill):
        train(config, Path("killed"), Witness(6))
    resume_run(RunFolder(Path("killed")))
    assert differences(Path("killed"), Path("peace")) == []


@pytest.mark.long
def test_a_final_fit_needs_the_model_that_it_begins_with(base, config):
    shutil.copytree(base / "run", "other")
    config = replace(config, init="other", epochs=2)
    for final_fit in (False, True):
        folder = Path(f"run{final_fit}")
        with pytest.raises(Kill):
            train(replace(config, final_fit=final_fit), folder, Witness(6))
    shutil.rmtree("other")
    assert resume_run(RunFolder(Path("runFalse"))) is not None
    with pytest.raises(CheckpointError, match=r"best.safetensors: No such file"):
        resume_run(RunFolder(Path("runTrue")))


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_over_models_takes_the_cell_of_each(base, cli):
    words = ["dataset=table", f"dataset.path={base / 'old.csv'}", "cell=lstm", "hidden=3", *SMALL]
    train(load_config(words), Path("lstm"))
    words = ["train", "-m", base / "new.csv", f"init={base / 'run'},lstm", "hydra.sweep.dir=sweep", *SMALL]
    assert cli(*words).exit_code == 0
    assert cli("resume", "sweep", "seed=1").exit_code == 0
    records = [run.read_status() for run in jobs_of(Path("sweep"))]
    assert [
        (r["state"], r["configuration"]["cell"]["name"], r["configuration"]["hidden"]) for r in records
    ] == [("done", cell, hidden) for cell, hidden in (("gru", 4), ("lstm", 3)) * 2]
    assert len({r["config"] for r in records}) == 4
    assert cli("resume", "sweep", "seed=1").exit_code == 0
    assert len(jobs_of(Path("sweep"))) == 4
