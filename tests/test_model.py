"""The sequence classifier: layers, directions, readouts, padding, dropout."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.errors import UnknownNameError
from rnnclf.model import SequenceClassifier, reversed_in_time
from rnnclf.readout import READOUTS

BATCH, STEPS, INPUT, HIDDEN, CLASSES = 4, 6, 3, 5, 4
LENGTHS = (1, 4, STEPS, 3)
TORCH_LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

each_cell = pytest.mark.parametrize("name", CELLS.names())
each_readout = pytest.mark.parametrize("readout", READOUTS.names())
each_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
each_depth = pytest.mark.parametrize("layers", [1, 2])


def classifier(name, **options):
    """In float64, with biases that are not zero either."""
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS[name](hidden_size=HIDDEN), INPUT, CLASSES, **options).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.6)
    return model


def random_input(steps=STEPS):
    return torch.randn(BATCH, steps, INPUT, dtype=torch.float64)


def features_of(model, x_BTI, lengths_B=None):
    """What the head gets to see."""
    seen = []
    handle = model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x_BTI, lengths_B)
    handle.remove()
    return seen[0]


# Layers and directions, against torch's own


def torch_twin(model, kind, layers, bidirectional):
    twin = kind(INPUT, HIDDEN, layers, batch_first=True, bidirectional=bidirectional).double()
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
        for index, layer in enumerate(model.layers):
            for direction, module in layer.directions.items():
                suffix = f"l{index}" + ("_reverse" if direction == "backward_cell" else "")
                getattr(twin, f"weight_ih_{suffix}").copy_(module.input_weight)
                getattr(twin, f"weight_hh_{suffix}").copy_(module.recurrent_weight)
                getattr(twin, f"bias_ih_{suffix}").copy_(module.bias)
                if hasattr(module, "candidate_bias"):
                    getattr(twin, f"bias_hh_{suffix}")[-HIDDEN:].copy_(module.candidate_bias)
    return twin


def final_states(h_n, bidirectional):
    """The top layer's last output of each direction, side by side."""
    hidden = h_n[0] if isinstance(h_n, tuple) else h_n
    return torch.cat(tuple(hidden[-2:]), dim=-1) if bidirectional else hidden[-1]


@pytest.mark.parametrize("name", TORCH_LAYERS)
@each_readout
@each_direction
@each_depth
def test_unroll_equals_that_of_torch(name, readout, bidirectional, layers):
    model = classifier(name, layers=layers, bidirectional=bidirectional, readout=readout)
    twin = torch_twin(model, TORCH_LAYERS[name], layers, bidirectional)
    x_BTI = random_input().requires_grad_()
    y_BTD, h_n = twin(x_BTI)
    expected = {
        "last": final_states(h_n, bidirectional),
        "mean": y_BTD.mean(dim=1),
        "max": y_BTD.amax(dim=1),
    }[readout]
    features_BD = features_of(model, x_BTI)
    torch.testing.assert_close(features_BD, expected, rtol=0, atol=1e-12)
    probe_BD = torch.randn_like(expected)
    ours = torch.autograd.grad(features_BD, x_BTI, probe_BD)
    theirs = torch.autograd.grad(expected, x_BTI, probe_BD)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TORCH_LAYERS)
@each_direction
@each_depth
def test_ragged_unroll_equals_that_of_torch_on_packed_sequences(name, bidirectional, layers):
    model = classifier(name, layers=layers, bidirectional=bidirectional)
    twin = torch_twin(model, TORCH_LAYERS[name], layers, bidirectional)
    x_BTI, lengths_B = random_input(), torch.tensor(LENGTHS)
    packed = nn.utils.rnn.pack_padded_sequence(x_BTI, lengths_B, batch_first=True, enforce_sorted=False)
    expected_BD = final_states(twin(packed)[1], bidirectional)
    torch.testing.assert_close(features_of(model, x_BTI, lengths_B), expected_BD, rtol=0, atol=1e-12)


