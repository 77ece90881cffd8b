"""Which engine runs a cell: the facts of all engines, and the one place that chooses. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rnnclf.registry import Registry

if TYPE_CHECKING:
    from rnnclf.cells.base import Cell, GatedCell

Run = Callable[..., tuple[Any, Any]]
"""(module, x_TBI, state, plan) → (outputs, state): see `unroll`."""


@dataclass(frozen=True)
class Engine:
    """One way to run a cell along time.

    place: the function that does it, as module:function below rnnclf.engine; imported when it is used.
    method: the method by which a gated cell says that the engine can run it. Other cells list their engines.
    needs: a package that has to be installed, and the extra that installs it.
    cpu_only: whether it runs on a CPU only.
    float32_only: whether it has no other precision of products than that of its tensors.
    by_parts: whether each core takes a part of the batch through all steps, instead of a part of each
        operation.
    """

    place: str
    method: str = ""
    needs: str = ""
    extra: str = ""
    cpu_only: bool = False
    float32_only: bool = False
    by_parts: bool = False

    @property
    def run(self) -> Run:
        module, _, function = self.place.partition(":")
        found: Run = getattr(import_module(f"rnnclf.engine.{module}"), function)
        return found

    @property
    def installed(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None


ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "compiled": Engine(
            "fused:compiled",
            method="compiled_steps",
            needs="numba",
            extra="fast",
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

# Recurrent weights of a layer, beyond which they and their gradients no longer fit into the caches through
# which they pass at each step in time: torch's own layer is then the fastest. oneDNN has an LSTM of its own,
# and of no other cell. Measured: docs/speed.md.
LARGEST = {"lstm": 2**20}
LARGEST_OF_OTHERS = 3 * 2**19


def engines_of_gated(cell: GatedCell) -> tuple[str, ...]:
    """The engines that can run a gated cell on a CPU, the fastest first."""
    able = [
        name
        for name, engine in ENGINES.items()
        if engine.method and engine.installed and cell.declares(engine.method)
    ]
    if "native" in able:
        layer = cell.native_layer()
        weights = len(cell.gates) * cell.hidden_size**2
        order = ["compiled", "native", "fused"] if layer in LARGEST else ["compiled", "fused", "native"]
        if weights > LARGEST.get(layer, LARGEST_OF_OTHERS):
            order.sort(key=lambda name: name != "native")
        able.sort(key=order.index)
    return (*able, "loop")


def engines_on(device: str, cell: Cell) -> tuple[str, ...]:
    """A cell's engines that run on a device."""
    return tuple(name for name in cell.engines if device == "cpu" or not ENGINES[name].cpu_only)


def choose(
    cell: Cell,
    device: str,
    every_step: bool = True,
    ragged: bool = False,
    bf16: bool = False,
    zoneout: bool = False,
    asked: str = "auto",
) -> str:
    """The engine for a cell: the one that was asked for or, with auto, the fastest.

    A cell lists its engines in the order of their speed on a CPU when the outputs of all steps are wanted, of
    sequences of one length. Beyond that: a convolution of which only the last output is wanted is a weighted
    sum, which nothing beats; on a GPU a few transforms beat many small steps, and so does cuDNN; for ragged
    sequences torch leaves oneDNN for a loop of its own; few processors have oneDNN's LSTM in bfloat16.
    Zoneout blends the states of each step, which only the loop can do. The figures are in docs/cells.md and
    docs/speed.md.

    every_step: whether the outputs of all steps are wanted. ragged: whether sequences differ in length.
    """
    if zoneout:
        return "loop"
    if asked != "auto":
        return asked
    if "fft" in cell.engines and (not every_step or device != "cpu"):
        return "fft"
    if "native" in cell.engines and device != "cpu":
        return "native"
    slow = {"native"} if ragged or bf16 else set()
    if bf16:
        slow |= {name for name, engine in ENGINES.items() if engine.float32_only}
    return next(name for name in engines_on(device, cell) if name not in slow)


def engines_for_layers(cell: Cell, device: str, layers: int, **situation: Any) -> set[str]:
    """What `choose` takes for so many layers of which only the last output of the top one is wanted."""
    return {choose(cell, device, every_step, **situation) for every_step in {False, layers > 1}}
