"""The share of the score's variance that each key explains."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from rnnclf.tuning.importance import FEWEST, importance
from rnnclf.tuning.space import Choice, Real, Whole
from rnnclf.tuning.trials import Trial

SPACE = {
    "dropout": Real(0.0, 0.5),
    "lr": Real(1e-4, 0.1, log=True),
    "layers": Whole(1, 4),
    "act": Choice(("tanh", "relu")),
}


def drawn(count, score, seed=0):
    """Trials at random points, of which each third was pruned."""
    source = random.Random(seed)
    points = [
        {
            "dropout": source.uniform(0, 0.5),
            "lr": 10 ** source.uniform(-4, -1),
            "layers": source.randint(1, 4),
            "act": source.choice(["tanh", "relu"]),
        }
        for _ in range(count)
    ]
    states = ("done", "done", "pruned")
    return [Trial(n, point, states[n % 3], (score(point),)) for n, point in enumerate(points)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "score"),
    [
        ("dropout", lambda point: 1 - point["dropout"]),
        ("layers", lambda point: point["layers"] / 4 + point["dropout"] / 20),
        ("act", lambda point: (point["act"] == "tanh") / 2 + point["dropout"] / 20),
    ],
)
def test_the_key_that_decides_the_score_has_most_of_it(key, score):
    shares, reason = importance(SPACE, drawn(40, score), seed=0)
    assert reason == ""
    assert next(iter(shares)) == key
    assert shares[key] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    assert {*shares} == {*SPACE}


ANOTHER_PROCESS = """
from tests.tuning.test_importance import SPACE, drawn, importance
print(importance(SPACE, drawn(12, lambda point: point["lr"]), seed=3).shares)
"""


@pytest.mark.long
def test_the_same_trials_have_the_same_importance_in_another_process():
    here = importance(SPACE, drawn(12, lambda point: point["lr"]), seed=3).shares
    done = subprocess.run([sys.executable, "-c", ANOTHER_PROCESS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(here)
    assert done.stderr == ""


@pytest.mark.long
def test_a_key_with_one_value_only_explains_nothing():
    trials = drawn(12, lambda point: point["dropout"])
    for trial in trials:
        trial.point["act"] = "tanh"
    shares, _ = importance(SPACE, trials, seed=0)
    assert shares["act"] == 0


@pytest.mark.parametrize("state", ["running", "failed"])
def test_trials_without_a_result_do_not_count(state):
    trials = drawn(FEWEST, lambda point: point["lr"])
    trials[0] = Trial(0, trials[0].point, state, (0.5,))
    assert importance(SPACE, trials, seed=0) == (None, "needs at least 10 trials with a score, not 9")


def test_where_nothing_differs_nothing_matters():
    same_scores = drawn(12, lambda point: 0.5)
    assert importance(SPACE, same_scores, seed=0) == (None, "all trials have the same score")
    one_point = [Trial(n, {"layers": 2}, "done", (n / 20,)) for n in range(12)]
    assert importance({"layers": Whole(1, 4)}, one_point, 0) == (None, "all trials have the same values")
