"""What is typed is what is meant: names of every kind, paths as data sets, and the words that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rnnclf.config import known_keys, unknown_key
from rnnclf.errors import RnnclfError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.compose import composed, new_words, parsed
from rnnclf.hydra_app.grammar import is_resolved, literal, meant, parts, read
from rnnclf.hydra_app.keywords import _word
from rnnclf.hydra_app.words import as_path, prepared
from rnnclf.synonyms import SYNONYMS

NAMES = [
    *(
        "2024_01_15",
        "1e3",
        "true",
        "null",
        "None",
        "nan",
        "a\\b",
        "a\\",
        "mesuré.csv",
        "x~y.csv",
        "a b.csv",
        "a,b.csv",
    ),
    *(
        "it's.csv",
        '"q".csv',
        "'q'",
        "[a].csv",
        "{a}",
        "(1).csv",
        "a=b.csv",
        "a:b",
        "a#b",
        "50%",
        "a${b}.csv",
        "$x",
    ),
    *(
        "\\${b}",
        "x@y",
        "a*b?",
        "Größe",
        "日本",
        "choice(a)",
        "int(x)",
        "...",
        "a\nb",
        "+a",
        "lstm",
        "digits",
        "a&b;c",
    ),
]
"""Names of files and columns, most of which Hydra's grammar reads as something else."""


def value(word: str) -> str:
    """The value that a word sets, after everything in it is resolved."""
    (found,) = parsed([word]).values()
    return OmegaConf.create({"value": found}).value


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_text_has_a_spelling_that_means_just_this_text(text):
    assert OmegaConf.create({"value": read(literal(text))}).value == text
    assert meant(literal(text)) == text
    assert literal(text) == text or not is_resolved(literal(text))


@pytest.mark.long
@pytest.mark.parametrize("key", ["path", "test_path", "labels", "id", "split_column"])
def test_a_name_is_read_as_it_was_typed_and_as_we_print_it(tmp_path, key):
    for name in NAMES:
        (tmp_path / name).write_text("")
        word = f"dataset.{key}={name}"
        if key in ("id", "split_column") and name == "'q'":  # quoted text, where no file can have that name
            name = "q"
        if key != "path" and name == "null":  # nothing; the name is 'null'
            assert value(word) is None
            word = f"dataset.{key}='null'"
        (once, _) = prepared([word, "dataset=table"]).words
        assert value(once) == name
        assert prepared([once, "dataset=table"]).words[0] == once
        assert value(_word(f"dataset.{key}", name)) == name


