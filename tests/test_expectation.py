"""What is expected of an experiment: well-formed figures, and the runs that are as expected."""

import math

import numpy as np
import pytest

from rnnclf.errors import ConfigError
from rnnclf.expectation import Expectation, from_plain
from rnnclf.metrics import wilson_interval

GOOD = {"accuracy": 0.98, "sd": 0.001, "seeds": 5, "seconds": 90}
LIST = "expected must be a list with entries such as '- {accuracy: 0.98, seeds: 1, seconds: 90}', got "


def test_figures_are_read_with_whole_numbers_for_numbers_too():
    (found,) = from_plain([{**GOOD, "accuracy": 1, "commit": "1234567"}])
    assert found == Expectation(accuracy=1, sd=0.001, seeds=5, seconds=90, commit="1234567")
    assert from_plain(None) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (GOOD, f"{LIST}{GOOD}."),
        ([], f"{LIST}[]."),
        (98.96, f"{LIST}98.96."),
        (["accuracy"], f"{LIST}['accuracy']."),
        ([{**GOOD, "accuracy": 98.96}], "expected.accuracy must be at least 0 and at most 1, got 98.96."),
        ([{**GOOD, "accuracy": math.nan}], "expected.accuracy must be at least 0 and at most 1, got nan."),
        ([{**GOOD, "accuracy": "98 %"}],
         "expected.accuracy must be a number of at least 0 and at most 1, got '98 %'."),
        ([{**GOOD, "seeds": 2.5}], "expected.seeds must be a whole number of at least 1, got 2.5."),
        ([{**GOOD, "seeds": True}], "expected.seeds must be a whole number of at least 1, got true."),
        ([{**GOOD, "seconds": 0}], "expected.seconds must be above 0, got 0."),
        ([{**GOOD, "commit": 1234567}], "expected.commit must be text, got 1234567."),
        ([{**GOOD, "sed": 3}], "expected has no 'sed'. Did you mean 'sd'? What it has:"
                               " accuracy, sd, seeds, seconds, hardware, commit, words, source."),
        ([{"accuracy": 0.98, "seeds": 1}], "expected.seconds is missing: median time of a run."),
        ([{**GOOD, "sd": None}], "expected.sd is missing: 5 seeds have a standard deviation."),
        ([GOOD, {**GOOD, "seeds": 1}],
         "expected.sd is the deviation between seeds, and there is one: leave it out."),
    ],
)  # fmt: skip
def test_malformed_figures_are_refused_in_one_sentence(found, message):
    with pytest.raises(ConfigError) as error:
        from_plain(found)
    assert str(error.value) == message


def test_of_a_hundred_runs_like_those_that_were_measured_one_is_not_as_expected():
    random = np.random.default_rng(0)
    runs_RN = random.normal(0.98, 0.001, (5_000, 6))
    measured_RN, another_R = runs_RN[:, :5], runs_RN[:, 5]
    inside = 0
    for measured_N, another in zip(measured_RN, another_R, strict=True):
        found = Expectation(measured_N.mean(), measured_N.std(ddof=1), seeds=5, seconds=90)
        low, high = found.bounds(10**9)
        inside += low <= another <= high
    assert inside / len(runs_RN) == pytest.approx(0.99, abs=0.005)
    assert Expectation(**{**GOOD, "accuracy": 0.999}).bounds(10_000)[1] == 1


def test_runs_that_all_scored_the_same_allow_one_sequence_more_or_less():
    assert Expectation(**{**GOOD, "sd": 0.0}).bounds(100) == pytest.approx((0.97, 0.99))


@pytest.mark.parametrize(("seeds", "sd"), [(1, None), (2, 0.001)])
def test_too_few_runs_for_a_deviation_give_the_interval_of_their_accuracy(seeds, sd):
    found = Expectation(accuracy=0.98, sd=sd, seeds=seeds, seconds=90)
    assert found.bounds(10_000) == wilson_interval(9800, 10_000)


def test_figures_are_shown_as_elsewhere():
    assert (Expectation(**GOOD).share, Expectation(**GOOD).runs) == ("98.00 ± 0.10 %", "5 seeds")
    single = Expectation(accuracy=0.97842, seconds=90)
    assert (single.share, single.runs) == ("97.84 %", "1 seed")
