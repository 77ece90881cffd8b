"""Divergence is named by epoch and batch, however rarely the host looks."""

import json
import math
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rnnclf.errors import DivergedError
from rnnclf.optim import SGD, Adam, OneCycle, RMSprop
from rnnclf.training import divergence, evaluation
from rnnclf.training import epoch as epoch_steps
from rnnclf.training.evaluation import score_model
from rnnclf.training.loop import fit
from rnnclf.training.state import Training
from tests.training.small import (
    CLASSES,
    assert_equal,
    broken_at,
    classifier,
    looking,
    outcome,
    recipe,
    sequences,
    trained,
    without_seconds,
    x_of,
)

# Divergence


HUGE = SGD(lr=1e300, momentum=0.0)


def test_divergence_names_epoch_and_batch():
    fresh = Training(classifier(), recipe(optimizer=HUGE))
    with pytest.raises(DivergedError, match="in epoch 1, at batch 2 of 4") as caught:
        trained(fresh)
    assert "optimizer.lr is 1e+300" in str(caught.value)
    assert "clip=1" in str(caught.value)
    assert fresh.epoch == 0


def test_advice_names_clip_only_where_it_would_help():
    with pytest.raises(DivergedError, match="smaller learning rate") as caught:
        trained(Training(classifier(), recipe(optimizer=HUGE, clip=1.0)))
    assert "clip=1" not in str(caught.value)


def test_nan_in_the_data_is_named_where_it_is_met():
    data = sequences()
    x_of(data)[17, 2, 0] = math.nan
    torch.manual_seed(1)
    batch = int((torch.randperm(len(data)) == 17).nonzero()) // 8 + 1
    with pytest.raises(DivergedError, match=f"The loss became nan in epoch 1, at batch {batch} of 4"):
        trained(Training(classifier(), recipe()), data, validation=sequences())


def test_diverged_weights_are_as_they_were_before_the_batch():
    data = sequences()
    x_of(data)[:] = math.nan
    fresh = Training(classifier(), recipe())
    with pytest.raises(DivergedError, match="batch 1 of 4"):
        trained(fresh, data)
    for weight, untouched in zip(fresh.model.parameters(), classifier().parameters(), strict=True):
        assert torch.equal(weight, untouched)


def test_divergence_of_the_last_batch_is_seen_in_validation():
    fresh = Training(classifier(), recipe(optimizer=HUGE, batch_size=30))
    with pytest.raises(DivergedError, match=r"validation loss became .* in epoch 1, after its last batch"):
        trained(fresh)
    assert fresh.epoch == 0


def test_divergence_in_a_later_epoch_names_that_epoch():
    fresh = Training(classifier(), recipe(epochs=5))
    torch.manual_seed(1)
    run = fit(fresh, sequences(), sequences())
    next(run)
    next(run)
    with torch.no_grad():
        fresh.model.head.bias[0] = math.inf
    with pytest.raises(DivergedError, match="in epoch 3, at batch 1 of 4"):
        next(run)


