"""One time step of a classifier as a pure function of tensors, with its weights inside.

It is what `rnnclf stream` calls for each step that arrives, and what `rnnclf export` traces. Needs torch
alone. Shapes: B batch, T time, C channels as read, N those of numbers, M those of names, F features of a
number, P steps in a patch, I inputs of a cell, Z what a cell's `inputs` makes of them, H hidden, S numbers in
a state, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rnnclf.cells.base import GatedCell
from rnnclf.cells.module import CellModule, Weights
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.data.preparation import Preparation
from rnnclf.engine.loop import Blend, blended
from rnnclf.engine.native import recurrent_bias
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from rnnclf.export.prepared_step import PreparedStep, needs_float64
from rnnclf.model import RecurrentLayer, SequenceClassifier, zoneout
from rnnclf.stack import Stack

Memory: TypeAlias = "dict[str, list[Tensor]]"
"""The parts of a state by whose they are; the names of what belongs to layers and readouts have two words."""


LEAST_BY_ENGINE = 16
"""Steps of one sequence from which on an engine is faster than single steps: measured for basic, lstm and gru
with 64 units, for which torch has steps of its own; for lem it is 8."""

Advance: TypeAlias = "Callable[..., tuple[Tensor, list[Tensor]]]"
"""(state before a step, what else it depends on) → output (B, …), state after it."""

Over: TypeAlias = "Callable[..., tuple[Tensor, list[Tensor]]]"
"""Applies an `Advance`, its first argument, to one step or to several."""


def as_real(state: Any) -> list[Tensor]:
    """The tensors of a state. Pairs (…, 2) stand for complex numbers, which ONNX has not."""
    return [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves(state)]


def as_state(like: Any, parts: list[Tensor]) -> Any:
    """The inverse of `as_real`, for a state of the structure of `like`."""
    rest = iter(parts)

    def rebuilt(part: Any) -> Any:
        if isinstance(part, tuple):
            return type(part)(*map(rebuilt, part))
        found = next(rest)
        # view_as_complex would refuse a slice that begins at an odd place
        return torch.complex(found[..., 0], found[..., 1]) if part.is_complex() else found

    return rebuilt(like)


def _frozen(module: CellModule, owner: nn.Module) -> Parameters:
    """The weights as `inputs` and `step` expect them, computed once and kept by `owner`: of what `prepare`
    does (a matrix exponential, complex powers) nothing is left to do."""
    with torch.no_grad():
        prepared = vars(module.prepared())
    found = {}
    for name, value in prepared.items():
        if isinstance(value, Tensor):
            value = value.detach().clone().contiguous()
            owner.register_buffer(name, value)
        found[name] = value
    return Parameters(**found)


class CellInputs(nn.Module):
    """The part of a step that does not depend on the state: x (…, I) → z (…, Z)."""

    def __init__(self, module: CellModule) -> None:
        super().__init__()
        self.cell, self.p = module.cell, _frozen(module, self)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell.inputs(self.p, x)


class CellStep(nn.Module):
    """The rest of a step: z (B, Z) and the tensors of the state → output (B, H), the tensors of the state
    after the step.

    blend: what zoneout makes of the state before and after a step.
    """

    def __init__(self, module: CellModule, blend: Blend | None = None) -> None:
        super().__init__()
        self.cell, self.p, self.blend = module.cell, _frozen(module, self), blend
        weight = next((value for value in vars(self.p).values() if isinstance(value, Tensor)), torch.zeros(1))
        dtype = weight.real.dtype if weight.is_complex() else weight.dtype
        self.like = self.cell.initial_state(torch.zeros(1, module.input_size, dtype=dtype))

    def forward(self, z: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        state = as_state(self.like, list(parts))
        output, after = self.cell.step(self.p, z, state)
        if self.blend is not None:
            output, after = blended(self.blend, state, output, after)
        return (output, *as_real(after))


def blend_of(stack: Stack) -> Blend | None:
    """What zoneout does once a model is trained: a mean of the state before and after a step."""
    return partial(zoneout, rate=stack.zoneout, training=False) if stack.zoneout else None


def refuse_streaming(stack: Stack, preparation: Preparation | None) -> None:
    """Raises ConfigError for a classifier that cannot answer before a sequence has ended."""
    if stack.axes != "steps":
        raise ConfigError(
            f"axes={stack.axes} also reads a sequence across its steps, when it has ended, so the model"
            " cannot answer step by step: train with axes=steps."
        )
    if stack.bidirectional:
        raise ConfigError(
            "bidirectional=true also reads a sequence from its end, so the model cannot answer step by step:"
            " train with bidirectional=false."
        )
    if preparation is not None and preparation.missing == "interpolate":
        raise ConfigError(
            "dataset.missing=interpolate draws lines to values that are yet to come, so the model cannot"
            " answer step by step: train with dataset.missing=mask."
        )


def refuse_names(preparation: Preparation | None) -> None:
    """Raises ConfigError for channels of names, of which no file has been written yet."""
    if preparation is not None and (names := ", ".join(preparation.vocabularies)):
        raise ConfigError(
            f"The model reads channels of names ({names}), which cannot be exported yet:"
            " train with channels of numbers alone."
        )


class NativeStep(nn.Module):
    """`CellInputs` and `CellStep` in one operation of torch, for the cells that it has: x (B, I) and the
    tensors of the state → output (B, H), the tensors of the state after the step. It cannot be traced for
    ONNX."""

    def __init__(self, module: CellModule) -> None:
        super().__init__()
        cell, p = module.cell, _frozen(module, self)
        assert isinstance(cell, GatedCell)
        self.operation = getattr(torch, f"{cell.native_layer()}_cell")
        self.weights = [p.input_weight, p.recurrent_weight, p.bias, recurrent_bias(p)]

    def forward(self, x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        if len(parts) == 1:
            output = self.operation(x, parts[0], *self.weights)
            return output, output
        after = self.operation(x, parts, *self.weights)
        return (after[0], *after)

    @staticmethod
    def can(module: CellModule, blend: Blend | None) -> bool:
        """Whether torch has an operation for a step of this cell."""
        cell = module.cell
        return blend is None and isinstance(cell, GatedCell) and cell.declares("native_layer")


def _of_cell(
    step: Callable[..., tuple[Tensor, ...]], state: list[Tensor], z: Tensor
) -> tuple[Tensor, list[Tensor]]:
    output, *after = step(z, *state)
    return output, after


def _once(advance: Advance, state: list[Tensor], *given: Tensor) -> tuple[Tensor, list[Tensor]]:
    return advance(state, *given)


def _in_turn(advance: Advance, state: list[Tensor], *given: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Takes one row of what is given after the other: the outputs (T, …) and the state after the last one."""
    outputs = []
    for rows in zip(*(torch.split(tensor, 1) for tensor in given), strict=True):
        output, state = advance(state, *rows)
        outputs.append(output)
    return torch.cat(outputs), state


