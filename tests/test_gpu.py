"""What only a GPU can show: engines against the CPU's loop, recorded steps, epochs without waiting."""

from dataclasses import replace

import pytest
import torch

from rnnclf.cells import CELLS
from rnnclf.engine.choose import engines_on
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError, DivergedError
from rnnclf.optim import OPTIMIZERS, SGD, Adam, Constant, OneCycle
from rnnclf.training import epoch as epoch_steps
from rnnclf.training.evaluation import evaluate_model
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Training
from rnnclf.workflows.bench import bench
from tests.classifiers import NOT_ROUNDED
from tests.training.small import classifier, sequences, without_seconds
from tests.workflows.small_bench import small

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    # the cache of compiled kernels is looked for in a test's own empty folder
    pytest.mark.filterwarnings("ignore:Specified kernel cache directory"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]

HIDDEN = 24
HALTING = [name for name in CELLS.names() if not CELLS[name].capturable]


@pytest.fixture(autouse=True)
def _exact_products():
    """cuDNN's recurrent layers would take TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# Engines


def outputs_and_gradients(module, x_TBI, lengths_B, engine, every_step):
    """On the CPU, by name."""
    module.zero_grad()
    x_TBI = x_TBI.clone().requires_grad_()
    y, _ = unroll(module, x_TBI, lengths_B=lengths_B, engine=engine, every_step=every_step)
    (y * torch.linspace(-1, 1, y.shape[-1], device=y.device)).sum().backward()
    gradients = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    found = {"outputs": y.detach(), "inputs": x_TBI.grad, **gradients}
    return {name: value.to("cpu", copy=True) for name, value in found.items()}


def assert_near(found, expected, relative):
    """Relative to the largest number of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = ((found[name] - value).abs().max() / value.abs().max()).item()
        assert off <= relative, f"{name} is off by {off:.1e}"


ENGINES_OF_A_GPU = [(name, engine) for name in CELLS.names() for engine in engines_on("cuda", CELLS[name]())]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("name", "engine"), ENGINES_OF_A_GPU)
def test_each_engine_gives_what_the_loop_gives_on_a_cpu(name, engine, ragged):
    torch.manual_seed(0)
    module = CELLS[name](hidden_size=HIDDEN).build(5).double()
    x_TBI = torch.randn(11, 7, 5, dtype=torch.float64)
    lengths_B = torch.randint(1, 12, (7,)) if ragged else None
    for every_step in (True, False):
        expected = outputs_and_gradients(module.cpu(), x_TBI, lengths_B, "loop", every_step)
        there = None if lengths_B is None else lengths_B.cuda()
        found = outputs_and_gradients(module.cuda(), x_TBI.cuda(), there, engine, every_step)
        assert_near(found, expected, 1e-10)


@pytest.mark.parametrize("batch", [7, 150])
@pytest.mark.parametrize("hidden", [128, 150, 300])
@pytest.mark.parametrize("name", ["basic", "irnn", "lstm", "gru"])
def test_cudnn_gives_what_the_loop_gives_in_float32(name, hidden, batch):
    torch.manual_seed(0)
    module = CELLS[name](hidden_size=hidden).build(28)
    x_TBI = torch.rand(28, batch, 28)
    expected = outputs_and_gradients(module, x_TBI, None, "loop", False)
    found = outputs_and_gradients(module.cuda(), x_TBI.cuda(), None, "native", False)
    assert_near(found, expected, 5e-5)  # its tanh is off by 2e-5


@pytest.mark.parametrize("name", sorted(set(CELLS.names()) - set(NOT_ROUNDED)))
def test_logits_with_products_in_bf16_are_near_those_without(name):
    exact, rough = (classifier(name, hidden=HIDDEN, precision=kind).cuda() for kind in ("float32", "bf16"))
    x_BTI = torch.randn(50, 20, 2, device="cuda")
    found = rough(x_BTI)
    assert found.dtype == torch.float32
    assert_near({"logits": found}, {"logits": exact(x_BTI)}, 0.1)


