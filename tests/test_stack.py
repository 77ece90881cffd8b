"""What stands between the layers: residuals, norms, dropout of several kinds, zoneout."""

import pytest
import torch

from rnnclf.engine.unrolling import unroll
from rnnclf.model import zoneout
from tests.classifiers import HIDDEN, LENGTHS, classifier, each_direction, features_of, random_input

# What is joined and normalised


def layer_inputs(model, x_BTI, lengths_B=None):
    """What each layer gets, before it normalises it."""
    seen = []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x_BTI, lengths_B)
    return seen


@each_direction
def test_a_residual_layer_adds_its_input_to_its_output(bidirectional):
    model = classifier("basic", layers=3, residual=True, bidirectional=bidirectional)
    x_BTI, lengths_B = random_input(), torch.tensor(LENGTHS)
    seen = layer_inputs(model, x_BTI, lengths_B)
    forward = model.layers[1].directions["forward_cell"]
    y_TBH, _ = unroll(forward, seen[1], lengths_B=lengths_B)
    for b, length in enumerate(LENGTHS):
        expected_TH = (y_TBH + seen[1][..., :HIDDEN])[:length, b]
        torch.testing.assert_close(seen[2][:length, b, :HIDDEN], expected_TH)
        if bidirectional:
            turned_TBI = seen[1][:length, b : b + 1].flip(0)
            back_TBH, _ = unroll(model.layers[1].directions["backward_cell"], turned_TBI)
            expected_TH = back_TBH.flip(0)[:, 0] + seen[1][:length, b, HIDDEN:]
            torch.testing.assert_close(seen[2][:length, b, HIDDEN:], expected_TH)


def test_batch_norm_counts_valid_steps_only():
    model = classifier("basic", layers=2, norm="batch").train()
    x_BTI, lengths_B = random_input(), torch.tensor(LENGTHS)
    below_TBH, _ = unroll(model.layers[0].directions["forward_cell"], x_BTI.transpose(0, 1))
    valid_ND = torch.cat([below_TBH[:length, b] for b, length in enumerate(LENGTHS)])
    model(x_BTI, lengths_B)
    norm = model.layers[1].norm.norm
    torch.testing.assert_close(norm.running_mean, 0.1 * valid_ND.mean(dim=0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * valid_ND.var(dim=0))


def test_batch_norm_of_a_single_sequence_uses_what_was_seen_before():
    model = classifier("basic", norm="batch").train()
    x_BTI = random_input()
    model(x_BTI)
    alone_BK = model(x_BTI[:1])
    torch.testing.assert_close(alone_BK, model.eval()(x_BTI[:1]))


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_norm_stands_before_each_further_layer_and_the_head(norm):
    model = classifier("basic", layers=3, norm=norm).train()
    kinds = [type(layer.norm.norm).__name__ for layer in model.layers] + [type(model.head_norm.norm).__name__]
    name = {"layer": "LayerNorm", "batch": "BatchNorm1d"}[norm]
    assert kinds == ["Identity", name, name, name]


# Noise while training


def test_variational_dropout_drops_the_same_values_at_all_steps():
    seen = []
    for variational in (True, False):
        model = classifier("basic", layers=2, dropout=0.5, variational=variational).train()
        model.layers[1]._unrolled = lambda module, x_TBI, plan: seen.append(x_TBI) or x_TBI[-1]
        model(random_input())
    same, fresh = ((x_TBI == 0) for x_TBI in seen)
    assert 0 < same.sum() < same.numel()
    assert (same == same[0]).all()
    assert not (fresh == fresh[0]).all()


def test_dropout_of_the_input_leaves_the_layers_above_alone():
    seen = []
    model = classifier("basic", layers=2, input_dropout=0.5).train()

    def outputs(module, x_TBI, plan):
        seen.append(x_TBI)
        y_TBH = x_TBI.new_ones(*x_TBI.shape[:2], HIDDEN)
        return y_TBH if plan.every_step else y_TBH[-1]

    for layer in model.layers:
        layer._unrolled = outputs
    model(x_BTI := random_input())
    first, second = seen
    kept = first != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(first[kept], 2 * x_BTI.transpose(0, 1)[kept])
    assert (second == 1).all()
    model.eval()(x_BTI)
    assert torch.equal(seen[2], x_BTI.transpose(0, 1))


def test_recurrent_dropout_drops_single_weights_while_training_only():
    model = classifier("lstm", recurrent_dropout=0.5)
    module = model.layers[0].directions["forward_cell"]
    weight = module.recurrent_weight
    dropped = module.train().prepared().recurrent_weight
    kept = dropped != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * weight[kept])
    assert not torch.equal(module.prepared().recurrent_weight, dropped)
    assert module.eval().prepared().recurrent_weight is weight
    torch.testing.assert_close(module.train().prepared().bias, module.bias)


def test_zoneout_keeps_a_share_of_the_state_and_its_mean_when_not_training():
    old, new = torch.zeros(40, 50), torch.ones(40, 50)
    kept = zoneout(old, new, rate=0.3, training=True) == 0
    assert 0.25 < kept.double().mean() < 0.35
    assert torch.equal(zoneout(old, new, rate=0.3, training=False), torch.full_like(new, 0.7))


def test_zoneout_acts_on_both_parts_of_the_state_and_on_the_output():
    model = classifier("lstm", zoneout=0.4).eval()
    module = model.layers[0].directions["forward_cell"]
    x_TBI = random_input().transpose(0, 1)
    state, expected = module.initial_state(x_TBI[0]), []
    for x_BI in x_TBI:
        _, new = module(x_BI, state)
        state = type(state)(*(0.4 * a + 0.6 * b for a, b in zip(state, new, strict=True)))
        expected.append(state.h)
    features_BH = features_of(model, x_TBI.transpose(0, 1))
    torch.testing.assert_close(features_BH, expected[-1])
