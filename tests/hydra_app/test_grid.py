"""The jobs of a grid are those that Hydra would compose one by one."""

from __future__ import annotations

import pytest

from rnnclf.errors import ConfigError
from rnnclf.hydra_app import checks, load_config
from rnnclf.hydra_app.checks import plan

GRIDS = {
    "plain values": ["dataset=digits", "seed=range(3)", "hidden=8,16"],
    "components": ["dataset=digits", "cell=basic,lstm,gru", "optimizer=adam,sgd", "hidden=8,16"],
    "options of one component": ["dataset=digits", "cell=basic", "cell.nonlinearity=tanh,relu", "seed=0,1"],
    "options of varied components": [
        "dataset=digits",
        "optimizer=adam,adamw",
        "optimizer.weight_decay=0,0.1",
    ],
    "values of several types": ["dataset=digits", "clip=null,1.0,2", "layers=1,2", "threads=auto,1"],
    "text": ["dataset=digits", "name=first", "checkpoint.every='30s','5 steps'"],
    "a value that refers to another": ["dataset=digits", "hidden=8,16", "batch_size='${hidden}',7"],
    "an experiment": ["experiment=tutorial", "seed=0,1", "hidden=8,9"],
    "one job": ["dataset=digits", "hidden=8"],
}


@pytest.mark.parametrize("words", GRIDS.values(), ids=GRIDS)
def test_each_job_is_composed_as_a_run_of_its_own_would_be(words):
    jobs = plan(words)
    assert len({tuple(job.words) for job in jobs}) == len(jobs)
    for job in jobs:
        assert job.config == load_config(job.words)


def test_hydra_composes_a_job_for_each_choice_of_components_only(monkeypatch):
    composed = []
    job = checks.Grid.job
    monkeypatch.setattr(checks.Grid, "job", lambda self, words: composed.append(words) or job(self, words))
    assert len(plan(["dataset=digits", "cell=basic,lstm", "seed=range(5)", "hidden=8,9"])) == 20
    assert [words[1] for words in composed] == ["cell=basic", "cell=lstm"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["hidden=8,0"],
            "hidden must be at least 1 and at most 1000000, got 0. (in the job dataset=digits hidden=0;",
        ),
        (["hidden=8,many"], "hidden"),
        (["cell=basic", "cell.nonlinearity=tanh,cosine"], "cell.nonlinearity"),
        (["seed=0,1", "clip=1,-1"], "clip must be"),
    ],
)
def test_a_wrong_job_is_told_with_its_words(words, sentence):
    with pytest.raises(ConfigError) as caught:
        plan(["dataset=digits", *words])
    assert sentence in str(caught.value)
    assert "no job was started" in str(caught.value)