@each_cell
@each_direction
@each_depth
def test_parameters_are_those_of_the_cells_and_the_head(name, bidirectional, layers):
    model = classifier(name, layers=layers, bidirectional=bidirectional)
    directions = 2 if bidirectional else 1
    width = directions * HIDDEN
    sizes = [INPUT] + [width] * (layers - 1)
    cells = sum(eval(CELLS[name].formula, {}, {"n": n, "h": HIDDEN}) for n in sizes) * directions
    assert model.parameter_count() == cells + width * CLASSES + CLASSES


# Readouts, computed directly


def random_outputs():
    return [torch.randn(BATCH, HIDDEN, dtype=torch.float64) for _ in range(STEPS)]


DIRECT = {
    "last": lambda y_TH: y_TH[-1],
    "mean": lambda y_TH: sum(y_TH) / len(y_TH),
    "max": lambda y_TH: torch.stack([y_TH[:, unit].max() for unit in range(HIDDEN)]),
}


def test_every_readout_is_computed_directly_here():
    assert set(DIRECT) == set(READOUTS.names())


@each_readout
def test_readout_of_whole_sequences(readout):
    outputs = random_outputs()
    result_BH = READOUTS[readout](outputs, None)
    for b in range(BATCH):
        torch.testing.assert_close(result_BH[b], DIRECT[readout](torch.stack(outputs)[:, b]))


@each_readout
def test_readout_of_ragged_sequences_sees_the_valid_steps_only(readout):
    outputs = random_outputs()
    for t in range(1, STEPS):  # after the end, outputs repeat
        ended_B1 = (torch.tensor(LENGTHS) <= t).unsqueeze(-1)
        outputs[t] = torch.where(ended_B1, outputs[t - 1], outputs[t])
    result_BH = READOUTS[readout](outputs, torch.tensor(LENGTHS))
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(result_BH[b], DIRECT[readout](torch.stack(outputs)[:length, b]))


# Padding


def padded(sequences, filler, extra):
    """The sequences (T, I) in one tensor (B, T, I), `filler` behind each of them."""
    steps = max(map(len, sequences)) + extra
    x_BTI = torch.full((len(sequences), steps, INPUT), filler, dtype=torch.float64)
    for row_TI, sequence in zip(x_BTI, sequences, strict=True):
        row_TI[: len(sequence)] = sequence
    return x_BTI


def weight_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def scored_alone(model, sequences, y_B):
    """Logits, loss, weight gradients and input gradients of each sequence without padding."""
    inputs = [sequence.clone().requires_grad_() for sequence in sequences]
    logits_BK = torch.cat([model(x_TI.unsqueeze(0)) for x_TI in inputs])
    loss = functional.cross_entropy(logits_BK, y_B)
    return logits_BK, loss, weight_gradients(model, loss), [x_TI.grad for x_TI in inputs]


@each_cell
@each_readout
@each_direction
@pytest.mark.parametrize("filler", [0.0, 1e30, math.inf, math.nan])
def test_padding_is_invisible(name, readout, bidirectional, filler):
    model = classifier(name, layers=2, bidirectional=bidirectional, readout=readout)
    sequences = [torch.randn(length, INPUT, dtype=torch.float64) for length in LENGTHS]
    y_B = torch.arange(BATCH) % CLASSES
    expected = scored_alone(model, sequences, y_B)
    for extra in (0, 3):
        x_BTI = padded(sequences, filler, extra).requires_grad_()
        logits_BK = model(x_BTI, torch.tensor(LENGTHS))
        loss = functional.cross_entropy(logits_BK, y_B)
        gradients = weight_gradients(model, loss)
        of_inputs = [x_BTI.grad[b, :length] for b, length in enumerate(LENGTHS)]
        torch.testing.assert_close((logits_BK, loss, gradients, of_inputs), expected, rtol=1e-10, atol=1e-12)


@each_cell
@each_readout
@each_direction
def test_lengths_of_whole_sequences_change_nothing(name, readout, bidirectional):
    model = classifier(name, layers=2, bidirectional=bidirectional, readout=readout)
    x_BTI = random_input()
    whole_BK = model(x_BTI)
    torch.testing.assert_close(model(x_BTI, torch.full((BATCH,), STEPS)), whole_BK, rtol=0, atol=1e-12)


