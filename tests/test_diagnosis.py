"""What diagnose=true says of gradients, weights and units: right, harmless, and put into words."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rnnclf import checkpoint
from rnnclf.cells import CELLS, Cell
from rnnclf.console.diagnosis import plot_lines, show_diagnosis
from rnnclf.data.dataset import sequences
from rnnclf.diagnosis import Figure, diagnose, measure, radii, spectral_radius
from rnnclf.hydra_app import load_config
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.workflows.diagnosis import COLUMNS, Diagnosis, in_words, read_diagnosis, record_diagnosis
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher, train

B, T, K = 5, 9, 4
INPUTS = 3
LENGTHS = torch.tensor([9, 4, 1, 7, 9])
SMALL = ["dataset=digits", "dataset.validation=30", "dataset.test=1500", "hidden=4", "threads=1"]


def built(cell: Cell, **stack: object) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(cell, INPUTS, K, Stack(**stack)).double()  # type: ignore[arg-type]


def batch(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return scale * torch.randn(B, T, INPUTS, dtype=torch.float64), torch.arange(B) % K


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


# The spectral radius


def radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


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


# A run is what it would be without


@pytest.mark.long
def test_a_diagnosed_run_trains_bit_for_bit_like_one_that_is_not(tmp_path):
    words = ["cell=lstm", "layers=2", "dropout=0.3", "recurrent_dropout=0.3", "epochs=2", "augment=image"]
    tensors = {}
    for diagnosed in ("false", "true"):
        folder = RunFolder(tmp_path / diagnosed)
        folder.path.mkdir()
        train(load_config([*SMALL, *words, f"diagnose={diagnosed}"]), folder)
        assert folder.diagnosis.exists() == (diagnosed == "true")
        rows = [row.rpartition(",")[0] for row in folder.epochs.read_text().splitlines()]
        tensors[diagnosed] = (rows, checkpoint.load(folder.last).tensors)
        del tensors[diagnosed][1]["epochs"]  # the rows once more, with their seconds
    (rows, before), (rows_too, after) = tensors.values()
    assert rows == rows_too
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_model_and_the_random_generator_stay_as_they_were():
    model, (x_BTI, y_B) = built(CELLS["gru"](hidden_size=6), zoneout=0.1, engine="auto").float(), batch()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    cell, random = model.layers[0].directions["forward_cell"].cell, torch.get_rng_state()

    def noisy_loss(logits_BK: Tensor, y_B: Tensor) -> Tensor:
        return cross_entropy(logits_BK + torch.rand_like(logits_BK), y_B)

    data = sequences(x_BTI.float(), y_B, tuple("abcd"), LENGTHS)
    first = diagnose(model, data, noisy_loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert first == diagnose(model, data, noisy_loss)
    assert model.training
    assert model.layers[0].directions["forward_cell"].cell is cell
    assert "step" not in vars(cell)
    assert model.layers[0].stack.engine == "auto"
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


# The file


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


class Stopped(Watcher):
    """Ctrl-C between the first and the last batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch_to_stop = epoch

    def batch(self, progress):
        if progress.epoch == self.epoch_to_stop and progress.seen > progress.of / 2:
            raise KeyboardInterrupt


@pytest.mark.long
def test_a_resumed_run_has_the_file_of_one_that_was_not_interrupted(tmp_path):
    config = load_config([*SMALL, "batch_size=20", "epochs=3", "bidirectional=true", "diagnose=true"])
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    for folder in (whole, parts):
        folder.path.mkdir()
    report = train(config, whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, parts, Stopped(3))
    assert {row["epoch"] for row in rows_of(parts.diagnosis)} == {"1", "2"}
    leftover = "3,1,forward,gradient,,1,0.5\n4,1,forward,gradient,,1,0.5\n5,1,forw"
    parts.diagnosis.write_text(parts.diagnosis.read_text() + leftover)
    resumed = resume_run(parts)
    assert parts.diagnosis.read_bytes() == whole.diagnosis.read_bytes()
    rows = rows_of(whole.diagnosis)
    assert tuple(rows[0]) == COLUMNS == ("epoch", "layer", "direction", "quantity", "part", "step", "value")
    steps = [(row["direction"], row["step"]) for row in rows if row["quantity"] == "gradient"]
    walks = [(direction, str(t)) for direction in ("forward", "backward") for t in range(1, 9)]
    assert steps == 3 * walks
    assert resumed is not None
    assert resumed.diagnosis == report.diagnosis
    assert report.diagnosis is not None
    assert report.diagnosis.epoch == 3


