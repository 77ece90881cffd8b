"""The sequence classifier: layers, directions, readouts, padding, dropout."""

import math
from dataclasses import fields
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.data.grid import Grid
from rnnclf.engine.choose import choose
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier, reversed_in_time
from rnnclf.readout import READOUTS
from rnnclf.stack import Stack
from tests.classifiers import (
    BATCH,
    CLASSES,
    HIDDEN,
    INPUT,
    LENGTHS,
    NOT_ROUNDED,
    STEPS,
    classifier,
    each_direction,
    features_of,
    random_input,
)
from tests.pairwise import pairwise

TORCH_LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

# one of each kind: a loop, a state of two parts, a scan, a convolution; test_cells.py has all
OF_EACH_KIND = ("basic", "lstm", "mingru", "s4d")
each_cell = pytest.mark.parametrize("name", OF_EACH_KIND)
each_depth = pytest.mark.parametrize("layers", [1, 2])


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


@pytest.mark.parametrize(
    ("name", "readout", "bidirectional", "layers"),
    pairwise(TORCH_LAYERS, ("last", "mean", "max"), (False, True), (1, 2)),
)
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
    cell = CELLS[name](hidden_size=HIDDEN)
    cells = sum(eval(cell.formula, {}, {**vars(cell), "n": n, "h": HIDDEN}) for n in sizes) * directions
    assert model.parameter_count() == cells + width * CLASSES + CLASSES


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


@pytest.mark.parametrize(
    ("name", "readout", "bidirectional", "filler"),
    pairwise(OF_EACH_KIND, READOUTS.names(), (False, True), (0.0, 1e30, math.inf, math.nan)),
)
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


@pytest.mark.parametrize(
    ("name", "readout", "bidirectional"), pairwise(OF_EACH_KIND, READOUTS.names(), (False, True))
)
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
    model.layers[1]._unrolled = lambda module, x_TBI, plan: seen.append(x_TBI) or x_TBI[-1]
    x_BTI = random_input()
    model.eval()(x_BTI)
    model.train()(x_BTI)
    whole_TBD, dropped_TBD = seen
    kept_TBD = dropped_TBD != 0
    assert 0 < kept_TBD.sum() < kept_TBD.numel()
    torch.testing.assert_close(dropped_TBD[kept_TBD], 2 * whole_TBD[kept_TBD])


# Building


ALTERNATIVES = {
    "axes": {"axes": "both"},
    "layers": {"layers": 3},
    "bidirectional": {"bidirectional": True},
    "residual": {"residual": True},
    "norm": {"norm": "batch"},
    "readout": {"readout": "mean"},
    "readout_layers": {"readout_layers": "all"},
    "dropout": {"dropout": 0.5},
    "input_dropout": {"input_dropout": 0.5},
    "variational": {"dropout": 0.5, "variational": True},
    "recurrent_dropout": {"recurrent_dropout": 0.5},
    "zoneout": {"zoneout": 0.5},
    "engine": {"engine": "loop"},
    "precision": {"precision": "bf16"},  # tf32 is the device's affair: test_machine.py
}


def outcome(cell="basic", **options):
    """The initial weights and the logits while training, in one vector."""
    torch.manual_seed(0)
    grid = Grid(STEPS, INPUT)
    model = SequenceClassifier(CELLS[cell](hidden_size=HIDDEN), INPUT, CLASSES, Stack(**options), grid=grid)
    logits_BK = model(torch.randn(BATCH, STEPS, INPUT))
    return torch.cat([t.detach().flatten() for t in (*model.parameters(), logits_BK)])


@pytest.mark.parametrize("option", [f.name for f in fields(Stack) if f.name != "engine"])
def test_every_option_of_the_stack_changes_the_module(option):
    changed = ALTERNATIVES[option]
    usual = {name: value for name, value in changed.items() if name != option}
    assert not torch.equal(outcome(layers=2, **usual), outcome(**{"layers": 2, **changed}))


@pytest.mark.parametrize("engine", ["loop", "scan", "fft"])
def test_the_engine_that_is_chosen_is_the_one_that_runs(engine, monkeypatch):
    used = []
    monkeypatch.setattr("rnnclf.engine.unrolling.ENGINES", _Noting(used))
    outcome("s4d", engine=engine)
    assert used == [engine]


