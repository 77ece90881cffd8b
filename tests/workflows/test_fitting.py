"""Python and the command line: the same training bit for bit, one format of checkpoints."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from rnnclf import RNNClassifier, RnnclfError, checkpoint, load, load_config, train
from tests.conftest import rows_without_times
from tests.waves import LABELS, assert_same_weights, ragged, small, waves, weights

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

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


@pytest.mark.parametrize(
    ("data", "more"), [(waves, []), (ragged, ["normalise=minmax", "validation=12"])], ids=["whole", "ragged"]
)
def test_weights_equal_those_of_the_command_line_bit_for_bit(data, more, cli, only_run, tmp_path):
    x, y = data()
    own, test = saved(tmp_path / "own.npz", x, y), saved(tmp_path / "test.npz", *data(seed=1))
    words = [
        f"dataset.path={own}",
        f"dataset.test_path={test}",
        "recipe=plain",
        *(f"dataset.{word}" for word in more),
    ]
    done = cli("train", *WORDS, "dataset=arrays", *words)
    assert done.exit_code == 0, done.output
    extra = {key: int(value) if value.isdecimal() else value for key, value in (m.split("=") for m in more)}
    model = RNNClassifier(**KEYWORDS, **extra).fit(x, y)
    best = checkpoint.load(only_run() / "best.safetensors")
    assert_same_weights(best.model_tensors(), weights(model))
    epochs = only_run() / "epochs.csv"
    assert list(model.history_[0]) == epochs.read_text().splitlines()[0].split(",")
    for row, epoch in zip(rows_without_times(epochs), model.history_, strict=True):
        assert row == {key: str(value) for key, value in epoch.items() if key != "seconds"}


@pytest.mark.long
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


@pytest.mark.long
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


def test_a_sweep_is_no_model(tmp_path):
    for seed in (0, 1):
        (tmp_path / "sweep" / str(seed)).mkdir(parents=True)
        small(seed=seed).fit(*waves()).save(f"sweep/{seed}/best.safetensors")
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(RnnclfError, match="sweep of 2 runs"):
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


def test_trainings_in_two_threads_come_to_what_each_comes_to_alone(tmp_path):
    own = saved(tmp_path / "own.npz", *waves())
    words = ["dataset=arrays", f"dataset.path={own}", *WORDS]
    configs = [load_config([*words, f"seed={seed}", f"threads={1 + seed}"]) for seed in (0, 1)]
    alone = [trained_weights(config, tmp_path / f"alone{n}") for n, config in enumerate(configs)]
    together = {}

    def work(n):
        together[n] = trained_weights(configs[n], tmp_path / f"together{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, expected in enumerate(alone):
        assert_same_weights(together[n], expected)


def trained_weights(config, folder):
    train(config, folder)
    return checkpoint.load(folder / "best.safetensors").model_tensors()


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
