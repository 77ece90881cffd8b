"""The contract of every recurrent cell.  Shapes: B batch, T time steps, I inputs, H hidden, G gates.

A cell is a dataclass of its options that defines three things: its parameters, its initial state, and
one step in time. It holds no weights: they are passed as the argument `p`, so a step is a pure function
that an engine can apply along time in any way it likes. `build` combines options and weights into a torch
module. The claims that every cell has to satisfy are in rnnclf/conformance/claims.py.

Cells import torch inside their methods, never at the top of the file, so that the command line and tab
completion can read the options of all cells without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS, Fan, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec, State
from rnnclf.engine.choose import engines_of_gated, machine_code_and, missing_of_any, missing_of_gated
from rnnclf.errors import ConfigError
from rnnclf.options import Component, option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.cells.module import CellModule
    from rnnclf.engine.fused_steps import FusedSteps

FAMILIES = ("simple", "gated", "dynamical systems", "structured", "linear gates", "state space", "own")
"""The headings of `rnnclf list cells`, in order."""


@dataclass(frozen=True)
class Paper:
    """The paper that introduced a cell."""

    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}"


@dataclass(frozen=True)
class Published:
    """A published accuracy of a cell, in per cent, and its source."""

    task: str
    accuracy: float
    source: str
    note: str = ""


@dataclass
class Cell(Component):
    """A recurrent cell: its options, its parameters, its equations.

    A cell of your own derives from this class, from GatedCell, or, if its step is linear in the state, from
    LinearCell (rnnclf/cells/linear.py). It must define `parameters` and `step`.
    """

    hidden_size: int = option(150, "units of the cell's output; set by hidden", low=1, high=1_000_000)

    paper: ClassVar[Paper | None] = None
    published: ClassVar[tuple[Published, ...]] = ()
    family: ClassVar[str] = "own"
    """The heading under which the cell is listed, one of FAMILIES."""
    gates: ClassVar[tuple[str, ...]] = ()
    """Names of the blocks of H rows in the weights, in order."""
    recurrent_weights: ClassVar[tuple[str, ...]] = ()
    """The state-to-state weights that recurrent dropout applies to; empty if it is not supported."""
    zoneout: ClassVar[bool] = True
    """Whether single elements of the state may keep their old value, as in zoneout."""
    capturable: ClassVar[bool] = True
    """Whether a CUDA graph can capture the cell: on a GPU, it never waits for the host."""

    export_tolerance: ClassVar[float] = 1e-5
    """By how much the logits of an exported file may differ, relative to the largest one. More only for a
    cell that loses digits in float32, whoever computes it."""

    @property
    def formula(self) -> str:
        """The number of trained parameters: a Python expression in n (inputs), h (hidden) and options."""
        return ""

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can run this cell along time, or try to: machine code is made from most steps."""
        return machine_code_and("loop")

    @property
    def missing_engine(self) -> str:
        """The engine that would be the fastest on a CPU if its package were installed, or ''."""
        return missing_of_any()

    @property
    def multiple(self) -> int:
        """hidden_size must be a multiple of this number."""
        return 1

    def check_size(self) -> None:
        """Raises ConfigError if the cell cannot have this hidden_size. Not checked on construction: with
        `match_parameters` the size is chosen later."""
        if self.hidden_size % self.multiple:
            raise ConfigError(
                f"hidden must be a multiple of {self.multiple} for this cell={self.name},"
                f" got {self.hidden_size}."
            )

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        """The parameters of this cell for `input_size` features, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define parameters(input_size).")

    def prepare(self, p: Parameters) -> Parameters:
        """The weights as `inputs` and `step` expect them. Anything derived from parameters, such as an
        orthogonal matrix, is computed here, once per sequence. Returns a new Parameters, or `p` unchanged.
        """
        return p

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        """The part of a step that does not depend on the state: (…, I) → (…, any width).

        An engine calls it once for all steps, which turns many small matrix products into one large one.
        """
        return x

    def initial_state(self, x_BI: Tensor) -> State:
        """The state before the first step: zeros, with the device and dtype of `x_BI`."""
        return x_BI.new_zeros(x_BI.shape[0], self.hidden_size)

    def step(self, p: Parameters, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: (`inputs` of x_t, previous state) → (output (B, H), new state)."""
        raise NotImplementedError(f"{type(self).__name__} must define step(p, z, state).")

    def build(self, input_size: int) -> CellModule:
        """This cell with newly initialised weights, as a torch module.

        Raises ConfigError if the cell cannot have its hidden_size.
        """
        from rnnclf.cells.module import CellModule

        self.check_size()
        return CellModule(self, input_size)


@dataclass
class AffineCell(Cell):
    """A cell whose inputs enter as `input_weight` x_t + `bias`."""

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.input_weight, p.bias)


@dataclass
class GatedCell(AffineCell):
    """A cell whose gates are affine in x_t and h_{t-1}.

    Each gate has a block of H rows in input_weight (G·H, I), recurrent_weight (G·H, H) and bias (G·H), which
    is initialised separately: G orthogonal H × H matrices, not one matrix of G·H rows.
    """

    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight",)

    input_init: str = option("glorot", "initialisation of the input weights", choices=INPUT_INITS)
    recurrent_init: str = option(
        "orthogonal", "initialisation of the recurrent weights", choices=RECURRENT_INITS
    )

    @property
    def formula(self) -> str:
        gates = f"{len(self.gates)}*" if len(self.gates) > 1 else ""
        return f"{gates}h*(n + h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        rows = len(self.gates) * self.hidden_size
        fan = Fan(inputs=input_size, hidden=self.hidden_size, gates=len(self.gates))
        input_init, recurrent_init = (
            INPUT_INITS[self.input_init],
            RECURRENT_INITS[self.recurrent_init],
        )
        return {
            "input_weight": ParameterSpec((rows, input_size), lambda w: _each_gate(w, fan, input_init)),
            "recurrent_weight": ParameterSpec(
                (rows, self.hidden_size), lambda w: _each_gate(w, fan, recurrent_init)
            ),
            "bias": ParameterSpec((rows,), self.fill_bias),
        }

    @property
    def engines(self) -> tuple[str, ...]:
        return engines_of_gated(self)

    @property
    def missing_engine(self) -> str:
        return missing_of_gated(self)

    def declares(self, method: str) -> bool:
        """Whether the cell defines this method for its current step: a subclass that redefines the step but
        not the method no longer matches it."""
        kind: Any = type(self)  # the class is hashable, its instances are not
        return _declares(kind, method)

    def fused_steps(self) -> type[FusedSteps]:
        """The elementwise part of a step, forward and backward, for the fused engine."""
        raise NotImplementedError(f"{type(self).__name__} declares no fused_steps().")

    def native_layer(self) -> str:
        """The name of torch's function for a layer of this cell, for the native engine."""
        raise NotImplementedError(f"{type(self).__name__} declares no native_layer().")

    def fill_bias(self, bias: Tensor) -> None:
        zeros(bias)


@cache
def _declares(kind: type[GatedCell], method: str) -> bool:
    kinds = kind.__mro__
    positions = [
        next(position for position, base in enumerate(kinds) if name in vars(base))
        for name in (method, "step", "inputs", "prepare")
    ]
    return kinds[positions[0]] is not GatedCell and positions[0] == min(positions)


def _each_gate(weight: Tensor, fan: Fan, fill: Callable[[Tensor, Fan], None]) -> None:
    for block in weight.chunk(fan.gates):
        fill(block, fan)
