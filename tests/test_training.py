"""Training: epochs, scores, clipping, divergence, and going on where it was left."""

import inspect
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset
from rnnclf.data import sequences as sequences_of
from rnnclf.errors import ConfigError, DivergedError
from rnnclf.model import SequenceClassifier
from rnnclf.optim import OPTIMIZERS, SCHEDULES, SGD, Adam, AdamW, Constant, OneCycle, RMSprop
from rnnclf.stack import Stack
from rnnclf.training import cuda_graph, divergence, evaluation
from rnnclf.training import epoch as epoch_steps
from rnnclf.training.evaluation import evaluate_model
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Training

STEPS, INPUT, CLASSES = 5, 2, 3


def sequences(count=30, seed=0, ragged=False):
    """Noise with a class-dependent mean."""
    generator = torch.Generator().manual_seed(seed)
    y_N = torch.arange(count) % CLASSES
    x_NTI = torch.randn(count, STEPS, INPUT, generator=generator) + y_N[:, None, None]
    lengths_N = torch.randint(1, STEPS + 1, (count,), generator=generator) if ragged else None
    return sequences_of(x_NTI, y_N, ("a", "b", "c"), lengths_N)


def x_of(data: SequenceDataset) -> torch.Tensor:
    """All sequences with their padding, (N, T, I)."""
    return data.x_SI.view(-1, STEPS, INPUT)


def classifier(name="basic", seed=0, hidden=6, **options):
    torch.manual_seed(seed)
    return SequenceClassifier(CELLS[name](hidden_size=hidden), INPUT, CLASSES, Stack(**options))


def recipe(**changes):
    return Recipe(**{"epochs": 3, "batch_size": 8, "optimizer": Adam(), "schedule": Constant(), **changes})


def trained(training, data=None, validation=None, seed=1, **options):
    """All results of a training that starts from the given seed."""
    torch.manual_seed(seed)
    data = data or sequences()
    return list(fit(training, data, validation or data, **options))


def without_seconds(results):
    return [replace(result, seconds=0.0) for result in results]


def gradient_norms(training):
    """A list that will hold the norm of the gradients that each step uses."""
    norms = []

    def note(torch_optimizer, args, kwargs):
        weights = training.model.parameters()
        norms.append(torch.cat([weight.grad.flatten() for weight in weights]).norm().item())

    training.torch_optimizer.register_step_pre_hook(note)
    return norms


def training_batches(model):
    """A list that will hold the input of each batch that is trained on."""
    batches = []

    def note(module, args):
        if module.training:
            batches.append(args[0])

    model.register_forward_pre_hook(note)
    return batches


# Epochs


def test_fit_yields_one_result_per_epoch():
    optimizer, schedule = Adam(lr=0.01), OneCycle()
    results = trained(Training(classifier(), recipe(epochs=4, optimizer=optimizer, schedule=schedule)))
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    steps = math.ceil(30 / 8)
    rates = [0.01 * schedule.factor(steps * epoch - 1, steps * 4) for epoch in range(1, 5)]
    assert [result.learning_rate for result in results] == pytest.approx(rates)
    assert all(result.seconds > 0 for result in results)


def test_fit_goes_on_from_the_epochs_done():
    half_way = Training(classifier(), recipe(epochs=5), epoch=3)
    assert [result.epoch for result in trained(half_way)] == [4, 5]


def test_result_is_yielded_as_soon_as_its_epoch_is_done():
    fresh = Training(classifier(), recipe())
    run = fit(fresh, sequences(), sequences())
    for epoch in (1, 2, 3):
        assert next(run).epoch == epoch == fresh.epoch


