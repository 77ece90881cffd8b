"""Composing a configuration leaves the caller's Hydra alone, and works in several threads."""

from __future__ import annotations

import threading

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase

from rnnclf import RnnclfError, load_config
from rnnclf.hydra_app.checks import plan
from rnnclf.hydra_app.completion import complete


@pytest.fixture
def own_hydra(tmp_path):
    """A script that uses Hydra with a configuration of its own."""
    (tmp_path / "own.yaml").write_text("answer: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        yield


def wrong_word(words):
    with pytest.raises(RnnclfError):
        load_config([*words, "hiden=3"])


@pytest.mark.long
@pytest.mark.parametrize("use", [load_config, wrong_word, plan, lambda words: complete(words, "cell=l")])
def test_the_callers_hydra_is_as_it_was(own_hydra, use):
    before, version = GlobalHydra.instance().hydra, getbase()
    use(["dataset=digits"])
    assert GlobalHydra.instance().hydra is before
    assert getbase() == version
    assert compose("own") == {"answer": 42}


@pytest.mark.slow
@pytest.mark.long
def test_threads_compose_what_one_of_them_would():
    found = {}

    def work(hidden):
        found[hidden] = load_config(["dataset=digits", f"hidden={hidden}"]).hidden

    threads = [threading.Thread(target=work, args=(hidden,)) for hidden in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {hidden: hidden for hidden in range(1, 5)}
