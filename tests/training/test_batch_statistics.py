"""In evaluation, batch normalisation uses statistics of the data as they are, by the weights kept."""

import pytest
import torch

from rnnclf.augment import Augment
from rnnclf.averaging import EMA, NoAverage
from rnnclf.optim import SGD
from rnnclf.training import batch_statistics
from rnnclf.training.batch_statistics import renew_statistics
from rnnclf.training.state import Training
from tests.training.small import classifier, recipe, sequences, trained


def statistics(model):
    norm = model.head_norm.norm
    return norm.running_mean.clone(), norm.running_var.clone()


@pytest.mark.parametrize(("least", "batch_size", "ragged"), [(30, 8, False), (1, 30, True), (1, 8, False)])
def test_statistics_are_the_means_over_batches(least, batch_size, ragged, monkeypatch):
    monkeypatch.setattr(batch_statistics, "LEAST_BATCH", least)
    model, data = classifier(norm="batch", layers=2, dropout=0.5), sequences(ragged=ragged)
    trained(Training(model, recipe()), data)
    norm, rows = model.head_norm.norm, []
    random = torch.get_rng_state()
    with torch.no_grad():
        norm.register_forward_pre_hook(lambda module, args: rows.append(args[0]))
        renew_statistics(model, data, batch_size)
    assert torch.equal(random, torch.get_rng_state())
    assert sum(map(len, rows)) == 30
    assert max(map(len, rows)) == (8 if least == 1 and batch_size == 8 else 30)
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    expected = torch.stack([row.mean(dim=0) for row in rows]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)
    expected = torch.stack([row.var(dim=0) for row in rows]).mean(dim=0)
    torch.testing.assert_close(norm.running_var, expected, rtol=1e-4, atol=1e-6)


def features(model, data):
    """What the head's normalisation gets, for all sequences at once."""
    x_BTI, _, lengths_B = data.batch(torch.arange(len(data)))
    seen = []
    handle = model.head_norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model.eval()(x_BTI, lengths_B)
    handle.remove()
    return seen[0]


class Raised(Augment):
    """All values are larger by 5, so the statistics of training are not those of the data."""

    active = True

    def __call__(self, x_BTI, lengths_B, layout=None, values=None, codes=0):
        return x_BTI + 5, lengths_B


@pytest.mark.parametrize("average", [NoAverage(), EMA()], ids=["no average", "ema"])
def test_after_training_they_are_those_of_the_data_as_they_are_by_the_weights_that_are_kept(average):
    model, data = classifier(norm="batch", dropout=0.5), sequences()
    training = Training(model, recipe(average=average, augment=Raised(), optimizer=SGD(lr=0.5)))
    (*_, last) = trained(training, data)
    model.load_state_dict(training.result)
    before, after = features(model, data), statistics(model)
    torch.testing.assert_close(after[0], before.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[1], before.var(dim=0), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        x_BTI, y_B, _ = data.batch(torch.arange(len(data)))
        assert last.validation.correct == int((model(x_BTI).argmax(dim=1) == y_B).sum())


def test_of_large_data_a_part_spread_evenly_is_enough(monkeypatch):
    monkeypatch.setattr(batch_statistics, "MOST_SEQUENCES", 10)
    model, data = classifier(norm="batch"), sequences(31)
    renew_statistics(model, data, 8)
    part = features(model, data)[[n * 31 // 10 for n in range(10)]]
    torch.testing.assert_close(statistics(model)[0], part.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(statistics(model)[1], part.var(dim=0), rtol=1e-4, atol=1e-6)


def test_they_change_nothing_in_training():
    """The steps after an epoch are those that would have been made without."""
    weights = []
    for renew in (True, False):
        model = classifier(norm="batch", layers=2, dropout=0.3)
        training = Training(model, recipe())
        with pytest.MonkeyPatch.context() as patch:
            if not renew:
                patch.setattr("rnnclf.training.loop.renew_statistics", lambda *_: None)
            trained(training)
        weights.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_of_a_frozen_network_only_those_of_the_head_are_renewed():
    model = classifier(norm="batch", layers=2)
    model.freeze()
    model.layers[1].norm.norm.running_mean += 3
    renew_statistics(model, sequences(), 8)
    assert (model.layers[1].norm.norm.running_mean == 3).all()
    assert not (model.head_norm.norm.running_mean == 0).any()


def test_without_batch_normalisation_the_data_are_not_read():
    model = classifier(norm="layer", layers=2).train()
    renew_statistics(model, None, 8)
    assert model.training  # nor is anything else done