@pytest.mark.parametrize("name", CELLS.names())
def test_same_seed_gives_the_same_results_bit_for_bit(name):
    one, same, other = (Training(classifier(name, dropout=0.3), recipe(clip=1.0)) for _ in range(3))
    results = without_seconds(trained(one))
    assert without_seconds(trained(same)) == results
    assert without_seconds(trained(other, seed=2)) != results
    for weight, twin in zip(one.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(weight, twin)


@pytest.mark.parametrize("last_batch", [False, True])
def test_scoring_between_two_epochs_changes_nothing(last_batch):
    plan = recipe(last_batch=last_batch)
    one, other = (Training(classifier(dropout=0.3), plan) for _ in range(2))
    results = trained(one)
    torch.manual_seed(1)
    watched = []
    for result in fit(other, sequences(), sequences()):
        evaluate_model(other.model, sequences(9, seed=5))
        watched.append(result)
    assert without_seconds(watched) == without_seconds(results)


@pytest.mark.parametrize("last_batch", [False, True])
@pytest.mark.parametrize(("count", "batch_size"), [(30, 8), (32, 8), (5, 8)])
def test_each_epoch_has_its_steps_and_its_total(last_batch, count, batch_size):
    data = sequences(count)
    fresh = Training(classifier(), recipe(batch_size=batch_size, last_batch=last_batch))
    norms, seen = gradient_norms(fresh), []
    results = trained(fresh, data, on_batch=lambda progress: seen.append((progress.seen, progress.of)))
    whole_batches = max(count // batch_size, 1)
    steps = whole_batches if last_batch else math.ceil(count / batch_size)
    sequences_per_epoch = min(whole_batches * batch_size, count) if last_batch else count
    expected = [min((i + 1) * batch_size, sequences_per_epoch) for i in range(steps)]
    assert len(norms) == 3 * steps
    assert seen == 3 * [(done, sequences_per_epoch) for done in expected]
    total = min(batch_size, count) if last_batch else count
    assert [result.train.total for result in results] == [total] * 3
    assert [result.validation.total for result in results] == [count] * 3


def test_every_sequence_is_seen_once_per_epoch_in_a_new_order():
    data, model = sequences(20), classifier(engine="fused")
    batches = training_batches(model)
    trained(Training(model, recipe(epochs=2)), data)
    one_NTI, other_NTI = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert not torch.equal(one_NTI, other_NTI)
    wanted = x_of(data)[:, 0, 0].sort().values
    assert torch.equal(one_NTI[:, 0, 0].sort().values, wanted)
    assert torch.equal(other_NTI[:, 0, 0].sort().values, wanted)


def test_train_score_is_that_of_the_batches_as_they_were_trained_on():
    fresh = Training(classifier(), recipe(epochs=1, batch_size=30))
    data, before = sequences(), evaluate_model(fresh.model, sequences()).score
    (result,) = trained(fresh, data)
    assert result.train.correct == before.correct
    assert result.train.loss == pytest.approx(before.loss)
    assert result.validation == evaluate_model(fresh.model, data).score
    assert result.validation.loss < before.loss


def test_train_loss_weighs_each_batch_by_its_sequences():
    fresh = Training(classifier(), recipe(epochs=1, optimizer=SGD(lr=1e-30)))  # the weights stay
    (result,) = trained(fresh)
    assert result.train.loss == pytest.approx(evaluate_model(fresh.model, sequences()).loss)


def test_last_batch_is_scored_with_the_weights_it_has_changed():
    data = sequences()
    fresh = Training(classifier(engine="fused"), recipe(epochs=1, last_batch=True))
    batches = training_batches(fresh.model)
    (result,) = trained(fresh, data)
    places = [int((x_of(data) == x_TI).all(dim=(1, 2)).nonzero()) for x_TI in batches[-1]]
    assert len(batches) == 30 // 8
    assert result.train == evaluate_model(fresh.model, data.subset(torch.tensor(places))).score


def test_progress_counts_the_right_answers_of_the_epoch_so_far():
    seen = []
    results = trained(Training(classifier(), recipe()), on_batch=seen.append)
    assert [progress.epoch for progress in seen] == [1] * 4 + [2] * 4 + [3] * 4
    ends = [progress for progress in seen if progress.seen == progress.of]
    assert [progress.correct for progress in ends] == [result.train.correct for result in results]


def test_fit_is_never_given_the_test_split():
    given = ["training", "train", "validation", "on_batch", "on_rollback"]
    assert list(inspect.signature(fit).parameters) == given
    assert all(result.test is None for result in trained(Training(classifier(), recipe())))


def test_validation_score_is_that_of_the_validation_split():
    fresh, validation = Training(classifier(), recipe(epochs=1)), sequences(9, seed=5)
    (result,) = trained(fresh, validation=validation)
    assert result.validation == evaluate_model(fresh.model, validation).score


def test_fit_learns_nothing_from_validation():
    one, other = (Training(classifier(), recipe()) for _ in range(2))
    trained(one, validation=sequences(9, seed=5))
    trained(other, validation=sequences(9, seed=6))
    for weight, twin in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(weight, twin)


# Loss and gradients


def test_clip_limits_the_norm_of_the_gradients():
    clipped = Training(classifier(), recipe(clip=0.05))
    norms = gradient_norms(clipped)
    trained(clipped)
    assert norms == pytest.approx([0.05] * 12, rel=1e-4)


def test_clip_leaves_small_gradients_alone():
    free, clipped = (Training(classifier(), recipe(clip=clip)) for clip in (None, 1e6))
    norms, same = gradient_norms(free), gradient_norms(clipped)
    trained(free)
    trained(clipped)
    assert same == norms


def test_gradients_are_those_of_the_loss_without_clip():
    fresh, data = Training(classifier(), recipe(epochs=1, batch_size=30)), sequences()
    norms = gradient_norms(fresh)
    loss = functional.cross_entropy(fresh.model(x_of(data)), data.y_N)
    gradients = torch.autograd.grad(loss, list(fresh.model.parameters()))
    trained(fresh, data)
    assert norms == pytest.approx([torch.cat([g.flatten() for g in gradients]).norm().item()])
    assert norms[0] > 0.05  # the test above does clip


def test_label_smoothing_equals_its_formula():
    share = 0.2
    fresh = Training(classifier(), recipe(epochs=1, batch_size=30, label_smoothing=share))
    data = sequences()
    with torch.no_grad():
        log_p_NK = fresh.model(x_of(data)).log_softmax(dim=-1)
    target_NK = functional.one_hot(data.y_N, CLASSES) * (1 - share) + share / CLASSES
    (result,) = trained(fresh, data)
    assert result.train.loss == pytest.approx(-(target_NK * log_p_NK).sum(dim=-1).mean().item())


def test_weighted_loss_is_the_weighted_mean():
    weights, (logits_BK, y_B) = (0.5, 1.0, 4.0), some_logits()
    w_B = [weights[y] for y in y_B]
    expected = sum(-w * math.log(p) for w, p in zip(w_B, right(logits_BK, y_B), strict=True)) / sum(w_B)
    assert recipe(class_weights=weights).loss(logits_BK, y_B).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 4.0)])
