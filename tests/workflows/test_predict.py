"""rnnclf predict: an answer for each sequence of data without labels, in the order in which they come."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from rnnclf import checkpoint, load
from rnnclf.cli import app
from rnnclf.data.synthetic import Waves, make
from rnnclf.workflows.answers import Layout
from rnnclf.workflows.predict import prediction
from tests.conftest import logging_restored

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

WORDS = ("hidden=4", "epochs=1", "threads=1")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the runs `long`, of a table with a row for each step, and `wide`."""
    folder = tmp_path_factory.mktemp("trained")
    make(folder / "long.csv", Waves(40, 2, 10, missing=0.1))
    rows = np.random.default_rng(0).normal(size=(40, 6)) + np.arange(40)[:, None] % 2
    steps = pl.DataFrame({f"t{t}": rows[:, t] for t in range(6)})
    steps.insert_column(0, pl.Series("class", ["id", "p"] * 20)).write_csv(folder / "wide.csv")
    with logging_restored(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, more in {"long": ["dataset.missing=mask", "final_fit=false"], "wide": []}.items():
            words = [str(folder / f"{name}.csv"), f"hydra.run.dir={folder / name}", *WORDS, *more]
            assert CliRunner().invoke(app, ["train", *words]).exit_code == 0
    return folder


@pytest.fixture
def here(place, tmp_path) -> Path:
    """The runs and the tables in the current folder."""
    for name in ("long", "wide"):
        shutil.copytree(place / name, tmp_path / name)
        shutil.copy(place / f"{name}.csv", tmp_path)
    return tmp_path


def answers(done) -> pl.DataFrame:
    assert done.exit_code == 0, done.output
    return pl.read_csv(io.StringIO(done.stdout), schema_overrides={"id": pl.String})


def assert_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Up to the last digit, since sequences that are classified together may be others."""
    assert_frame_equal(found, expected, abs_tol=2e-6, rel_tol=0)


def test_the_answer_is_the_same_without_labels_and_in_any_form_of_table(here, cli):
    without = pl.read_csv("long.csv").drop("label")
    without.write_csv("new.csv")
    without.write_parquet("new.parquet")
    without.write_ndjson("new.jsonl")
    expected = cli("predict", "long", "long.csv").stdout
    assert expected.startswith("id,class,probability,p_calm,p_hasty,p_quick\n0,")
    assert cli("predict", "long", "new.csv").stdout == expected
    for name in ("new.csv", "new.parquet", "new.jsonl"):  # on stdin its first bytes tell what it is
        done = CliRunner().invoke(app, ["predict", "long", "-"], input=Path(name).read_bytes())
        assert done.stdout == expected, name


def test_probabilities_are_those_of_eval_for_the_same_sequences(here, cli):
    assert cli("eval", "long", "split=all", "--output", "scored").exit_code == 0
    (table,) = Path("scored").rglob("predictions.parquet")
    scored = pl.read_parquet(table).sort("id")
    found = answers(cli("predict", "long", "long.csv")).sort("id")
    assert found["id"].to_list() == scored["id"].to_list()
    assert found["class"].to_list() == scored["predicted"].to_list()
    assert np.allclose(found["p_quick"], scored["probability_quick"], atol=1e-6)


def test_sequences_keep_the_order_in_which_they_first_come(here, cli):
    expected = answers(cli("predict", "long", "long.csv")).sort("id")
    mixed = pl.read_csv("long.csv").drop("label").sample(fraction=1, shuffle=True, seed=1)
    mixed.write_csv("mixed.csv")
    found = answers(cli("predict", "long", "mixed.csv"))
    first = mixed["id"].cast(pl.String).unique(maintain_order=True)
    assert found["id"].to_list() == first.to_list() != sorted(first.to_list())
    assert_same(found.sort("id"), expected)


def test_columns_are_found_by_the_names_of_the_training_data(here, cli):
    expected = answers(cli("predict", "long", "long.csv"))
    other = pl.read_csv("long.csv").with_columns(word=pl.lit("a"), more=pl.lit(1.5))
    other.select("more", "x1", "word", "time", "x0", "id").write_csv("other.csv")
    done = cli("predict", "long", "other.csv")
    assert_same(answers(done), expected)
    assert "other.csv: the model was not trained on more, word, which are left out." in done.stderr
    assert "person" not in cli("predict", "long", "long.csv").stderr  # only splits need it


@pytest.mark.long
def test_a_wide_table_may_have_more_columns_of_numbers(here, cli):
    expected = answers(cli("predict", "wide", "wide.csv"))
    pl.read_csv("wide.csv").drop("class").with_columns(age=pl.int_range(40) % 7 + 0.5).write_csv("w.csv")
    done = cli("predict", "wide", "w.csv")
    assert_same(answers(done), expected)
    assert "the model was not trained on age, which is left out" in done.stderr


def test_what_the_table_lacks_is_named(here, cli):
    whole = pl.read_csv("long.csv").drop("label")
    for lacking, message in {
        "x1": "new.csv has no 'x1': the model was trained on a column of that name.",
        "id": "new.csv has no column 'id'.",
        "time": "The model was trained with the times of the steps; these data have no column of times.",
    }.items():
        whole.drop(lacking).write_csv("new.csv")
        done = cli("predict", "long", "new.csv")
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["long"], "Give the folder of a run, and after it the data to classify."),
        (["long.csv", "long"], "long.csv is not a checkpoint of rnnclf."),
        (
            ["none", "long.csv"],
            "none does not exist: give a checkpoint file, a run folder or a sweep folder.",
        ),
        (["long", "none.csv"], "none.csv does not exist."),
        (["long", "empty.csv"], "empty.csv is empty: it needs a header and rows."),
        (["long", "rows.csv"], "rows.csv has a header but no rows."),
        (["long", "long.csv", "dataset=digits"], "dataset=digits has data of its own, and does not read"),
        (["long", "long.csv", "hidden=3"], "'hidden' cannot be changed for a prediction"),
        (["long", "long.csv", "-o", "a.txt"], "a.txt should end in .csv, .tsv, .jsonl or .parquet."),
        (["long", "long.csv", "-o", "no/a.csv"], "Cannot write no/a.csv: No such file or directory."),
        (["long", "long.csv", "--columns", "id,clas"], "there is no column 'clas'. Did you mean 'class'?"),
        (["long", "long.csv", "--top", "4"], "--top 4 is more than the model's 3 classes."),
        (["long", "long.csv", "--recordings"], "--recordings needs a model that was trained on windows"),
        (["long", "long", "long.csv"], "These are 2 models: name one of them, or add --ensemble"),
        (["long", "wide", "long.csv", "--ensemble"], "were trained on different classes"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(here, cli, words, message):
    Path("empty.csv").touch()
    Path("rows.csv").write_text("id,time,x0,x1\n")
    done = cli("predict", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not [path for path in Path().iterdir() if path.suffix == ".tmp"]


def test_a_class_may_be_called_like_a_column(here, cli):
    found = answers(cli("predict", "wide", "wide.csv"))
    assert found.columns == ["id", "class", "probability", "p_id", "p_p"]
    assert {*found["class"]} <= {"id", "p"}


@pytest.mark.long
def test_the_columns_can_be_chosen(here, cli):
    whole = answers(cli("predict", "long", "long.csv"))
    assert cli("predict", "long", "long.csv", "-o", "a.parquet", "--columns", "p_quick,id").exit_code == 0
    few = pl.read_parquet("a.parquet")
    assert few.columns == ["p_quick", "id"]
    assert np.allclose(few["p_quick"], whole["p_quick"], atol=1e-6)
    done = cli("predict", "long", "long.csv", "-o", "a.jsonl", "--top", "2")
    assert done.exit_code == 0
    assert cli("predict", "long", "long.csv", "--json", "--top", "2").stdout == Path("a.jsonl").read_text()
    top = pl.read_ndjson("a.jsonl")
    assert top.columns == ["id", "class", "probability", "class_2", "probability_2"]
    ranked = np.sort(whole.select("p_calm", "p_hasty", "p_quick").to_numpy(), axis=1)
    assert np.allclose(top["probability_2"], ranked[:, 1])
    assert cli("predict", "long", "long.csv", "-o", "a.tsv", "--logits").exit_code == 0
    logits = pl.read_csv("a.tsv", separator="\t").select("l_calm", "l_hasty", "l_quick").to_numpy()
    powers = np.exp(logits / checkpoint.load(Path("long/best.safetensors")).temperature)
    assert np.allclose(powers[:, 0] / powers.sum(axis=1), whole["p_calm"], atol=1e-5)


def test_a_sequence_that_cannot_be_read_is_told_or_left_without_a_class(here, cli):
    whole = pl.read_csv("wide.csv", infer_schema=False)
    row = pl.int_range(pl.len())
    damaged = whole.with_columns(
        t2=pl.when(row == 3).then(pl.lit("oops")).when(row == 5).then(None).otherwise("t2")
    )
    damaged.write_csv("bad.csv")
    done = cli("predict", "wide", "bad.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "bad.csv, line 5, column 't2': 'oops' is not a number. The model was trained" in done.stderr
    done = cli("predict", "wide", "bad.csv", "--skip-bad")
    assert "2 sequences could not be read and have no class." in done.stderr
    found, expected = answers(done), answers(cli("predict", "wide", "wide.csv"))
    assert found["class"].null_count() == 2
    lines = cli("predict", "wide", "bad.csv", "--skip-bad", "--json").stdout.splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["class"] for line in lines] == found[
        "class"
    ].to_list()
    assert_same(found.filter(~row.is_in([3, 5])), expected.filter(~row.is_in([3, 5])))


def test_a_missing_value_is_told_with_its_place(here, cli):
    lines = Path("wide.csv").read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:3], "", *lines[4].split(",")[4:]])
    Path("gap.csv").write_text("\n".join(lines))
    done = cli("predict", "wide", "gap.csv")
    assert done.exit_code == 2
    assert "gap.csv, line 5, step 2 (counted from 0): 'value' is missing" in done.stderr


@pytest.mark.long
def test_data_unlike_the_training_data_are_doubted(here, cli):
    pl.read_csv("long.csv").with_columns(x0=pl.col("x0") + 9).write_csv("new.csv")
    told = cli("predict", "long", "new.csv").stderr
    assert "These data are unlike the training data: 'x0' has mean" in told
    assert "x1" not in told
    assert "unlike" not in cli("predict", "long", "long.csv").stderr
    few = pl.read_csv("long.csv").filter(pl.col("id") < 3)  # too few to tell
    few.write_csv("few.csv")
    assert "unlike" not in cli("predict", "long", "few.csv").stderr
    long = pl.concat([few.with_columns(pl.col("time") + 100 * n) for n in range(9)])
    long.write_csv("longer.csv")
    assert (
        "3 of 3 sequences are longer than all training sequences"
        in cli("predict", "long", "longer.csv").stderr
    )


def test_several_runs_are_averaged(here, cli):
    saved = checkpoint.load(Path("long/best.safetensors"))
    other = {name: tensor * -2 for name, tensor in saved.tensors.items()}
    checkpoint.save(Path("other.safetensors"), saved.header, other)
    one, two = (answers(cli("predict", run, "long.csv")) for run in ("long", "other.safetensors"))
    assert not np.allclose(one["p_calm"], two["p_calm"], atol=0.01)
    both = answers(cli("predict", "long", "other.safetensors", "long.csv", "--ensemble"))
    assert np.allclose(both["p_calm"], (one["p_calm"] + two["p_calm"]) / 2, atol=2e-6)


def test_labels_in_the_data_are_scored_in_one_line(here, cli):
    whole = pl.read_csv("long.csv")
    found = answers(cli("predict", "long", "long.csv")).with_columns(pl.col("id").cast(pl.Int64))
    labels = whole.group_by("id").agg(pl.col("label").first())
    right = found.join(labels, on="id").filter(pl.col("class") == pl.col("label")).height
    told = cli("predict", "long", "long.csv").stderr
    assert f"40 sequences have labels: {right} got their class (accuracy {100 * right / 40:.2f} %)." in told
    least = found["probability"].median()
    sure = found.join(labels, on="id").filter(pl.col("probability") > least)
    right = sure.filter(pl.col("class") == pl.col("label")).height
    told = cli("predict", "long", "long.csv", "--min-probability", least).stderr
    assert f"where the model does not abstain, {right} of {sure.height} (" in told
    row, label = pl.int_range(pl.len()).over("id"), pl.col("label")
    for changed, number in {
        "none": (pl.lit(None, pl.String), 0),
        "some": (pl.when(pl.col("id") < 3).then(label), 3),
        "unknown": (pl.lit("never seen"), 40),
        "several": (pl.when((pl.col("id") == 5) & (row > 1)).then(pl.lit("calm2")).otherwise(label), 39),
        "late": (pl.when(row > 2).then(label), 40),
    }.values():
        whole.with_columns(label=changed).write_csv("new.csv")
        done = cli("predict", "long", "new.csv")
        assert answers(done).height == 40
        assert ("labels: " in done.stderr) == (number > 0)
        assert number == 0 or f"{number} sequences have labels: " in done.stderr


def test_a_score_says_how_many_labels_were_trained_on(here, cli):
    told = cli("predict", "long", "long.csv").stderr
    known = np.load("long/trained_on.npz")["hashes_n"]
    assert f" {len(known)} of them were trained on: the accuracy is too optimistic." in told
    shifted = pl.read_csv("long.csv").with_columns(pl.col("x0") + 1e-3)
    shifted.write_csv("new.csv")
    told = cli("predict", "long", "new.csv").stderr
    assert "40 sequences have labels" in told
    assert "trained on" not in told
    Path("alone.safetensors").write_bytes(Path("long/best.safetensors").read_bytes())
    told = cli("predict", "alone.safetensors", "new.csv").stderr
    assert "no record of which sequences were trained on" in told
    told = cli("predict", "alone.safetensors", "long", "long.csv", "--ensemble").stderr
    assert f" {len(known)} of them were trained on" in told


@pytest.mark.long
def test_an_exported_file_knows_what_its_run_was_trained_on(here, cli):
    pytest.importorskip("onnxruntime")
    assert cli("export", "long").exit_code == 0
    known = len(np.load("long/trained_on.npz")["hashes_n"])
    assert f" {known} of them were trained on" in cli("predict", "long/model.onnx", "long.csv").stderr
    pl.read_csv("long.csv").filter(pl.col("id") < 30).write_csv("some.csv")  # other data than its own
    by_file, by_run = (
        json.loads(cli("eval", model, "some.csv", "--json").stdout)[0]["trained_on"]
        for model in ("long/model.onnx", "long")
    )
    assert by_file == by_run > 0
    for folder in ("elsewhere", "wide"):  # an empty folder, and that of another run
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "model.onnx").write_bytes(Path("long/model.onnx").read_bytes())
        told = cli("predict", f"{folder}/model.onnx", "long.csv").stderr
        assert "no record of which sequences were trained on" in told


def test_sets_are_those_of_eval_and_of_python(here, cli):
    done = cli("predict", "long", "long.csv", "--sets", "0.8", "--abstain", "0.8")
    found = answers(done)
    assert "validation sequences, " in done.stderr
    assert f"The model abstains on {found['abstain'].sum()} of 40 sequences." in done.stderr
    sets = [names.split("|") if names else [] for names in found["set"].fill_null("")]
    assert [len(names) != 1 for names in sets] == found["abstain"].to_list()
    named = found.filter(~pl.col("abstain"))
    assert named["class"].equals(named["set"], check_names=False)
    scored = json.loads(cli("eval", "long", "split=all", "sets=0.8", "--json").stdout)[0]["sets"]
    assert scored["classes"] == sum(map(len, sets)) > 0
    model = load("long")
    likely_NK = model.predict_sets(pl.read_csv("long.csv").drop("label"), 0.8)
    assert [{*model.classes_[row]} for row in likely_NK] == [{*names} for names in sets]
    with pytest.raises(ValueError, match=r"level=0\.95 needs at least 19 validation sequences"):
        model.predict_sets(pl.read_csv("long.csv").drop("label"))


def test_an_interrupted_prediction_leaves_the_old_file(here, cli, monkeypatch):
    Path("out.csv").write_text("old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rnnclf.workflows.predict.evaluate_model", stop)
    for name in ("out.csv", "out.parquet"):
        assert cli("predict", "long", "long.csv", "-o", name).exit_code == 130
    assert Path("out.csv").read_text() == "old"
    assert not Path("out.parquet").exists()
    assert not list(Path().glob(".out*"))


def test_a_full_disk_is_told(here, cli, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rnnclf.workflows.answers._write", full)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    for name in ("a.csv", "a.parquet"):
        done = cli("predict", "long", "long.csv", "-o", name)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"Cannot write {name}: No space left on device." in done.stderr
        assert not list(Path().glob(f"*{name}*"))


def test_parts_are_classified_one_after_the_other(here, monkeypatch):
    """However many parts there are, the answers are those of one."""
    with prediction([Path("long")], "long.csv") as found:
        layout = Layout(found.classes)
        whole = [layout.frame(a.ids_N, a.probabilities_NK, a.logits_NK) for a in found.answers()]
    monkeypatch.setattr("rnnclf.workflows.predict.VALUES", 50)
    with prediction([Path("long")], "long.csv") as found:
        parts = [layout.frame(a.ids_N, a.probabilities_NK, a.logits_NK) for a in found.answers()]
    assert len(whole) == 1 < len(parts)
    one, many = whole[0], pl.concat(parts)
    assert one["id"].equals(many["id"])
    assert np.allclose(one["p_calm"], many["p_calm"], atol=1e-6)


def test_nothing_of_what_is_predicted_stays_in_the_cache(here, cli):
    before = {*Path("cache").rglob("*")}
    assert cli("predict", "long", "long.csv").exit_code == 0
    assert {*Path("cache").rglob("*")} == before


@pytest.mark.long
def test_head_ends_a_prediction_silently(here):
    command = f"{sys.executable} -m rnnclf predict wide wide.csv | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("id,class,probability,p_id,p_p\n", 0)
    assert "rror" not in done.stderr


@pytest.mark.long
def test_in_python_a_data_frame_with_the_columns_of_the_training_data_is_enough(here, cli):
    expected = answers(cli("predict", "long", "long.csv"))
    frame = pl.read_csv("long.csv").drop("label")
    model = load("long")
    assert model.predict(frame).tolist() == expected["class"].to_list()
    assert np.allclose(model.predict_proba(frame)[:, 0], expected["p_calm"], atol=1e-6)
    pandas = pytest.importorskip("pandas")
    assert model.predict(pandas.read_csv("long.csv")).tolist() == expected["class"].to_list()
    wide = load("wide").predict(pl.read_csv("wide.csv").drop("class"))
    assert wide.tolist() == answers(cli("predict", "wide", "wide.csv"))["class"].to_list()