@pytest.mark.long
def test_a_file_without_a_whole_row_gives_no_diagnosis(tmp_path):
    path = tmp_path / "diagnosis.csv"
    assert read_diagnosis(path, load_config([])) is None
    for text in (
        b"",
        b"\xff\x00",
        b"1,1,forward,gradient,,1,abc\n",
        b"9" * 5000 + b",1,forward,gradient,,1,1\n",
    ):
        path.write_bytes(text)
        assert read_diagnosis(path, load_config([])) is None


def test_odd_numbers_survive_the_file(tmp_path, monkeypatch):
    odd = [Figure(1, "forward", "gradient", "", t + 1, v) for t, v in enumerate([np.inf, 0.0, 1e-30])]
    odd.append(Figure(1, "forward", "radius", "h", None, np.nan))
    monkeypatch.setattr("rnnclf.workflows.diagnosis.diagnose", lambda *_: odd)
    training = type("T", (), {"model": None, "recipe": type("R", (), {"loss": None})})
    record_diagnosis(tmp_path / "d.csv", 1, training, None)  # type: ignore[arg-type]
    found = read_diagnosis(tmp_path / "d.csv", load_config([]))
    assert found is not None
    assert str(list(found.figures)) == str(odd)


# In words


def made(
    gradient: list[float], saturation: float | None = 0.02, part: str = "tanh", layer: int = 1
) -> list[Figure]:
    figures = [Figure(layer, "forward", "gradient", "", t + 1, value) for t, value in enumerate(gradient)]
    if saturation is not None:
        figures.append(Figure(layer, "forward", "saturation", part, None, saturation))
    return figures


def words(figures: list[Figure], *line: str) -> tuple[str, str]:
    return in_words(tuple(figures), load_config(list(line)))


FALLING = [1e-8, 1e-6, 1e-4, 1e-2, 1.0]


@pytest.mark.long
def test_vanishing_gradients_are_told_with_what_might_help():
    first, second = words(made(FALLING))
    assert first == (
        "The gradient of the first of 5 steps is 1e-08 of that of the last, and below a thousandth of it up"
        " to step 3: what happened early cannot be learned."
    )
    assert second == "Try cell=lstm, cell=gru or readout=mean."
    assert (
        "is 1e-05 of that of the last: what happened early is hardly learned." in words(made([1e-5, 1.0]))[0]
    )
    assert "is 0 beside that of the last: what happened early cannot be" in words(made([0.0, 1.0]))[0]


@pytest.mark.long
def test_what_is_tried_already_is_not_advised():
    assert words(made(FALLING), "cell=lstm")[1] == "Try cell.chrono=5, cell=lem, cell=lru or readout=mean."
    assert words(made(FALLING), "cell=lstm", "cell.chrono=9")[1] == "Try cell=lem, cell=lru or readout=mean."
    assert words(made(FALLING), "cell=lem", "readout=max")[1] == "Try cell=lru."


@pytest.mark.long
def test_exploding_gradients_are_told_with_what_might_help():
    first, second = words(made([5e4, 1.0, 2.0]), "clip=null", "cell.recurrent_init=glorot")
    assert first == (
        "The gradient of the first of 3 steps is 2.5e+04 times that of the last: what happened early"
        " outshouts all that follows."
    )
    rate = "a smaller learning rate (optimizer.lr is 0.002)"
    assert second == f"Try clip=1, cell.recurrent_init=orthogonal, cell=lstm, cell=gru or {rate}."
    assert words(made([1e9, 1.0]), "cell=gru")[1] == f"Try {rate}."
    assert "inf times" in words(made([np.inf, 1.0]))[0]


