"""Diagnosis of learning through time.  Shapes: T time, B batch, I inputs, K classes.

It measures three quantities for each direction of each layer, with the current weights and without dropout:

gradient    for each time step: how strongly the loss of a sequence depends on the state after that step,
            through the output of this step and through all later steps. It is the norm of the total
            derivative with respect to the whole state (h of a GRU; h and c of an LSTM), averaged over the
            sequences. If it is tiny at the first steps, nothing can be learned from their inputs.
radius      for each recurrent matrix: its spectral radius, the modulus of its largest eigenvalue.
saturation  for tanh and sigmoid: the share of their results in a step at which the function is nearly flat,
            with a slope of less than a tenth of its maximum. These are results of tanh beyond ±0.949, and of
            sigmoid below 0.026 or above 0.974.

Steps are counted from 1 in the direction of the cell: the first step of a backward direction is the last one
of the sequence. Of layers that read a sequence across, whose directions end in `_across`, the steps are its
columns. With axes=alternating a step of a layer is a row of its grid or a column, and the state all that the
layer has there. Sequences of different lengths are aligned at the last step; padding is not counted.
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

MOST_SEQUENCES = 256  # enough for a mean of norms; fewer if they are long
FEWEST_SEQUENCES = 8
STATE_BYTES = 2**26  # for the states of all steps; autograd needs several times as much besides

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels (B)) → the mean loss, a scalar."""

FLAT = 0.1
STEEPNESS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: 4 * y * (1 - y),
}
"""The slope of a squashing function as a fraction of its maximum, from its result y."""


@dataclass(frozen=True)
class Figure:
    """One measured value of one direction of one layer.

    part: for a radius, the gate or weight; for a saturation, the function. step: for a gradient, the time
    step.
    """

    layer: int
    direction: str
    quantity: str
    part: str
    step: int | None
    value: float


def diagnose(model: SequenceClassifier, data: SequenceDataset, loss: LossFunction) -> list[Figure]:
    """Measures a model on sequences spread evenly over `data`.

    Works on a copy of the model and restores the random generators, so that it does not affect training.
    """
    device = model.head.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        x_BTI, y_B, lengths_B = data.batch(_sample(data, model))
        return measure(copy.deepcopy(model), x_BTI, y_B, lengths_B, loss)


def _sample(data: SequenceDataset, model: SequenceClassifier) -> Tensor:
    """Indices of evenly spaced sequences, as many as STATE_BYTES allow."""
    sizes = [
        leaf.nbytes
        for module in model.modules()
        if isinstance(module, CellModule)
        for leaf in leaves(module.initial_state(torch.zeros(1, module.input_size)))
    ]
    steps = data.steps
    if model.grid is not None:
        places = model.grid.rows * model.grid.columns
        steps = places if model.stack.axes == "alternating" else max(steps, model.grid.columns)
    affordable = STATE_BYTES // (steps * sum(sizes))
    count = min(len(data), max(FEWEST_SEQUENCES, min(MOST_SEQUENCES, affordable)))
    return torch.arange(count) * len(data) // count


def measure(
    model: SequenceClassifier, x_BTI: Tensor, y_B: Tensor, lengths_B: Tensor | None, loss: LossFunction
) -> list[Figure]:
    """Measures a model on a batch. This changes the model: it cannot be used for anything else afterwards."""
    recorders = list(_with_recorders(model.eval(), lengths_B))
    # the loss is a mean; the sum makes the gradient of each sequence independent of the batch size
    total = loss(model(x_BTI, lengths_B), y_B) * len(y_B)
    states = [leaf for _, _, _, recorder in recorders for state in recorder.states for leaf in state]
    gradients = iter(torch.autograd.grad(total, states, allow_unused=True))
    figures: list[Figure] = []
    for layer, direction, module, recorder in recorders:
        norms_TB = torch.stack(
            [_norm([next(gradients) for _ in state], len(y_B)) for state in recorder.states]
        )
        for step, value in enumerate(_mean_by_step(norms_TB, lengths_B), 1):
            figures.append(Figure(layer, direction, "gradient", "", step, value))
        for part, value in radii(module).items():
            figures.append(Figure(layer, direction, "radius", part, None, value))
        for part, value in recorder.saturation().items():
            figures.append(Figure(layer, direction, "saturation", part, None, value))
    return figures


def _with_recorders(
    model: SequenceClassifier, lengths_B: Tensor | None
) -> Iterator[tuple[int, str, CellModule, StepRecorder]]:
    """Makes the model run step by step, and records each cell; yields layer, direction, cell, recorder."""
    for suffix, tower in zip(("", "_across"), model.towers, strict=False):
        for number, layer in enumerate(tower.layers, 1):
            assert isinstance(layer, RecurrentLayer)
            layer.stack = replace(layer.stack, engine="loop")
            for name, module in layer.directions.items():
                assert isinstance(module, CellModule)
                recorder = StepRecorder(module.cell.step, lengths_B)
                module.cell = copy.copy(module.cell)  # all layers share one cell
                vars(module.cell)["step"] = recorder
                yield number, name.removesuffix("_cell") + suffix, module, recorder