def test_focal_loss_equals_its_formula(gamma, weights):
    logits_BK, y_B = some_logits()
    w_B = [weights[y] if weights else 1.0 for y in y_B]
    parts = zip(w_B, right(logits_BK, y_B), strict=True)
    expected = sum(-w * (1 - p) ** gamma * math.log(p) for w, p in parts) / sum(w_B)
    loss = recipe(focal=gamma, class_weights=weights).loss(logits_BK, y_B)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_has_gradients_where_all_is_right():
    logits_BK = torch.tensor([[80.0, 0.0, 0.0]], requires_grad=True)
    recipe(focal=0.5).loss(logits_BK, torch.tensor([0])).backward()
    assert logits_BK.grad.isfinite().all()


def some_logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, CLASSES, generator=generator), torch.arange(20) % CLASSES


def right(logits_BK, y_B):
    """The probability of the right class of each, one after the other."""
    for logits_K, y in zip(logits_BK.tolist(), y_B.tolist(), strict=True):
        yield math.exp(logits_K[y]) / sum(map(math.exp, logits_K))


def test_validation_loss_is_without_label_smoothing():
    fresh, data = Training(classifier(), recipe(epochs=1, label_smoothing=0.5)), sequences()
    (result,) = trained(fresh, data)
    with torch.no_grad():
        expected = functional.cross_entropy(fresh.model(x_of(data)), data.y_N).item()
    assert result.validation.loss == pytest.approx(expected)


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


# Looking seldom


def looking(every, monkeypatch):
    """Has the host look at the rows of so many steps at once, as it does where training is on a GPU."""
    monkeypatch.setattr(epoch_steps, "_between_looks", lambda device: every)


def outcome(plan, data, classifier_options=None, **options):
    """All that training comes to, and the tensors and the state that it leaves; or why it ended."""
    fresh = Training(classifier(**(classifier_options or {})), plan)
    try:
        results = without_seconds(trained(fresh, data, validation=sequences(), **options))
    except DivergedError as error:
        results = str(error)
    state = fresh.state()
    state["so_far"]["seconds"] = 0.0
    return results, {name: tensor.clone() for name, tensor in fresh.tensors().items()}, state


def assert_equal(one, other):
    assert one[0] == other[0]
    assert one[2] == other[2]
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]) or tensor.isnan().any(), name


def broken_at(place):
    data = sequences(90)
    x_of(data)[place, 2, 0] = math.nan
    return data


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


@pytest.mark.parametrize("every", [7, 50])
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


@pytest.mark.parametrize("every", [1, 7, 50])
@pytest.mark.parametrize("batch", [3, 7, 9, 12])
def test_what_is_saved_between_two_looks_was_looked_at(every, batch, monkeypatch):
    data, options = sequences(90), {"dropout": 0.3, "name": "gru"}
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


