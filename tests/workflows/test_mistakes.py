"""rnnclf eval --errors: the most confident mistakes, with their place and a drawing."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.data.recordings import Recordings
from rnnclf.metrics import Evaluation
from rnnclf.workflows.mistakes import Mistakes, common_scale
from tests.cli_runs import SMALL
from tests.conftest import logging_restored

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

HOSTILE = "=\x1b[31m[bold]run"


def write_table(path: Path) -> list[str]:
    """40 sequences of 4 to 7 steps whose values say nothing about their class. Returns the first line of
    each, by its id."""
    random = np.random.RandomState(0)
    lines = ["id,time,a,b,c,d,label"]
    for n in range(40):
        for t in range(4 + n % 4):
            values = ",".join(f"{value:.3f}" for value in random.standard_normal(4))
            lines.append(f"s{n},{t},{values},{('walk', HOSTILE)[n % 2]}")
    path.write_text("\n".join([*lines, ""]))
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with classifiers of digits and of a table."""
    folder = tmp_path_factory.mktemp("made")
    write_table(folder / "my.csv")
    with pytest.MonkeyPatch.context() as patch, logging_restored():
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, words in (("digits", SMALL), ("table", ("my.csv", "recipe=plain", *SMALL[1:]))):
            done = CliRunner().invoke(app, ["train", *words, f"hydra.run.dir={name}"])
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "cache"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "errors.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def saved(output: Path) -> Path:
    (folder,) = output.glob("*/*")
    return folder


def test_the_most_confident_mistakes_come_first_and_all_are_saved(here, cli, tmp_path):
    done = cli("eval", "digits", "--errors", 3, "--output", tmp_path, "--json")
    assert done.exit_code == 0
    (result,) = json.loads(done.stdout)
    rows = rows_of(saved(tmp_path))
    found = pl.read_parquet(saved(tmp_path) / "predictions.parquet")
    wrong = found.filter(pl.col("label") != pl.col("predicted"))
    assert len(rows) == wrong.height == result["total"] - result["correct"] > 3
    confidence = [float(row["probability"]) for row in rows]
    assert confidence == sorted(confidence, reverse=True)
    assert {row["id"] for row in rows} == {str(name) for name in wrong["id"]}
    for row, shown in zip(rows[:3], result["errors"], strict=True):
        (predicted,) = wrong.filter(pl.col("id") == int(row["id"])).to_dicts()
        assert (row["label"], row["predicted"]) == (predicted["label"], predicted["predicted"])
        assert float(row["probability"]) == pytest.approx(predicted[f"probability_{row['predicted']}"])
        assert float(row["probability_of_label"]) == pytest.approx(predicted[f"probability_{row['label']}"])
        assert shown["probability"] == float(row["probability"])
        assert shown["id"] == int(row["id"])
    assert f"the 3 most confident of {len(rows)} mistakes in 360 sequences" in done.stderr


def test_without_the_word_nothing_of_it_is_written(here, cli, tmp_path):
    done = cli("eval", "digits", "--output", tmp_path, "--json")
    assert "errors" not in json.loads(done.stdout)[0]
    assert not (saved(tmp_path) / "errors.csv").exists()
    assert "mistakes" not in done.stderr


def test_each_mistake_in_a_table_has_its_line_and_a_drawing_of_three_channels(here, cli, tmp_path, terminal):
    lines = Path("my.csv").read_text().splitlines()
    done = cli("eval", "table", "split=all", "--errors", "--output", tmp_path)
    assert done.exit_code == 0
    rows = rows_of(saved(tmp_path))
    assert len(rows) > 10
    for row in rows:
        file, line = row["place"].split(", line ")
        assert file == "my.csv"
        assert lines[int(line) - 1].startswith(f"{row['id']},0,")
    drawn = done.stdout.partition("most confident of")[2]
    assert "\x1b[31m[bold]" not in drawn
    assert "[bold]run" in drawn
    assert f"id {rows[0]['id']}; {rows[0]['place']}" in drawn
    assert all(character in drawn for character in "▁█")
    assert drawn.count(" taken for ") == 10
    assert rows[0]["label"] in ("walk", "'=\N{REPLACEMENT CHARACTER}[31m[bold]run")


