"""`rnnclf eval` repeats what a run recorded, or says that it does not."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from rnnclf import checkpoint
from rnnclf.errors import CheckpointError
from rnnclf.hydra_app import load_config
from rnnclf.workflows import machine
from rnnclf.workflows.evaluate import claim_evaluation, evaluate
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.cli_runs import SMALL


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("trained")
    train(load_config([*SMALL]), RunFolder(folder))
    return folder


@pytest.fixture
def trained(trained_once, tmp_path) -> Path:
    """The folder of a small run, this test's own."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def test_eval_prints_classes_and_confusions_and_saves_them(cli, tmp_path, trained):
    done = cli("eval", trained, "--output", "scores")
    assert done.exit_code == 0, done.output
    for word in (
        "precision",
        "recall",
        "F1",
        "support",
        "rows: true, columns: predicted",
        "were classified as",
    ):
        assert word in done.output
    (folder,) = (tmp_path / "scores").glob("*/*")
    tables = {"classes.csv", "confusion.csv", "accuracy.txt", "accuracy.svg", "predictions.parquet"}
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", *tables}
    (saved,) = json.loads((folder / "evaluation.json").read_text())
    assert saved["correct"] == json.loads((trained / "results.json").read_text())["test"]["correct"]
    with open(folder / "confusion.csv") as file:
        assert sum(int(row["count"]) for row in csv.DictReader(file)) == 360


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_eval_of_each_split_repeats_the_record(cli, trained, split):
    (answer,) = json.loads(cli("eval", trained, f"split={split}", "--json").stdout)
    recorded = json.loads((trained / "results.json").read_text())[split]
    loss = recorded.pop("loss")
    assert {key: answer[key] for key in recorded} == recorded
    assert answer["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.long
def test_a_checkpoint_alone_is_enough(cli, tmp_path, trained):
    expected = json.loads((trained / "results.json").read_text())["test"]["correct"]
    (trained / "best.safetensors").rename(tmp_path / "received.safetensors")
    (answer,) = json.loads(cli("eval", "received.safetensors", "--json").stdout)
    assert answer["correct"] == expected
    assert answer["recorded_correct"] is None


def test_a_checkpoint_of_a_machine_with_another_device_is_evaluated_here(cli, trained):
    saved = checkpoint.load(trained / "best.safetensors")
    header = {key: value for key, value in saved.header.items() if key != "format"}
    absent = next(name for name in ("mps", "cuda") if name not in machine.devices())
    header["config"] = {**header["config"], "device": absent}
    checkpoint.save(Path("moved.safetensors"), header, saved.tensors)
    done = cli("eval", "moved.safetensors", "--json")
    assert done.exit_code == 0, done.output
    refused = cli("eval", "moved.safetensors", f"device={absent}")
    assert f"device={absent} is not available here" in refused.stderr


@pytest.mark.long
def test_a_job_with_its_own_threads_leaves_the_next_with_the_default(cli, only_run):
    default = machine.AUTO_THREADS  # a test before this one may have set another number
    assert cli("train", "-m", f"threads={default + 1},auto", *SMALL[:3]).exit_code == 0
    found = [json.loads((only_run() / n / "provenance.json").read_text())["threads"] for n in "01"]
    assert found == [default + 1, default]


def test_eval_says_when_a_record_does_not_hold(cli, trained):
    results = json.loads((trained / "results.json").read_text())
    results["test"]["correct"] = 359
    (trained / "results.json").write_text(json.dumps(results))
    assert "its results.json says 359" in cli("eval", trained).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "empty holds no checkpoint"),
        (["text.safetensors"], "is not a checkpoint of rnnclf"),
        (
            ["RUN", "split=tset"],
            "split must be train, validation, test or all, got 'tset'. Did you mean 'test'?",
        ),
        (["RUN", "hidden=3"], "'hidden' cannot be changed at evaluation"),
        (["split=test"], "Give a checkpoint file"),
        (["STRANGER"], "No cell named 'warp'. Known: basic"),
        (["WIDE"], "is damaged: its preparation does not match its model"),
        (["OTHER"], "head.bias should be (2,) float32, but the file has (10,) float32"),
        (["MISFIT"], "head.weight should be (10, 8) float32, but is missing"),
    ],
)
def test_eval_refuses_in_words(cli, tmp_path, trained, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("hello")
    good = checkpoint.load(trained / "best.safetensors")
    header = {key: value for key, value in good.header.items() if key != "format"}
    changed = {
        "STRANGER": {"config": {**header["config"], "cell": {"name": "warp"}}},
        "WIDE": {"input_size": 9},
        "OTHER": {"classes": ["cat", "dog"]},
        "MISFIT": {},
    }
    for name, change in changed.items():
        tensors = {k: t for k, t in good.tensors.items() if name != "MISFIT" or k != "model.head.weight"}
        checkpoint.save(tmp_path / f"{name}.safetensors", {**header, **change}, tensors)
    places = {"RUN": str(trained), **{name: f"{name}.safetensors" for name in changed}}
    done = cli("eval", *(places.get(word, word) for word in words))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# Several checkpoints, of which some cannot be read


@pytest.mark.long
@pytest.mark.parametrize("damage", ["missing", "cut off", "no folder"])
def test_the_good_jobs_of_a_sweep_are_shown_and_the_others_named(cli, two_jobs, damage):
    best = two_jobs / "1" / "best.safetensors"
    if damage == "no folder":
        shutil.rmtree(best.parent)
    elif damage == "missing":
        best.unlink()
    else:
        best.write_bytes(best.read_bytes()[:-9])
    done = cli("eval", two_jobs, "--json")
    assert done.exit_code == 1
    assert [Path(row["checkpoint"]).parent.name for row in json.loads(done.stdout)] == ["0"]
    named = (
        "is damaged" if damage == "cut off" else "sweep/1 holds no checkpoint: best.safetensors is missing"
    )
    assert re.search(rf"^error: .*{named}", done.stderr, re.MULTILINE)
    assert done.stderr.count("error:") == 1


def test_inspect_shows_all_jobs_of_a_sweep_and_names_the_damaged_ones(cli, two_jobs):
    best = two_jobs / "1" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-9])
    (two_jobs / "0" / "best.safetensors").unlink()
    done = cli("inspect", two_jobs)
    assert done.exit_code == 1
    assert "#0" in done.stdout
    assert "#1" in done.stdout
    missing, damaged = done.stderr.splitlines()
    assert missing == "error: sweep/0 is a finished run without its best.safetensors."
    assert damaged.startswith("error: sweep/1/best.safetensors is damaged")