def test_a_path_alone_chooses_its_source_whatever_its_name(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        source = "table" if name.endswith(".csv") else "folder"
        (choice, path), notes = prepared([as_path(name)])
        assert choice == f"dataset={source}"
        assert Path(value(path)) == Path(name)
        assert notes == [f"reading {as_path(name)} with dataset={source}"]


@pytest.fixture
def own(tmp_path) -> Path:
    """Data sets in several formats, most of them empty, in the current folder."""
    for name in ("my.csv", "é.csv", "other.npz", "mesuré.tsv", "lstm"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "typed",
    ["my.csv", "dataset=my.csv", "dataset.path=my.csv", "dataset='my.csv'", "./my.csv", "sub/../my.csv"],
)
def test_a_table_is_chosen_by_any_way_to_name_it(own, typed):
    first, second = prepared([typed]).words
    assert first == "dataset=table"
    assert Path(value(second)).resolve() == own / "my.csv"


def test_a_source_that_was_chosen_is_not_chosen_again(own):
    assert prepared(["dataset=arrays", "my.csv"]).words == ["dataset=arrays", "dataset.path=my.csv"]
    for given_by in ("dataset=arrays", "experiment=smnist"):
        words = [given_by, "dataset.path=my.csv"]
        assert prepared(words) == (words, [])


def test_all_text_options_reach_the_configuration_as_typed(tmp_path):
    (tmp_path / "mesuré ${x}.csv").write_text("")
    columns = ("id=Größe", "time=2024_01", "label=a,b", "group=null", "channels=x=1,ä", "split_column=${y}")
    config = load_config(["mesuré ${x}.csv", *(f"dataset.{column}" for column in columns)])
    source = config.dataset
    assert source.path == str(tmp_path / "mesuré ${x}.csv")
    assert (source.id, source.time, source.label, source.group) == ("Größe", "2024_01", "a,b", None)
    assert (source.channels, source.split_column) == (["x=1", "ä"], "${y}")


def test_the_home_folder_and_variables_are_expanded_where_no_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHERE", "there")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "plain.csv").write_text("")
    assert prepared(["~/plain.csv"]).words == ["dataset=table", "dataset.path='~/plain.csv'"]
    assert load_config(["dataset.path=~/plain.csv"]).dataset.path == str(tmp_path / "home" / "plain.csv")
    assert value("dataset.root=${oc.env:WHERE}") == "there"


@pytest.mark.parametrize(
    ("typed", "read_as"),
    [
        ("cell=lstm,gru", "cell=lstm,gru"),
        ("cell=glob(*)", "cell=glob(*)"),
        ("hidden=range(1,4)", "hidden=range(1,4)"),
        ("hidden=1,2", "hidden=1,2"),
        ("readout=last,mean", "readout=last,mean"),
        ("dataset.id=é,'a,b',1", "dataset.id='é','a,b','1'"),
        ("dataset.channels=[a,é],[b]", "dataset.channels=[a,'é'],[b]"),
        ("dataset.channels=a,b", "dataset.channels=[a],[b]"),
        ("plugins=a,b", "plugins=[a,b]"),
        ("plugins=[a, b]", "plugins=[a,b]"),
        ("plugins=['a']", "plugins=['a']"),
        ("threads=1,auto", "threads=1,auto"),
        ("hydra.sweep.dir=2024_01_15", "hydra.sweep.dir='2024_01_15'"),
        ("hydra.sweep.subdir=${hydra.job.num}", "hydra.sweep.subdir='${hydra.job.num}'"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=2"),
        ("+cell=gru", "cell=gru"),
        ("cell = gru", "cell=gru"),
    ],
)  # fmt: skip
def test_sweeps_and_quotes_keep_their_meaning(typed, read_as):
    assert prepared([typed], sweep=True).words == [read_as]
    assert prepared([read_as], sweep=True).words == [read_as]


def test_plugins_have_one_spelling():
    for typed in ("plugins=a,b", "plugins=[a,b]", "plugins=[a, b]"):
        assert prepared([typed]).words == ["plugins=[a,b]"]
        assert parsed([typed]) == {"plugins": ["a", "b"]}


def test_values_are_split_at_commas_outside_of_quotes_and_brackets():
    assert parts("a,'b,c',[d,e],it's,\"f,\"") == ["a", "'b,c'", "[d,e]", "it's", '"f,"']
    assert parts("['],',a],b") == ["['],',a]", "b"]
    assert parts("[a,b") == ["[a", "b"]


GPU = "device must be auto, cpu, cuda or mps, got 'gpu': a GPU is device=cuda"


@pytest.mark.long
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lstm", "'lstm' stands without its key: write cell=lstm. The path is ./lstm."),
        ("gru", "'gru' stands without its key: write cell=gru."),
        ("lstm,gru", "'lstm,gru' stands without its key: write cell=lstm,gru."),
        ("smnist", "'smnist' stands without its key: write experiment=smnist."),
        ("lstn", "'lstn' is neither an existing path nor of the form KEY=VALUE. Did you mean cell=lstm?"),
        ("cell lstm", "'cell' has no value: write cell=lstm, without spaces."),
        ("cell = lstm", "'cell' has no value: write cell=lstm, without spaces."),
        ("cell =lstm", "'cell' has no value: write cell=lstm, without spaces."),
        ("cell= lstm", "'cell=' has no value: write cell=lstm, without spaces."),
        ("lr 0.1", "'lr' has no value: write optimizer.lr=0.1, without spaces."),
        ("hidden", "'hidden' has no value: write hidden=VALUE, without spaces."),
        ("hidden:20", "'hidden:20' has ':' for '=': write hidden=20."),
        ("optimizer.lr:20", "'optimizer.lr:20' has ':' for '=': write optimizer.lr=20."),
        ("cell=[gru,lstm]", "cell must be one name: to train with each of these, write -m cell=gru,lstm."),
        ("cell=gru,lstm", "'cell=gru,lstm' gives several values: to train with each of them, add -m."),
        ("hidden=1,2", "'hidden=1,2' gives several values: to train with each of them, add -m."),
        ("hidden=range(1,3)", "'hidden=range(1,3)' gives several values"),
        ("dataset.path=a.csv,b.csv", "'dataset.path=a.csv,b.csv' gives several values"),
        ("~hidden", "hidden cannot be removed: leave it out for its default."),
        ("~clip", "clip cannot be removed: write clip=null to turn it off."),
        ("~clip=1", "clip cannot be removed: write clip=null to turn it off."),
        ("~cell", "cell cannot be removed: choose one with cell=NAME, or leave it out."),
        ("~hiden", "No key named 'hiden'. Did you mean 'hidden'?"),
        ("device=gpu", GPU),
        ("größe=3", "No key named 'größe'."),
        ("hidden.x=3", "No key named 'hidden.x'. Did you mean 'hidden'?"),
        ("checkpoint=5", "checkpoint holds options: write checkpoint.every=…."),
        ("nowhere.csv", "nowhere.csv does not exist."),
        ("dataset=nowhere.csv", "nowhere.csv does not exist."),
        ("dataset.path=nowhere.csv", "nowhere.csv does not exist."),
        ("my.csv é.csv", "These are 2 data sets: to train on each of them, add -m."),
        ("my.csv dataset.path=my.csv", "'my.csv' and dataset.path both name the data: leave one out."),
        ("a/b=c", "No key named 'a/b'."),
    ],
)  # fmt: skip
def test_what_is_meant_is_said(own, typed, message):
    with pytest.raises(RnnclfError) as caught:
        composed(new_words(typed.split(" ")))
    assert message in str(caught.value)


