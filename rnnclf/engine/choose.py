"""The engines, their properties, and the choice of an engine for a cell. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rnnclf.errors import ConfigError
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from rnnclf.cells.base import Cell, GatedCell
    from rnnclf.cells.module import CellModule

Run = Callable[..., tuple[Any, Any]]
"""(module, x_TBI, state, plan) → (outputs, state), see `unroll`."""


@dataclass(frozen=True)
class Engine:
    """One way to run a cell along time.

    target: the function to call, as module:function below rnnclf.engine; imported on first use.
    method: the method that a gated cell must define for this engine. Other cells list their engines.
    obstacle: the function that says why it cannot run a cell with its weights, or ''; named like `target`. ''
        if the engine is able to run all cells that list it.
    needs: a package that has to be installed. rnnclf depends on it, but it has no wheels for some systems.
    cpu_only: whether it runs on a CPU only.
    float32_only: whether it cannot compute its matrix products in a lower precision (bf16).
    by_parts: whether each core computes all steps of a part of the batch, instead of sharing each operation.
    """

    target: str
    method: str = ""
    obstacle: str = ""
    needs: str = ""
    cpu_only: bool = False
    float32_only: bool = False
    by_parts: bool = False

    @property
    def run(self) -> Run:
        run: Run = _function(self.target)
        return run

    @property
    def installed(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None


def _function(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(import_module(f"rnnclf.engine.{module}"), function)


ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "machine": Engine(
            "machine.entry:machine",
            obstacle="machine.entry:obstacle",
            needs="llvmlite",
            cpu_only=True,
            float32_only=True,
            by_parts=True,
        ),
        "fused": Engine("fused:fused", method="fused_steps", float32_only=True, by_parts=True),
        "native": Engine("native:native", method="native_layer"),
        "scan": Engine("scan:scan"),
        "fft": Engine("fft:fft"),
        "loop": Engine("loop:loop"),
    },
)

# The number of recurrent weights up to which machine code is faster than torch's own layer: weights and
# gradients pass through the caches at every time step. Of these cells, oneDNN implements only the LSTM; the
# others were measured no further. docs/speed.md
MOST_CACHED_WEIGHTS = {"lstm": 2**20}
MOST_CACHED_WEIGHTS_OTHERS = 5 * 2**20


def machine_code_and(*others: str) -> tuple[str, ...]:
    """Machine code, where it can be made, before other engines."""
    return ("machine", *others) if ENGINES["machine"].installed else others


def engines_of_gated(cell: GatedCell) -> tuple[str, ...]:
    """The engines that can run a gated cell on a CPU, fastest first."""
    return _ordered(cell, [name for name, engine in _declared(cell) if engine.installed])


def missing_of_any() -> str:
    """The engine that would be the fastest for any cell on a CPU if its package were installed, or ''."""
    return "" if ENGINES["machine"].installed else "machine"


def missing_of_gated(cell: GatedCell) -> str:
    """The same for a gated cell."""
    fastest = _ordered(cell, [name for name, _ in _declared(cell)])[0]
    return "" if ENGINES[fastest].installed else fastest


def _declared(cell: GatedCell) -> list[tuple[str, Engine]]:
    return [
        (name, engine)
        for name, engine in ENGINES.items()
        if engine.obstacle or (engine.method and cell.declares(engine.method))
    ]


def _ordered(cell: GatedCell, able: list[str]) -> tuple[str, ...]:
    if "native" in able:
        able.remove("native")
        able.insert(_rank_of_native(cell, able), "native")
    return (*able, "loop")


def _rank_of_native(cell: GatedCell, others: list[str]) -> int:
    """The place of torch's own layer among the other engines of a gated cell."""
    layer, weights = cell.native_layer(), len(cell.gates) * cell.hidden_size**2
    if weights > MOST_CACHED_WEIGHTS.get(layer, MOST_CACHED_WEIGHTS_OTHERS):
        return 0
    return others.index("fused") if layer in MOST_CACHED_WEIGHTS and "fused" in others else len(others)