def _by_engine(
    module: CellModule, engine: str, like: Any, blend: Blend | None, state: list[Tensor], x_TI: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Several steps of one sequence: the outputs (T, H) and the state after the last one."""
    y_T1H, after = unroll(module, x_TI.unsqueeze(1), as_state(like, state), engine=engine, blend=blend)
    return y_T1H.squeeze(1), as_real(after)


class ClassifierStep(nn.Module):
    """x (B, C) as read, time since the step before (B), state (B, S) → logits (B, K), state after the step.

    One tensor holds everything that is remembered: the number of steps so far, for how long each channel has
    been missing, the steps of an unfinished patch, the state of each layer, what the readouts have gathered.
    Zeros are the state before the first step. Each answer is the one that the classifier gives for the steps
    so far. A float32 counts up to 16.7 million steps; beyond that, readout=mean forgets the oldest ones.

    Without a preparation, x holds the features of the model. Raises ConfigError if the classifier cannot
    answer step by step.
    """

    def __init__(self, model: SequenceClassifier, preparation: Preparation | None = None) -> None:
        super().__init__()
        refuse_streaming(model.stack, preparation)
        self.model, weight = model.eval(), model.head.weight
        self.channels = len(preparation.channels) if preparation else model.input_size
        self.named = len(preparation.vocabularies) if preparation else 0
        self.patch = preparation.patch if preparation else 1
        self.missing = preparation.missing if preparation else "error"
        self.prepared = PreparedStep(preparation, weight.dtype) if preparation else None
        self.prepare = self.prepared.forward if self.prepared else None
        self.dtype = torch.float64 if preparation and needs_float64(preparation) else weight.dtype
        """The type of x."""
        cells = [module for module in model.modules() if isinstance(module, CellModule)]
        self.hidden = cells[0].cell.hidden_size
        self.inputs = nn.ModuleList(CellInputs(cell) for cell in cells)
        self.steps = nn.ModuleList(CellStep(cell, blend_of(model.stack)) for cell in cells)
        start = {
            name: [part.detach().to(weight.dtype) for part in parts] for name, parts in self._start().items()
        }
        self.names = [(name, len(parts)) for name, parts in start.items()]
        self.shapes = [part.shape[1:] for parts in start.values() for part in parts]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        # found without torch's search for modules, which would take longer than the step of a small cell
        self.vectors = None if model.names is None else model.names.forward
        self.stack, self.head = model.stack, model.head.forward
        self.readouts = [
            None if model.stack.readout == "last" else partial(_read, model.stack.readout, weights)
            for weights in model.readouts
        ]
        self.head_norm = None if model.stack.norm == "none" else model.head_norm.forward
        layers = [layer for layer in model.layers if isinstance(layer, RecurrentLayer)]
        norms = [None if self.head_norm is None or layer.first else layer.norm.forward for layer in layers]
        self.layers = [
            (f"layer {index}", norm, inputs.forward, partial(_of_cell, step.forward))
            for index, (norm, inputs, step) in enumerate(zip(norms, self.inputs, self.steps, strict=True))
        ]
        self.stretches: list[Advance] = []
        self.start: Tensor
        self.register_buffer("start", _packed(start))

    def use_engines(self) -> None:
        """Makes steps faster, after which they cannot be exported any more: a step of basic, lstm and gru by
        an operation of torch, many steps of any cell by its engine."""
        blend = blend_of(self.model.stack)
        cells = [module for module in self.model.modules() if isinstance(module, CellModule)]
        for index, (cell, step) in enumerate(zip(cells, self.steps, strict=True)):
            assert isinstance(step, CellStep)
            self.stretches.append(partial(_by_engine, cell, self.stack.engine, step.like, blend))
            if NativeStep.can(cell, blend):
                own, norm, *_ = self.layers[index]
                self.layers[index] = (own, norm, _unchanged, partial(_of_cell, NativeStep(cell).forward))

    @property
    def width(self) -> int:
        """S, the number of numbers in a state."""
        return sum(self.sizes)

    def _start(self) -> Memory:
        """The parts of the state before the first step, each (1, …), in order."""
        model = self.model
        start = {"count": [torch.zeros(1, 1)]}
        if self.missing == "mask":
            start["since"] = [torch.zeros(1, self.channels - self.named)]
        if self.patch > 1:
            start["patch"] = [torch.zeros(1, model.input_size // self.patch, self.patch)]
        for index, step in enumerate(self.steps):
            start[f"layer {index}"] = as_real(step.like)
        for index in range(len(model.readouts)):
            start[f"readout {index}"] = _nothing_read(model.stack.readout, self.hidden)
        if self.missing == "drop":  # a step that is none leaves the answer as it was
            start["answer"] = [torch.zeros(1, model.head.out_features)]
        return start

    def forward(self, x: Tensor, elapsed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.where(state[:, :1] > 0, state, self.start)
        logits, after = self.advance(x, elapsed, self._unpacked(state))
        return logits, _packed(after)

    def beginning(self) -> Memory:
        """The state before the first step of one sequence, for `advance`."""
        return self._unpacked(self.start)

    def advance(self, x: Tensor, elapsed: Tensor, before: Memory) -> tuple[Tensor, Memory]:
        """The same with the state in parts, which saves a third of the time: for those who keep it here."""
        count, after = before["count"][0], dict(before)
        after["count"] = [count + 1]
        complete = None
        if self.missing == "drop":
            complete = ~x.isnan().any(dim=-1, keepdim=True)
            x = torch.where(complete, x, 0.0)
        if self.prepare is not None:
            since = before["since"][0] if "since" in before else None
            x, since = self.prepare(x, elapsed, count, since)
            if since is not None:
                after["since"] = [since]
        number = after["count"][0]
        if self.patch > 1:
            x = self._patched(x, count, before, after)
            number = torch.floor(count / self.patch) + 1
        logits = self._answered(x, number, before, after)
        if self.patch > 1:  # the layers go on when a patch is full; until then, each step only completes it
            full = (count + 1) % self.patch == 0
            after |= {name: _either(full, after[name], before[name]) for name in after if " " in name}
        if complete is None:
            return logits, after
        logits = torch.where(complete, logits, before["answer"][0])
        after["answer"] = [logits]
        return logits, {name: _either(complete, after[name], before[name]) for name in after}

    @property
    def at_once(self) -> bool:
        """Whether `advance_all` can be used."""
        return self.patch == 1 and self.missing != "drop"

    def advance_all(self, x: Tensor, elapsed: Tensor, before: Memory) -> tuple[Tensor, Memory]:
        """`advance` over several steps of one sequence: x (T, C), elapsed (T) → logits (T, K) after each of
        them, the state after the last one. Only what depends on the state goes step by step."""
        after = dict(before)
        count = before["count"][0] + torch.arange(len(x)).unsqueeze(1)
        after["count"] = [count[-1:] + 1]
        if self.prepare is not None and "since" in before:
            x, after["since"] = _in_turn(self._timed, before["since"], x, elapsed, count)
        elif self.prepare is not None:
            x, _ = self.prepare(x, elapsed, count, None)
        return self._answered(x, count + 1, before, after, _in_turn), after

    def _timed(
        self, gathered: list[Tensor], x: Tensor, elapsed: Tensor, count: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        assert self.prepare is not None
        x, since = self.prepare(x, elapsed, count, gathered[0])
        assert since is not None
        return x, [since]

    def _unpacked(self, state: Tensor) -> Memory:
        pieces = zip(torch.split(state, self.sizes, dim=1), self.shapes, strict=True)
        parts = iter([piece if len(shape) == 1 else piece.reshape(-1, *shape) for piece, shape in pieces])
        return {name: [next(parts) for _ in range(number)] for name, number in self.names}

    def _patched(self, x: Tensor, count: Tensor, before: Memory, after: Memory) -> Tensor:
        """The patch so far, (B, F P N + P M), in which this step stands for those yet to come, too."""
        place = (count % self.patch).unsqueeze(-1)
        later = torch.arange(self.patch, dtype=count.dtype) >= place  # (B, 1, P)
        filled = torch.where(later, x.unsqueeze(-1), before["patch"][0])  # (B, F N + M, P)
        after["patch"] = [filled]
        if not self.named:
            return _side_by_side(filled, self.channels)
        values, places = filled.tensor_split((x.shape[1] - self.named,), dim=1)
        numbers = self.channels - self.named
        parts = [_side_by_side(values, numbers)] if numbers else []
        return torch.cat((*parts, _side_by_side(places, self.named)), -1)

    def _answered(
        self, x: Tensor, number: Tensor, before: Memory, after: Memory, over: Over = _once
    ) -> Tensor:
        """The logits after one more step, the one with this number, for all layers; fills in their part of
        `after`. over: applies what depends on the state, to one step or to several."""
        stack = self.stack
        x = x if self.vectors is None else self.vectors(x)
        outputs: list[Tensor] = []
        for index, (own, norm, inputs, step) in enumerate(self.layers):
            normed = x if norm is None else norm(x)
            if self.stretches and over is _in_turn and len(x) >= LEAST_BY_ENGINE:
                y, after[own] = self.stretches[index](before[own], normed)
            else:
                y, after[own] = over(step, before[own], inputs(normed))
            x = y + x if stack.residual and outputs else y
            outputs.append(x)
        features = []
        read = outputs if stack.readout_layers == "all" else outputs[-1:]
        for index, (reading, y) in enumerate(zip(self.readouts, read, strict=True)):
            own = f"readout {index}"
            if reading is not None:
                y, after[own] = over(reading, before[own], y, number)
            features.append(y)
        joined = features[0] if len(features) == 1 else torch.cat(features, dim=-1)
        return self.head(joined if self.head_norm is None else self.head_norm(joined))


def _unchanged(x: Tensor) -> Tensor:
    return x


def _packed(parts: Memory) -> Tensor:
    """All parts of a state side by side, (B, S)."""
    return torch.cat(
        [part if part.ndim == 2 else part.flatten(1) for own in parts.values() for part in own], dim=1
    )


def _side_by_side(filled: Tensor, channels: int) -> Tensor:
    """The steps of a patch, (B, F C, P), as its features (B, F P C)."""
    b, _, patch = filled.shape
    return filled.reshape(b, -1, channels, patch).transpose(2, 3).reshape(b, -1)


def _either(condition_B1: Tensor, yes: list[Tensor], no: list[Tensor]) -> list[Tensor]:
    """For each sequence, the parts `yes` where the condition holds, otherwise `no`."""
    return [
        torch.where(condition_B1.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(yes, no, strict=True)
    ]


def _nothing_read(readout: str, hidden: int) -> list[Tensor]:
    """What a readout has gathered before the first step."""
    lowest = -math.inf
    return {
        "last": [],
        "mean": [torch.zeros(1, hidden)],
        "max": [torch.full((1, hidden), lowest)],
        "attention": [torch.full((1, 1), lowest), torch.zeros(1, 1), torch.zeros(1, hidden)],
    }[readout]


def _read(
    readout: str, weights: nn.Module, gathered: list[Tensor], y: Tensor, number: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The readout of all steps up to this one, and what it has gathered. number: of this step, from 1 on."""
    if readout == "mean":
        mean = gathered[0] + (y - gathered[0]) / number  # a sum would lose digits as it grows
        return mean, [mean]
    if readout == "max":
        most = torch.maximum(gathered[0], y)
        return most, [most]
    # softmax over all steps so far, relative to the largest score so far
    assert isinstance(weights, Weights)
    p, (top, total, weighted) = weights.weights(), gathered
    score = (nn.functional.linear(y, p.weight, p.bias).tanh() @ p.vector).unsqueeze(-1)
    highest = torch.maximum(top, score)
    fade, share = (top - highest).exp(), (score - highest).exp()
    total, weighted = total * fade + share, weighted * fade + share * y
    return weighted / total, [highest, total, weighted]