def test_the_good_ones_of_several_runs_are_shown_and_the_others_named(cli, trained):
    Path("empty").mkdir()
    done = cli("eval", trained, "empty", "nowhere")
    assert done.exit_code == 1
    assert "accuracy" in done.stdout
    assert done.stderr == (
        "error: empty holds no checkpoint: best.safetensors is missing.\n"
        "error: nowhere does not exist: give a checkpoint file, a run folder or a sweep folder.\n"
    )


def test_nothing_that_can_be_evaluated_is_one_error(cli, two_jobs):
    (two_jobs / "1" / "best.safetensors").write_bytes(b"x")
    done = cli("eval", two_jobs / "1", "nowhere")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "(1 more could not be evaluated.)" in done.stderr
    with pytest.raises(CheckpointError, match=r"sweep/1/best\.safetensors"):  # in Python, the first one
        evaluate([two_jobs / "0", two_jobs / "1"])


@pytest.mark.long
def test_words_that_fit_no_job_are_told_once(cli, two_jobs):
    done = cli("eval", two_jobs, "dataset=table", "dataset.path=nowhere.csv")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


# Where an evaluation is saved


def test_an_evaluation_is_saved_inside_its_run_or_sweep(cli, trained, two_jobs):
    lone = Path(shutil.copy(trained / "best.safetensors", "received.safetensors"))
    for words, home in (
        ([trained], trained / "eval"),
        ([trained / "last.safetensors"], trained / "eval"),
        ([two_jobs], two_jobs / "eval"),
        ([two_jobs / "0", two_jobs / "1" / "best.safetensors"], two_jobs / "eval"),
        ([trained, two_jobs / "0"], Path("outputs")),
        ([lone], Path("outputs")),
        ([trained, "--output", "mine"], Path("mine")),
    ):
        paths = [word for word in words if isinstance(word, Path)]
        output = Path("mine") if "--output" in words else None
        folder, note = claim_evaluation(paths, output)
        assert folder.is_relative_to(home), words
        assert note is None


def test_an_evaluation_of_a_run_that_cannot_be_written_to_goes_to_outputs(cli, trained):
    (trained / "eval").write_text("")  # also for root, who may write into any folder
    done = cli("eval", trained)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(
        f"Nothing can be written into {trained}: the evaluation is saved below outputs"
    )
    assert len(list(Path("outputs").glob("*/*/evaluation.json"))) == 1


def test_inspect_says_what_an_evaluation_is(cli, trained):
    (scored,) = json.loads(cli("eval", trained, "--json").stdout)
    (folder,) = (trained / "eval").iterdir()
    done = cli("inspect", folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].endswith("evaluation of 1 checkpoint")
    assert f"{100 * scored['accuracy']:.2f} %" in done.stdout
    assert json.loads(cli("inspect", folder, "--json").stdout)["scores"] == [scored]
    refused = cli("eval", folder)
    assert "holds an evaluation: give the folder of a run or a sweep" in refused.stderr
    (folder / "evaluation.json").write_text('[{"checkpoint": 3}, 7]')
    assert cli("inspect", folder).exit_code == 0