class _Noting(dict):
    """Stands for the registry of engines and notes what is asked of it."""

    def __init__(self, used):
        from rnnclf.engine.choose import ENGINES

        super().__init__(ENGINES.items())
        self.used = used

    def __getitem__(self, name):
        self.used.append(name)
        return super().__getitem__(name)


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
    with pytest.raises(ConfigError, match=r"readout must be .*, got 'maen'\. Did you mean 'mean'\?"):
        classifier("basic", readout="maen")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "lstm",
            {"engine": "scan"},
            "engine=scan cannot run cell=lstm, only machine or native or fused or loop can",
        ),
        ("mingru", {"engine": "fft"}, "engine=fft cannot run cell=mingru, only machine or scan or loop can"),
        ("mingru", {"recurrent_dropout": 0.1}, "recurrent_dropout drops single recurrent weights"),
        ("mingru", {"zoneout": 0.1}, "zoneout lets single elements of the state"),
        ("slstm", {"zoneout": 0.1}, "cell=slstm does not support that"),
        (
            "gru",
            {"engine": "fused", "precision": "bf16"},
            "engine=fused computes in float32 only: with precision=bf16 use engine=native or loop or",
        ),
        ("basic", {"engine": "machine", "precision": "bf16"}, "engine=machine computes in float32 only"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(name, options, message):
    with pytest.raises(ConfigError, match=message):
        classifier(name, **options)


@pytest.mark.parametrize("name", CELLS.names())
@pytest.mark.parametrize(
    "options",
    [
        {"residual": True, "norm": "layer", "layers": 3, "readout": "attention"},
        {
            "norm": "batch",
            "layers": 2,
            "bidirectional": True,
            "readout_layers": "all",
            "residual": True,
            "dropout": 0.3,
            "input_dropout": 0.2,
            "variational": True,
        },
        {"recurrent_dropout": 0.3},
        {"zoneout": 0.3},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_cell_works_with_every_option_or_is_refused_in_words(name, options):
    torch.manual_seed(0)
    cell, stack = CELLS[name](hidden_size=8), Stack(**options)
    if ("zoneout" in options and not cell.zoneout) or (
        "recurrent_dropout" in options and not cell.recurrent_weights
    ):
        with pytest.raises(ConfigError, match=f"cell={name} "):
            SequenceClassifier(cell, INPUT, CLASSES, stack)
        return
    model = SequenceClassifier(cell, INPUT, CLASSES, stack)
    logits_BK = model(torch.randn(BATCH, STEPS, INPUT), torch.tensor(LENGTHS))
    functional.cross_entropy(logits_BK, torch.arange(BATCH) % CLASSES).backward()
    assert torch.isfinite(logits_BK).all()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "lengths_B"),
    [(name, None) for name in CELLS.names()] + [(name, torch.tensor(LENGTHS)) for name in OF_EACH_KIND],
)
def test_bf16_is_near_float32_or_refused_in_words(name, lengths_B):
    models = [
        classifier(name, layers=2, readout="mean", precision=kind).float() for kind in ("float32", "bf16")
    ]
    x_BTI, y_B = random_input().float(), torch.arange(BATCH) % CLASSES
    if name in NOT_ROUNDED:
        with pytest.raises(ConfigError, match=f"precision=bf16 does not work with cell={name} here"):
            models[1](x_BTI, lengths_B)
        return
    for model in models:
        model.load_state_dict(models[0].state_dict())
        logits_BK = model(x_BTI, lengths_B)
        assert logits_BK.dtype == torch.float32
        functional.cross_entropy(logits_BK, y_B).backward()
    exact, rounded = (torch.cat([w.grad.flatten() for w in model.parameters()]) for model in models)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() < 0.3 * exact.norm()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["basic", "lstm", "gru"])
def test_zoneout_goes_with_bf16(name, training):
    models = [
        classifier(name, zoneout=0.2, precision=kind).float().train(training) for kind in ("float32", "bf16")
    ]
    models[1].load_state_dict(models[0].state_dict())
    logits = []
    for model in models:
        torch.manual_seed(3)
        logits.append(model(random_input().float()))
    torch.testing.assert_close(*logits, rtol=0.05, atol=0.05)
    assert not torch.equal(*logits)


def test_auto_takes_an_engine_that_knows_bf16():
    for name, device, ragged in product(CELLS.names(), ("cpu", "cuda"), (False, True)):
        engine = choose(CELLS[name](), device, ragged=ragged, bf16=True)
        assert engine not in ("fused", "machine"), (name, device, ragged)


@pytest.mark.parametrize(
    ("stack", "engines"),
    [
        (Stack(readout="last"), {"fft"}),
        (Stack(readout="mean"), {"machine"}),
        (Stack(readout="last", layers=2), {"machine", "fft"}),
    ],
)
def test_the_engine_of_a_layer_depends_on_which_of_its_outputs_are_read(stack, engines):
    model = SequenceClassifier(CELLS["lru"](hidden_size=4), 3, 2, stack)
    assert model.engines("cpu") == engines