def engines_on(device: str, cell: Cell) -> tuple[str, ...]:
    """The engines of a cell that run on a device."""
    return tuple(name for name in cell.engines if device == "cpu" or not ENGINES[name].cpu_only)


def choose(
    cell: Cell,
    device: str,
    every_step: bool = True,
    ragged: bool = False,
    bf16: bool = False,
    zoneout: bool = False,
    asked: str = "auto",
    without: Collection[str] = (),
) -> str:
    """The engine for a cell: the requested one or, with auto, the fastest.

    A cell lists its engines by speed on a CPU, for the outputs of all steps of sequences of equal length.
    Other cases: if only the last output of a convolution is needed, it is a weighted sum, which is always
    fastest; on a GPU, a few Fourier transforms are faster than many small steps, and so is cuDNN; for ragged
    sequences, torch uses a loop of its own instead of oneDNN; few processors support oneDNN's LSTM in
    bfloat16. Zoneout blends the states of each step, which only the loop engine supports. For figures see
    docs/cells.md and docs/speed.md.

    every_step: whether the outputs of all steps are needed. ragged: whether sequences differ in length.
    asked: the value of the option `engine`. without: engines that auto must not choose.
    """
    if zoneout:
        return "loop"
    if asked != "auto":
        return asked
    if "fft" in cell.engines and (not every_step or device != "cpu"):
        return "fft"
    if "native" in cell.engines and device != "cpu":
        return "native"
    slow = {*without, "native"} if ragged or bf16 else set(without)
    if bf16:
        slow |= {name for name, engine in ENGINES.items() if engine.float32_only}
    return next(name for name in engines_on(device, cell) if name not in slow)


def engine_for(module: CellModule, device: str, asked: str = "auto", **situation: Any) -> str:
    """The engine for a cell with its weights: what `choose` returns, but with auto no engine that turns out
    to be unable to run the cell. Raises ConfigError if the requested one is."""
    cell = module.cell
    name = choose(cell, device, asked=asked, **situation)
    found = obstacle(name, module) if device == "cpu" else ""
    if found and asked == "auto":
        return choose(cell, device, asked=asked, without=[name], **situation)
    if found:
        raise ConfigError(f"engine={name} does not go with cell={cell.name}: {found}. Use engine=loop.")
    return name


def engines_able(module: CellModule) -> tuple[str, ...]:
    """The engines of a cell that can run it along time on a CPU."""
    return tuple(name for name in module.cell.engines if not obstacle(name, module))


def obstacle(engine: str, module: CellModule) -> str:
    """Why one of a cell's engines turns out to be unable to run it, in words; '' if it is able."""
    found: str = _function(target)(module) if (target := ENGINES[engine].obstacle) else ""
    return found


def why_not_faster(
    module: CellModule,
    device: str,
    every_step: bool = True,
    ragged: bool = False,
    bf16: bool = False,
    zoneout: bool = False,
    asked: str = "auto",
) -> str:
    """Why `engine_for`, with the same arguments, returns a slower engine than it could; '' if none is
    faster."""
    cell = module.cell
    fastest = choose(cell, device, every_step, ragged)
    if zoneout:
        return "zoneout runs in the loop only" if fastest != "loop" else ""
    automatic = choose(cell, device, every_step, ragged, bf16)
    if asked not in ("auto", automatic):
        return f"engine={asked} was asked for, engine=auto takes {automatic}"
    if automatic != fastest:
        return f"engine={fastest} does not run with precision=bf16"
    if found := obstacle(automatic, module):
        taken = engine_for(module, device)
        return f"cell={cell.name} runs {'in the loop' if taken == 'loop' else f'by engine={taken}'}: {found}"
    if device == "cpu" and not bf16 and (missing := cell.missing_engine):
        engine = ENGINES[missing]
        return f"engine={missing} needs {engine.needs}: pip install {engine.needs}"
    return ""
