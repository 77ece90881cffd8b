"""Every readout equals its definition, on whole and on ragged sequences."""

import math

import torch

from rnnclf.cells import Parameters
from rnnclf.readout import READOUTS
from tests.classifiers import (
    BATCH,
    HIDDEN,
    LENGTHS,
    STEPS,
    classifier,
    each_direction,
    each_readout,
    features_of,
    random_input,
)

# Readouts, computed directly


READ_WEIGHTS = Parameters(
    weight=torch.randn(HIDDEN, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    bias=torch.randn(HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
    vector=torch.randn(HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(3)),
)


def attention_by_hand(y_TH):
    p = READ_WEIGHTS
    scores = [math.exp(p.vector @ torch.tanh(p.weight @ y_H + p.bias)) for y_H in y_TH]
    return sum(score * y_H for score, y_H in zip(scores, y_TH, strict=True)) / sum(scores)


DIRECT = {
    "last": lambda y_TH: y_TH[-1],
    "mean": lambda y_TH: sum(y_TH) / len(y_TH),
    "max": lambda y_TH: torch.stack([y_TH[:, unit].max() for unit in range(HIDDEN)]),
    "attention": attention_by_hand,
}


def test_every_readout_is_computed_directly_here():
    assert set(DIRECT) == set(READOUTS.names())


def read(readout, y_TBH, lengths_B):
    """What a readout makes of all outputs; one that wants the last alone gets it."""
    y = y_TBH if READOUTS[readout].every_step else y_TBH[-1]
    return READOUTS[readout].read(READ_WEIGHTS, y, lengths_B)


@each_readout
def test_readout_of_whole_sequences(readout):
    y_TBH = torch.randn(STEPS, BATCH, HIDDEN, dtype=torch.float64)
    result_BH = read(readout, y_TBH, None)
    for b in range(BATCH):
        torch.testing.assert_close(result_BH[b], DIRECT[readout](y_TBH[:, b]))


@each_readout
def test_readout_of_ragged_sequences_sees_the_valid_steps_only(readout):
    y_TBH = torch.randn(STEPS, BATCH, HIDDEN, dtype=torch.float64)
    for b, length in enumerate(LENGTHS):  # after the end, outputs repeat
        y_TBH[length:, b] = y_TBH[length - 1, b]
    result_BH = read(readout, y_TBH, torch.tensor(LENGTHS))
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(result_BH[b], DIRECT[readout](y_TBH[:length, b]))


@each_direction
@each_readout
def test_head_sees_all_layers_where_it_is_asked_to(readout, bidirectional):
    options = {"layers": 3, "bidirectional": bidirectional, "readout": readout}
    model = classifier("basic", readout_layers="all", **options)
    top = classifier("basic", **options)
    top.load_state_dict({**top.state_dict(), **_same_shapes(model, top)})
    x_BTI, lengths_B = random_input(), torch.tensor(LENGTHS)
    width = HIDDEN * (2 if bidirectional else 1)
    assert model.head.in_features == 3 * width
    features_BD = features_of(model, x_BTI, lengths_B)
    if readout != "attention":  # whose weights differ from layer to layer
        assert torch.equal(features_BD[:, 2 * width :], features_of(top, x_BTI, lengths_B))
    one_layer = classifier("basic", **{**options, "layers": 1})
    one_layer.load_state_dict({**one_layer.state_dict(), **_same_shapes(model, one_layer)})
    assert torch.equal(features_BD[:, :width], features_of(one_layer, x_BTI, lengths_B))


def _same_shapes(source, target):
    """The weights of one model that fit into another."""
    wanted = target.state_dict()
    return {
        name: weight
        for name, weight in source.state_dict().items()
        if name in wanted and wanted[name].shape == weight.shape
    }
