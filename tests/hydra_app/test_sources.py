"""Data sets that are named by their path, alone and side by side in the grid of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnnclf.data.synthetic import Waves, make
from rnnclf.errors import RnnclfError
from rnnclf.hydra_app.checks import Planned, plan
from rnnclf.hydra_app.words import anchored, prepared
from rnnclf.workflows.sweep_folder import jobs_of

SMALL = ("hidden=4", "epochs=1", "threads=1")


@pytest.fixture
def own(tmp_path) -> Path:
    """Empty data sets in several formats, in the current folder."""
    for name in ("my.csv", "mesuré.csv", "other.npz", "sub/my.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def words_of(*typed: str) -> list[str]:
    return prepared(typed, sweep=True).words


def grid(*typed: str) -> list[Planned]:
    return plan(words_of(*typed))


@pytest.mark.long
def test_data_sets_with_different_keys_share_a_grid(own):
    jobs = grid("dataset=digits,mesuré.csv,other.npz", "dataset.missing=mask", "dataset.id=nr", "hidden=3,4")
    assert [" ".join(job.words) for job in jobs] == [
        f"dataset={name} hidden={hidden}"
        for name in ("digits", "'mesuré.csv'", "other.npz")
        for hidden in (3, 4)
    ]
    digits, table, arrays = (job.config.dataset for job in jobs[::2])
    assert (digits.name, digits.missing) == ("digits", "error")  # pictures have no missing values
    assert (table.name, table.path, table.missing, table.id) == (
        "table", str(own / "mesuré.csv"), "mask", "nr",
    )  # fmt: skip
    assert (arrays.name, arrays.path, arrays.missing) == ("arrays", str(own / "other.npz"), "mask")


def test_keys_of_some_of_the_data_sets_are_said_to_be_theirs(own):
    notes = prepared(["dataset=digits,my.csv", "dataset.id=nr"], sweep=True).notes
    assert notes == ["reading my.csv with dataset=table", "dataset.id=nr is for my.csv only"]


def test_a_key_that_all_have_stays_where_it_is(own):
    typed = ["dataset=digits,mnist", "dataset.sequence=pixels,rows", "hidden=3"]
    assert words_of(*typed) == typed
    words = words_of("dataset=digits,my.csv", "dataset.validation=0.2")
    assert words == ["dataset=digits,my.csv", "dataset.validation=choice(0.2)"]


@pytest.mark.long
def test_keys_that_the_default_component_lacks_are_for_the_components_that_are_compared(own):
    jobs = grid("cell=lstm,peephole", "cell.forget_bias=2", "dataset=table,archive", "dataset.path=my.csv")
    assert [job.config.cell.forget_bias for job in jobs] == [2.0] * 4
    assert {job.config.dataset.path for job in jobs} == {str(own / "my.csv")}
    assert jobs[0].words == ["cell=lstm", "cell.forget_bias=2", "dataset=table", "dataset.path=my.csv"]


@pytest.mark.parametrize(
    ("typed", "read_as"),
    [
        ("my.csv other.npz", "dataset=my.csv,other.npz"),
        ("hidden=3 my.csv other.npz epochs=1", "hidden=3 dataset=my.csv,other.npz epochs=1"),
        ("dataset.path=my.csv,other.npz", "dataset=my.csv,other.npz"),
        ("my.csv sub/my.csv", "dataset=table dataset.path=my.csv,sub/my.csv"),
        ("dataset.path=my.csv,mesuré.csv", "dataset=table dataset.path=my.csv,'mesuré.csv'"),
        ("digits my.csv", None),
        ("dataset=digits,my.csv,sub/my.csv", "dataset=digits,my.csv,my.csv-2"),
        ("dataset=digits,table dataset.path=my.csv", "dataset=digits,my.csv"),
        ("dataset=digits,my.csv dataset.sequence=pixels", "dataset='digits(sequence=pixels)',my.csv"),
        ("my.csv cell=gru,lstm", "dataset=table dataset.path=my.csv cell=gru,lstm"),
        ("dataset=glob(*mnist)", "dataset=glob(*mnist)"),
    ],
)
def test_several_paths_are_several_data_sets(own, typed, read_as):
    if read_as is None:
        with pytest.raises(RnnclfError, match=r"'digits' stands without its key: write dataset=digits\."):
            words_of(*typed.split())
    else:
        assert " ".join(words_of(*typed.split())) == read_as


@pytest.mark.long
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "dataset=digits,my.csv dataset.id=a,b",
            "dataset=digits has no use for dataset.id, so its values cannot",
        ),
        ("dataset=digits,table dataset.path=my.csv,sub/my.csv", "name the files in dataset="),
        ("dataset=digits,nowhere.csv", "nowhere.csv does not exist."),
        (
            "dataset=[digits,my.csv]",
            "dataset must be one name: to train with each of these, write -m dataset=",
        ),
        ("dataset=digits,my.csv dataset.nonsense=3", "dataset=digits has no option 'nonsense'."),
        ("dataset=digits,my.csv dataset.id=[1", "has no column"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(own, typed, message):
    if "has no column" in message:  # a name like any other, to be looked for when the table is read
        assert grid(*typed.split())[1].config.dataset.id == "[1"
        return
    with pytest.raises(RnnclfError) as caught:
        grid(*typed.split())
    assert message in str(caught.value)


def test_recorded_paths_are_below_the_folder_where_they_were_typed():
    assert anchored("dataset.path=my.csv,'é.csv',/a/b,null", "/home") == (
        "dataset.path=/home/my.csv,'/home/é.csv',/a/b,null"
    )
    assert anchored("hidden=3", "/home") == "hidden=3"


@pytest.mark.slow
def test_a_grid_over_data_sets_is_trained_resumed_from_anywhere_and_evaluated(cli, tmp_path, monkeypatch):
    make(tmp_path / "my.csv", Waves(sequences=60, length=8, missing=0))
    make(tmp_path / "other.npz", Waves(sequences=60, length=8, missing=0.1))
    typed = ("dataset=digits,my.csv,other.npz", "dataset.missing=mask", "hydra.sweep.dir=s")
    done = cli("train", "-m", *typed, *SMALL)
    assert done.exit_code == 0, done.output
    for name in ("digits", "my.csv", "other.npz"):
        assert f"dataset={name} " in done.stdout
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    make(tmp_path / "sub" / "new.csv", Waves(sequences=60, length=8, missing=0))
    done = cli("resume", "../s", "seed=1")
    assert done.exit_code == 0, done.output
    assert "3 added" in done.stdout
    done = cli("resume", "../s", "dataset=my.csv,digits,new.csv")
    assert "1 added: #6" in done.stdout
    found = [run.read_results() for run in jobs_of(tmp_path / "s")]
    assert [result["test"]["total"] for result in found[:3]] == [
        result["test"]["total"] for result in found[3:6]
    ]
    scored = json.loads(cli("eval", "../s", "--json").stdout)
    assert [one["dataset"] for one in scored] == ["digits", "table", "arrays"] * 2 + ["table"]
    assert all(one["recorded_correct"] == one["correct"] for one in scored)
