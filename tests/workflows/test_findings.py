"""What `data check` says of odd data of one's own, that its line trains, and that the run repeats a doubt."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rnnclf.data import SPLITS
from rnnclf.data.arrays import Arrays
from rnnclf.data.table import Table
from rnnclf.errors import DataError
from rnnclf.hydra_app import load_config
from rnnclf.workflows.data import Checked, check
from rnnclf.workflows.evaluate import evaluate

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

CODE = pl.col("label").replace_strict({"sit": 4, "walk": 7, "run": 2})
RISING = pl.int_range(pl.len()).sqrt()  # as the number of the row does, but not seen as one when it is read
FAST = ["hidden=4", "epochs=1", "threads=1"]


def long(n: int = 60, steps: int = 8, classes: int = 3, seed: int = 0) -> pl.DataFrame:
    """Sorted by class, as data sets often are."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(n), steps)
    ax, ay = random.normal(size=(2, len(number)))
    label = [("sit", "walk", "run", "lie", "fall")[k * classes // n] for k in number]
    return pl.DataFrame(
        {"id": number, "time": np.tile(np.arange(steps), n), "ax": ax, "ay": ay, "label": label}
    )


def checked(frame: pl.DataFrame, *words: str) -> Checked:
    frame.write_csv("my.csv")
    return check(["my.csv", *words])


def sentences(found: Checked) -> str:
    return "\n".join(finding.sentence for finding in found.findings)


def channels_of(found: Checked) -> list[str]:
    program, command, *words = shlex.split(found.line)
    assert (program, command) == ("rnnclf", "train")
    return list(load_config(words).dataset.channels)


def test_clean_data_have_no_findings():
    assert checked(long()).findings == ()


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("nr", RISING),
        ("window no", pl.col("id") * 10 + 0.5),
        ("it's, a 'code'", CODE + pl.col("id") % 2 / 4),
    ],
)
def test_a_column_that_gives_the_class_away_is_named_and_left_out(name, column):
    found = checked(long().with_columns(column.alias(name)))
    (leak,) = found.findings
    assert (leak.severity, leak.without) == ("doubtful", (name,))
    assert f"Channel '{name}'" in leak.sentence
    assert leak.sentence.endswith("Leave it out: list the others in dataset.channels.")
    assert channels_of(found) == ["ax", "ay"]
    assert found.to_dict()["findings"][0]["severity"] == "doubtful"


def test_several_such_columns_are_left_out_by_one_word():
    frame = long().with_columns(nr=RISING, code=CODE + 0.5)
    found = checked(frame)
    assert [finding.without for finding in found.findings] == [("nr",), ("code",)]
    assert channels_of(found) == ["ax", "ay"]


def test_a_run_on_leaking_data_repeats_the_doubt(cli, only_run):
    long(30).with_columns(nr=RISING).write_csv("my.csv")
    done = cli("train", "my.csv", *FAST)
    assert done.exit_code == 0, done.output
    warned = [line for line in done.output.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2  # before training and with the accuracy
    assert all("Channel 'nr' only rises" in line for line in warned)
    (sentence,) = json.loads((only_run() / "results.json").read_text())["warnings"]
    assert sentence.startswith("Channel 'nr' only rises from one sequence to the next")
    assert "Channel 'nr'" in (only_run() / "accuracy.txt").read_text()
    (scored,) = evaluate(only_run())
    assert scored.notes == (sentence,)


def test_a_typing_error_in_a_label_is_named_and_not_weighted():
    typed = long(300).with_columns(
        label=pl.when(pl.col("id").is_in([150, 151])).then(pl.lit("Walk")).otherwise(pl.col("label"))
    )
    found = checked(typed)
    assert "The classes 'Walk' (2 sequences) and 'walk' (98 sequences) differ only in how" in sentences(found)
    assert "class_weights" not in found.line


def test_a_class_without_test_sequences_is_told():
    label = pl.when(pl.col("id") < 2).then(pl.lit("rare")).otherwise(pl.col("label"))
    found = checked(long(100).with_columns(label=label))
    absent = [split for split in SPLITS if not found.members[split]["rare"]]
    assert absent
    for split in absent:
        assert f"Class 'rare' has no sequence in the {split} split" in sentences(found)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_class_of_one_split_alone_is_refused_alike_in_every_reader(split):
    """Here: tables and arrays, which know the splits from a column and from an array."""
    expected = f"lass 'run' occurs in the {split} split only: there is nothing to train on."
    given = pl.when(pl.col("id") < 40).then(pl.lit("train")).otherwise(pl.lit(split))
    frame = long().with_columns(split=given)
    frame.write_csv("my.csv")
    parts = frame.gather_every(8)
    x_NTC = frame.select("ax", "ay").to_numpy().reshape(60, 8, 2)
    np.savez(
        "my.npz",
        x=x_NTC,
        y=parts["label"].to_numpy().astype(str),
        split=parts["split"].to_numpy().astype(str),
    )
    for source in (Table(path="my.csv"), Arrays(path="my.npz")):
        with pytest.raises(DataError) as caught:
            source.load()
        assert str(caught.value).endswith(expected)
    if split == "validation":  # of a test split, reading says it
        assert check(["my.csv"]).obstacle == f"C{expected}"


@pytest.mark.long
def test_ten_classes_of_five_and_a_test_file_are_given_a_line_that_works(cli):
    for name, seed in (("my.csv", 0), ("test.csv", 1)):
        frame = long(50, seed=seed).with_columns(label="c" + (pl.col("id") % 10).cast(pl.String))
        frame.write_csv(name)
    found = check(["my.csv", "dataset.test_path=test.csv"])
    assert found.obstacle is None
    assert [sum(found.members[split].values()) for split in SPLITS] == [40, 10, 50]
    done = cli(*shlex.split(found.line)[1:], *FAST)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("code", [0, -1, -32768, 65535, -9999])
def test_dropouts_that_are_coded_as_a_number_are_told(code):
    gone = np.random.default_rng(0).random(480) < 0.05
    column = pl.when(pl.Series(gone)).then(code).otherwise(500 + 20 * pl.col("ax"))
    found = checked(long().with_columns(ax=column))
    assert f"Channel 'ax' is {code} at {gone.sum()} steps and" in sentences(found)


def test_a_few_sequences_that_are_far_longer_are_named():
    few = pl.concat([long(28, 5), long(2, 2000).with_columns(pl.col("id") + 28)])
    found = checked(few)
    assert "2 sequences ('28', '29') have at least 2,000 steps, the others at most 5" in sentences(found)


def test_rows_that_are_in_the_file_twice_are_told():
    frame = long().drop("time")
    assert checked(frame).findings == ()
    found = checked(pl.concat([frame, frame.filter(pl.col("id") == 7)]))
    assert "8 steps in 1 sequence repeat earlier steps of the same sequence, the first at" in sentences(found)
    assert "my.csv, line" in sentences(found)


def test_the_most_serious_finding_is_shown_first(cli):
    frame = long().with_columns(nr=RISING, flat=1.0)
    frame.write_csv("my.csv")
    shown = cli("data", "check", "my.csv").stdout
    assert shown.index("!! Channel 'nr'") < shown.index("- A channel is constant: flat.")


def test_pictures_are_not_asked_for_what_only_series_have():
    assert check(["dataset=digits"]).findings == ()
    assert Path("my.csv").exists() is False
