"""`rnnclf bench`: rates that are comparable, sums that are right."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rnnclf import cli as commands
from rnnclf.cells import CELLS, GatedCell
from rnnclf.config import Config
from rnnclf.engine.choose import ENGINES
from rnnclf.errors import ConfigError
from rnnclf.workflows import bench as module
from rnnclf.workflows.bench import (
    TORCH_LAYERS,
    TURN,
    WARM_UP,
    Bench,
    Measured,
    alternated,
    bench,
    candidates,
    peak_bytes,
    training_flops,
)
from tests.imports import command, modules_after
from tests.workflows.small_bench import (
    SMALL,
    WORDS,
    _small_products,  # noqa: F401 - a fixture
    small,
)

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.long
def test_every_cell_is_measured_with_each_of_its_engines_and_beside_torch():
    result = bench(CELLS.names(), SMALL)
    expected = [
        (name, engine)
        for name in CELLS
        for engine in (*CELLS[name](hidden_size=4).engines, *(["torch"] if name in TORCH_LAYERS else []))
    ]
    assert [(row.cell, row.engine) for row in result.rows] == expected
    assert {row.engine for row in result.rows} == {*ENGINES, "torch"}
    for row in result.rows:
        assert row.training > 0
        assert row.inference > 0
        assert row.memory > 0
        gated = issubclass(CELLS[row.cell], GatedCell)
        assert (row.flops is not None) == (row.share is not None) == gated
        if row.flops is not None:
            assert row.share == row.flops / result.machine.product_rate
            steps = row.training / SMALL.batch  # a second
            counted = training_flops(CELLS[row.cell](hidden_size=4), SMALL)
            assert row.flops == pytest.approx(steps * counted)


def test_rates_are_sequences_per_second_of_the_median_step(monkeypatch):
    product, training, inference = [4.0, 2.0, 3.0], [1.0, 90.0, 6.0], [10.0, 2.0, 1.0]
    measurements = iter([[product], [training] * 2, [inference] * 2])
    monkeypatch.setattr(module, "alternated", lambda *_: next(measurements))
    result = bench(["cfc"], SMALL)
    row, _ = result.rows
    assert (row.training, row.inference) == (3 / 6, 5 / 2)
    assert result.machine.product_rate == 2 * 64 * 32 * 16 / 2  # the best of all


@pytest.mark.long
@pytest.mark.parametrize(
    ("layers", "hidden", "taken"),
    [(1, 600, ["fft"]), (2, 600, ["fft", "machine"]), (1, 4, ["fft", "machine"])],
    ids=["large", "large, two layers", "small"],
)
def test_the_engines_that_auto_takes_are_marked(layers, hidden, taken):
    """The large ones take fft for the last output, the small ones machine code in training."""
    rows = bench(["lru", "basic"], small(layers=layers, hidden=hidden)).rows
    assert sorted(row.engine for row in rows if row.auto and row.cell == "lru") == taken
    first_engine = CELLS["basic"]().engines[0]
    assert [row.engine for row in rows if row.auto and row.cell == "basic"] == [first_engine]


@pytest.mark.long
def test_a_cell_that_is_named_twice_is_measured_once():
    assert len(bench(["cfc", "cfc"], SMALL).rows) == len(CELLS["cfc"]().engines)


def test_whoever_watches_is_told_what_is_measured():
    told: list[str] = []
    bench(["cfc"], SMALL, told.append)
    assert told[0] == "the machine's product rate"
    assert any(line.startswith("cfc: training with machine, loop") for line in told)


def counted(name: str, settings: Bench) -> int:
    """What torch counts in one step of the loop, without the three small products of the head."""
    torch.manual_seed(0)
    cell = CELLS[name](hidden_size=settings.hidden)
    one = next(c for c in candidates(cell, settings, CPU) if c.name == "loop")
    x_BTI = torch.randn(settings.batch, settings.length, settings.inputs)
    with FlopCounterMode(display=False) as counter:
        one.train(x_BTI, torch.zeros(settings.batch, dtype=torch.int64))
    head = 3 * 2 * settings.batch * settings.hidden * module.CLASSES
    return counter.get_total_flops() - head


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["basic", "lstm", "gru"])
def test_the_flops_are_those_that_torch_counts(name, layers):
    settings = small(layers=layers)
    cell = CELLS[name](hidden_size=settings.hidden)
    flops = training_flops(cell, settings)
    # the loop multiplies by the first state as well, zero as it is: forward, and for the weight's gradient
    recurrent = len(cell.gates) * settings.hidden**2
    needless = layers * 2 * 2 * settings.batch * recurrent
    assert counted(name, settings) == flops + needless


def test_the_flops_of_a_hand_made_example():
    # 3 sequences, 6 steps, W 4 × 2, U 4 × 4
    cell = CELLS["basic"](hidden_size=4)
    assert training_flops(cell, SMALL) == 2 * 3 * (2 * 6 * 8 + 3 * 5 * 16)
    assert training_flops(cell, small(length=1)) == 2 * 3 * 2 * 8
    assert training_flops(CELLS["s4d"](hidden_size=4), SMALL) is None


def test_heads_of_a_gated_cell_have_fewer_products():
    whole, halves = (CELLS["slstm"](hidden_size=4, heads=heads) for heads in (1, 2))
    difference = 2 * 3 * 3 * 5 * 4 * (16 - 8)
    assert training_flops(whole, SMALL) - training_flops(halves, SMALL) == difference


def test_the_peak_is_the_most_that_is_held_at_once():
    def step():
        a = torch.empty(100_000)
        b = torch.empty(50_000)
        del a
        c = torch.empty(80_000)
        return b, c, torch.neg(c)

    assert 840_000 <= peak_bytes(step, CPU) < 850_000  # Python has some objects, too


def test_the_peak_counts_arrays_of_numpy():
    assert 800_000 <= peak_bytes(lambda: np.zeros(100_000), CPU) < 810_000


def test_the_peak_counts_what_a_function_keeps_for_its_way_back():
    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.kept = x.new_zeros(10_000)  # no hook of autograd is told of it
            return x.clone()

        @staticmethod
        def backward(ctx, dy):
            return dy

    x = torch.zeros(10, requires_grad=True)
    assert 40_000 <= peak_bytes(lambda: Keeps.apply(x).sum().backward(), CPU) < 50_000


def test_measuring_memory_says_nothing_and_gives_stderr_back(capfd):
    peak_bytes(lambda: torch.empty(10), CPU)
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_a_step_that_fails_gives_stderr_back(capfd):
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        peak_bytes(fails, CPU)
    os.write(2, b"still here\n")
    assert "still here" in capfd.readouterr().err


def test_steps_take_turns_equally_often():
    calls: list[str] = []
    durations = alternated([lambda: calls.append("a"), lambda: calls.append("b")], 1e-9, CPU)
    turn = WARM_UP + TURN
    assert "".join(calls) in {"abab" + "a" * turn + "b" * turn, "abab" + "b" * turn + "a" * turn}
    assert [len(own) for own in durations] == [TURN, TURN]


def test_no_step_always_follows_the_same_one():
    calls: list[str] = []
    steps = [partial(calls.append, name) for name in "abc"]
    durations = alternated([*steps, partial(time.sleep, 0.001)], 0.02, CPU)
    assert len({len(own) for own in durations}) == 1
    turns = "".join(calls[2 * len(steps) :: WARM_UP + TURN])
    assert all(sorted(turns[n : n + 3]) == ["a", "b", "c"] for n in range(0, len(turns), 3))
    assert len({turns[n : n + 3] for n in range(0, len(turns), 3)}) > 1


def test_turns_of_long_steps_are_short(monkeypatch):
    monkeypatch.setattr(module, "LONG", 0.01)
    calls: list[str] = []
    durations = alternated([partial(calls.append, "a"), partial(time.sleep, 0.011)], 1e-9, CPU)
    assert [len(own) for own in durations] == [1, 1]
    assert len(calls) == 2 + 1 + 1


@pytest.mark.long
def test_steps_go_on_for_as_long_as_was_asked():
    def spin():
        torch.randn(20_000)

    (durations,) = alternated([spin], 0.05, CPU)
    assert len(durations) % TURN == 0
    assert sum(durations[:-TURN]) < 0.05 <= sum(durations)


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_torch_has_the_same_to_do(name):
    settings = small(layers=2)
    ours, *_, theirs = (c.model for c in candidates(CELLS[name](hidden_size=4), settings, CPU))
    weights = ours.state_dict()
    copied = {"head.weight": weights["head.weight"], "head.bias": weights["head.bias"]}
    for layer in range(2):
        cell = f"layers.{layer}.directions.forward_cell."
        copied[f"layers.weight_ih_l{layer}"] = weights[f"{cell}input_weight"]
        copied[f"layers.weight_hh_l{layer}"] = weights[f"{cell}recurrent_weight"]
        copied[f"layers.bias_ih_l{layer}"] = weights[f"{cell}bias"]
        copied[f"layers.bias_hh_l{layer}"] = torch.zeros_like(weights[f"{cell}bias"])
    theirs.load_state_dict(copied)
    x_BTI = torch.randn(3, 6, 2)
    torch.testing.assert_close(ours(x_BTI), theirs(x_BTI))


@pytest.mark.parametrize("name", ["lstm", "mamba"])
def test_a_step_trains_and_leaves_no_gradient(name):
    x_BTI, y_B = torch.randn(8, 6, 2), torch.arange(8)
    for candidate in candidates(CELLS[name](hidden_size=4), SMALL, CPU):
        before = torch.nn.functional.cross_entropy(candidate.model(x_BTI), y_B).item()
        for _ in range(20):
            candidate.train(x_BTI, y_B)
        after = torch.nn.functional.cross_entropy(candidate.model(x_BTI), y_B).item()
        assert after < before
        assert all(weight.grad is None for weight in candidate.model.parameters())


@pytest.mark.parametrize("name", ["basic", "lstm", "gru"])
def test_a_step_of_machine_code_is_the_one_that_training_makes(name):
    pytest.importorskip("llvmlite")
    one = next(c for c in candidates(CELLS[name](hidden_size=4), SMALL, CPU) if c.name == "machine")
    x_BTI, y_B = torch.randn(8, 6, 2), torch.arange(8)
    one.model.register_forward_hook(lambda *_: pytest.fail("by way of autograd"))
    with one.step_on(x_BTI, y_B) as step:
        before = [weight.clone() for weight in one.model.parameters()]
        step()
    assert not any(map(torch.equal, one.model.parameters(), before))


@pytest.mark.long
def test_json_holds_the_settings_the_machine_and_all_rows(cli):
    done = cli("bench", "lstm", "s4d", *WORDS, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["settings", "machine", "rows"]
    assert found["settings"] == dataclasses.asdict(SMALL)
    assert list(found["machine"]) == ["hardware", "device", "torch", "product_rate"]
    assert found["machine"]["device"] == "cpu, 1 thread"
    assert {row["cell"] for row in found["rows"]} == {"lstm", "s4d"}
    assert list(found["rows"][0]) == [column.name for column in dataclasses.fields(Measured)]
    assert "product rate" in done.stderr


@pytest.mark.long
def test_without_words_the_workhorses_are_measured(cli):
    done = cli("bench", *WORDS, "--json")
    assert list(dict.fromkeys(row["cell"] for row in json.loads(done.stdout)["rows"])) == list(TORCH_LAYERS)


def test_the_command_has_the_defaults_of_the_workflow():
    words = inspect.signature(commands.bench).parameters
    assert {field.name: words[field.name].default for field in dataclasses.fields(Bench)} == vars(Bench())


@pytest.mark.long
def test_help_does_without_torch():
    assert "torch" not in modules_after(command(["bench", "--help"], exit_code=0))


@pytest.mark.long
def test_a_cell_of_ones_own_is_measured(cli, tmp_path, monkeypatch):
    (tmp_path / "bench_cells.py").write_text(
        "from dataclasses import dataclass\n"
        "from rnnclf.cells.basic import Basic\n\n"
        "@dataclass\n"
        "class Doubled(Basic):\n"
        "    name: str = 'doubled'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("bench", "bench_cells:Doubled", *WORDS, "--json")
    assert done.exit_code == 0, done.output
    assert {row["cell"] for row in json.loads(done.stdout)["rows"]} == {"doubled"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gruu"], "No cell named 'gruu'. Did you mean 'gru'?"),
        (["no_such_module:Cell"], "cannot import 'no_such_module'"),
        (["unicornn", "--hidden", "0"], "hidden must be at least 1"),
        (["--hidden", "65537"], "hidden must be at least 1 and at most 65536, got 65537."),
        (["--batch", "0"], "batch must be at least 1"),
        (["--inference-batch", "-1"], "inference_batch must be at least 1"),
        (["--length", "0"], "length must be at least 1"),
        (["--inputs", "0"], "inputs must be at least 1"),
        (["--layers", "0"], "layers must be at least 1"),
        (["--seconds", "0"], "seconds must be above 0"),
        (["--seconds", "nan"], "seconds must be above 0 and at most 3600, got nan."),
        (["--seconds", "1e400"], "seconds must be above 0 and at most 3600, got inf."),
        (["--threads", "many"], "threads must be a whole number or auto, got 'many'."),
        (["--threads", "1.5"], "threads must be a whole number or auto, got '1.5'."),
        (["--threads", "9" * 5000], "threads must be a whole number or auto"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--device", "tpu"], "device must be auto, cpu, cuda or mps, got 'tpu'."),
        (["s4d", "--hidden", "many"], "Invalid value for '--hidden'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(cli, words, message):
    done = cli("bench", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("rnnclf.workflows.machine.devices", lambda: ["cpu"])
    with pytest.raises(ConfigError, match="device=cuda is not available here"):
        bench(["basic"], small(device="cuda"))


def test_a_size_that_a_cell_cannot_have_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("rnnclf.cells.lstm.LSTM.multiple", 3)
    told: list[str] = []
    with pytest.raises(ConfigError, match="hidden must be a multiple of 3 for this cell=lstm, got 4"):
        bench(["basic", "lstm"], SMALL, told.append)
    assert told == []


def test_too_little_memory_is_said_in_words(monkeypatch):
    def randn(*shape: int, device: torch.device) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "randn", randn)
    with pytest.raises(ConfigError, match="not enough memory for this: reduce hidden, batch"):
        bench(["basic"], SMALL)


def test_other_errors_of_torch_are_not_taken_for_lack_of_memory(monkeypatch):
    def randn(*shape: int, device: torch.device) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "randn", randn)
    with pytest.raises(RuntimeError, match="a bug"):
        bench(["basic"], SMALL)


def test_the_settings_fit_the_configuration_of_a_run():
    """Both state the range of these two: whatever one of them takes, the other takes, too."""
    for name in ("threads", "device"):
        own, run = (
            next(field for field in dataclasses.fields(kind) if field.name == name).metadata
            for kind in (Bench, Config)
        )
        assert (own["limits"], own["choices"]) == (run["limits"], run["choices"])