class StepRecorder(TorchFunctionMode):
    """Replaces the `step` of a cell: stores its states, and counts saturated results."""

    def __init__(self, step: Callable[..., tuple[Tensor, Any]], lengths_B: Tensor | None) -> None:
        super().__init__()
        self.step, self.lengths_B = step, lengths_B
        self.states: list[list[Tensor]] = []
        """For each step so far, the tensors of the state after it."""
        self.batch = 0
        self.total: Counter[str] = Counter()
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
        """Intercepts every call of a torch function within a step."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix("_")
        # results without a batch dimension are squashed weights
        if name in STEEPNESS and result.ndim > 1 and len(result) == self.batch:
            self._count(name, result.detach())
        return result

    def _count(self, name: str, y: Tensor) -> None:
        flat = STEEPNESS[name](y) < FLAT
        if self.lengths_B is not None:
            flat = flat[self.lengths_B > len(self.states)]
        self.total[name] += flat.numel()
        self.flat[name] += int(flat.sum())

    def saturation(self) -> dict[str, float]:
        """The share of nearly flat results, for each function that the cell uses."""
        return {name: self.flat[name] / self.total[name] for name in STEEPNESS if self.total[name]}


def _norm(gradients: list[Tensor | None], batch: int) -> Tensor:
    """For each sequence, the norm of the gradients of all tensors of its state: (B). A state may be that of
    several sequences in each of a batch, (P × B, …)."""
    squares_B = torch.zeros(batch, dtype=torch.float64)
    for gradient in gradients:
        if gradient is not None:  # None for parts of the state that no later step or output uses
            # in float64: in float32 the squares of gradients below 1e-23 are zero
            size_PBH = gradient.abs().cpu().double().reshape(len(gradient) // batch, batch, -1)
            squares_B += size_PBH.square().sum((0, 2))
    return squares_B.sqrt()


def _mean_by_step(norms_TB: Tensor, lengths_B: Tensor | None) -> list[float]:
    plan = Plan(None if lengths_B is None else lengths_B.cpu())
    sums_T, counts_T = (plan.right_aligned(part).sum(1) for part in (norms_TB, torch.ones_like(norms_TB)))
    means: list[float] = (sums_T / counts_T).tolist()
    return means


@torch.no_grad()
def radii(module: CellModule) -> dict[str, float]:
    """The spectral radius of each recurrent matrix, by gate or weight.

    Empty if there is no such matrix: if only the inputs determine what is kept, or if the recurrent weights
    are not square, because they lead to a hidden layer or have a low rank.
    """
    cell, p = module.cell, module.prepared()
    if isinstance(cell, LinearCell):
        return _transition_radius(cell, module, p)
    blocks: list[tuple[str, Tensor]] = []
    for name in _recurrent_weights(cell, p):
        weight = getattr(p, name)
        blocks += [(name.removesuffix("_weight"), block) for block in _square_blocks(cell, name, weight)]
    gates = len(cell.gates)
    if gates and len(blocks) % gates == 0:
        heads = len(blocks) // gates  # the matrix of a gate is block-diagonal, with one block per head
        blocks = [(cell.gates[number // heads], block) for number, (_, block) in enumerate(blocks)]
    radius_of: dict[str, float] = {}
    for name, block in blocks:
        radius_of[name] = max(radius_of.get(name, 0.0), spectral_radius(block))
    return radius_of


def _recurrent_weights(cell: Cell, p: Parameters) -> tuple[str, ...]:
    """Names of the recurrent weights: those that the cell declares, otherwise the usual names."""
    if cell.recurrent_weights:
        return cell.recurrent_weights
    return next(((name,) for name in ("flow", "recurrent_weight") if hasattr(p, name)), ())


def _square_blocks(cell: Cell, name: str, weight: Tensor) -> list[Tensor]:
    """The square matrices stacked in the rows of a weight; a vector stands for a diagonal matrix."""
    if weight.ndim == 1:
        return [weight]
    rows, columns = weight.shape
    stacked = bool(cell.gates) or name == "flow"
    if rows == columns or (stacked and rows % columns == 0):
        return list(torch.split(weight, columns))
    return []


def _transition_radius(cell: LinearCell, module: CellModule, p: Parameters) -> dict[str, float]:
    """The radius of the coefficient a of a linear cell, if it is the same at all steps."""
    weight = next(module.parameters())
    count, width = cell.past
    past = (weight.new_zeros(1, width),) * count
    z = cell.inputs(p, weight.new_zeros(1, module.input_size))
    a, _ = cell.recurrence(p, cell.signals(p, z, past))
    if a.ndim > len(cell.state_shape) + cell.pairs:
        return {}
    return {"transition": spectral_radius(a) if cell.pairs else spectral_radius(a.flatten())}


def spectral_radius(matrix: Tensor) -> float:
    """The largest modulus of the eigenvalues of one or more matrices, or of a diagonal matrix, given as a
    vector. NaN if an element is not finite."""
    wide = matrix.detach().cpu().to(torch.complex128 if matrix.is_complex() else torch.float64)
    if not wide.isfinite().all():
        return math.nan
    return (wide if wide.ndim == 1 else torch.linalg.eigvals(wide)).abs().max().item()
