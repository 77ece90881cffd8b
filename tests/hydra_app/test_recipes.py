"""recipe=auto: the settings of own data, and the words that win over them."""

import numpy as np
import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app.compose import load_config, new_words
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.hydra_app.words import prepared


@pytest.fixture
def data(tmp_path) -> str:
    np.savez(tmp_path / "my.npz", x=np.random.default_rng(0).normal(size=(20, 5)), y=np.arange(20) % 2)
    return "my.npz"


def test_own_data_get_the_recipe_and_its_values_are_plain(data):
    config = load_config([f"dataset={data}"])
    assert config.recipe == "auto"
    assert (config.cell.name, config.hidden, config.layers, config.batch_size) == ("s4d", 64, 2, 16)
    assert (config.updates, config.optimizer.lr, config.select) == (400, 0.005, "last")
    assert (config.dataset.missing, config.dataset.patch) == ("auto", "auto")


@pytest.mark.parametrize("words", [[], ["dataset=digits"], ["experiment=smnist"]])
def test_other_data_keep_the_defaults(words):
    config = load_config(words)
    assert config.recipe == "plain"
    assert (config.cell.name, config.hidden, config.epochs, config.updates) == ("basic", 150, 20, None)


def test_recipe_plain_gives_own_data_the_defaults(data):
    config = load_config([f"dataset={data}", "recipe=plain"])
    assert (config.cell.name, config.hidden, config.epochs, config.updates) == ("basic", 150, 20, None)
    assert (config.dataset.missing, config.dataset.patch, config.select) == ("error", 1, "best")


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cell=lem"], {"cell": "lem", "hidden": 64, "lr": 0.005}),
        (["hidden=20", "layers=1", "residual=false"], {"hidden": 20, "layers": 1}),
        (["cell.hidden_size=8"], {"hidden_size": 8}),
        (["match_parameters=3k"], {"match_parameters": "3k"}),
        (["epochs=7"], {"epochs": 7, "updates": None}),
        (["updates=50"], {"epochs": 1, "updates": 50}),
        (["epochs=7", "updates=50"], {"epochs": 7, "updates": 50}),
        (["optimizer=sgd"], {"lr": 0.1}),
        (["optimizer=sgd", "optimizer.lr=3"], {"lr": 3}),
        (["dataset.missing=drop", "dataset.patch=2"], {"missing": "drop", "patch": 2}),
        (["select=best"], {"select": "best"}),
    ],
)
def test_a_word_of_the_users_wins(data, words, expected):
    config = load_config([f"dataset={data}", *words])
    assert config.recipe == "auto"
    flat = {
        **vars(config),
        "cell": config.cell.name,
        "hidden_size": config.cell.hidden_size,
        "lr": config.optimizer.lr,
        "missing": config.dataset.missing,
        "patch": config.dataset.patch,
    }
    assert {key: flat[key] for key in expected} == expected


def test_the_words_of_a_recorded_run_stay_as_they_are(data):
    words = new_words([f"dataset={data}", "epochs=3", "optimizer=sgd"])
    assert new_words(words) == words


def test_a_sweep_over_own_data_has_the_recipe_and_one_with_others_has_not(data):
    np.savez("other.npz", x=np.zeros((20, 5)), y=np.arange(20) % 2)
    for words, expected in (
        ([f"dataset={data},other.npz"], True),
        ([f"dataset={data},digits"], False),
        ([f"dataset={data}", "recipe=auto,plain"], False),
    ):
        found = with_recipe(prepared(words, sweep=True).words)
        assert ("recipe=auto" in found) is expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=auto"], "recipe=auto is for data of your own"),
        (["recipe=auto", "dataset=digits"], "recipe=auto is for data of your own"),
        (["recipe=magic"], "No recipe named 'magic'"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load_config(words)