WAYS = {
    "plain": (recipe(), sequences(90)),
    "ragged": (recipe(clip=0.1, focal=2.0), sequences(90, ragged=True)),
    "tutorial": (recipe(last_batch=True, schedule=OneCycle()), sequences(90)),
    "weighted": (recipe(class_weights=(0.5, 1.0, 4.0), optimizer=SGD()), sequences(90)),
    "safe": (recipe(on_divergence="rollback", optimizer=RMSprop()), sequences(90)),
    "broken data": (recipe(), broken_at(17)),
    "broken data, other place": (recipe(), broken_at(60)),
    "huge rate": (recipe(optimizer=HUGE), sequences(90)),
    "huge rate, back": (recipe(optimizer=HUGE, on_divergence="rollback"), sequences(90)),
    "too large a rate, back": (
        recipe(optimizer=SGD(lr=3e38, momentum=0.0), on_divergence="rollback"),
        sequences(90),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("every", [7, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
def test_how_often_the_host_looks_changes_nothing(way, every, monkeypatch):
    options = {"layers": 2, "dropout": 0.3, "norm": "batch"}
    expected = outcome(*WAYS[way], options)
    looking(every, monkeypatch)
    assert_equal(outcome(*WAYS[way], options), expected)


def test_the_ways_above_end_well_and_badly():
    ends = {way: outcome(*what)[0] for way, what in WAYS.items()}
    badly = {way: end for way, end in ends.items() if isinstance(end, str)}
    assert set(badly) == {way for way in WAYS if "broken" in way or "rate" in way}
    assert "sequence 17 of the training split" in badly["broken data"]
    assert "halved 5 times" in badly["huge rate, back"]


@pytest.mark.parametrize("every", [1, 7])
def test_a_spike_is_named_by_its_batch_however_often_the_host_looks(every, monkeypatch):
    monkeypatch.setattr(divergence, "SPIKE_FACTOR", 0.0)
    looking(every, monkeypatch)
    end, _, state = outcome(recipe(epochs=10), sequences(90))
    assert "stayed high in epoch 10, at batch 2 of 12" in end  # 100 that are usual, then 10
    assert (state["epoch"], state["so_far"]["batches"]) == (9, 1)


def test_the_weight_behind_exploding_gradients_is_named_however_often_the_host_looks(monkeypatch):
    plan = recipe(optimizer=SGD(lr=1e4), epochs=20)
    options = {"name": "irnn", "hidden": 8}
    expected = outcome(plan, sequences(90), options)[0]
    assert re.search(r"at batch \d+ of 12.* (gradient|weight)", expected)
    looking(50, monkeypatch)
    assert outcome(plan, sequences(90), options)[0] == expected


@pytest.mark.parametrize(("every", "batch"), [(1, 9), (7, 3), (7, 7), (7, 9), (50, 9), (50, 12)])
def test_what_is_saved_between_two_looks_was_looked_at(every, batch, monkeypatch):
    data, options = sequences(90), {"dropout": 0.3, "norm": "layer", "name": "gru"}
    plan = recipe(schedule=OneCycle())
    expected = outcome(plan, data, options)
    looking(every, monkeypatch)
    first = Training(classifier(**options), plan)
    saved = []

    def on_batch(progress):
        if not saved and first.epoch == 1 and first.so_far.batches == batch:
            tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
            saved.append((tensors, json.loads(json.dumps(first.state()))))

    trained(first, data, on_batch=on_batch)
    ((tensors, state),) = saved
    assert state["so_far"]["seen"] == min(batch * 8, 90)
    second = Training(classifier(seed=5, **options), plan)
    second.restore(tensors, state)
    rest = without_seconds(list(fit(second, data, sequences())))
    assert rest == expected[0][1:]
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in second.tensors().items())


def test_what_is_lost_is_never_saved(monkeypatch):
    looking(50, monkeypatch)
    data = broken_at(17)
    fresh = Training(classifier(), recipe())
    seen = []

    def on_batch(progress):
        fresh.tensors()
        seen.append(fresh.so_far.batches)

    expected = outcome(recipe(), data)[0]
    with pytest.raises(DivergedError) as caught:
        trained(fresh, data, on_batch=on_batch)
    assert str(caught.value) == expected
    assert seen == list(range(1, len(seen) + 1))
    assert f"at batch {len(seen) + 1} of 12" in expected
    assert all(weight.isfinite().all() for weight in fresh.model.parameters())


def test_progress_shows_what_was_looked_at(monkeypatch):
    looking(7, monkeypatch)
    seen = []
    (result,) = trained(Training(classifier(), recipe(epochs=1)), sequences(90), on_batch=seen.append)
    assert [progress.seen for progress in seen] == [0] * 6 + [56] * 5 + [90]
    assert seen[-1].correct == result.train.correct


class Reads(TorchDispatchMode):
    """Notes where the host asks for what the device has computed: there it would wait."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "masked_select",
        "bincount",
        "_unique2",
        "is_nonzero",
    )

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.WAITING:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def reads(work, monkeypatch):
    """What the host asks for while `work` is done."""
    mode = Reads()
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: mode.names.append("tolist") or tolist(tensor))
    with mode:
        work()
    return mode.names


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["basic", "lstm", "gru", "cfc", "rglru", "s4d"],  # by the loop, the scan, the convolution
)
@pytest.mark.parametrize("changes", [{}, {"clip": 1.0, "class_weights": (1.0, 2.0, 3.0), "focal": 2.0}])
def test_an_epoch_asks_the_device_once_what_it_has_come_to(name, changes, monkeypatch):
    engine = {"rglru": "scan", "s4d": "fft"}.get(name, "loop")
    data, model = sequences(90), classifier(name, engine=engine)
    fresh = Training(model, recipe(epochs=1, **changes))
    data.batch(torch.arange(3))  # looks through starts and lengths, which lie on the CPU
    assert not data.ragged  # so does this, once
    epoch = epoch_steps.Epoch
    looking(50, monkeypatch)
    model.train()
    assert reads(lambda: epoch(fresh, data).run(lambda total: None, lambda: ""), monkeypatch) == ["tolist"]
    looking(1, monkeypatch)
    twice = Training(model, recipe(epochs=1, **changes))
    assert len(reads(lambda: epoch(twice, data).run(lambda total: None, lambda: ""), monkeypatch)) >= 3 * 12


def test_an_evaluation_asks_the_device_once_what_it_has_come_to(monkeypatch):
    data, model = sequences(90), classifier(engine="loop")
    score_model(model, data)
    asked = []
    for batch in (90, 4):
        monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
        with monkeypatch.context() as patched:
            asked.append(reads(lambda: score_model(model, data), patched))
    assert asked[0] == asked[1] == ["tolist"]


def test_a_run_too_short_for_a_lasting_rise_is_called_worse_than_guessing():
    best = trained(Training(classifier(), recipe(optimizer=Adam(lr=1e10))))[-1].validation
    sentence = divergence.doubt(best, CLASSES, 1e10)
    assert best.loss > 1e6
    assert sentence.startswith("The best epoch is worse than guessing: its validation loss is")
    assert "that of guessing 1.1" in sentence
    assert "optimizer.lr is 1e+10" in sentence
    assert not divergence.doubt(trained(Training(classifier(), recipe()))[-1].validation, CLASSES, 1e-3)


def test_a_rate_far_too_high_from_the_start_ends_training():
    fresh = Training(classifier(), recipe(optimizer=Adam(lr=1e10), epochs=60))
    with pytest.raises(
        DivergedError, match=r"The loss rose to .* and stayed high in epoch 26, at batch 1 of 4"
    ):
        trained(fresh)
