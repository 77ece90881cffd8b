"""The sequence classifier: layers, directions, readouts, padding, dropout."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rnnclf.cells import CELLS, Parameters
from rnnclf.engine.choose import choose
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier, reversed_in_time, zoneout
from rnnclf.readout import READOUTS
from rnnclf.stack import Stack

BATCH, STEPS, INPUT, HIDDEN, CLASSES = 4, 6, 3, 5, 4
LENGTHS = (1, 4, STEPS, 3)
TORCH_LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

# one of each kind: a loop, a state of two parts, a scan, a convolution; test_cells.py has all
each_cell = pytest.mark.parametrize("name", ["basic", "lstm", "mingru", "s4d"])
each_readout = pytest.mark.parametrize("readout", READOUTS.names())
each_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
each_depth = pytest.mark.parametrize("layers", [1, 2])


def classifier(name, **options):
    """In float64, with biases that are not zero either."""
    torch.manual_seed(0)
    cell = CELLS[name](hidden_size=HIDDEN)
    model = SequenceClassifier(cell, INPUT, CLASSES, Stack(**options)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.4 * torch.randn_like(weight)
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
@pytest.mark.parametrize("readout", ["last", "mean", "max"])
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
    cell = CELLS[name](hidden_size=HIDDEN)
    cells = sum(eval(cell.formula, {}, {**vars(cell), "n": n, "h": HIDDEN}) for n in sizes) * directions
    assert model.parameter_count() == cells + width * CLASSES + CLASSES


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
    "layers": {"layers": 3},
    "bidirectional": {"bidirectional": True},
    "residual": {"residual": True},
    "norm": {"norm": "batch"},
    "readout": {"readout": "mean"},
    "readout_layers": {"readout_layers": "all"},
    "dropout": {"dropout": 0.5},
    "variational": {"dropout": 0.5, "variational": True},
    "recurrent_dropout": {"recurrent_dropout": 0.5},
    "zoneout": {"zoneout": 0.5},
    "engine": {"engine": "loop"},
    "precision": {"precision": "bf16"},  # tf32 is the device's affair: test_machine.py
}


def outcome(cell="basic", **options):
    """The initial weights and the logits while training, in one vector."""
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS[cell](hidden_size=HIDDEN), INPUT, CLASSES, Stack(**options))
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
            "engine=scan cannot run cell=lstm, only compiled or native or fused or loop can",
        ),
        ("mingru", {"engine": "fft"}, "engine=fft cannot run cell=mingru, only scan or loop can"),
        ("mingru", {"recurrent_dropout": 0.1}, "recurrent_dropout drops single weights"),
        ("mingru", {"zoneout": 0.1}, "zoneout lets single numbers of the state"),
        ("slstm", {"zoneout": 0.1}, "cell=slstm does not allow that"),
        (
            "gru",
            {"engine": "fused", "precision": "bf16"},
            "engine=fused computes in float32 only: with precision=bf16 use engine=native or loop or",
        ),
        ("basic", {"engine": "compiled", "precision": "bf16"}, "engine=compiled computes in float32 only"),
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
        {"norm": "batch", "layers": 2, "bidirectional": True, "readout_layers": "all", "residual": True},
        {"dropout": 0.3, "variational": True, "layers": 2},
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


# Precision


NOT_ROUNDED = ("lem", "lmu", "esn", "lru", "s5")  # torch has no operation for types mixed as there


@pytest.mark.parametrize("lengths_B", [None, torch.tensor(LENGTHS)], ids=["whole", "ragged"])
@pytest.mark.parametrize("name", CELLS.names())
def test_bf16_is_near_float32_or_refused_in_words(name, lengths_B):
    models = [
        classifier(name, layers=2, readout="mean", precision=kind).float() for kind in ("float32", "bf16")
    ]
    x_BTI, y_B = random_input().float(), torch.arange(BATCH) % CLASSES
    if name in NOT_ROUNDED:
        with pytest.raises(ConfigError, match=f"precision=bf16 does not go with cell={name} here"):
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


@pytest.mark.parametrize("name", CELLS.names())
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("ragged", [False, True])
def test_auto_takes_an_engine_that_knows_bf16(name, device, ragged):
    assert choose(CELLS[name](), device, ragged=ragged, bf16=True) not in ("fused", "compiled")


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
