"""Averaged weights: what they are, that they change nothing in training, and that they are what is scored."""

import math

import numpy as np
import pytest
import torch

from rnnclf.averaging import AVERAGES, EMA, SWA, NoAverage
from rnnclf.engine.choose import ENGINES
from rnnclf.optim import SGD, Adam
from rnnclf.training import cuda_graph
from rnnclf.training.averaging import holding
from rnnclf.training.evaluation import score_model
from rnnclf.training.loop import fit
from rnnclf.training.state import Training
from tests.training.small import (
    assert_equal,
    broken_at,
    classifier,
    looking,
    outcome,
    recipe,
    sequences,
    trained,
    without_seconds,
)

BATCHES = 4  # of 8 in 30 sequences


def by_numpy(average, weights):
    """The average of an array after each step, by its definition, in float64."""
    if isinstance(average, SWA):
        return np.mean(weights[math.ceil(average.start * len(weights)) :], axis=0)
    mean = weights[0]
    for n, array in enumerate(weights[1:], start=1):
        kept = min(average.decay, (1 + n) / (10 + n))
        mean = kept * mean + (1 - kept) * array
    return mean


@pytest.mark.parametrize("average", [EMA(), EMA(decay=0.3), SWA(), SWA(start=0.1)], ids=str)
def test_the_average_is_that_of_its_definition(average):
    training = Training(classifier("gru"), recipe(average=average, optimizer=Adam(lr=0.05)))
    after_steps = []

    def note(progress):
        weights = training.model.named_parameters()
        after_steps.append({name: weight.detach().double().numpy().copy() for name, weight in weights})

    trained(training, on_batch=note)
    assert len(after_steps) == 3 * BATCHES
    for name in after_steps[0]:
        weights = [step[name] for step in after_steps]
        np.testing.assert_allclose(
            training.result[name].numpy(), by_numpy(average, weights), rtol=2e-5, atol=1e-7
        )
        assert np.array_equal(dict(training.model.named_parameters())[name].detach().numpy(), weights[-1])
        assert not np.array_equal(training.result[name].numpy(), weights[-1])


def test_shares_are_shares_and_begin_when_they_are_said_to():
    for name in AVERAGES.names():
        average = AVERAGES[name]()
        shares = [average.share(step, 100, max(step - 75, 0)) for step in range(100)]
        begun = [share for share in shares if share is not None]
        assert all(0 < share <= 1 for share in begun)
        assert len(begun) == {"none": 0, "ema": 100, "swa": 25}[name]


# Training is the same

DAILY = ("batch norm and dropout", "machine")
OPTIONS = {
    "batch norm and dropout": {"layers": 2, "norm": "batch", "dropout": 0.3},
    "fixed weights": {"name": "esn"},
    "complex eigenvalues": {"name": "s4d", "norm": "layer"},
    **{engine: {"engine": engine, "name": "gru"} for engine in ("loop", "fused", "machine", "native")},
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=() if name in DAILY else pytest.mark.long)
        for name, options in OPTIONS.items()
    ],
)
def test_training_is_the_same_and_the_average_is_what_is_scored(options):
    if not ENGINES[options.get("engine", "loop")].installed:
        pytest.skip("not installed")
    data = sequences()
    plain, averaged = (
        Training(classifier(**options), recipe(average=average)) for average in (NoAverage(), EMA())
    )
    results, others = trained(plain, data), trained(averaged, data)
    assert [result.train for result in results] == [result.train for result in others]
    own, others_own = (dict(training.model.named_parameters()) for training in (plain, averaged))
    assert all(torch.equal(own[name], others_own[name]) for name in own)
    assert [result.validation for result in results] != [result.validation for result in others]
    own = plain.model.state_dict()
    assert plain.result.keys() == averaged.result.keys() == own.keys()
    for training, result in ((plain, results[-1]), (averaged, others[-1])):
        with holding(training.model, training.result):
            assert score_model(training.model, data) == result.validation
    assert all(torch.equal(own[name], tensor) for name, tensor in plain.model.state_dict().items())
    if options.get("norm") == "batch":
        assert {module.momentum for module in averaged.model.modules() if hasattr(module, "momentum")} == {
            0.1
        }


def test_before_averaging_begins_the_weights_are_what_is_scored():
    plain, averaged = (Training(classifier(), recipe(average=average)) for average in (NoAverage(), SWA()))
    results, others = without_seconds(trained(plain)), without_seconds(trained(averaged))
    assert results[:2] == others[:2]  # of 12 steps, 9 are not averaged
    assert results[2] != others[2]


def test_recorded_steps_and_results_read_late_average_alike(monkeypatch):
    data, plan = sequences(90), {"average": EMA(), "optimizer": SGD(lr=2**-4)}
    expected = outcome(recipe(**plan), data, {"engine": "fused"})
    monkeypatch.setattr(cuda_graph, "_warm_up", lambda step: step())

    def capture(step):
        result = torch.empty(3)
        return lambda: result.copy_(step()), result

    monkeypatch.setattr(cuda_graph, "_capture", capture)
    looking(7, monkeypatch)
    assert_equal(outcome(recipe(**plan, graph=True), data, {"engine": "fused"}), expected)


def test_steps_that_are_taken_back_leave_the_average(monkeypatch):
    plan = recipe(average=EMA(), on_divergence="rollback", optimizer=SGD(lr=2**-4))
    expected = outcome(plan, broken_at(17), {"engine": "fused"})
    assert expected[2]["averaged"] == expected[2]["so_far"]["batches"] == 2
    looking(7, monkeypatch)
    assert_equal(outcome(plan, broken_at(17), {"engine": "fused"}), expected)


# Saved and restored


@pytest.mark.parametrize("average", [EMA(decay=0.5), pytest.param(SWA(start=0.4), marks=pytest.mark.long)])
def test_stopped_at_a_batch_and_restored_it_goes_on_bit_for_bit(average):
    plan, data = recipe(average=average), sequences(ragged=True)
    whole, stopped, resumed = (Training(classifier(norm="batch", seed=seed), plan) for seed in (0, 0, 4))
    results = without_seconds(trained(whole, data))
    saved = []

    def save(progress):
        saved.append(stopped.snapshot())

    trained(stopped, data, on_batch=save)
    trained(resumed, data)  # leaves an average that restoring must replace
    resumed.restore(*saved[4])
    assert without_seconds(list(fit(resumed, data, data))) == results[1:]
    expected = whole.tensors()
    assert expected.keys() == resumed.tensors().keys()
    assert {name for name in expected if name.startswith("average.")}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.tensors().items())


def test_averages_of_another_shape_or_none_are_refused():
    training = Training(classifier(), recipe(average=EMA()))
    trained(training)
    tensors, state = training.snapshot()
    name = "average.head.bias"
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    for wrong in (without, {**without, name: torch.zeros(1)}, {**without, name: tensors[name].double()}):
        with pytest.raises(ValueError, match=r"does not hold the state|does not fit head\.bias"):
            training.restore(wrong, state)
    for count in (-1, 1.5, "many"):
        with pytest.raises(ValueError, match="not a count"):
            training.restore(tensors, {**state, "averaged": count})
    del state["averaged"]  # as in older checkpoints
    training.restore(without, state)
    assert training.average.count == 0