@pytest.mark.parametrize("name", ["basic", "lstm", "gru"])
def test_scores_are_those_of_a_cpu(name):
    model, data = classifier(name, hidden=HIDDEN), sequences(count=500)
    expected = evaluate_model(model, data)
    found = evaluate_model(model.cuda(), data.to(torch.device("cuda")))
    assert found.counts == expected.counts
    assert found.score.loss == pytest.approx(expected.score.loss, rel=1e-5)


# Training


def recipe(**changes):
    adam = {"optimizer": Adam(lr=0.01), "schedule": OneCycle()}
    return Recipe(**{"epochs": 3, "batch_size": 8, "clip": 1.0, **adam, **changes})


def outcome(made, name="basic", count=60, **options):
    """All results, the weights that are left, and whether a step was recorded."""
    data = sequences(count).to(torch.device("cuda"))
    run = Training(classifier(name, hidden=HIDDEN, **options).cuda(), made)
    torch.manual_seed(1)
    results = without_seconds(list(fit(run, data, data)))
    return results, [weight.detach().cpu() for weight in run.model.parameters()], run.recorded is not None


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", CELLS.names())
def test_the_same_seed_gives_the_same_results_bit_for_bit(name, graph):
    made = recipe(graph=graph and name not in HALTING)
    results, weights, recorded = outcome(made, name)
    again, same_weights, _ = outcome(made, name)
    assert recorded == made.graph
    assert again == results
    for weight, same in zip(weights, same_weights, strict=True):
        assert torch.equal(weight, same)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize("name", ["basic", "lstm", "gru", "mingru", "cfc", "s4d"])
def test_recorded_steps_train_as_plain_ones(name, optimizer):
    plain = recipe(optimizer=OPTIMIZERS[optimizer](lr=0.001))
    results, weights, _ = outcome(plain, name)
    found, found_weights, recorded = outcome(replace(plain, graph=True), name)
    assert recorded
    for one, other in zip(results, found, strict=True):
        assert other.train.loss == pytest.approx(one.train.loss, rel=1e-4)
        assert other.learning_rate == pytest.approx(one.learning_rate, rel=1e-5)
    for weight, other in zip(weights, found_weights, strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", HALTING)
def test_a_cell_that_asks_the_host_cannot_be_recorded(name):
    with pytest.raises(ConfigError, match="cannot be captured as a CUDA graph: use graph=false"):
        outcome(recipe(graph=True), name)


@pytest.mark.parametrize("graph", [False, True])
def test_each_step_drops_other_values(graph):
    made = recipe(epochs=12, graph=graph, optimizer=SGD(lr=1e-9), schedule=Constant())
    results, _, _ = outcome(made, count=8, layers=2, dropout=0.5)
    assert len({result.train.loss for result in results}) == 12


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", ["basic", "lstm", "mingru", "cfc", "s4d"])
def test_no_step_waits_for_the_device(name, graph, monkeypatch):
    data = sequences(count=40).to(torch.device("cuda"))
    run = Training(classifier(name, hidden=HIDDEN).cuda(), recipe(epochs=2, graph=graph))
    epochs = fit(run, data, data)
    torch.manual_seed(1)
    next(epochs)  # with what is done once
    step, made = epoch_steps.Epoch._step, []

    def watched(epoch, number, checked):
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(epoch, number, checked)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        made.append(number)

    monkeypatch.setattr(epoch_steps.Epoch, "_step", watched)
    next(epochs)
    assert made == list(range(5))


@pytest.mark.parametrize("graph", [False, True])
def test_divergence_is_said_as_on_a_cpu(graph):
    """With steps so large that squashing functions are flat everywhere: rounding is not seen in a message."""
    messages = []
    for device in ("cpu", "cuda"):
        made = recipe(optimizer=SGD(lr=3e38), graph=graph and device == "cuda")
        data, model = sequences().to(torch.device(device)), classifier(hidden=HIDDEN).to(device)
        torch.manual_seed(1)
        with pytest.raises(DivergedError) as error:
            list(fit(Training(model, made), data, data))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("cell", ["gru", "mingru"])
def test_bench_measures_each_engine_that_runs_on_a_gpu(cell):
    rows = bench([cell], small(device="cuda")).rows
    engines = list(engines_on("cuda", CELLS[cell]()))
    assert [row.engine for row in rows][: len(engines)] == engines
