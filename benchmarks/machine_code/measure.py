"""Training steps of every sequential cell: machine code, the loop, torch.compile, JAX and torch's own layers.

    taskset -c 0 python benchmarks/machine_code/measure.py OUT.jsonl [--cells lstm,lem]
        [--settings rows,small] [--with loop,scan,engine,torch,step,jax] [--seconds 3]
    python benchmarks/machine_code/measure.py OUT.jsonl --settings rows,small,long --with two_threads

A training step is what comes between a batch and the gradients of all weights: a layer of the cell, a
linear head on its last output (or the mean, see SETTINGS), cross-entropy. All candidates take turns in one
process on one core. Times are CPU seconds of the process, since the wall clock of a shared machine says
more about its neighbours; a ratio is the median over the turns.

whole: the whole step as one call of machine code; engine: the same layer in machine code with torch around
it; scan: the same by a parallel scan, where the cell is linear in its state; step: torch.compile of the
cell's step in a Python loop; torch: torch's own layer; jax: lax.scan, equations below. two_threads: the
whole step with two threads, in wall clock seconds, as then all others are, and without other load on two
cores."""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.cells import CELLS
from rnnclf.data import padded_dataset
from rnnclf.engine.parts import parts_of_batches
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.eligibility import is_eligible
from rnnclf.training.recipe import CrossEntropy
from rnnclf.training.whole_step import WholeSteps
from rnnclf.workflows.machine import keep_freed_memory

CLASSES = 10
TORCH_LAYERS: dict[str, Any] = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
Step = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    hidden: int
    batch: int
    steps: int
    inputs: int
    ragged: bool = False
    """Lengths between a third and all of the steps, mean readout, both directions."""
    readout: str = "last"


SETTINGS = {
    "rows": Setting(150, 150, 28, 28),
    "small": Setting(64, 32, 28, 28),
    "long": Setting(128, 150, 784, 1),
    "own": Setting(64, 16, 100, 3, ragged=True),
    "single": Setting(150, 1, 1, 28),
    "all_rows": Setting(150, 150, 28, 28, readout="mean"),
    "all_pixels": Setting(128, 100, 784, 1, readout="mean"),
}


class Case:
    """A cell in a setting, and the training steps of all candidates on the same random batch."""

    def __init__(self, name: str, setting: Setting) -> None:
        torch.manual_seed(0)
        self.name, self.setting = name, setting
        self.x_BTI = torch.randn(setting.batch, setting.steps, setting.inputs)
        self.y_B = torch.randint(CLASSES, (setting.batch,))
        least = setting.steps // 3
        self.lengths_B = torch.randint(least, setting.steps + 1, (setting.batch,)) if setting.ragged else None

    def model(self, engine: str) -> SequenceClassifier:
        torch.manual_seed(1)
        readout = "mean" if self.setting.ragged else self.setting.readout
        stack = Stack(engine=engine, readout=readout, bidirectional=self.setting.ragged)
        cell = CELLS[self.name](hidden_size=self.setting.hidden)
        return SequenceClassifier(cell, self.setting.inputs, CLASSES, stack)

    def by_engine(self, engine: str) -> Step | None:
        if engine not in CELLS[self.name]().engines:
            return None
        model = self.model(engine)
        return self.differentiated(model, lambda: model(self.x_BTI, self.lengths_B))

    def differentiated(self, model: nn.Module, logits: Callable[[], Tensor]) -> Step:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return lambda: torch.autograd.grad(
            functional.cross_entropy(logits(), self.y_B), weights, allow_unused=True
        )

    def whole(self) -> Step | None:
        model = self.model("auto")
        data = padded_dataset(self.x_BTI, self.y_B, tuple(map(str, range(CLASSES))), self.lengths_B)
        if not is_eligible(model, data):
            return None
        steps, every_B = WholeSteps(model, CrossEntropy.plain(CLASSES), data), torch.arange(len(self.y_B))
        return lambda: steps(every_B)

    def with_two_threads(self) -> Step | None:
        step = self.whole()
        return None if step is None else partial(_in_threads, 2, step)

    def torch_layer(self) -> Step | None:
        if self.name not in TORCH_LAYERS or self.setting.ragged:
            return None
        layer = TORCH_LAYERS[self.name](self.setting.inputs, self.setting.hidden, batch_first=True)
        model = nn.ModuleList([layer, nn.Linear(self.setting.hidden, CLASSES)])
        return self.differentiated(model, lambda: model[1](model[0](self.x_BTI)[0][:, -1]))

    def step_by_torch_compile(self) -> Step | None:
        if self.setting.ragged or self.setting.steps > 100:
            return None
        torch._dynamo.reset()  # or all cells share one limit of compilations
        model = self.model("loop")
        module = model.layers[0].directions["forward_cell"]
        cell = module.cell
        Weights = namedtuple("Weights", list(vars(module.prepared())))  # torch.compile takes no namespaces

        def along(step: Any, weights: list[Tensor]) -> Tensor:
            p, x_TBI = Weights(*weights), self.x_BTI.transpose(0, 1)
            state = cell.initial_state(x_TBI[0])
            for z in cell.inputs(p, x_TBI).unbind(0):
                output, state = step(z, state, *weights)
            return model.head(output)

        def one(z: Tensor, state: Any, *weights: Tensor) -> Any:
            return cell.step(Weights(*weights), z, state)

        compiled = torch.compile(one, dynamic=False, fullgraph=True)
        return self.differentiated(model, lambda: along(compiled, list(vars(module.prepared()).values())))

    def scan_by_jax(self) -> Step | None:
        """Gradients of a lax.scan, for the cells whose equations are written here."""
        if self.name not in JAX_CELLS or self.setting.ragged:
            return None
        import jax
        from jax import numpy as jnp

        model = self.model("loop")
        step, parts = JAX_CELLS[self.name]
        p = {
            name.rpartition(".")[2] if "layers" in name else name: jnp.asarray(weight.detach().numpy())
            for name, weight in model.named_parameters()
        }
        x, y = jnp.asarray(self.x_BTI.transpose(0, 1).contiguous().numpy()), jnp.asarray(self.y_B.numpy())

        def loss(p: Any, x: Any, y: Any) -> Any:
            start = (jnp.zeros((x.shape[1], self.setting.hidden), x.dtype),) * parts
            z = x @ p["input_weight"].T + p["bias"]
            last = jax.lax.scan(lambda state, z: (step(p, z, state), None), start, z)[0][0]
            logits = jax.nn.log_softmax(last @ p["head.weight"].T + p["head.bias"])
            return -jnp.take_along_axis(logits, y[:, None], 1).mean()

        gradient = jax.jit(jax.grad(loss))
        return lambda: jax.block_until_ready(gradient(p, x, y))

    def candidates(self, others: list[str]) -> dict[str, Step]:
        makers = {
            "whole": self.whole,
            "two_threads": self.with_two_threads,
            "engine": lambda: self.by_engine("machine"),
            "loop": lambda: self.by_engine("loop"),
            "scan": lambda: self.by_engine("scan"),
            "torch": self.torch_layer,
            "step": self.step_by_torch_compile,
            "jax": self.scan_by_jax,
        }
        made = {name: make() for name, make in makers.items() if name in ("whole", *others)}
        return {name: step for name, step in made.items() if step is not None}


