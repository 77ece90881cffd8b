"""The next point: it follows from the trials alone, is new, and leads to good ones."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from dataclasses import replace

import optuna
import pytest

from rnnclf.errors import ConfigError
from rnnclf.tuning.proposing import RANDOM_FIRST, SAMPLERS, propose
from rnnclf.tuning.space import Choice, Real, Whole, from_plain, point_from_plain, to_plain, words
from rnnclf.tuning.trials import Trial

SPACE = {
    "lr": Real(1e-4, 0.1, log=True),
    "dropout": Real(0.0, 0.5),
    "hidden": Whole(8, 256, log=True),
    "layers": Whole(1, 4),
    "act": Choice(("tanh", "relu")),
}
FINITE = {"hidden": Whole(8, 24, step=8), "act": Choice(("tanh", "relu"))}
FAST = ("tpe", "random")


def score(point):
    """A smooth function; its best value is 1."""
    near = 1 - abs(math.log10(point["lr"]) + 2) / 3 - 0.4 * point["dropout"]
    return near - abs(math.log2(point["hidden"]) - 6) / 20 - 0.1 * (point["act"] == "relu")


def searched(space, sampler, seed, count, value=score):
    trials = []
    for number in range(count):
        point = propose(space, trials, sampler, seed)
        trials.append(Trial(number, point, "done", (value(point),)))
    return trials


@pytest.fixture(scope="module")
def trials():
    return [
        *searched(SPACE, "random", 0, RANDOM_FIRST + 4),
        Trial(
            12, {"lr": 0.03, "dropout": 0.1, "hidden": 9, "layers": 1, "act": "relu"}, "pruned", (0.1, 0.2)
        ),
        Trial(13, {"lr": 0.1, "dropout": 0.1, "hidden": 200, "layers": 4, "act": "relu"}, "failed"),
        Trial(14, {"lr": 0.01, "dropout": 0.3, "hidden": 64, "layers": 4, "act": "tanh"}, "running"),
    ]


@pytest.mark.parametrize("sampler", FAST)
def test_points_lie_in_the_space_and_are_typed_in_short(sampler):
    for trial in searched(SPACE, sampler, 0, 12):
        assert point_from_plain(trial.point, SPACE) == trial.point
        assert list(trial.point) == list(SPACE)
        assert max(map(len, words(trial.point))) < 20


@pytest.mark.parametrize("sampler", FAST)
def test_the_same_trials_give_the_same_point(sampler, trials):
    point = propose(SPACE, trials, sampler, 5)
    assert propose(SPACE, trials, sampler, 5) == point
    assert propose(SPACE, trials[::-1], sampler, 5) == point
    turned = {key: SPACE[key] for key in reversed(SPACE)}
    assert propose(turned, trials, sampler, 5) == point, "whatever the order of the words"
    assert propose(SPACE, trials, sampler, 6) != point
    assert propose(SPACE, trials[:-1], sampler, 5) != point


@pytest.mark.parametrize("sampler", FAST)
def test_a_search_that_is_read_from_its_files_goes_on_as_before(sampler, trials):
    space = from_plain(json.loads(json.dumps(to_plain(SPACE))))
    read = [replace(t, point=point_from_plain(json.loads(json.dumps(t.point)), space)) for t in trials]
    assert propose(space, read, sampler, 5) == propose(SPACE, trials, sampler, 5)


def test_where_the_sampler_insists_a_point_is_drawn_at_chance(monkeypatch):
    class Insisting(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.high

    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda **options: Insisting())
    space = {"lr": Real(1e-4, 0.1, log=True), "layers": Whole(1, 4)}
    corner = {"lr": 0.1, "layers": 4}
    assert propose(space, [], "tpe", 0) == corner
    assert propose(space, [Trial(0, corner, "done", (0.9,))], "tpe", 0) != corner


ANOTHER_PROCESS = """
from tests.tuning.test_proposing import SPACE, propose, searched
print(propose(SPACE, searched(SPACE, "random", 0, 10), {sampler!r}, 5))
"""


@pytest.mark.long
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_process_proposes_the_same_point(sampler):
    here = propose(SPACE, searched(SPACE, "random", 0, 10), sampler, 5)
    code = ANOTHER_PROCESS.format(sampler=sampler)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(here)
    assert done.stderr == ""


@pytest.mark.parametrize("sampler", FAST)
def test_each_point_of_a_finite_space_is_proposed_once_then_none(sampler):
    found = searched(FINITE, sampler, 0, 6, value=lambda point: point["hidden"] / 24)
    assert len({tuple(trial.point.items()) for trial in found}) == 6
    assert propose(FINITE, found, sampler, 0) is None


def test_without_dimensions_there_is_one_point():
    assert propose({}, [], "random", 0) == {}
    assert propose({}, [Trial(0, {})], "random", 0) is None


@pytest.mark.parametrize("state", ["running", "failed", "pruned", "done"])
def test_a_point_is_taken_whatever_became_of_it(state):
    space = {"act": Choice(("tanh", "relu"))}
    assert propose(space, [Trial(0, {"act": "relu"}, state)], "tpe", 0) == {"act": "tanh"}


def test_workers_side_by_side_get_different_points():
    done = searched(SPACE, "random", 0, 12)
    for _ in range(4):
        point = propose(SPACE, done, "tpe", 0)
        assert point not in [trial.point for trial in done]
        done.append(Trial(len(done), point, "running"))


def test_settings_that_fail_are_left():
    """Near the best points runs fail. Where failed trials are forgotten, most of them are failures."""
    space = {"lr": Real(0.0, 1.0), "dropout": Real(0.0, 1.0)}
    trials = []
    for number in range(40):
        point = propose(space, trials, "tpe", 0)
        lr = point["lr"]
        failed = lr > 0.5
        trials.append(Trial(number, point, *(("failed",) if failed else ("done", (1 - abs(lr - 0.4),)))))
    assert [trial.state for trial in trials[10:]].count("failed") <= 15


def test_the_log_and_the_warnings_of_optuna_stay_silent(recwarn, capfd):
    before = optuna.logging.get_verbosity()
    searched(SPACE, "tpe", 0, RANDOM_FIRST + 2)
    assert optuna.logging.get_verbosity() == before
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == before


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"^Searching needs Optuna: pip install 'rnnclf\[tune\]'\.$"):
        propose(SPACE, [], "tpe", 0)


@pytest.mark.long
def test_tpe_finds_better_points_than_chance_does():
    best = {
        sampler: [max(score(t.point) for t in searched(SPACE, sampler, seed, 40)) for seed in range(6)]
        for sampler in FAST
    }
    assert sum(best["tpe"]) / 6 > sum(best["random"]) / 6 + 0.03, best


@pytest.mark.slow
def test_a_gaussian_process_finds_a_good_point():
    found = searched(SPACE, "gp", 0, 20)
    assert max(score(trial.point) for trial in found) > 0.95
