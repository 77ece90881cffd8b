"""RNNClassifier in scikit-learn's hands."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rnnclf import RNNClassifier, RnnclfError, load_config
from rnnclf.config import Config
from rnnclf.errors import ConfigError
from rnnclf.hydra_app.keywords import NOT_HERE
from tests.waves import small, waves

NOT_APPLICABLE = {
    "check_do_not_raise_errors_in_init_or_set_params": "gives a keyword 'words', for **words; unknown"
    " keywords are refused at once, since **words would take in each that is misspelt",
}


@pytest.mark.long
@parametrize_with_checks(
    [RNNClassifier(hidden=8, epochs=20, batch_size=32, optimizer__lr=0.01, validation=0.25, threads=1)],
    expected_failed_checks=lambda estimator: NOT_APPLICABLE,
)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


def test_keywords_and_defaults_are_those_of_the_command_line():
    keywords = inspect.signature(RNNClassifier).parameters
    config = load_config(["dataset=arrays", "recipe=plain"])
    own = {"validation", "missing", "normalise", "layout", "id", "time", "label", "channels", "words"}
    assert set(keywords) == {field.name for field in fields(Config)} - NOT_HERE.keys() | own
    for name in set(keywords) - own:
        value = getattr(config, name)
        value = tuple(value) if isinstance(value, list) else getattr(value, "name", value)
        assert keywords[name].default == value, name
    for name in ("validation", "missing", "normalise"):
        assert keywords[name].default == getattr(config.dataset, name)


def test_a_clone_has_all_words_and_nothing_learned():
    model = small(cell="lstm", cell__forget_bias=2.0).fit(*waves())
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.get_params()["cell__forget_bias"] == 2.0
    with pytest.raises(NotFittedError):
        copy.predict(waves()[0])


def test_words_reach_the_configuration():
    model = small(cell="lstm", cell__forget_bias=2, schedule="cosine", clip=None)
    model.set_params(optimizer__lr=np.float64(0.03), validation=np.int64(9), threads=1)
    config = model.fit(*waves()).config_
    words = ["cell=lstm", "cell.forget_bias=2", "schedule=cosine", "clip=null", "optimizer.lr=0.03"]
    words += ["hidden=4", "epochs=2", "batch_size=16", "threads=1", "dataset=arrays", "dataset.validation=9"]
    assert config == load_config([*words, "recipe=plain"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"hiden": 3}, "No keyword named 'hiden'. Did you mean 'hidden'?"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"hidden": "many"}, "hidden must be a whole number"),
        ({"cell": "gruu"}, "No cell named 'gruu'. Did you mean 'gru'?"),
        ({"optimizer__rate": 1}, "optimizer=adam has no option 'rate'"),
        ({"optimizer__lr": -1.0}, "optimizer__lr must be above 0"),
        ({"missing": "maks"}, "missing must be error, mask, interpolate, drop or auto, got 'maks'"),
        ({"layout": "NCT"}, "layout must be channels_last or channels_first, got 'NCT'"),
        ({"hidden": 5, "cell__hidden_size": 6}, "leave out cell__hidden_size"),
        ({"hidden": 5, "match_parameters": 600}, "leave out hidden"),
        ({"diagnose": True}, "diagnose"),
        ({"dataset__path": "x.npz"}, "dataset__path"),
        ({"dataset__window": 5}, "dataset__window"),
        ({"protocol": "tutorial"}, "protocol"),
        ({"device": "mps"}, "device=mps is not available here"),
    ],
)
def test_a_wrong_word_is_a_value_error_that_says_what_would_be_right(words, message):
    with pytest.raises(ValueError, match=r".") as caught:
        small(**{**words}).fit(*waves())
    assert isinstance(caught.value, RnnclfError)
    assert message in str(caught.value)


def test_set_params_knows_the_same_words():
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        RNNClassifier().set_params(epoch=3)


def test_cross_validation_on_the_digits():
    x, y = load_digits(return_X_y=True)
    model = RNNClassifier(cell="gru", hidden=16, epochs=8, batch_size=50, optimizer__lr=0.02)
    scores = cross_val_score(model, x[:600].reshape(-1, 8, 8), y[:600], cv=2)
    assert scores.min() > 0.6


@pytest.mark.long
def test_a_grid_search_over_sizes_and_over_the_options_of_components():
    grid = {"hidden": [2, 4], "optimizer__lr": [0.0001, 0.05]}
    search = GridSearchCV(RNNClassifier(epochs=6, batch_size=8), grid, cv=2).fit(*waves())
    assert search.best_estimator_.config_.optimizer.lr == search.best_params_["optimizer__lr"]
    assert search.best_estimator_.config_.cell.hidden_size == search.best_params_["hidden"]
    assert search.best_params_["optimizer__lr"] == 0.05


def test_a_pipeline_with_a_scaler():
    x, y = waves(steps=12, channels=1)
    model = make_pipeline(StandardScaler(), small(optimizer__lr=0.05))
    model.set_params(rnnclassifier__epochs=10, rnnclassifier__optimizer__weight_decay=0.001)
    assert model.fit(x[..., 0], y).score(x[..., 0], y) > 0.8
