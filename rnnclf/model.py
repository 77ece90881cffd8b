"""The sequence classifier.  Shapes: B batch, T time, I inputs, H hidden, D directions × H, K classes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnnclf.cells import Cell
from rnnclf.cells.module import CellModule, Weights
from rnnclf.cells.state import map_states
from rnnclf.data.categories import CodedFeatures
from rnnclf.data.grid import Grid, other_length
from rnnclf.engine.choose import ENGINES, engine_for
from rnnclf.engine.parts import parts_of_batches
from rnnclf.engine.plan import Plan
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError, DataError
from rnnclf.readout import READOUTS, valid_steps
from rnnclf.stack import Stack

ONE_HOT = 16
"""Channels of up to so many names get a feature for each."""
SMALLEST_SHARED = 3_000_000
"""FLOPs per time step from which sharing each operation among threads is faster than one thread. Measured."""


class RecurrentLayer(nn.Module):
    """One layer of a cell, run forward in time or, if bidirectional, forward and backward.

    Layers above the first apply normalisation and dropout to their inputs; with `residual` they add their
    inputs, as they were before that, to their outputs. The first one has a dropout of its own.
    """

    def __init__(self, cell: Cell, input_size: int, stack: Stack, first: bool) -> None:
        super().__init__()
        names = ("forward", "backward") if stack.bidirectional else ("forward",)
        self.directions = nn.ModuleDict({f"{name}_cell": cell.build(input_size) for name in names})
        for module in self.directions.values():
            assert isinstance(module, CellModule)
            module.recurrent_dropout = stack.recurrent_dropout
        self.norm = Norm("none" if first else stack.norm, input_size)
        self.stack, self.first = stack, first
        self.input_size, self.width = input_size, cell.hidden_size * len(names)

    def forward(self, x_TBI: Tensor, lengths_B: Tensor | None, every_step: bool) -> list[Tensor]:
        """The outputs of each direction (T, B, H), in the order in which that direction runs through time;
        without `every_step`, only the last valid ones (B, H)."""
        plan = Plan(lengths_B, every_step, final_state=False)
        inputs_TBI = self.dropped(self.norm(x_TBI, lengths_B))
        outputs = []
        for part, (name, module) in enumerate(self.directions.items()):
            assert isinstance(module, CellModule)
            orient = partial(reversed_in_time, lengths_B=lengths_B) if name == "backward_cell" else _unchanged
            y = self._unrolled(module, orient(inputs_TBI), plan)
            if self.stack.residual and not self.first:
                own_TBH = orient(x_TBI.chunk(len(self.directions), dim=-1)[part])
                y = y + (plan.held(own_TBH) if every_step else plan.last_of(own_TBH))
            outputs.append(y)
        return outputs

    def _unrolled(self, module: CellModule, x_TBI: Tensor, plan: Plan) -> Tensor:
        rate = self.stack.zoneout
        blend = partial(zoneout, rate=rate, training=self.training) if rate else None
        return unroll(
            module,
            x_TBI,
            lengths_B=plan.lengths_B,
            engine=self.stack.engine,
            every_step=plan.every_step,
            final_state=False,
            blend=blend,
            bf16=self.stack.precision == "bf16",
        )[0]

    def dropped(self, x_TBI: Tensor) -> Tensor:
        """The inputs with some values set to 0, in training."""
        rate = self.stack.input_dropout if self.first else self.stack.dropout
        if not self.training or not rate:
            return x_TBI
        # dropout draws in the order of memory, which for inputs may be any
        if self.stack.variational or self.first:
            shape = x_TBI.shape[1:] if self.stack.variational else x_TBI.shape
            return x_TBI * functional.dropout(x_TBI.new_ones(shape), rate)
        return functional.dropout(x_TBI, rate)


def _unchanged(x_TBI: Tensor) -> Tensor:
    return x_TBI


def zoneout(old_state: Any, new_state: Any, *, rate: float, training: bool) -> Any:
    """Zoneout: each element of the state keeps its previous value with probability `rate`; outside training,
    the expected value of that.

    Krueger et al. 2017, https://arxiv.org/abs/1606.01305
    """
    if not training:
        return map_states(lambda old, new: torch.lerp(new.to(old.dtype), old, rate), old_state, new_state)
    return map_states(
        lambda old, new: torch.where(torch.rand_like(new) < rate, old, new), old_state, new_state
    )


class Norm(nn.Module):
    """Layer or batch normalisation of the last dimension; padding does not enter the statistics."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.norm = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}[kind](width)

    def forward(self, x: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Normalises x: (T, B, D), with `lengths_B` valid steps per sequence, or (B, D)."""
        if not isinstance(self.norm, nn.BatchNorm1d):
            normalised: Tensor = self.norm(x)
            return normalised
        if lengths_B is None:
            return _batch_norm(self.norm, x.reshape(-1, x.shape[-1])).reshape(x.shape)
        valid_TB1 = valid_steps(x, lengths_B)
        rows = _batch_norm(self.norm, x[valid_TB1.squeeze(-1)])
        return torch.zeros_like(x).masked_scatter(valid_TB1, rows)


def _batch_norm(norm: nn.BatchNorm1d, rows_ND: Tensor) -> Tensor:
    """Batch normalisation. A single row has no variance, so it is normalised with the running statistics."""
    if norm.training and len(rows_ND) > 1:
        normalised: Tensor = norm(rows_ND)
        return normalised
    return functional.batch_norm(
        rows_ND, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )


class Names(nn.Module):
    """Replaces the codes of names, the last features of each step, by a vector for each.

    Of up to ONE_HOT names it has a 1 in the place of its own; of K more, it is learned and has
    round(1.6 K^0.56) numbers, as fastai chooses. A missing name is 0. A name that the training split does not
    have is the mean of the others: a vector of its own would never be trained.
    """

    def __init__(self, coded: CodedFeatures) -> None:
        super().__init__()
        self.coded = coded
        self.widths = [k if k <= ONE_HOT else round(1.6 * k**0.56) for k in coded.sizes]
        self.learned = nn.ParameterDict(
            {
                # as long as a vector with a single 1
                str(place): nn.Parameter(torch.randn(k, width) / width**0.5)
                for place, (k, width) in enumerate(zip(coded.sizes, self.widths, strict=True))
                if k > ONE_HOT
            }
        )

    @property
    def added(self) -> int:
        """How many more features there are than codes."""
        return self.coded.patch * sum(self.widths) - self.coded.number

    def forward(self, x_TBI: Tensor) -> Tensor:
        """The features (T, B, I) with vectors for codes."""
        numbers_TBN, codes_TBK = x_TBI.tensor_split((x_TBI.shape[-1] - self.coded.number,), dim=-1)
        parts, channels = [numbers_TBN], len(self.widths)
        for place in range(channels):
            codes_TBP = codes_TBK[..., place::channels].long()
            parts.append(self._table(place, x_TBI)[codes_TBP].flatten(-2))
        return torch.cat(parts, dim=-1)

    def _table(self, place: int, like: Tensor) -> Tensor:
        """The vector of each code of a channel (K + 2, width)."""
        key, k = str(place), self.coded.sizes[place]
        known = self.learned[key] if key in self.learned else torch.eye(k, device=like.device)
        return torch.cat((torch.zeros_like(known[:1]), known, known.mean(dim=0, keepdim=True))).to(like.dtype)


class Tower(NamedTuple):
    """Layers, each of which reads the outputs of the one before it, and the readouts of those that the head
    sees: one for each direction."""

    layers: nn.ModuleList
    readouts: nn.ModuleList

    @classmethod
    def of(cls, cell: Cell, input_size: int, stack: Stack) -> Tower:
        """A tower with newly initialised weights."""
        directions = 2 if stack.bidirectional else 1
        width = cell.hidden_size * directions
        layers = nn.ModuleList(
            RecurrentLayer(cell, width if index else input_size, stack, first=index == 0)
            for index in range(stack.layers)
        )
        read_layers = stack.layers if stack.readout_layers == "all" else 1
        weights = READOUTS[stack.readout].parameters(cell.hidden_size)
        return cls(layers, nn.ModuleList(Weights(weights) for _ in range(directions * read_layers)))

    def features(self, x_TBI: Tensor, lengths_B: Tensor | None, stack: Stack) -> list[Tensor]:
        """The results of the readouts, (B, H) for each direction of each layer that the head sees."""
        readout = READOUTS[stack.readout]
        features: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            top = index == len(self.layers) - 1
            every_step = not top or readout.every_step
            outputs = layer(x_TBI, lengths_B, every_step)
            if top or stack.readout_layers == "all":
                needs_last = every_step and not readout.every_step
                read = [Plan(lengths_B).last_of(y_TBH) for y_TBH in outputs] if needs_last else outputs
                features += self._read(len(features), read, lengths_B, stack)
            if not top:
                x_TBI = concatenated(outputs, lengths_B)
        return features

    def features_of_places(self, x_RPBF: Tensor, stack: Stack) -> list[Tensor]:
        """`features` of grids of R rows and P columns, whose layers read alternately each column downwards,
        as a sequence of its own, and each row of the outputs; the readouts see the outputs of all places.

        A ReNet without its square patches, which are a matter of the data: Visin et al. 2015,
        https://arxiv.org/abs/1505.00393
        """
        features: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            beside = x_RPBF.shape[1:3]  # the sequences of a layer: those that lie side by side in each grid
            outputs = layer(x_RPBF.flatten(1, 2), None, True)
            top = index == len(self.layers) - 1
            if top or stack.readout_layers == "all":
                read = [y_TNH.reshape(-1, beside[1], y_TNH.shape[-1]) for y_TNH in outputs]
                features += self._read(len(features), read, None, stack)
            if not top:
                y_TND = concatenated(outputs, None)
                x_RPBF = y_TND.reshape(len(y_TND), *beside, -1).transpose(0, 1)
        return features

    def _read(
        self, first: int, outputs: list[Tensor], lengths_B: Tensor | None, stack: Stack
    ) -> list[Tensor]:
        """The results of the readouts from the first one on, each of one direction."""
        read = READOUTS[stack.readout].read
        results = []
        for module, y in zip(self.readouts[first:], outputs, strict=False):
            assert isinstance(module, Weights)
            results.append(read(module.weights(), y, lengths_B))
        return results


class SequenceClassifier(nn.Module):
    """Layers of one cell, a readout, a linear head; with axes=both two towers of such layers, of which one
    reads the steps of a sequence and the other reads it across, and the head sees the readouts of both; with
    axes=alternating one tower, whose layers read the columns and the rows of a grid alternately.

    Args:
        cell: the cell of every layer.
        input_size: features of one step.
        classes: number of classes.
        stack: the architecture around the cell. Raises ConfigError if the cell does not support it.
        coded: the features that are codes of names, if there are any.
        grid: how sequences are read across; needed unless axes=steps.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        classes: int,
        stack: Stack | None = None,
        coded: CodedFeatures | None = None,
        grid: Grid | None = None,
    ) -> None:
        super().__init__()
        stack = stack or Stack()
        stack.check_cell(cell)
        self.names = None if coded is None else Names(coded)
        self.stack = stack
        self.input_size = input_size
        self.grid = _checked_grid(stack, input_size, coded, grid)
        self.frozen = False
        """Whether only the head is trained."""
        self.readout = READOUTS[stack.readout]
        self.layers, self.readouts = Tower.of(cell, self._first_input_size(), stack)
        if stack.axes == "both":
            assert self.grid is not None
            self.across_layers, self.across_readouts = Tower.of(cell, self.grid.column_size, stack)
        width = cell.hidden_size * sum(len(tower.readouts) for tower in self.towers)
        self.head_norm = Norm(stack.norm, width)
        self.head = nn.Linear(width, classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def towers(self) -> list[Tower]:
        """The tower that reads the steps and, with axes=both, the one that reads across them."""
        along = Tower(self.layers, self.readouts)
        if self.stack.axes != "both":
            return [along]
        return [along, Tower(self.across_layers, self.across_readouts)]

    def _first_input_size(self) -> int:
        """The features of a step of the first layer."""
        if self.grid is not None and self.stack.axes == "alternating":
            return self.grid.place_size
        return self.input_size + (0 if self.names is None else self.names.added)

    def forward(self, x_BTI: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits (B, K) of sequences of equal length, or with `lengths_B` valid steps each.

        Raises DataError for sequences whose number of steps is not that of the grid.
        """
        if x_BTI.ndim != 3 or x_BTI.shape[2] != self.input_size:
            expected = f"(batch, time, {self.input_size})"
            raise ValueError(f"x must have shape {expected}, got {tuple(x_BTI.shape)}.")
        if self.grid is not None:
            _refuse_other_lengths(self.grid.steps, x_BTI, lengths_B)
            lengths_B = None
        x_TBI = x_BTI.transpose(0, 1)
        if lengths_B is not None:
            # multiplying by a mask would not remove a NaN in the padding from the gradient: 0 · NaN is NaN
            x_TBI = x_TBI.masked_fill(~valid_steps(x_TBI, lengths_B), 0)
        with torch.no_grad() if self.frozen else nullcontext():  # engines then keep nothing to go back with
            x_TBI = x_TBI if self.names is None else self.names(x_TBI)
            features_BD = torch.cat(self._features(x_TBI, lengths_B), dim=-1)
        logits_BK: Tensor = self.head(
            functional.dropout(self.head_norm(features_BD), self.stack.dropout, self.training)
        )
        return logits_BK

    def _features(self, x_TBI: Tensor, lengths_B: Tensor | None) -> list[Tensor]:
        """The results of the readouts of all towers, (B, H) each."""
        if self.grid is not None and self.stack.axes == "alternating":
            return self.towers[0].features_of_places(self.grid.places(x_TBI), self.stack)
        views = [x_TBI] if self.grid is None else [x_TBI, self.grid.across(x_TBI)]
        return [
            feature
            for tower, view in zip(self.towers, views, strict=True)
            for feature in tower.features(view, lengths_B, self.stack)
        ]

    def freeze(self) -> None:
        """Leaves the weights of everything below the head, and its normalisation, as they are."""
        self.frozen = True
        for name, weight in self.named_parameters():
            weight.requires_grad_(name.startswith("head"))

    def train(self, mode: bool = True) -> SequenceClassifier:
        """Sets training mode, as in torch; of a frozen classifier for its head alone."""
        super().train(mode)
        if self.frozen:  # else batch normalisation would change its statistics
            for tower in self.towers:
                for part in tower:
                    part.eval()
        return self

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def cores(self, batch: int, ragged: bool = False) -> AbstractContextManager[None]:
        """Context in which the cores of a CPU are used as suits the engine. With the fused and the machine
        engine, each core computes all steps of a part of the batch. With the others, the cores share each
        operation; a single core does all work if operations are too small to be shared.

        batch: the number of sequences in a batch. ragged: whether they differ in length.
        """
        device = self.head.weight.device.type
        if device != "cpu":
            return nullcontext()
        stack, bf16, zoned = self.stack, self.stack.precision == "bf16", self.stack.zoneout > 0
        engines = self.engines(device, asked=stack.engine, ragged=ragged, bf16=bf16, zoneout=zoned)
        by_parts = all(ENGINES[engine].by_parts for engine in engines)
        small = self.step_work(batch) < SMALLEST_SHARED
        return parts_of_batches() if by_parts or small else nullcontext()

    def step_work(self, batch: int) -> int:
        """FLOPs of the largest layer for a time step of a batch, forward."""
        sizes = (sum(weight.numel() for weight in module.parameters()) for module in self._cell_modules())
        return 2 * batch * max(sizes)

    def engines(self, device: str, all_outputs: bool = False, **situation: Any) -> set[str]:
        """The engines of the layers, of which the lower ones need all their outputs, and with `all_outputs`
        the top one, too. situation: see `engine_for`."""
        needed = {all_outputs or READOUTS[self.stack.readout].every_step}
        needed |= {True} if self.stack.layers > 1 else set()
        return {
            engine_for(module, device, every_step=every_step, **situation)
            for module in self._cell_modules()
            for every_step in needed
        }

    def _cell_modules(self) -> list[CellModule]:
        return [module for module in self.modules() if isinstance(module, CellModule)]


def _checked_grid(
    stack: Stack, input_size: int, coded: CodedFeatures | None, grid: Grid | None
) -> Grid | None:
    """The grid if sequences are to be read across. Raises ConfigError if there is none."""
    if stack.axes == "steps":
        return None
    if grid is None or coded is not None:
        raise ConfigError(
            f"axes={stack.axes} needs sequences of numbers that all have the same number of steps."
        )
    if grid.input_size != input_size:
        raise ValueError(f"The grid has {grid.input_size} features per step, the model {input_size}.")
    return grid


def _refuse_other_lengths(steps: int, x_BTI: Tensor, lengths_B: Tensor | None) -> None:
    """Raises DataError unless all sequences have so many steps."""
    lengths = [] if lengths_B is None else lengths_B.tolist()
    found = next((length for length in lengths if length != steps), x_BTI.shape[1])
    if found != steps:
        raise DataError(other_length(steps, found))


def reversed_in_time(x_TBI: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Reverses the valid steps of each sequence; its padding stays at the end."""
    if lengths_B is None:
        return x_TBI.flip(0)
    t_T1 = torch.arange(x_TBI.shape[0], device=x_TBI.device).unsqueeze(-1)
    source_TB = torch.where(t_T1 < lengths_B, lengths_B - 1 - t_T1, t_T1)
    return x_TBI.gather(0, source_TB.unsqueeze(-1).expand_as(x_TBI))


def concatenated(outputs: list[Tensor], lengths_B: Tensor | None) -> Tensor:
    """The outputs (T, B, D) of all directions, concatenated step by step in forward time."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat((outputs[0], reversed_in_time(outputs[1], lengths_B)), dim=-1)
