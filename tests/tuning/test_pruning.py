"""Which runs are not worth another epoch, and that this does not depend on when one asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rnnclf.tuning.pruning import FACTOR, FEWEST, RULES, first_look, is_rung, why_prune
from rnnclf.tuning.trials import Trial

scores = st.integers(0, 20).map(lambda n: n / 20)  # so few that ties are common
curves = st.lists(scores, min_size=1, max_size=8)
siblings = st.lists(curves, max_size=8)
rules = st.sampled_from(list(RULES))
selects = st.sampled_from(["best", "last"])


@given(rules, curves, siblings, selects, st.data())
def test_what_others_did_after_this_epoch_does_not_matter(rule, curve, others, select, data):
    epoch = len(curve)
    now = [other[: data.draw(st.integers(min(epoch, len(other)), len(other)))] for other in others]
    assert why_prune(rule, curve, now, select) == why_prune(rule, curve, others, select)


@given(rules, curves, siblings, selects, st.randoms(use_true_random=False))
def test_the_order_of_the_others_does_not_matter(rule, curve, others, select, random):
    shuffled = random.sample(others, len(others))
    assert why_prune(rule, curve, shuffled, select) == why_prune(rule, curve, others, select)


@given(rules, curves, siblings, selects)
def test_those_that_ended_earlier_have_no_say(rule, curve, others, select):
    there = [other for other in others if len(other) >= len(curve)]
    assert why_prune(rule, curve, there, select) == why_prune(rule, curve, others, select)


@given(rules, st.integers(1, 8), st.data(), selects)
def test_the_best_at_an_epoch_goes_on(rule, epoch, data, select):
    equal = st.lists(scores, min_size=epoch, max_size=epoch)
    runs = data.draw(st.lists(equal, min_size=1, max_size=8))
    best = max(runs, key=lambda run: Trial(0, {}, curve=tuple(run)).value(select))
    others = [run for run in runs if run is not best]
    assert why_prune(rule, best, others, select) is None


@given(rules, curves, siblings, selects, scores)
def test_a_run_that_is_worse_than_a_pruned_one_is_pruned_too(rule, curve, others, select, worst):
    worse = [min(score, worst) for score in curve]
    if why_prune(rule, curve, others, select):
        assert why_prune(rule, worse, others, select)


@given(st.integers(2, 13), st.sampled_from([2, 6, 18]), st.data())
def test_halving_lets_the_best_third_go_on(number, epoch, data):
    ends = data.draw(st.lists(scores, min_size=number, max_size=number, unique=True))
    runs = [[0.0] * (epoch - 1) + [end] for end in ends]
    going_on = [
        run
        for run in runs
        if why_prune("halving", run, [other for other in runs if other is not run]) is None
    ]
    expected = len(runs) // FACTOR or len(runs)  # of fewer than three, nobody is pruned
    assert sorted(going_on) == sorted(runs)[-expected:]


def test_halving_looks_at_three_times_as_many_epochs_each_time():
    assert [epoch for epoch in range(1, 200) if is_rung(epoch)] == [2, 6, 18, 54, 162]
    for epoch in (1, 3, 4, 5, 7):
        assert why_prune("halving", [0.1] * epoch, [[0.9] * 10] * 5) is None


def test_halving_says_how_many_were_better_and_when():
    sentence = "2 of 3 others were better at epoch 2, where the best third goes on"
    assert why_prune("halving", [0.5, 0.6], [[0.7, 0.7], [0.1, 0.8], [0.1, 0.6]]) == sentence


def test_the_median_rule_prunes_what_is_below_the_median_of_enough_others():
    others = [[0.5, n / 10] for n in range(5, 5 + FEWEST)]
    assert why_prune("median", [0.5, 0.69], others) == (
        "69.00% is below 70.00%, the median of 5 others at epoch 2"
    )
    assert why_prune("median", [0.5, 0.7], others) is None
    assert why_prune("median", [0.5, 0.0], others[1:]) is None, "too few"
    assert why_prune("median", [0.0], others) is None, "too early"


def test_with_select_last_a_run_is_judged_by_its_last_epoch():
    others = [[0.5, 0.5], [0.4, 0.4]]
    assert why_prune("halving", [0.9, 0.1], others, "best") is None
    assert why_prune("halving", [0.9, 0.1], others, "last") == (
        "2 of 2 others were better at epoch 2, where the best third goes on"
    )


def test_a_trial_has_the_score_of_the_epoch_that_is_its_result():
    trial = Trial(0, {}, "done", (0.5, 0.9, 0.7))
    assert trial.best_so_far == (0.5, 0.9, 0.9)
    assert trial.value() == 0.9
    assert trial.value("last") == 0.7
    assert Trial(1, {}).value() is None


def test_long_runs_are_looked_at_three_times_too():
    assert [first_look(epochs) for epochs in (1, 20, 54, 100, 1000)] == [2, 2, 2, 4, 37]
    assert [epoch for epoch in range(1, 100) if is_rung(epoch, first_look(100))] == [4, 12, 36]
    others = [[0.9] * 10] * 5
    assert why_prune("halving", [0.1] * 2, others, first=4) is None
    assert why_prune("halving", [0.1] * 4, others, first=4)
    assert why_prune("median", [0.1] * 3, others, first=4) is None
