"""What diagnose=true says of gradients, weights and units is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rnnclf.cells import CELLS
from rnnclf.data.dataset import padded_dataset
from rnnclf.diagnosis import Figure, diagnose, measure, radii, spectral_radius
from rnnclf.model import SequenceClassifier
from tests.diagnosed import B, K, T, batch, built, radius

LENGTHS = torch.tensor([9, 4, 1, 7, 9])


def of(
    figures: list[Figure], quantity: str, layer: int = 1, direction: str = "forward"
) -> dict[object, float]:
    return {
        figure.part or figure.step: figure.value
        for figure in figures
        if (figure.quantity, figure.layer, figure.direction) == (quantity, layer, direction)
    }


def weights(model: SequenceClassifier, layer: int = 0, direction: str = "forward") -> dict[str, np.ndarray]:
    module = model.layers[layer].directions[f"{direction}_cell"]
    return {name: weight.detach().numpy() for name, weight in module.named_parameters()}


# The gradient by time step, against other ways to get it


def test_the_gradient_of_a_basic_cell_is_the_product_of_its_jacobians():
    model, (x_BTI, y_B) = built(CELLS["basic"](hidden_size=6)), batch()
    w = weights(model)
    head = model.head.weight.detach().numpy()
    norms = np.zeros((T, B))
    for b in range(B):
        h, states = np.zeros(6), []
        for x in x_BTI[b].numpy():
            h = np.tanh(w["input_weight"] @ x + w["recurrent_weight"] @ h + w["bias"])
            states.append(h)
        p = np.exp(head @ h)
        gradient = head.T @ (p / p.sum() - np.eye(K)[y_B[b]])
        for t in reversed(range(T)):
            norms[t, b] = np.linalg.norm(gradient)
            jacobian = np.diag(1 - states[t] ** 2) @ w["recurrent_weight"]
            gradient = jacobian.T @ gradient
    found = of(measure(model, x_BTI, y_B, None, cross_entropy), "gradient")
    assert list(found) == list(range(1, T + 1))
    np.testing.assert_allclose(list(found.values()), norms.mean(axis=1), rtol=1e-10)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_adds_what_each_step_gives_the_layer_above_to_what_later_steps_hand_back(layer, lengths):
    """d_t from autograd for the outputs alone; the way back through time by hand."""
    options = {"layers": 2, "bidirectional": True, "readout": "mean"}
    model, (x_BTI, y_B) = built(CELLS["basic"](hidden_size=6), **options), batch()
    outputs: list[Tensor] = []
    model.layers[layer].register_forward_hook(lambda module, given, y: outputs.extend(y))
    loss = cross_entropy(model(x_BTI, lengths), y_B, reduction="sum")
    direct = torch.autograd.grad(loss, outputs)
    expected = {}
    for direction, y_TBH, d_TBH in zip(("forward", "backward"), outputs, direct, strict=True):
        recurrent = weights(model, layer, direction)["recurrent_weight"]
        norms: list[list[float]] = [[] for _ in range(T)]
        for b in range(B):
            n = T if lengths is None else int(lengths[b])
            y, d = y_TBH[:n, b].detach().numpy(), d_TBH[:n, b].numpy()
            gradient = np.zeros(6)
            for t in reversed(range(n)):
                gradient = gradient + d[t]
                norms[T - n + t].append(float(np.linalg.norm(gradient)))
                gradient = recurrent.T @ (gradient * (1 - y[t] ** 2))
        expected[direction] = [np.mean(step) for step in norms]
    figures = measure(built(CELLS["basic"](hidden_size=6), **options), x_BTI, y_B, lengths, cross_entropy)
    for direction, norms_T in expected.items():
        found = of(figures, "gradient", layer + 1, direction)
        np.testing.assert_allclose(list(found.values()), norms_T, rtol=1e-10)


@pytest.mark.parametrize("name", ["gru", "indrnn", "fastgrnn", "mingru"])
def test_the_gradient_is_what_a_nudge_to_the_state_does_to_the_loss(name):
    """Cells whose state is their output, by central differences."""
    model, (x_BTI, y_B) = built(CELLS[name](hidden_size=3)), batch()
    module = model.layers[0].directions["forward_cell"]
    p = module.prepared()
    z_TB = module.cell.inputs(p, x_BTI.transpose(0, 1))

    @torch.no_grad()
    def losses(nudged: int, nudge_H: Tensor) -> Tensor:
        state = module.initial_state(x_BTI[:, 0])
        for t in range(T):
            _, state = module.cell.step(p, z_TB[t], state)
            if t == nudged:
                state = state + nudge_H
        return cross_entropy(model.head(state), y_B, reduction="none")

    nudges = 1e-6 * torch.eye(3, dtype=torch.float64)
    norms_T = []
    for t in range(T):
        slopes = [(losses(t, nudge) - losses(t, -nudge)) / 2e-6 for nudge in nudges]
        norms_T.append(torch.stack(slopes).norm(dim=0).mean().item())
    found = of(measure(model, x_BTI, y_B, None, cross_entropy), "gradient")
    np.testing.assert_allclose(list(found.values()), norms_T, rtol=1e-6)


def test_the_gradient_of_an_lstm_counts_its_memory():
    """Central differences once more; a nudge to c_t reaches h_t, too."""
    model, (x_BTI, y_B) = built(CELLS["lstm"](hidden_size=3)), batch()
    p = model.layers[0].directions["forward_cell"].prepared()

    @torch.no_grad()
    def losses(nudged: int, memory: bool, nudge_H: Tensor) -> Tensor:
        h = c = torch.zeros(B, 3, dtype=torch.float64)
        for t in range(T):
            a = x_BTI[:, t] @ p.input_weight.t() + h @ p.recurrent_weight.t() + p.bias
            i, f, g, o = a.chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh() + (nudge_H if memory and t == nudged else 0)
            h = o.sigmoid() * c.tanh() + (nudge_H if not memory and t == nudged else 0)
        return cross_entropy(model.head(h), y_B, reduction="none")

    nudges = 1e-6 * torch.eye(3, dtype=torch.float64)
    norms_T = []
    for t in range(T):
        slopes = [
            (losses(t, memory, nudge) - losses(t, memory, -nudge)) / 2e-6
            for memory in (False, True)
            for nudge in nudges
        ]
        norms_T.append(torch.stack(slopes).norm(dim=0).mean().item())
    found = of(measure(model, x_BTI, y_B, None, cross_entropy), "gradient")
    np.testing.assert_allclose(list(found.values()), norms_T, rtol=1e-6)


def test_gradients_far_below_the_squares_of_float32_are_told():
    model, (x_BTI, y_B) = built(CELLS["basic"](hidden_size=6)).float(), batch()
    with torch.no_grad():
        model.layers[0].directions["forward_cell"].recurrent_weight.mul_(1e-4)
    found = of(measure(model, x_BTI.float(), y_B, None, cross_entropy), "gradient")
    assert 1e-38 < found[1] < 1e-30


@pytest.mark.parametrize("name", CELLS.names())
def test_every_cell_is_diagnosed(name):
    model, (x_BTI, y_B) = built(CELLS[name](hidden_size=6), layers=2, bidirectional=True), batch()
    figures = measure(model, x_BTI, y_B, LENGTHS, cross_entropy)
    for layer, direction in [(1, "forward"), (1, "backward"), (2, "forward"), (2, "backward")]:
        gradient = of(figures, "gradient", layer, direction)
        assert list(gradient) == list(range(1, T + 1))
        assert all(0 <= value < np.inf for value in gradient.values())
        assert all(gradient.values()) or name == "irnn"  # whose units may be dead in some sequences
        assert all(0 <= value < 100 for value in of(figures, "radius", layer, direction).values())
        assert all(0 <= value <= 1 for value in of(figures, "saturation", layer, direction).values())
    inputs_alone = {"mingru", "minlstm", "sru", "qrnn", "rglru", "mamba"}
    assert (not of(figures, "radius")) == (name in inputs_alone | {"cfc"})
    neither = {"irnn", "indrnn", "exprnn", "lru", "s4d", "linoss", "mamba"}
    assert (not of(figures, "saturation")) == (name in neither)


def test_each_gate_has_the_radius_of_its_block():
    model = built(CELLS["lstm"](hidden_size=6, recurrent_init="glorot"))
    blocks = np.split(weights(model)["recurrent_weight"], 4)
    expected = dict(zip("ifgo", map(radius, blocks), strict=True))
    assert radii(model.layers[0].directions["forward_cell"]) == pytest.approx(expected)


def test_the_radius_of_heads_is_that_of_the_block_diagonal_matrix():
    model = built(CELLS["slstm"](hidden_size=6, heads=3, recurrent_init="glorot"))
    expected = {}
    for gate, rows in zip("ifgo", np.split(weights(model)["recurrent_weight"], 4), strict=True):
        whole = np.zeros((6, 6))
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            whole[part, part] = rows[part]
        expected[gate] = radius(whole)
    assert radii(model.layers[0].directions["forward_cell"]) == pytest.approx(expected)


def test_weights_in_other_forms_have_their_radius_too():
    def found(name: str, **options: object) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        model = built(CELLS[name](hidden_size=6, **options))
        return radii(model.layers[0].directions["forward_cell"]), weights(model)

    lem, w = found("lem")
    blocks = [*np.split(w["recurrent_weight"], 3), w["memory_weight"]]
    assert lem == pytest.approx(dict(zip("pqzy", map(radius, blocks), strict=True)))
    indrnn, w = found("indrnn", max_steps=2)
    assert indrnn == pytest.approx({"recurrent": np.abs(w["recurrent_weight"]).max()})
    antisym, w = found("antisym", gamma=0.25)
    upper = np.zeros((6, 6))
    upper[np.triu_indices(6, 1)] = w["skew_weight"]
    assert antisym == pytest.approx({"flow": radius(upper - upper.T - 0.25 * np.eye(6))})
    assert found("exprnn")[0] == pytest.approx({"recurrent": 1})
    lru, w = found("lru")
    assert lru == pytest.approx({"transition": np.exp(-np.exp(w["log_decay"])).max()})
    linoss, w = found("linoss", discretization="implicit")
    a, dt = np.maximum(w["stiffness"], 0), 1 / (1 + np.exp(-w["timestep"]))
    assert linoss == pytest.approx({"transition": (1 / np.sqrt(1 + dt * dt * a)).max()})


def test_weights_that_are_lost_have_no_radius():
    assert np.isnan(spectral_radius(torch.full((2, 2), torch.inf)))


# Saturation


def test_saturation_counts_the_numbers_that_are_nearly_flat_at_valid_steps():
    model, (x_BTI, y_B) = built(CELLS["lstm"](hidden_size=6)), batch(scale=4)
    w = weights(model)
    seen = {"tanh": 0, "sigmoid": 0}
    flat = {"tanh": 0, "sigmoid": 0}

    def squashed(name: str, a: np.ndarray) -> np.ndarray:
        y = np.tanh(a) if name == "tanh" else 1 / (1 + np.exp(-a))
        seen[name] += y.size
        low, high = (-np.sqrt(0.9), np.sqrt(0.9)) if name == "tanh" else (0.0256584, 0.9743416)
        flat[name] += int(((y < low) | (y > high)).sum())
        return y

    for b in range(B):
        h = c = np.zeros(6)
        for x in x_BTI[b, : LENGTHS[b]].numpy():
            a = w["input_weight"] @ x + w["recurrent_weight"] @ h + w["bias"]
            i, f, g, o = np.split(a, 4)
            c = squashed("sigmoid", f) * c + squashed("sigmoid", i) * squashed("tanh", g)
            h = squashed("sigmoid", o) * squashed("tanh", c)
    expected = {name: flat[name] / seen[name] for name in seen}
    assert min(expected.values()) > 0
    found = of(measure(model, x_BTI, y_B, LENGTHS, cross_entropy), "saturation")
    assert found == pytest.approx(expected)


def test_the_model_and_the_random_generator_stay_as_they_were():
    model, (x_BTI, y_B) = built(CELLS["gru"](hidden_size=6), zoneout=0.1, engine="auto").float(), batch()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    cell, random = model.layers[0].directions["forward_cell"].cell, torch.get_rng_state()

    def noisy_loss(logits_BK: Tensor, y_B: Tensor) -> Tensor:
        return cross_entropy(logits_BK + torch.rand_like(logits_BK), y_B)

    data = padded_dataset(x_BTI.float(), y_B, tuple("abcd"), LENGTHS)
    first = diagnose(model, data, noisy_loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert first == diagnose(model, data, noisy_loss)
    assert model.training
    assert model.layers[0].directions["forward_cell"].cell is cell
    assert "step" not in vars(cell)
    assert model.layers[0].stack.engine == "auto"
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
