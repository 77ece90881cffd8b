"""`rnnclf show` and `rnnclf train --help` explain every choice and every key."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from rnnclf.config import GROUPS, NESTED, Config
from rnnclf.workflows.catalog import find, list_choices
from rnnclf.workflows.keys import MACHINE, MODEL, TRAINING, Key, all_names, keys_named, top_keys

COMPONENTS = [(group, name) for group in GROUPS for name in GROUPS[group]]


@pytest.mark.parametrize(("group", "name"), COMPONENTS)
def test_every_option_of_a_component_is_explained(group, name):
    for option in fields(GROUPS[group][name]):
        if option.name != "name":
            help = option.metadata["help"]
            assert len(help.split()) >= 4, f"{group}.{option.name}: {help}"
            assert help.lower() != option.name.replace("_", " ")
            assert not help.endswith((".", ",", ":", ";"))


def test_every_key_of_the_configuration_is_explained():
    for name, facts in top_keys().items():
        assert len(facts.help.split()) >= 4, f"{name}: {facts.help}"
    known = {option.name for option in fields(Config)} - {*GROUPS, *NESTED}
    assert {name for name in top_keys() if "." not in name} == known


def test_every_key_stands_in_one_section_of_the_help():
    assert sorted((*MODEL, *TRAINING, *MACHINE)) == sorted(top_keys())


@pytest.fixture
def _no_plugins(monkeypatch):
    """Saves the search for installed plugins, which takes longer than everything else."""
    monkeypatch.setattr("rnnclf.workflows.catalog.register", lambda plugins: None)


@pytest.mark.usefixtures("_no_plugins")
@pytest.mark.parametrize(
    "word", ["lstm", "cell=lstm", "adamw", "attention", "readout=attention", "tutorial", "auroc"]
)
def test_a_choice_is_found_by_its_name_alone(word):
    found = find(word)
    assert found.name == word.rpartition("=")[2]
    assert found.summary.endswith(".")


@pytest.mark.usefixtures("_no_plugins")
@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("epochs", "epochs"),
        ("epochs=30", "epochs"),
        ("lr", "optimizer.lr"),
        ("optimizer.lr", "optimizer.lr"),
        ("dataset.missing", "dataset.missing"),
        ("dataset.missing=mask", "dataset.missing"),
        ("every", "checkpoint.every"),
        ("cell.zoneout", "zoneout"),
        ("cell.hidden_size", "hidden"),
        ("hidden_size", "hidden"),
        ("readout", "readout"),
        ("path", "dataset.path"),
    ],
)
def test_a_key_is_found_by_its_name_or_the_last_part_of_it(word, key):
    found = find(word)
    assert isinstance(found, Key)
    assert found.name == key


def test_every_key_is_found_by_its_full_name():
    assert {name: [key.name for key in keys_named(name)] for name in all_names()} == {
        name: [name] for name in all_names()
    }


def test_a_group_alone_lists_its_choices():
    assert find("cell") == find("cells") == list_choices("cell")


def test_an_option_that_differs_between_components_says_where():
    key = find("optimizer.lr")
    assert [(variant.components, variant.facts.default) for variant in key.variants] == [
        (("adam", "adamw"), 0.002),
        (("sgd",), 0.1),
        (("rmsprop",), 0.001),
    ]


@pytest.mark.usefixtures("_no_plugins")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["glorot"], "'glorot' means several things. Choose one: rnnclf show input_init glorot,"
                     " rnnclf show recurrent_init glorot."),
        (["lstmm"], "Nothing is named 'lstmm'. Did you mean 'lstm'?"
                    " All choices: rnnclf list. All keys: rnnclf train --help."),
        (["zzz"], "Nothing is named 'zzz'. All choices: rnnclf list. All keys: rnnclf train --help."),
        (["gruu", "lstm"], "No group named 'gruu'. Known: cell, optimizer, schedule, dataset, augment,"
                           " average, recipe, experiment, readout, input_init, metric, recurrent_init,"
                           " tracker."),
    ],
)  # fmt: skip
def test_a_word_that_means_nothing_or_several_things_is_refused_in_one_sentence(cli, words, message):
    done = cli("show", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


def test_a_key_is_shown_with_default_range_and_meaning(cli):
    lines = [line.rstrip() for line in cli("show", "epochs").stdout.splitlines()]
    assert lines == [
        *("epochs", "Number of passes over the training data.", "", "default  20"),
        *("allowed  a whole number, at least 1", "", "typed as rnnclf train epochs=20"),
    ]
    path = cli("show", "dataset.path").stdout
    assert "none: required" in path
    assert "dataset= table, arrays, folder, archive" in path


def test_a_key_is_json_for_a_program(cli):
    shown = json.loads(cli("show", "optimizer.lr", "--json").stdout)
    assert shown["key"] == "optimizer.lr"
    assert [variant["facts"]["default"] for variant in shown["variants"]] == [0.002, 0.1, 0.001]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.fixture(scope="module")
def helped():
    """`rnnclf train --help`, at 80 columns."""
    from typer.testing import CliRunner

    from rnnclf.cli import app

    done = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "80", "RNNCLF_DATA": None})
    assert done.exit_code == 0
    return done.stdout


def test_the_help_of_train_explains_every_key_at_80_columns(helped):
    assert max(map(len, helped.splitlines())) <= 80
    text = squeezed(helped)
    for name, facts in top_keys().items():
        assert squeezed(f"{name}=") in text
        assert squeezed(facts.help) in text
    for group, name in COMPONENTS:
        assert name in text, group
    for key in ("optimizer.lr=0.002", "dataset.validation=5000", "dataset.root=null", "schedule.warmup=0.3"):
        assert key in text
    assert not re.search(r"\$\{|\?\?\?|hidden_size|…", helped)


def test_the_help_shows_the_values_of_the_command(cli):
    shown = cli(
        "train", "-h", "experiment=smnist", "-m", "hidden=7,8", "dataset.root=/somewhere", "cell=lstm"
    )
    assert shown.exit_code == 0
    for word in (
        "hidden=7 ",
        "dataset.sequence=pixels ",
        "dataset.root=/somewhere ",
        "cell.forget_bias=1.0 ",
    ):
        assert word in shown.stdout


def test_the_help_of_a_wrong_word_is_the_error(cli):
    done = cli("train", "--help", "hiden=7")
    assert (done.exit_code, done.stderr) == (2, "error: No key named 'hiden'. Did you mean 'hidden'?\n")


def test_the_help_is_json_for_a_program(cli):
    sections = json.loads(cli("train", "--help", "--json", "dataset=table").stdout)
    assert [section["title"] for section in sections][:3] == ["model", "cell=basic", "training"]
    (data,) = (section for section in sections if section["title"] == "dataset=table")
    assert data["keys"][0]["name"] == "dataset.path"
    assert data["keys"][0]["required"]
