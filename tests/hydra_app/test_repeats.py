"""`seeds=8` and `folds=5` are a sweep in one word."""

from __future__ import annotations

import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config, repeats
from rnnclf.hydra_app.completion import complete
from rnnclf.hydra_app.help import composed_values
from rnnclf.hydra_app.repeats import expanded

BASIC = "hydra/launcher=basic"


def with_joblib(monkeypatch: pytest.MonkeyPatch, installed: bool = True, cores: int = 2) -> None:
    monkeypatch.setattr(repeats, "find_spec", lambda name: name if installed else None)
    monkeypatch.setattr("os.cpu_count", lambda: cores)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("seeds=8", ["seed=range(8)"]), ("folds=5", ["dataset.folds=5", "dataset.fold=range(5)"])],
)
def test_one_word_is_a_sweep(word, meant):
    found = expanded([], ["cell=gru", word, BASIC])
    assert found == (["-m"], ["cell=gru", *meant, BASIC], None)
    assert expanded(["--multirun"], [word, BASIC]).flags == ["--multirun"]


def test_other_words_stay_as_they_are():
    assert expanded(["-m"], ["seed=0,1", "dataset.folds=3"]) == (
        ["-m"],
        ["seed=0,1", "dataset.folds=3"],
        None,
    )


def test_runs_share_the_cores_with_a_thread_each(monkeypatch):
    with_joblib(monkeypatch)
    assert expanded([], ["seeds=2", "device=cpu"]).words[2:] == ["hydra/launcher=joblib", "threads=1"]
    assert expanded([], ["seeds=2", "device=cpu", "threads=1"]).words[3:] == ["hydra/launcher=joblib"]


@pytest.mark.parametrize("word", [BASIC, "threads=2", "device=cuda"])
def test_a_launcher_threads_or_a_gpu_that_was_named_is_kept(monkeypatch, word):
    with_joblib(monkeypatch)
    assert expanded([], ["seeds=2", word]) == (["-m"], ["seed=range(2)", word], None)


def test_one_core_runs_one_after_another(monkeypatch):
    with_joblib(monkeypatch, cores=1)
    assert expanded([], ["seeds=2", "device=cpu"]).words == ["seed=range(2)", "device=cpu"]


def test_without_the_launcher_its_way_to_get_it_is_told(monkeypatch):
    with_joblib(monkeypatch, installed=False)
    found = expanded([], ["seeds=2", "device=cpu"])
    assert found.words == ["seed=range(2)", "device=cpu"]
    assert "pip install 'rnnclf[launchers]'" in str(found.note)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=0"], "seeds must be a whole number of at least 1, got '0'."),
        (["folds=1"], "folds must be a whole number of at least 2, got '1'."),
        (["seeds=x"], "seeds must be a whole number of at least 1, got 'x'."),
        (["seeds=2,3"], "seeds must be a whole number of at least 1, got '2,3'."),
        (["folds=3", "dataset.folds=3"], "folds sets dataset.folds for each run: leave dataset.folds out."),
        (["folds=3", "dataset.fold=1"], "folds sets dataset.fold for each run: leave dataset.fold out."),
        (["seeds=2", "seed=1"], "seeds sets seed for each run: leave seed out."),
        (["seeds=2", "seeds=3"], "seeds is given twice: leave one out."),
    ],
)
def test_a_wrong_word_is_refused(cli, tmp_path, words, message):
    done = cli("train", "dataset=digits", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
    assert not (tmp_path / "outputs").exists()


def test_elsewhere_the_words_are_refused(cli):
    with pytest.raises(ConfigError, match="'seeds=3' makes several runs: only rnnclf train takes it"):
        load_config(["seeds=3"])
    done = cli("eval", ".", "folds=3")
    assert done.exit_code == 2
    assert "'folds=3' makes several runs" in done.stderr


def test_the_configuration_that_is_shown_is_that_of_the_first_run(cli):
    done = cli("train", "dataset=digits", "seeds=2", "folds=3", "--cfg", "job", "-p", "dataset")
    assert (done.exit_code, "folds: 3\n" in done.stdout, "fold: 0\n" in done.stdout) == (0, True, True)
    assert composed_values(["dataset=digits", "folds=3"])["dataset"]["folds"] == 3


def test_tab_offers_the_words_and_goes_on_after_them():
    assert {"seed=", "seeds="} <= {*complete([], "seed")}
    assert complete(["-m", "seeds=3"], "cell=gr") == ["cell=gru"]
