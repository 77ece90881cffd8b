"""What a recurrent network can learn from its past, measured.  Shapes: T time, B batch, I inputs, K classes.

Three quantities of each direction of each layer, with the weights as they are, dropout off:

gradient    by time step: how strongly the loss of a sequence depends on the state after that step, through
            the output of this step and through all later ones. It is the norm of the total derivative with
            respect to everything that the cell hands on (h of a GRU; h and c of an LSTM), the mean over
            the sequences. Where it is tiny at the first steps, nothing that happened there is learned.
radius      of each matrix between state and state, the modulus of its largest eigenvalue.
saturation  of all numbers that leave a tanh or a sigmoid in a step, the share at which that function is
            nearly flat: its slope is less than a tenth of its greatest. That is tanh beyond ±0.949, and a
            sigmoid below 0.026 or above 0.974.

Steps are counted as the cell walks, from 1: the first step of a backward direction is the last of the
sequence. Sequences of several lengths are laid so that all end at the last step; padding counts nowhere.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnclf.cells import Cell, LinearCell, Parameters
from rnnclf.cells.module import CellModule
from rnnclf.cells.state import leaves
from rnnclf.data import SequenceDataset
from rnnclf.engine.plan import Plan
from rnnclf.model import RecurrentLayer, SequenceClassifier

SEQUENCES = 256  # fewer of them where they are long: enough for a mean of norms
FEWEST = 8
STATE_BYTES = 2**26  # of the states of all steps; what autograd keeps beside them is a few times that

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels (B)) → the mean loss, a scalar."""

FLAT = 0.1
STEEPNESS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: 4 * y * (1 - y),
}
"""The slope of a squashing function where its result is y, as a share of its greatest slope."""


@dataclass(frozen=True)
class Figure:
    """One number about one direction of one layer.

    part: of a radius, the gate or the weight; of a saturation, the function. step: of a gradient.
    """

    layer: int
    direction: str
    quantity: str
    part: str
    step: int | None
    value: float


def diagnose(model: SequenceClassifier, data: SequenceDataset, loss: LossFunction) -> list[Figure]:
    """The figures of a model on sequences spread evenly over `data`.

    A copy of the model is looked at, and random generators are put back: training goes on as if nothing
    had been measured.
    """
    device = model.head.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        x_BTI, y_B, lengths_B = data.batch(_some_of(data, model))
        return measure(copy.deepcopy(model), x_BTI, y_B, lengths_B, loss)


def _some_of(data: SequenceDataset, model: SequenceClassifier) -> Tensor:
    sizes = [
        leaf.nbytes
        for module in model.modules()
        if isinstance(module, CellModule)
        for leaf in leaves(module.initial_state(torch.zeros(1, module.input_size)))
    ]
    affordable = STATE_BYTES // (data.steps * sum(sizes))
    count = min(len(data), max(FEWEST, min(SEQUENCES, affordable)))
    return torch.arange(count) * len(data) // count


def measure(
    model: SequenceClassifier, x_BTI: Tensor, y_B: Tensor, lengths_B: Tensor | None, loss: LossFunction
) -> list[Figure]:
    """The figures of a model on a batch. The model is changed: it can be used for nothing else."""
    watched = list(_watched(model.eval(), lengths_B))
    # the loss is a mean; that of each sequence has nothing to do with how many others there are
    total = loss(model(x_BTI, lengths_B), y_B) * len(y_B)
    states = [leaf for _, _, _, watch in watched for state in watch.states for leaf in state]
    gradients = iter(torch.autograd.grad(total, states, allow_unused=True))
    figures: list[Figure] = []
    for layer, direction, module, watch in watched:
        norms_TB = torch.stack([_norm([next(gradients) for _ in state], len(y_B)) for state in watch.states])
        for step, value in enumerate(_mean_by_step(norms_TB, lengths_B), 1):
            figures.append(Figure(layer, direction, "gradient", "", step, value))
        for part, value in radii(module).items():
            figures.append(Figure(layer, direction, "radius", part, None, value))
        for part, value in watch.saturation().items():
            figures.append(Figure(layer, direction, "saturation", part, None, value))
    return figures


def _watched(
    model: SequenceClassifier, lengths_B: Tensor | None
) -> Iterator[tuple[int, str, CellModule, Watch]]:
    """Has each cell of the model walk step by step, watched: its layer, its direction, itself, its watch."""
    for number, layer in enumerate(model.layers, 1):
        assert isinstance(layer, RecurrentLayer)
        layer.stack = replace(layer.stack, engine="loop")
        for name, module in layer.directions.items():
            assert isinstance(module, CellModule)
            watch = Watch(module.cell.step, lengths_B)
            module.cell = copy.copy(module.cell)  # until now one and the same in all layers
            vars(module.cell)["step"] = watch
            yield number, name.removesuffix("_cell"), module, watch


