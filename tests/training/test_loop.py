"""Training epoch by epoch: what is seen, scored, clipped and reported."""

import inspect
import math

import pytest
import torch
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.optim import SGD, Adam, OneCycle
from rnnclf.training.evaluation import score_model
from rnnclf.training.loop import fit
from rnnclf.training.state import Training
from tests.training.small import classifier, recipe, sequences, trained, without_seconds, x_of


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


@pytest.mark.long
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
        score_model(other.model, sequences(9, seed=5))
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
    data, before = sequences(), score_model(fresh.model, sequences())
    (result,) = trained(fresh, data)
    assert result.train.correct == before.correct
    assert result.train.loss == pytest.approx(before.loss)
    assert result.validation == score_model(fresh.model, data)
    assert result.validation.loss < before.loss


def test_train_loss_weighs_each_batch_by_its_sequences():
    fresh = Training(classifier(), recipe(epochs=1, optimizer=SGD(lr=1e-30)))  # the weights stay
    (result,) = trained(fresh)
    assert result.train.loss == pytest.approx(score_model(fresh.model, sequences()).loss)


def test_last_batch_is_scored_with_the_weights_it_has_changed():
    data = sequences()
    fresh = Training(classifier(engine="fused"), recipe(epochs=1, last_batch=True))
    batches = training_batches(fresh.model)
    (result,) = trained(fresh, data)
    places = [int((x_of(data) == x_TI).all(dim=(1, 2)).nonzero()) for x_TI in batches[-1]]
    assert len(batches) == 30 // 8
    assert result.train == score_model(fresh.model, data.subset(torch.tensor(places)))


def test_progress_counts_the_right_answers_of_the_epoch_so_far():
    seen = []
    results = trained(Training(classifier(), recipe()), on_batch=seen.append)
    assert [progress.epoch for progress in seen] == [1] * 4 + [2] * 4 + [3] * 4
    ends = [progress for progress in seen if progress.seen == progress.of]
    assert [progress.correct for progress in ends] == [result.train.correct for result in results]


def test_fit_is_never_given_the_test_split():
    given = ["training", "train", "validation", "on_batch", "on_rollback", "stop"]
    assert list(inspect.signature(fit).parameters) == given
    assert all(result.test is None for result in trained(Training(classifier(), recipe())))


def test_validation_score_is_that_of_the_validation_split():
    fresh, validation = Training(classifier(), recipe(epochs=1)), sequences(9, seed=5)
    (result,) = trained(fresh, validation=validation)
    assert result.validation == score_model(fresh.model, validation)


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
