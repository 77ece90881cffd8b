"""RNNClassifier in scikit-learn's hands, and the same training, bit for bit, as by the command line."""

from __future__ import annotations

import inspect
import json
import pickle
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas
import polars
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rnnclf import RNNClassifier, RnnclfError, checkpoint, load, load_config, train
from rnnclf.config import Config
from rnnclf.errors import ConfigError, DataError
from rnnclf.estimator import NOT_HERE


def small(**words: object) -> RNNClassifier:
    return RNNClassifier(**{"hidden": 4, "epochs": 2, "batch_size": 16, **words})


def waves(n: int = 60, steps: int = 7, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (N, T, C) whose mean tells the class, and labels 0, 1, 2."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return random.normal(size=(n, steps, channels)) + y[:, None, None], y


def ragged(n: int = 60, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    x, y = waves(n, 9, seed=seed)
    return [sequence[: 3 + place % 6] for place, sequence in enumerate(x)], y


def long_frame(x: list[np.ndarray], y: np.ndarray) -> dict[str, list[object]]:
    """The columns of a table with a row for each step, the last step of each sequence first."""
    rows = [
        (f"s{n:03}", float(t), *map(float, x[n][t]), f"class {y[n]}")
        for n in reversed(range(len(x)))
        for t in reversed(range(len(x[n])))
    ]
    return dict(zip(("who", "when", "ax", "ay", "what"), map(list, zip(*rows, strict=True)), strict=True))


def weights(model: RNNClassifier) -> dict[str, torch.Tensor]:
    return model.model_.state_dict()


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ---- what scikit-learn asks of an estimator

NOT_APPLICABLE = {
    "check_do_not_raise_errors_in_init_or_set_params": "gives a keyword 'words', for **words; unknown keywords"
    " are refused at once, since **words would take in each that is misspelt",
}


@parametrize_with_checks(
    [RNNClassifier(hidden=8, epochs=20, batch_size=32, optimizer__lr=0.01, validation=0.25, threads=1)],
    expected_failed_checks=lambda estimator: NOT_APPLICABLE,
)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


def test_keywords_and_defaults_are_those_of_the_command_line():
    keywords = inspect.signature(RNNClassifier).parameters
    config = load_config(["dataset=arrays"])
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
    assert config == load_config(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"hiden": 3}, "No keyword named 'hiden'. Did you mean 'hidden'?"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"hidden": "many"}, "hidden must be a whole number"),
        ({"cell": "gruu"}, "No cell named 'gruu'. Did you mean 'gru'?"),
        ({"optimizer__rate": 1}, "optimizer=adam has no option 'rate'"),
        ({"optimizer__lr": -1.0}, "optimizer__lr must be above 0"),
        ({"missing": "maks"}, "missing must be error, mask, interpolate or drop, got 'maks'"),
        ({"layout": "NCT"}, "layout must be channels_last or channels_first, got 'NCT'"),
        ({"hidden": 5, "cell__hidden_size": 6}, "leave out cell__hidden_size"),
        ({"hidden": 5, "match_parameters": 600}, "leave out hidden"),
        ({"diagnose": True}, "diagnose"),
        ({"dataset__path": "x.npz"}, "dataset__path"),
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


# ---- in scikit-learn's tools


def test_cross_validation_on_the_digits():
    x, y = load_digits(return_X_y=True)
    model = RNNClassifier(cell="gru", hidden=16, epochs=8, batch_size=50, optimizer__lr=0.02)
    scores = cross_val_score(model, x[:600].reshape(-1, 8, 8), y[:600], cv=2)
    assert scores.min() > 0.6


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


# ---- what X and y may be