def test_a_gpu_is_said_to_be_there_only_if_it_is(monkeypatch):
    import torch

    for there, end in ((True, "cuda."), (False, "cuda, and there is none here.")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        with pytest.raises(RnnclfError) as caught:
            prepared(["device=gpu"])
        assert str(caught.value) == f"{GPU.removesuffix('cuda')}{end}"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--cell lstm", "No flag named '--cell': write cell=lstm, without dashes."),
        ("--epochs 5", "No flag named '--epochs': write epochs=5, without dashes."),
        ("--epochs=5", "No flag named '--epochs=5': write epochs=5, without dashes."),
        ("--batch-size 5", "No flag named '--batch-size': write batch_size=5, without dashes."),
        ("--learning-rate 5", "No flag named '--learning-rate': write optimizer.lr=5, without dashes."),
        ("-lr 5", "No flag named '-lr': write optimizer.lr=5, without dashes."),
        ("--plugins nothing_here", "plugins: cannot import 'nothing_here'"),
        ("plugins=nothing_here", "plugins: cannot import 'nothing_here'"),
        ("train lstm", "'train' is neither an existing path"),
        ("nowhere.csv", "nowhere.csv does not exist. Give a path, or words such as dataset=digits."),
    ],
)
def test_on_the_command_line_too(cli, tmp_path, typed, message):
    done = cli("train", *typed.split(" "))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_the_usual_names_of_other_libraries_lead_to_ours():
    assert set(SYNONYMS.values()) <= {*known_keys()}
    assert not {*SYNONYMS} & {*known_keys()}
    for synonym in ("lr", "learning_rate", "hidden_size", "units", "num_layers", "batch", "bs", "n_epochs"):
        assert unknown_key(synonym) == f"No key named '{synonym}'. Did you mean '{SYNONYMS[synonym]}'?"
    with pytest.raises(RnnclfError, match=r"No key named 'hidden_size'. Did you mean 'hidden'\?"):
        load_config(["hidden_size=3"])


def test_words_of_eval_and_resume_are_read_in_the_same_way(own):
    assert parsed(["dataset=é.csv"]) == {"dataset.path": "é.csv"}
    assert parsed(["dataset.path=2024_01_15", "split=all"]) == {"dataset.path": "2024_01_15", "split": "all"}
    for typed in ("threads=1,2", "~threads", "threads", "threads:2"):
        with pytest.raises(RnnclfError):
            parsed(typed.split(" "))