def test_a_healthy_net_is_told_so():
    first, second = words(made([0.2, 0.1, 0.4]))
    assert first.endswith("first of 3 steps is 0.5 of that of the last: what happened early can be learned.")
    assert second == "Nothing is stuck: at most 2.0 % of the results of tanh are saturated."
    assert "no tanh or sigmoid" in words(made([0.2, 0.4], None))[1]


@pytest.mark.long
def test_saturation_is_told_with_what_might_help():
    second = words(made(FALLING, 0.625), "dataset.normalise=none")[1]
    assert second == (
        "62.5 % of the results of tanh in layer 1 are near -1 or 1, where hardly a gradient passes: try a"
        " smaller learning rate (optimizer.lr is 0.002) or dataset.normalise=standard."
    )
    assert "0 or 1" in words(made([1.0], 0.95, "sigmoid"))[1]
    assert "Nothing is stuck" in words(made([1.0], 0.85, "sigmoid"))[1]


def test_dead_units_are_told():
    assert words(made([0.0, 0.0]))[0].startswith("The states get no gradient")


def test_of_several_layers_the_worst_is_told():
    figures = made([0.5, 1.0]) + made(FALLING, layer=2) + made([50.0, 1.0], layer=3)
    assert "of 5 steps in layer 2 is 1e-08" in words(figures)[0]


@pytest.mark.long
@pytest.mark.parametrize("name", ["basic", "lstm"])
def test_what_is_advised_composes(name):
    line = [f"cell={name}", "clip=null"]
    config = load_config(line)
    cases = [made(g, s) for g in (FALLING, FALLING[::-1]) for s in (0.1, 0.9)]
    advice = " ".join(in_words(tuple(case), config)[1] for case in cases)
    found = re.findall(r"[\w.]+=\w+", advice)
    assert found
    for word in set(found):
        assert load_config([*line, word])


# On the screen


def test_the_plot_leaves_out_what_is_too_small_to_matter():
    lines = list(plot_lines([0.0, 1e-300, 1e-12, 1.0], 80))
    assert lines[6].startswith("   1e-12 │    ▁▁▁▁▁▁▁▁████")


def test_the_plot_is_logarithmic():
    lines = list(plot_lines([1e-3, 1e-2, 1e-1, 1e0], 80))
    assert len(lines) == 8
    heights = [
        sum(line[10 + column : 11 + column] not in ("", " ") for line in lines[:-1])
        for column in (0, 4, 8, 12)
    ]
    assert heights == [1, 3, 5, 7]
    assert lines[0].startswith("    1e+0 │")
    assert lines[6].startswith("    1e-3 │")
    assert lines[7].split() == ["step", "1", "4"]


@pytest.mark.parametrize("steps", [1, 2, 28, 71, 784])
@pytest.mark.parametrize("values", [[1e-30, 1.0], [0.0], [np.inf, np.nan]])
def test_the_plot_fits(steps, values):
    lines = list(plot_lines((values * steps)[:steps], 80))
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith(str(steps))


@pytest.mark.parametrize("name", ["lstm", "slstm", "cfc"])
def test_the_picture_fits(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    model, (x_BTI, y_B) = built(CELLS[name](hidden_size=6), layers=2, bidirectional=True), batch()
    figures = tuple(measure(model, x_BTI, y_B, None, cross_entropy))
    show_diagnosis(Diagnosis(3, figures, in_words(figures, load_config([f"cell={name}"]))))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("layer 1 forward") >= 1
    assert ("—" in shown) == (name == "cfc")


@pytest.mark.long
def test_a_run_ends_with_its_diagnosis(cli, only_run):
    done = cli("train", *SMALL, "epochs=1", "diagnose=true")
    assert done.exit_code == 0, done.output
    assert "gradient by time step, epoch 1" in done.stdout
    assert "The gradient of the first of 8 steps is" in done.stdout
    assert {row["epoch"] for row in rows_of(only_run() / "diagnosis.csv")} == {"1"}


@pytest.mark.long
def test_a_sweep_writes_its_diagnoses_and_shows_none(cli, tmp_path):
    done = cli("train", "-m", *SMALL, "epochs=1", "diagnose=true", "seed=0,1")
    assert done.exit_code == 0, done.output
    assert "time step" not in done.stdout
    assert len(list(tmp_path.glob("outputs/*/*/*/diagnosis.csv"))) == 2