def test_channels_first_is_the_transpose():
    x, y = waves()
    last = small().fit(x, y)
    first = small(layout="channels_first").fit(x.transpose(0, 2, 1), y)
    assert_same_weights(weights(last), weights(first))
    assert first.n_features_in_ == last.n_features_in_ == 2
    assert (first.predict_proba(x.transpose(0, 2, 1)) == last.predict_proba(x)).all()
    lists = small(layout="channels_first").fit([sequence.T for sequence in x], y)
    assert_same_weights(weights(last), weights(lists))


def test_sequences_of_different_lengths_are_a_list():
    x, y = ragged()
    model = small(epochs=30, optimizer__lr=0.05).fit(x, y)
    assert model.score(x, y) > 0.8
    alone = np.concatenate([model.predict_proba([sequence]) for sequence in x])
    np.testing.assert_allclose(alone, model.predict_proba(x), atol=1e-5)
    objects = np.empty(len(x), object)
    objects[:] = x
    assert (model.predict(objects) == model.predict(x)).all()
    assert (model.predict([torch.tensor(sequence) for sequence in x]) == model.predict(x)).all()


def test_lists_of_ragged_sequences_can_be_cross_validated():
    assert cross_val_score(small(), *ragged(), cv=2).shape == (2,)


def test_a_list_of_vectors_is_sequences_of_one_channel():
    x, y = ragged()
    model = small().fit([sequence[:, 0] for sequence in x], y)
    assert model.n_features_in_ == 1


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_a_long_frame_has_a_row_for_each_step(kind):
    x, y = ragged()
    frame = kind(long_frame(x, y))
    model = small(id="who", time="when", label="what").fit(frame)
    same = small().fit([s.astype(np.float32) for s in x[::-1]], y[::-1])
    assert_same_weights(weights(model), weights(same))
    assert model.classes_.tolist() == ["class 0", "class 1", "class 2"]
    given = small(id="who", time="when", channels=["ax", "ay"]).fit(frame, y[::-1])
    assert_same_weights(weights(given), weights(same))
    unlabelled = frame[["who", "when", "ax", "ay"]]
    assert (model.predict(unlabelled) == [f"class {k}" for k in same.predict(x[::-1])]).all()
    assert model.score(frame) == same.score(x, y)
    assert model.n_features_in_ == 2


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_times_may_be_dates_and_decide_how_long_ago_a_value_was_seen(kind):
    x, y = ragged()
    table = long_frame(x, y)
    table["ax"][5] = None
    start = np.datetime64("2026-01-01T00:00:00", "us")
    dates = [start + np.timedelta64(int(1e6 * t), "us") for t in table["when"]]
    words = {"id": "who", "time": "when", "label": "what", "missing": "mask"}
    one = RNNClassifier(**words).fit(kind(table))
    other = RNNClassifier(**words).fit(kind({**table, "when": np.array(dates)}))
    assert one.model_.input_size == 6
    assert_same_weights(weights(one), weights(other))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({}, {"id": "whom"}, "No column named 'whom'. Did you mean 'who'?"),
        ({}, {"label": None}, "requires y to be passed, but the target y is None"),
        ({}, {"channels": ["ax", "what"]}, "Column 'what' holds no numbers"),
        ({"what": 0}, {}, "Sequence 's059' has the labels 'other' and 'class 2'"),
        ({"who": 0}, {}, "Row 0 (counted from 0) has no 'who'"),
        ({"when": 0}, {}, "Sequence 's059' has two steps at the time 1"),
    ],
)
def test_a_frame_that_is_not_what_it_should_be_is_refused(change, words, message):
    table = long_frame(*ragged())
    for name, row in change.items():
        table[name][row] = {"what": "other", "who": None, "when": 1.0}[name]
    with pytest.raises(DataError) as caught:
        small(**{"id": "who", "time": "when", "label": "what", **words}).fit(polars.DataFrame(table))
    assert message in str(caught.value)


LABELS = [
    ([3, 10, 2], [2, 3, 10]),
    (["b", "10", "9"], ["10", "9", "b"]),
    ([1.0, 10.0, 2.0], [1.0, 2.0, 10.0]),
    ([True, False, True], [False, True]),
    ([("x", 1), ("a", 2), ("a", 1)], [("a", 1), ("a", 2), ("x", 1)]),
    ([3, "x", ("a",)], None),
]