class Watch(TorchFunctionMode):
    """Takes the place of the `step` of a cell: keeps the states, counts what is saturated."""

    def __init__(self, step: Callable[..., tuple[Tensor, Any]], lengths_B: Tensor | None) -> None:
        super().__init__()
        self.step, self.lengths_B = step, lengths_B
        self.states: list[list[Tensor]] = []
        """After each step so far: the tensors of the state."""
        self.batch = 0
        self.seen: Counter[str] = Counter()
        self.flat: Counter[str] = Counter()

    def __call__(self, p: Parameters, z: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.batch = len(z)
        with self:
            output, state = self.step(p, z, state)
        tensors = [leaf for leaf in leaves(state) if leaf.is_floating_point() or leaf.is_complex()]
        for leaf in tensors:
            if not leaf.requires_grad:  # no weight of the cell is trained
                leaf.requires_grad_()
        self.states.append(tensors)
        return output, state

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Sees every function of torch that is called within a step."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix("_")
        # a squashed weight is no unit's
        if name in STEEPNESS and result.ndim > 1 and len(result) == self.batch:
            self._count(name, result.detach())
        return result

    def _count(self, name: str, y: Tensor) -> None:
        flat = STEEPNESS[name](y) < FLAT
        if self.lengths_B is not None:
            flat = flat[self.lengths_B > len(self.states)]
        self.seen[name] += flat.numel()
        self.flat[name] += int(flat.sum())

    def saturation(self) -> dict[str, float]:
        """Of each function that the cell uses, the share of its results at which it is nearly flat."""
        return {name: self.flat[name] / self.seen[name] for name in STEEPNESS if self.seen[name]}


def _norm(gradients: list[Tensor | None], batch: int) -> Tensor:
    """Of each sequence, the norm of the gradients of all tensors of its state: (B)."""
    squares_B = torch.zeros(batch, dtype=torch.float64)
    for gradient in gradients:
        if gradient is not None:  # what the state holds for a later step that never comes
            # in float64: squares of float32 are zero where a gradient is below 1e-23
            squares_B += gradient.abs().cpu().double().reshape(batch, -1).square().sum(1)
    return squares_B.sqrt()


def _mean_by_step(norms_TB: Tensor, lengths_B: Tensor | None) -> list[float]:
    plan = Plan(None if lengths_B is None else lengths_B.cpu())
    sums_T, counts_T = (plan.right_aligned(part).sum(1) for part in (norms_TB, torch.ones_like(norms_TB)))
    means: list[float] = (sums_T / counts_T).tolist()
    return means


@torch.no_grad()
def radii(module: CellModule) -> dict[str, float]:
    """The spectral radius of each matrix between state and state, by gate or weight.

    Empty where there is none: where the inputs alone decide what is kept, or where what comes back from
    the state is not square, as it enters another layer first or is of low rank.
    """
    cell, p = module.cell, module.prepared()
    if isinstance(cell, LinearCell):
        return _transition_radius(cell, module, p)
    blocks: list[tuple[str, Tensor]] = []
    for name in _recurrent_weights(cell, p):
        weight = getattr(p, name)
        blocks += [(name.removesuffix("_weight"), block) for block in _square_blocks(cell, name, weight)]
    gates = len(cell.gates)
    if (
        gates and len(blocks) % gates == 0
    ):  # of more blocks than one, a gate's matrix has them as its diagonal
        heads = len(blocks) // gates
        blocks = [(cell.gates[number // heads], block) for number, (_, block) in enumerate(blocks)]
    found: dict[str, float] = {}
    for name, block in blocks:
        found[name] = max(found.get(name, 0.0), spectral_radius(block))
    return found


def _recurrent_weights(cell: Cell, p: Parameters) -> tuple[str, ...]:
    """Names among the prepared weights: those that the cell declares, else what a cell usually calls them."""
    if cell.recurrent_weights:
        return cell.recurrent_weights
    return next(((name,) for name in ("flow", "recurrent_weight") if hasattr(p, name)), ())


def _square_blocks(cell: Cell, name: str, weight: Tensor) -> list[Tensor]:
    """The matrices that lie in the rows of a weight below each other; a vector is a diagonal matrix."""
    if weight.ndim == 1:
        return [weight]
    rows, columns = weight.shape
    stacked = bool(cell.gates) or name == "flow"
    if rows == columns or (stacked and rows % columns == 0):
        return list(torch.split(weight, columns))
    return []


def _transition_radius(cell: LinearCell, module: CellModule, p: Parameters) -> dict[str, float]:
    """That of the state's own coefficient, where it is the same at all steps."""
    weight = next(module.parameters())
    count, width = cell.past
    past = (weight.new_zeros(1, width),) * count
    z = cell.inputs(p, weight.new_zeros(1, module.input_size))
    a, _ = cell.recurrence(p, cell.signals(p, z, past))
    if a.ndim > len(cell.state_shape) + cell.pairs:
        return {}
    return {"transition": spectral_radius(a) if cell.pairs else spectral_radius(a.flatten())}


def spectral_radius(matrix: Tensor) -> float:
    """The modulus of the largest eigenvalue of a matrix (or of several), given whole or, as a vector, by its
    diagonal; NaN where it has no eigenvalues."""
    wide = matrix.detach().cpu().to(torch.complex128 if matrix.is_complex() else torch.float64)
    if not wide.isfinite().all():
        return math.nan
    return (wide if wide.ndim == 1 else torch.linalg.eigvals(wide)).abs().max().item()