@pytest.mark.parametrize(
    "name",
    ["basic", "lstm", "gru", "cfc", "mingru", "s4d"],  # by the loop, the scan, the convolution
)
@pytest.mark.parametrize("changes", [{}, {"clip": 1.0, "class_weights": (1.0, 2.0, 3.0), "focal": 2.0}])
def test_an_epoch_asks_the_device_once_what_it_has_come_to(name, changes, monkeypatch):
    data, model = sequences(90), classifier(name, engine="auto" if name in ("mingru", "s4d") else "loop")
    fresh = Training(model, recipe(epochs=1, **changes))
    data.batch(torch.arange(3))  # looks through starts and lengths, which lie on the CPU
    epoch = epoch_steps.Epoch
    looking(50, monkeypatch)
    model.train()
    assert reads(lambda: epoch(fresh, data).run(lambda total: None), monkeypatch) == ["tolist"]
    looking(1, monkeypatch)
    twice = Training(model, recipe(epochs=1, **changes))
    assert len(reads(lambda: epoch(twice, data).run(lambda total: None), monkeypatch)) >= 3 * 12


def test_an_evaluation_asks_the_device_once_what_it_has_come_to(monkeypatch):
    data, model = sequences(90), classifier(engine="loop")
    evaluate_model(model, data)
    asked = []
    for batch in (90, 4):
        monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
        with monkeypatch.context() as patched:
            asked.append(reads(lambda: evaluate_model(model, data), patched))
    assert asked[0] == asked[1] == ["bincount", "tolist", "tolist"]


# A recorded step


class Halving(Constant):
    """Rates that float32 holds exactly, another one at each step."""

    def factor(self, step, total):
        return 2.0 ** -(step % 3)


def recording(monkeypatch):
    """Has steps recorded on a CPU: what a graph does to memory, Python does. Returns how often that was."""
    made = []

    def warm_up(step):
        for _ in range(cuda_graph.WARM_UP):
            step()

    def record(step):
        result = torch.full((3,), math.nan)  # recording computes nothing
        made.append("recorded")

        def replay():
            made.append("replayed")
            result.copy_(step())

        return replay, result

    monkeypatch.setattr(cuda_graph, "_warm_up", warm_up)
    monkeypatch.setattr(cuda_graph, "_record", record)
    looking(7, monkeypatch)
    return made


@pytest.mark.parametrize("optimizer", [Adam(lr=2**-7), AdamW(lr=2**-7), SGD(lr=2**-4)])
@pytest.mark.parametrize(
    "options", [{"engine": "fused"}, {"name": "gru", "layers": 2, "dropout": 0.3, "norm": "batch"}]
)
def test_recorded_steps_equal_plain_ones_bit_for_bit(optimizer, options, monkeypatch):
    data = sequences(90)
    plain = recipe(optimizer=optimizer, schedule=Halving(), clip=0.5)
    expected = outcome(plain, data, options)
    made = recording(monkeypatch)
    assert_equal(outcome(replace(plain, graph=True), data, options), expected)
    assert made == ["recorded"] + ["replayed"] * 3 * 11  # the last batch of an epoch is smaller


def test_after_going_back_a_step_is_recorded_anew(monkeypatch):
    data = broken_at(17)
    plain = recipe(optimizer=SGD(lr=2**-4), schedule=Halving(), on_divergence="rollback")
    expected = outcome(plain, data, {"engine": "fused"})
    made = recording(monkeypatch)
    assert_equal(outcome(replace(plain, graph=True), data, {"engine": "fused"}), expected)
    assert made.count("recorded") > 5


def test_batches_of_several_lengths_or_another_length_are_made_as_usual(monkeypatch):
    data = sequences(90, ragged=True)
    plain = recipe(schedule=Halving(), optimizer=Adam(lr=2**-7))
    expected = outcome(plain, data)
    made = recording(monkeypatch)
    shapes = []
    real = cuda_graph.CapturedStep.__call__

    def note(step, batch):
        shapes.append((batch.lengths_B, batch.x_BTI.shape))
        return real(step, batch)

    monkeypatch.setattr(cuda_graph.CapturedStep, "__call__", note)
    assert_equal(outcome(replace(plain, graph=True), data), expected)
    assert 1 < len(shapes) < 33
    assert len(set(shapes)) == made.count("recorded") == 1
    assert shapes[0][0] is None


