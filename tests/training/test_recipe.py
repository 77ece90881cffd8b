"""The losses equal their formulas."""

import math

import pytest
import torch
from torch.nn import functional

from rnnclf.training.state import Training
from tests.training.small import CLASSES, classifier, recipe, sequences, trained, x_of


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