def test_drawings_fit_into_80_columns(here, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for run in ("digits", "table"):
        done = cli("eval", run, "--errors", "4", "--output", tmp_path / run)
        assert done.exit_code == 0
        drawn = done.stdout[done.stdout.index("the 4 most confident of") :]
        assert max(map(len, drawn.splitlines())) <= 80


def test_pictures_are_drawn_with_half_blocks(here, cli, tmp_path):
    done = cli("eval", "digits", "--errors=2", "--output", tmp_path)
    drawn = done.stdout.partition("most confident of")[2]
    assert sum(character in "▀▄█" for character in drawn) > 20
    assert " taken for " in drawn


def test_that_there_are_no_mistakes_is_said_once(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"s{n},{t},{(-1) ** n * (1 + t) ** 2},{n % 2}" for n in range(60) for t in range(4)]
    Path("easy.csv").write_text("\n".join(["id,time,a,label", *lines, ""]))
    trained = cli("train", "easy.csv", "recipe=plain", "hidden=8", "epochs=20", "hydra.run.dir=easy")
    assert trained.exit_code == 0, trained.stderr
    done = cli("eval", "easy", "--errors", "3")
    assert done.stdout.count("misclassified") == 1
    (errors,) = Path("easy").glob("eval/*/errors.csv")
    assert len(errors.read_text().splitlines()) == 1
    both = cli("eval", "easy", "easy/best.safetensors", "--errors", "3", "--output", "both")
    assert both.stdout.count("misclassified") == 2


@pytest.mark.parametrize("word", ["--errors=-1", "--errors=many"])
def test_a_number_of_mistakes_is_a_number(here, cli, word):
    done = cli("eval", "digits", word)
    assert done.exit_code == 2
    assert "--errors" in done.stderr


def some(logits_NK, y_N, **more):
    values_SC = np.arange(2.0 * len(y_N)).reshape(-1, 1)
    recordings = Recordings(
        values_SC,
        starts_N=2 * np.arange(len(y_N)),
        lengths_N=np.full(len(y_N), 2),
        labels_N=np.array(y_N),
        classes=("a", "b"),
        channels=("u",),
        **more,
    )
    evaluation = Evaluation(
        ("a", "b"), np.array(y_N), np.array(logits_NK, np.float32), np.array(["s", "t", "u"], object)
    )
    return Mistakes(evaluation, recordings, np.arange(len(y_N)))


def test_ties_stay_in_the_order_of_the_data_and_values_are_as_read():
    found = some([[0, 1], [0, 3], [0, 1]], [0, 0, 0], unit=2.0)
    first, second, third = found
    assert [mistake.id for mistake in (first, second, third)] == ["t", "s", "u"]
    assert first.probability == pytest.approx(1 / (1 + np.exp(-3)))
    assert first.probability_of_label == pytest.approx(1 / (1 + np.exp(3)))
    assert first.place == "sequence 1"
    assert found.values(first).tolist() == [[1.0], [1.5]]


def test_a_classifier_without_mistakes_has_none():
    found = some([[1, 0], [0, 1], [1, 0]], [0, 1, 0])
    assert len(found) == 0
    assert list(found) == []


def test_a_missing_value_or_a_whole_missing_channel_can_be_drawn():
    assert common_scale([np.array([np.nan, 2.0]), np.array([1.0])]) == (1.0, 2.0)
    assert common_scale([np.array([np.nan])]) == (0.0, 1.0)


def test_half_blocks_are_two_pixels_each():
    from rnnclf.console.drawing import halved

    light_HW = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    assert [line.plain for line in halved(light_HW, greys=False)] == [" ▀▄█", "▀   "]
    first = halved(light_HW, greys=True)[0]
    assert first.plain == "▀▀▀▀"
    assert [str(span.style) for span in first.spans][1] == "#ffffff on #000000"