@pytest.mark.parametrize(("three", "classes"), LABELS, ids=str)
def test_labels_keep_their_type_and_order(three, classes):
    x, y = waves()
    labels = [three[k] for k in y]
    model = small(epochs=12, optimizer__lr=0.05).fit(x, labels)
    if classes is not None:
        assert model.classes_.tolist() == classes
    assert set(map(type, model.classes_.tolist())) == set(map(type, three))
    predicted = model.predict(x)
    assert set(predicted.tolist()) <= set(three)
    right = np.mean([a == b for a, b in zip(predicted.tolist(), labels, strict=True)])
    assert model.score(x, labels) == right > 0.6
    proba = model.predict_proba(x)
    assert (model.classes_[proba.argmax(axis=1)] == predicted).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None, "a", "b"], "The label of sequence 0 (counted from 0) is missing"),
        ([float("nan"), 1.0, 2.0], "NaN"),
        ([0.5, 1.5, 2.5], "Unknown label type"),
        ([1, "1", 2], "The labels 1 and '1' have the same name"),
        (["a", "a", "a"], "of one class, 'a'"),
    ],
)
def test_labels_that_name_no_classes_are_refused(labels, message):
    x, y = waves()
    with pytest.raises(ValueError, match=r".") as caught:
        small().fit(x, [labels[k] for k in y])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            [np.zeros((3, 2)), np.zeros((3, 4))],
            "Sequence 1 (counted from 0) has 4 channels",
        ),
        ([np.zeros((3, 2)), np.zeros((0, 2))], "Sequence 1 (counted from 0) has no steps"),
        ([np.zeros((3, 2)), np.zeros((3, 2, 2))], "Sequence 1 (counted from 0) has the shape (3, 2, 2)"),
        ([np.zeros((3, 2)), np.full((3, 2), "a")], "holds text"),
        (np.zeros((2, 3, 2, 2)), "(N, T) or (N, T, C) is needed"),
        (np.zeros((2, 3, 2), complex), "omplex"),
        (np.full((2, 3, 2), np.inf), "inf"),
        (np.zeros(2), "1D array"),
        ([], "has no sequences"),
    ],
)
def test_sequences_that_are_none_are_refused(x, message):
    with pytest.raises(ValueError, match=r".") as caught:
        small().fit(x, np.arange(len(x)) % 2)
    assert message in str(caught.value)


