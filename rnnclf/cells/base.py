"""The contract of every recurrent cell.  Shapes: B batch, T time steps, I inputs, H hidden, G gates.

A cell is a dataclass of its options that knows three things: which parameters it has, its initial
state, and one step in time. It holds no weights: they come as the argument `p`, so that a step is a
pure function and an engine is free to run it along time as it likes. `build` joins options and
weights into a torch module. What every cell has to keep is claimed in rnnclf/conformance.py.

Cells import torch where they need it, never at the top of the file: the command line and TAB read
the options of all of them without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS, Fan, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec, State
from rnnclf.engine.choose import engines_of_gated
from rnnclf.errors import ConfigError
from rnnclf.options import Component, option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.cells.module import CellModule
    from rnnclf.engine.fused_steps import FusedSteps, OverTime

FAMILIES = ("simple", "gated", "dynamical systems", "structured", "linear gates", "state space", "own")
"""The headings of the catalog, in its order."""


@dataclass(frozen=True)
class Paper:
    """Where a cell comes from."""

    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}"


@dataclass(frozen=True)
class Published:
    """An accuracy that someone reported for a cell: the share in per cent, and where it stands."""

    task: str
    accuracy: float
    source: str
    note: str = ""


@dataclass
class Cell(Component):
    """A recurrent cell: its options, its parameters, its equations.

    Own cells derive from here, from GatedCell, or where the step is linear in the state from
    LinearCell (rnnclf/cells/linear.py). Here `parameters` and `step` are needed.
    """

    hidden_size: int = option(150, "units of the output", low=1, high=1_000_000)

    paper: ClassVar[Paper | None] = None
    published: ClassVar[tuple[Published, ...]] = ()
    family: ClassVar[str] = "own"
    """The heading under which the cell is listed, one of FAMILIES."""
    gates: ClassVar[tuple[str, ...]] = ()
    """Names of the H-row blocks of the weights, in their order."""
    recurrent_weights: ClassVar[tuple[str, ...]] = ()
    """The weights between state and state, on which recurrent dropout acts; none: it is refused."""
    zoneout: ClassVar[bool] = True
    """Whether each number of the state may keep its old value by itself, as zoneout has it."""
    capturable: ClassVar[bool] = True
    """Whether a GPU can do its work without asking the host in between, so that a CUDA graph can hold it."""

    @property
    def formula(self) -> str:
        """Number of trained parameters, as a Python expression in n (inputs), h (hidden) and options."""
        return ""

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can run this cell along time."""
        return ("loop",)

    @property
    def multiple(self) -> int:
        """hidden_size must be a multiple of this number."""
        return 1

    def refuse_size(self) -> None:
        """Raises ConfigError where the cell cannot have so many units. Not when it is made: where
        `match_parameters` is to choose the number, there is none yet."""
        if self.hidden_size % self.multiple:
            raise ConfigError(
                f"hidden must be a multiple of {self.multiple} for this cell={self.name},"
                f" got {self.hidden_size}."
            )

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        """The parameters of this cell on `input_size` features, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define parameters(input_size).")

    def prepare(self, p: Parameters) -> Parameters:
        """The weights as `inputs` and `step` want them: what is derived from parameters, such as an
        orthogonal matrix, is computed here, once per sequence. Returns a new Parameters, or `p` as it is.
        """
        return p

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        """The part of a step that needs no state: (…, I) → (…, anything).

        An engine calls it once for all steps, which makes one large product of many small ones.
        """
        return x

    def initial_state(self, x_BI: Tensor) -> State:
        """The state before the first step: zeros, on the device and in the type of `x_BI`."""
        return x_BI.new_zeros(x_BI.shape[0], self.hidden_size)

    def step(self, p: Parameters, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: what `inputs` made of x_t, and the state before → (output (B, H), state after)."""
        raise NotImplementedError(f"{type(self).__name__} must define step(p, z, state).")

    def build(self, input_size: int) -> CellModule:
        """This cell with freshly drawn weights, as a torch module.

        Raises ConfigError for a size it cannot have.
        """
        from rnnclf.cells.module import CellModule

        self.refuse_size()
        return CellModule(self, input_size)


@dataclass
class AffineCell(Cell):
    """A cell that the inputs enter as `input_weight` x_t + `bias`."""

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.input_weight, p.bias)


@dataclass
class GatedCell(AffineCell):
    """A cell whose gates are affine in x_t and h_{t-1}: every gate has its H rows of the same weights.

    input_weight (G·H, I), recurrent_weight (G·H, H), bias (G·H). Each gate's block is initialised by
    itself: G orthogonal H × H matrices, not one of G·H rows.
    """

    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight",)

    input_init: str = option("glorot", "how the input weights start", choices=INPUT_INITS)
    recurrent_init: str = option("orthogonal", "how the recurrent weights start", choices=RECURRENT_INITS)

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

    def declares(self, method: str) -> bool:
        """Whether the cell has this method and it fits its step: a class that redefines the step without the
        method means something else."""
        kind: Any = type(self)  # a class can be hashed, whatever its instances are
        return _declares(kind, method)

    def fused_steps(self) -> type[FusedSteps]:
        """The numberwise part of a step, forward and backward, for the fused engine."""
        raise NotImplementedError(f"{type(self).__name__} declares no fused_steps().")

    def compiled_steps(self) -> type[OverTime]:
        """All steps in compiled loops, for the compiled engine."""
        raise NotImplementedError(f"{type(self).__name__} declares no compiled_steps().")

    def native_layer(self) -> str:
        """The name of torch's function for this cell, for the native engine."""
        raise NotImplementedError(f"{type(self).__name__} declares no native_layer().")

    def fill_bias(self, bias: Tensor) -> None:
        zeros(bias)


@cache
def _declares(kind: type[GatedCell], method: str) -> bool:
    kinds = kind.__mro__
    places = [
        next(place for place, base in enumerate(kinds) if name in vars(base))
        for name in (method, "step", "inputs", "prepare")
    ]
    return kinds[places[0]] is not GatedCell and places[0] == min(places)


def _each_gate(weight: Tensor, fan: Fan, fill: Callable[[Tensor, Fan], None]) -> None:
    for block in weight.chunk(fan.gates):
        fill(block, fan)