def _in_threads(threads: int, step: Step) -> Any:
    torch.set_num_threads(threads)
    try:
        with parts_of_batches():
            return step()
    finally:
        torch.set_num_threads(1)


def _basic(p: Any, z: Any, state: Any) -> Any:
    from jax import numpy as jnp

    return (jnp.tanh(z + state[0] @ p["recurrent_weight"].T),)


def _lstm(p: Any, z: Any, state: Any) -> Any:
    from jax import nn as jnn
    from jax import numpy as jnp

    i, f, g, o = jnp.split(z + state[0] @ p["recurrent_weight"].T, 4, -1)
    c = jnn.sigmoid(f) * state[1] + jnn.sigmoid(i) * jnp.tanh(g)
    return jnn.sigmoid(o) * jnp.tanh(c), c


def _gru(p: Any, z: Any, state: Any) -> Any:
    from jax import nn as jnn
    from jax import numpy as jnp

    z_r, z_u, z_n = jnp.split(z, 3, -1)
    a_r, a_u, a_n = jnp.split(state[0] @ p["recurrent_weight"].T, 3, -1)
    u = jnn.sigmoid(z_u + a_u)
    n = jnp.tanh(z_n + jnn.sigmoid(z_r + a_r) * (a_n + p["candidate_bias"]))
    return (n + u * (state[0] - n),)


def _lem(p: Any, z: Any, state: Any) -> Any:
    from jax import nn as jnn
    from jax import numpy as jnp

    y, m = state
    z_p, z_q, z_z, z_y = jnp.split(z, 4, -1)
    a_p, a_q, a_z = jnp.split(y @ p["recurrent_weight"].T, 3, -1)
    m = m + jnn.sigmoid(z_p + a_p) * (jnp.tanh(z_z + a_z) - m)
    return y + jnn.sigmoid(z_q + a_q) * (jnp.tanh(z_y + m @ p["memory_weight"].T) - y), m


JAX_CELLS: dict[str, tuple[Any, int]] = {
    "basic": (_basic, 1),
    "lstm": (_lstm, 2),
    "gru": (_gru, 1),
    "lem": (_lem, 2),
}
"""Step and number of parts of the state."""


def measured(steps: dict[str, Step], seconds: float) -> dict[str, Any]:
    """Seconds of the first call of each, then medians of many and their ratios to machine code."""
    now = time.perf_counter if "two_threads" in steps else time.process_time
    first: dict[str, float] = {}
    for name, step in list(steps.items()):
        begin = now()
        try:
            step()
        except Exception as error:  # what torch.compile refuses
            first[name] = float("nan")
            print(f"    {name}: {type(error).__name__}", flush=True)
            del steps[name]
            continue
        first[name] = now() - begin
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    ours = "whole" if "whole" in steps else "engine"
    while time.perf_counter() < end or len(times[ours]) < 4:
        for name, step in steps.items():
            begin = now()
            step()
            times[name].append(now() - begin)
    ratios = {n: median(a / b for a, b in zip(t, times[ours], strict=True)) for n, t in times.items()}
    return {
        "ms": {name: 1e3 * median(each) for name, each in times.items()},
        "ratio": ratios,
        "first_s": first,
        "turns": len(times[ours]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("--cells", default="")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--with", dest="others", default="engine,loop,torch,step,jax")
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")  # torch.compile's
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    keep_freed_memory()  # as in training
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    covered = [name for name, kind in CELLS.items() if "machine" in kind().engines]
    for setting in asked.settings.split(","):
        for name in asked.cells.split(",") if asked.cells else covered:
            case = Case(name, SETTINGS[setting])
            found = measured(case.candidates(asked.others.split(",")), asked.seconds)
            ms = "  ".join(f"{who} {t:.2f} ms ×{found['ratio'][who]:.2f}" for who, t in found["ms"].items())
            print(f"{setting:6s} {name:10s} {ms}", flush=True)
            with open(asked.out, "a", encoding="utf-8") as file:
                file.write(json.dumps({"cell": name, "setting": setting, **found}) + "\n")


if __name__ == "__main__":
    main()
