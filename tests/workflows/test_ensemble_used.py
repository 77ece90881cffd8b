"""The file of an ensemble where a model is named: the same numbers as when it was chosen, or a refusal."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import rnnclf
from rnnclf.cli import app
from rnnclf.data.synthetic import Waves, make
from rnnclf.errors import CheckpointError
from rnnclf.hydra_app.grammar import quoted
from tests.conftest import logging_restored
from tests.workflows.finished_runs import rewrite

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

WORDS = ("hidden=4", "epochs=3", "threads=1", "batch_size=10", "final_fit=false")
FILE = Path("sweep/ensemble.json")


@pytest.fixture(scope="module")
def sweep_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make(folder / "waves.csv", Waves(120, 2, 10))
    with logging_restored(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        words = ["-m", str(folder / "waves.csv"), "cell=basic", "seed=0,1,2,3", *WORDS]
        place = f"hydra.sweep.dir={quoted(str(folder / 'sweep'))}"
        assert CliRunner().invoke(app, ["train", *words, place]).exit_code == 0
        patch.setattr("rnnclf.workflows.ensemble.greedy_weights", lambda label_RN, most: [3, 1, 0, 2])
        assert CliRunner().invoke(app, ["ensemble", str(folder / "sweep")]).exit_code == 0
    return folder


@pytest.fixture
def saved(sweep_once, tmp_path) -> dict:
    """The content of the file of an ensemble of three runs in the current folder."""
    shutil.copytree(sweep_once / "sweep", tmp_path / "sweep")
    shutil.copy(sweep_once / "waves.csv", tmp_path)
    found: dict = json.loads(FILE.read_text())
    return found


def answers(done) -> pl.DataFrame:
    assert done.exit_code == 0, done.output
    return pl.read_csv(io.StringIO(done.stdout), schema_overrides={"id": pl.String})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_eval_repeats_the_record_to_the_last_digit(cli, saved, split):
    (found,) = json.loads(cli("eval", FILE, f"split={split}", "--json").stdout)
    expected = saved["ensemble"][split]
    assert {key: found[key] for key in expected} == expected
    assert found["recorded_correct"] == expected["correct"]
    assert [m["sha256"] for m in found["members"]] == [m["sha256"] for m in saved["members"]]
    optimistic = "The ensemble was chosen on the validation split: its scores there are too optimistic."
    assert found["notes"] == ([optimistic] if split == "validation" else [])


def test_eval_shows_what_it_is_with_classes_and_confusions(cli, saved):
    done = cli("eval", FILE)
    assert done.exit_code == 0, done.output
    for word in (
        "ensemble of 3",
        "the weighted mean of",
        "precision",
        "columns: predicted",
    ):
        assert word in done.stdout
    assert "trained on" not in done.output
    (table,) = Path("sweep/eval").rglob("predictions.parquet")
    assert len(pl.read_parquet(table)) == saved["ensemble"]["test"]["total"]


def test_eval_takes_it_beside_runs_and_on_other_data(cli, saved):
    make(Path("other.csv"), Waves(30, 2, 10, seed=5))
    done = cli("eval", FILE, "sweep/0", "other.csv", "--json")
    first, second = json.loads(done.stdout)
    assert (first["cell"], second["cell"]) == ("ensemble of 3", "basic")
    assert first["total"] == second["total"] == 30
    assert first["other_data"] is True
    assert first["recorded_correct"] is None


def test_eval_of_a_record_that_does_not_fit_says_so(cli, saved):
    scores = saved["ensemble"]
    scores["test"]["correct"] -= 1
    rewrite(FILE, ensemble=scores)
    assert f"when it was chosen it had {scores['test']['correct']}" in cli("eval", FILE).output


def test_predict_gives_the_weighted_mean_of_the_members(cli, saved):
    columns = pl.col("^p_.*$")
    found = answers(cli("predict", FILE, "waves.csv"))
    each = [answers(cli("predict", f"sweep/{m['run']}", "waves.csv")) for m in saved["members"]]
    weights = [member["weight"] for member in saved["members"]]
    mean = np.average([one.select(columns).to_numpy() for one in each], axis=0, weights=weights)
    np.testing.assert_allclose(found.select(columns).to_numpy(), mean, atol=2e-6)
    assert found["id"].to_list() == each[0]["id"].to_list()


def test_predict_agrees_with_eval(cli, saved):
    found = answers(cli("predict", FILE, "waves.csv"))
    assert cli("eval", FILE, "split=all", "--output", "scored").exit_code == 0
    (table,) = Path("scored").rglob("predictions.parquet")
    scored = pl.read_parquet(table)
    assert scored["predicted"].to_list() == found["class"].to_list()
    mine, theirs = found.select(pl.col("^p_.*$")), scored.select(pl.col("^probability_.*$"))
    np.testing.assert_allclose(mine.to_numpy(), theirs.to_numpy(), atol=2e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval FILE sets=0.9", "sets=0.9 needs a single model"),
        ("eval FILE early=true", "early=true needs a run or a checkpoint, not an ensemble."),
        ("predict FILE waves.csv --sets 0.9", "--sets needs a single model"),
        ("predict FILE waves.csv --abstain 0.9", "--abstain needs a single model"),
        ("predict FILE sweep/0 waves.csv", "says itself which models to average: name it alone."),
        (
            "predict FILE waves.csv --logits",
            "--logits needs a single answer of a single model: of several models",
        ),
        ("export FILE", "only rnnclf eval and rnnclf predict take the file of an ensemble"),
        ("stream FILE waves.csv", "only rnnclf eval and rnnclf predict take the file of an ensemble"),
        (
            "train init=FILE dataset=digits",
            "only rnnclf eval and rnnclf predict take the file of an ensemble",
        ),
        ("resume FILE", "is a file: give a run folder"),
        ("compare FILE sweep/0", "is not the best checkpoint of a run"),
        ("report FILE", "is a file: give a run folder"),
        ("track FILE tracker=tensorboard", "is a file: give a run folder"),
        ("ensemble FILE", "is not the best checkpoint of a run"),
    ],
)
def test_what_makes_no_sense_for_an_ensemble_is_refused_in_one_sentence(cli, saved, words, message):
    done = cli(*words.replace("FILE", str(FILE)).split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_python_refuses_it_too(saved):
    with pytest.raises(CheckpointError, match="only rnnclf eval and rnnclf predict"):
        rnnclf.load(FILE)


@pytest.mark.parametrize("command", [["eval", FILE], ["predict", FILE, "waves.csv"]])
def test_a_member_that_was_trained_on_is_refused(cli, saved, command):
    run = saved["members"][0]["run"]
    other = next(str(n) for n in range(4) if str(n) != run)
    shutil.copy(f"sweep/{other}/best.safetensors", f"sweep/{run}/best.safetensors")
    done = cli(*command)
    assert done.exit_code == 2
    assert f"sweep/{run}/best.safetensors is not the checkpoint that {FILE} was made of" in done.stderr


def test_inspect_lists_the_members_and_checks_them(cli, saved):
    done = cli("inspect", FILE)
    assert done.exit_code == 0, done.output
    for member in saved["members"]:
        assert f"{member['weight']} × sweep/{member['checkpoint']}, {member['words']}" in done.stdout
    assert json.loads(cli("inspect", FILE, "--json").stdout)["kind"] == "ensemble"
    Path(f"sweep/{saved['members'][0]['checkpoint']}").unlink()
    assert cli("inspect", FILE).exit_code == 2


def test_inspect_shows_the_evaluation_of_an_ensemble(cli, saved):
    assert cli("eval", FILE, "--output", "scored").exit_code == 0
    (folder,) = Path("scored").glob("*/*")
    assert "ensemble of 3" in cli("inspect", folder).stdout