# Time reversed


def test_reversed_in_time_flips_whole_sequences():
    x_TBI = random_input().transpose(0, 1)
    assert torch.equal(reversed_in_time(x_TBI, None), x_TBI.flip(0))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, STEPS), min_size=1, max_size=5))
def test_reversed_in_time_turns_valid_steps_and_keeps_the_padding(lengths):
    x_TBI = torch.arange(STEPS * len(lengths) * 2.0).reshape(STEPS, len(lengths), 2)
    turned_TBI = reversed_in_time(x_TBI, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        assert torch.equal(turned_TBI[:length, b], x_TBI[:length, b].flip(0))
        assert torch.equal(turned_TBI[length:, b], x_TBI[length:, b])


# Dropout


@each_cell
def test_dropout_changes_nothing_outside_training(name):
    model, without = (classifier(name, layers=2, dropout=share) for share in (0.5, 0.0))
    x_BTI = random_input()
    assert torch.equal(model.eval()(x_BTI), without.train()(x_BTI))
    assert not torch.equal(model.train()(x_BTI), without(x_BTI))


def test_dropout_acts_before_the_head():
    model = classifier("basic", dropout=0.5)
    x_BTI = random_input()
    whole_BD = features_of(model.eval(), x_BTI)
    dropped_BD = features_of(model.train(), x_BTI)
    kept_BD = dropped_BD != 0
    assert 0 < kept_BD.sum() < kept_BD.numel()
    torch.testing.assert_close(dropped_BD[kept_BD], 2 * whole_BD[kept_BD])


def test_dropout_acts_between_layers():
    model = classifier("basic", layers=2, dropout=0.5)
    seen = []
    model.layers[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x_BTI = random_input()
    model.eval()(x_BTI)
    model.train()(x_BTI)
    whole_TBD, dropped_TBD = seen
    kept_TBD = dropped_TBD != 0
    assert 0 < kept_TBD.sum() < kept_TBD.numel()
    torch.testing.assert_close(dropped_TBD[kept_TBD], 2 * whole_TBD[kept_TBD])


# Building


DEFAULTS = {"cell": CELLS["basic"](hidden_size=HIDDEN), "input_size": INPUT, "classes": CLASSES}
ALTERNATIVES = {
    "cell": CELLS["basic"](hidden_size=HIDDEN, nonlinearity="relu"),
    "input_size": INPUT + 1,
    "classes": CLASSES + 1,
    "layers": 2,
    "bidirectional": True,
    "readout": "mean",
    "dropout": 0.5,
}


def outcome(**arguments):
    """The initial weights and the logits while training, in one vector."""
    torch.manual_seed(0)
    model = SequenceClassifier(**arguments)
    logits_BK = model(torch.randn(BATCH, STEPS, arguments["input_size"]))
    return torch.cat([t.detach().flatten() for t in (*model.parameters(), logits_BK)])


@pytest.mark.parametrize("argument", inspect.signature(SequenceClassifier).parameters)
def test_every_argument_changes_the_module(argument):
    changed = outcome(**{**DEFAULTS, argument: ALTERNATIVES[argument]})
    assert not torch.equal(changed, outcome(**DEFAULTS))


def test_head_starts_with_a_zero_bias_and_glorot_weights():
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS["basic"](hidden_size=200), INPUT, 10)
    limit = math.sqrt(6 / (200 + 10))
    assert not model.head.bias.any()
    assert 0.98 * limit < model.head.weight.abs().max() <= limit


@pytest.mark.parametrize("shape", [(BATCH, STEPS, INPUT + 1), (STEPS, INPUT), (BATCH, 1, STEPS, INPUT)])
def test_wrong_input_shape_is_named(shape):
    model = classifier("basic")
    with pytest.raises(ValueError, match="x must have shape") as caught:
        model(torch.randn(shape, dtype=torch.float64))
    assert f"(batch, time, {INPUT})" in str(caught.value)
    assert f"got {shape}" in str(caught.value)


def test_unknown_readout_is_answered_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match=r"No readout named 'maen'\. Did you mean 'mean'\?"):
        classifier("basic", readout="maen")
