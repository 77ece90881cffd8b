"""What a notebook shows while a model is trained."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import rnnclf
from rnnclf import RNNClassifier
from rnnclf.console import notebook
from rnnclf.errors import DivergedError


class Shell(ModuleType):
    """A notebook: `outputs` is what stands below its cells, by the name of each part, in order."""

    def __init__(self) -> None:
        super().__init__("IPython")
        self.outputs: dict[str, dict[str, str]] = {}
        self.updates = 0
        self.shell = SimpleNamespace(kernel=object(), execution_count=1)
        self.get_ipython = lambda: self.shell
        self.display = ModuleType("IPython.display")
        self.display.display = self._show
        self.display.update_display = self._update

    def _show(self, content, raw, display_id):
        assert raw
        assert display_id not in self.outputs
        self.outputs[display_id] = content

    def _update(self, content, raw, display_id):
        assert raw
        assert display_id in self.outputs
        self.outputs[display_id] = content
        self.updates += 1


@pytest.fixture
def shell(monkeypatch):
    found = Shell()
    monkeypatch.setitem(sys.modules, "IPython", found)
    monkeypatch.setitem(sys.modules, "IPython.display", found.display)
    monkeypatch.setattr(notebook, "PERIOD", 0.0)
    monkeypatch.setattr(notebook, "_last", notebook.Output(cell=-1))
    return found


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(40, 3, 2)), np.arange(40) % 2


def model(**words):
    return RNNClassifier(**{"hidden": 2, "epochs": 3, "threads": 1, "engine": "loop", **words})


def test_all_models_of_a_cell_share_one_bar(shell, data, capsys):
    model().fit(*data)
    (bar,) = shell.outputs.values()
    assert bar["text/plain"].startswith("━" * notebook.COLUMNS + " epoch 3/3, validation accuracy ")
    assert '<progress value="1.0000" max="1"></progress> epoch 3/3, ' in bar["text/html"]
    assert shell.updates >= 3
    model(epochs=2).fit(*data)
    (bar,) = shell.outputs.values()
    assert " model 2: epoch 2/2, " in bar["text/plain"]
    shell.shell.execution_count += 1
    model(epochs=1).fit(*data)
    assert len(shell.outputs) == 2
    assert capsys.readouterr().out == ""


def test_a_model_that_diverges_leaves_the_place_where_it_stopped(shell, data):
    with pytest.raises(DivergedError):
        model(optimizer__lr=1e300).fit(*data)
    (bar,) = shell.outputs.values()
    assert " stopped in epoch " in bar["text/plain"]


@pytest.mark.parametrize("kernel", [None, object()])
def test_only_notebooks_show_anything(shell, data, kernel):
    shell.shell.kernel = kernel
    model(epochs=1).fit(*data)
    assert bool(shell.outputs) == (kernel is not None)


def test_short_training_updates_seldom(shell, data, monkeypatch):
    monkeypatch.setattr(notebook, "PERIOD", 60.0)
    model(epochs=3).fit(*data)
    assert (len(shell.outputs), shell.updates) == (1, 0)


def test_train_shows_a_bar_unless_something_else_watches(shell, monkeypatch):
    watched = []
    monkeypatch.setattr(
        notebook.training, "train", lambda config, folder, watch, *rest: watched.append(watch)
    )
    other = notebook.Watcher()
    rnnclf.train(None, "here", other)
    rnnclf.train(None, "here")
    shell.shell = None
    rnnclf.train(None, "here")
    assert watched[0] is other
    assert [type(watch).__name__ for watch in watched] == ["Watcher", "NotebookBar", "Watcher"]