def test_missing_values_are_refused_until_one_says_what_they_mean():
    x, y = waves()
    x[4, 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Choose missing=mask") as caught:
        small().fit(x, y)
    assert "X, sequence 4, step 3" in str(caught.value)
    whole = small().fit(*waves())
    with pytest.raises(ValueError, match="NaN"):
        whole.predict(x)
    for missing in ("mask", "interpolate", "drop"):
        model = small(missing=missing).fit(x, y)
        assert model.predict(x).shape == (60,)
        assert model.predict(x[4:5]) == model.predict(x)[4]


def test_a_sequence_without_values_is_classified_where_that_can_be():
    x, y = waves()
    x[4, 3, 1] = np.nan
    nothing = np.full((1, 7, 2), np.nan)
    assert small(missing="mask").fit(x, y).predict(nothing).shape == (1,)
    with pytest.raises(DataError, match=r"sequence 1, step 0 .* no value at all"):
        small(missing="drop").fit(x, y).predict(np.concatenate((x[:1], nothing)))


def test_sequences_of_other_channels_are_not_classified():
    model = small().fit(*waves(channels=2))
    with pytest.raises(ValueError, match="3 channels"):
        model.predict(waves(channels=3)[0])


def test_sequences_may_be_longer_than_those_of_the_training():
    model = small().fit(*waves(steps=7))
    assert model.predict(waves(steps=11)[0]).shape == (60,)


# ---- the same as by the command line

WORDS = ["cell=gru", "hidden=6", "epochs=3", "batch_size=16", "dropout=0.1", "seed=5", "threads=1"]
KEYWORDS = {
    "cell": "gru",
    "hidden": 6,
    "epochs": 3,
    "batch_size": 16,
    "dropout": 0.1,
    "seed": 5,
    "threads": 1,
}


def saved(path: Path, x: np.ndarray | list[np.ndarray], y: np.ndarray) -> Path:
    """The sequences as an .npz file for the command line."""
    lengths = np.array([len(sequence) for sequence in x])
    padded = np.zeros((len(x), lengths.max(), x[0].shape[1]))
    for n, sequence in enumerate(x):
        padded[n, : len(sequence)] = sequence
    np.savez(path, x=padded, y=y, lengths=lengths)
    return path


@pytest.mark.parametrize("data", [waves, ragged])
@pytest.mark.parametrize("more", [[], ["normalise=minmax", "validation=12"]], ids=str)
def test_weights_equal_those_of_the_command_line_bit_for_bit(data, more, cli, only_run, tmp_path):
    x, y = data()
    own, test = saved(tmp_path / "own.npz", x, y), saved(tmp_path / "test.npz", *data(seed=1))
    words = [f"dataset.path={own}", f"dataset.test_path={test}", *(f"dataset.{word}" for word in more)]
    done = cli("train", *WORDS, "dataset=arrays", *words)
    assert done.exit_code == 0, done.output
    extra = {key: int(value) if value.isdecimal() else value for key, value in (m.split("=") for m in more)}
    model = RNNClassifier(**KEYWORDS, **extra).fit(x, y)
    best = checkpoint.load(only_run() / "best.safetensors")
    assert_same_weights(best.model_tensors(), weights(model))
    rows = (only_run() / "epochs.csv").read_text().splitlines()
    assert list(model.history_[0]) == rows[0].split(",")
    for row, epoch in zip(rows[1:], model.history_, strict=True):
        assert row.split(",")[:-1] == [str(value) for value in epoch.values()][:-1]  # but the seconds


def test_a_run_of_the_command_line_can_be_used_from_python(cli, only_run, tmp_path):
    x, y = ragged()
    own = saved(tmp_path / "own.npz", x, y)
    assert cli("train", *WORDS, "dataset=arrays", f"dataset.path={own}").exit_code == 0
    results = json.loads((only_run() / "results.json").read_text())
    model = load(only_run())
    assert_same_weights(weights(load(only_run() / "best.safetensors")), weights(model))
    assert model.classes_.tolist() == ["0", "1", "2"]
    assert model.predict(x).tolist() == model.classes_[model.predict_proba(x).argmax(axis=1)].tolist()
    found = json.loads(cli("eval", only_run(), "split=all", "--json").stdout)
    assert model.score(x, y) == found[0]["accuracy"]
    assert results["hidden"] == model.get_params()["hidden"] == 6


def test_what_python_saves_the_command_line_evaluates(cli, tmp_path):
    x, y = ragged()
    model = RNNClassifier(**KEYWORDS).fit(x, y)
    model.save("m.safetensors")
    path = saved(tmp_path / "x.npz", x, y)
    done = cli("eval", "m.safetensors", "dataset=arrays", f"dataset.path={path}", "split=all", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["accuracy"] == model.score(x, y)
    assert found["other_data"] is False


@pytest.mark.parametrize(("three", "classes"), LABELS[:5], ids=str)
def test_a_saved_model_comes_back_with_its_words_and_its_labels(three, classes, tmp_path):
    x, y = waves()
    words = {"cell": "lstm", "cell__forget_bias": 2.0, "optimizer__lr": 0.02, "missing": "mask"}
    model = RNNClassifier(**words, validation=12, dataset__split_seed=3).fit(x, [three[k] for k in y])
    model.save(tmp_path / "m.safetensors")
    again = load(str(tmp_path / "m.safetensors"))
    plain = not isinstance(three[0], tuple)
    assert again.classes_.tolist() == (classes if plain else [str(label) for label in classes])
    assert type(again.classes_.tolist()[0]) is (type(classes[0]) if plain else str)
    assert (again.predict_proba(x) == model.predict_proba(x)).all()
    assert again.score(x, [three[k] for k in y]) == model.score(x, [three[k] for k in y])
    assert_same_weights(weights(clone(again).fit(x, [three[k] for k in y])), weights(model))
    assert again.get_params() == model.get_params()
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_labels_in_a_checkpoint_that_are_none_are_damage(tmp_path):
    model = small().fit(*waves())
    model.save("m.safetensors")
    good = checkpoint.load(tmp_path / "m.safetensors")
    for labels in ([1, 2], [1, 1, 2], [[1], 2, 3], "abc"):
        checkpoint.save(tmp_path / "bad.safetensors", {**good.header, "labels": labels}, good.tensors)
        with pytest.raises(RnnclfError, match="damaged"):
            load("bad.safetensors")


def test_a_sweep_is_no_model(cli, tmp_path):
    x, y = waves()
    own = saved(tmp_path / "own.npz", x, y)
    words = ["dataset=arrays", f"dataset.path={own}", "epochs=1", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert cli("train", "-m", *WORDS[:2], *words).exit_code == 0
    with pytest.raises(RnnclfError, match="sweep"):
        load("sweep")
    assert load("sweep/1").get_params()["seed"] == 1


def test_the_caller_keeps_threads_random_numbers_and_small_numbers(tmp_path):
    x, y = waves()
    torch.manual_seed(3)
    np.random.seed(3)
    expected, legacy = torch.rand(3), np.random.rand()
    tiny = torch.tensor([2.0**-1070], dtype=torch.float64)
    torch.manual_seed(3)
    np.random.seed(3)
    threads = torch.get_num_threads()
    model = small(threads=threads + 1).fit(x, y)
    model.predict(x)
    assert torch.get_num_threads() == threads
    assert (tiny * 1 != 0).all()
    assert torch.equal(torch.rand(3), expected)
    assert np.random.rand() == legacy
    assert list(tmp_path.iterdir()) == []
    torch.set_flush_denormal(True)
    model.predict(x)
    assert (tiny * 1 == 0).all()


def test_a_failed_fit_gives_all_back_and_leaves_the_model_unfitted():
    x, y = waves()
    threads = torch.get_num_threads()
    model = small(threads=threads + 1, optimizer="sgd", optimizer__lr=1e38, clip=None)
    with pytest.raises(RnnclfError, match="optimizer__lr"):
        model.fit(x, y)
    assert torch.get_num_threads() == threads
    with pytest.raises(NotFittedError):
        model.predict(x)


def test_two_threads_that_fit_at_once_do_not_mix_their_random_numbers():
    x, y = waves()
    models = [small(seed=seed, dropout=0.3) for seed in (1, 2)]
    threads = [threading.Thread(target=model.fit, args=(x, y)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        assert_same_weights(weights(model), weights(clone(model).fit(x, y)))


def test_a_fitted_model_can_be_pickled():
    x, y = waves()
    model = small().fit(x, y)
    assert (pickle.loads(pickle.dumps(model)).predict_proba(x) == model.predict_proba(x)).all()


def test_training_from_python_takes_a_path_for_its_folder(tmp_path):
    x, y = waves()
    words = ["dataset=arrays", f"dataset.path={saved(tmp_path / 'own.npz', x, y)}", *WORDS]
    report = train(load_config(words), tmp_path / "new" / "run")
    assert report.results["epochs"] == 3
    assert (tmp_path / "new" / "run" / "best.safetensors").is_file()