def test_what_cannot_be_recorded_is_said(monkeypatch):
    recording(monkeypatch)

    def record(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graph, "_record", record)
    with pytest.raises(ConfigError, match=r"use graph=false. \(operation not permitted .* capturing\)"):
        trained(Training(classifier(), recipe(graph=True)))


# Going on after an interruption


RESUMED = {name: kind() for name, kind in OPTIMIZERS.items()} | {
    "sgd without momentum": SGD(momentum=0.0),
    "rmsprop with momentum": RMSprop(momentum=0.5),
}
DATA = {"classes": ["a", "b", "c"], "input_size": INPUT, "preparation": {}, "reading": {}, "fingerprint": ""}
HEADER = {"config": {}, **DATA, "epoch": 2}
on_every_device = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)


@pytest.mark.parametrize("optimizer", RESUMED)
@pytest.mark.parametrize("schedule", SCHEDULES.names())
@on_every_device
def test_saved_and_restored_training_goes_on_bit_for_bit(optimizer, schedule, device, tmp_path):
    plan = recipe(epochs=4, optimizer=RESUMED[optimizer], schedule=SCHEDULES[schedule](), clip=1.0)
    data = sequences(ragged=True).to(torch.device(device))
    path = tmp_path / "last.safetensors"

    def fresh(seed):
        return Training(classifier(seed=seed, layers=2, dropout=0.5).to(device), plan)

    whole = fresh(seed=0)
    results = trained(whole, data)

    interrupted = fresh(seed=0)
    torch.manual_seed(1)
    run = fit(interrupted, data, data)
    first = [next(run), next(run)]
    checkpoint.save(path, {**HEADER, "training": interrupted.state()}, interrupted.tensors())

    resumed = fresh(seed=5)
    list(fit(resumed, data, data))  # leaves a memory in the optimizer that restoring must replace
    saved = checkpoint.load(path)
    resumed.restore(saved.tensors, saved.header["training"])
    rest = list(fit(resumed, data, data))

    assert without_seconds(first + rest) == without_seconds(results)
    expected, tensors = whole.tensors(), resumed.tensors()
    assert tensors.keys() == expected.keys()
    for name in expected:
        assert torch.equal(tensors[name], expected[name]), name


def test_restored_tensors_are_copies():
    source, target = Training(classifier(), recipe()), Training(classifier(seed=5), recipe())
    trained(source)
    tensors = source.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    target.restore(tensors, Training(classifier(), recipe()).state())
    trained(target)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name]), name


def test_going_back_to_the_start_empties_the_memory_of_the_optimizer():
    fresh, used = (Training(classifier(), recipe()) for _ in range(2))
    start, state = {name: tensor.clone() for name, tensor in fresh.tensors().items()}, fresh.state()
    trained(used)
    used.restore(start, state)
    assert without_seconds(trained(used)) == without_seconds(trained(fresh))


def test_restored_memory_lies_on_the_device_of_its_weight():
    source = Training(classifier(), recipe(optimizer=RMSprop()))
    trained(source)
    with torch.device("meta"):
        target = Training(classifier(), recipe(optimizer=RMSprop()))
    with pytest.warns(UserWarning, match="meta parameter"):  # meta weights take no values
        target.restore(source.tensors(), source.state())
    for weight in target.model.parameters():
        assert target.torch_optimizer.state[weight]["square_avg"].device == weight.device


# Evaluation


def plainly_evaluated(model, data):
    """Counts and mean loss, one sequence after the other."""
    counts = [[0] * CLASSES for _ in range(CLASSES)]
    losses = []
    for n in range(len(data)):
        length = int(data.lengths_N[n])
        logits_1K = model(x_of(data)[n : n + 1, :length])
        counts[data.y_N[n]][logits_1K.argmax()] += 1
        losses.append(functional.cross_entropy(logits_1K, data.y_N[n : n + 1]).item())
    return tuple(map(tuple, counts)), sum(losses) / len(losses)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("batch", [4, 1000])
def test_evaluation_equals_a_plain_loop(ragged, batch, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    model, data = classifier(dropout=0.5), sequences(30, ragged=ragged)
    found = evaluate_model(model.train(), data)
    counts, loss = plainly_evaluated(model.eval(), data)
    assert found.counts == counts
    assert found.loss == pytest.approx(loss)
    assert found.classes == data.classes


def test_evaluation_counts_classes_that_never_occur():
    data = sequences(6)
    data = replace(data, y_N=torch.zeros(6, dtype=torch.int64))
    found = evaluate_model(classifier(), data)
    assert len(found.counts) == CLASSES
    assert [sum(row) for row in found.counts] == [6, 0, 0]
