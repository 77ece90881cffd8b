"""From a cell's step to a graph: records one step and its gradient, and lowers what was recorded.

    graph = record(cell, vars(module.prepared()), inputs=28)

The step runs once on a small batch of random numbers, forward and then backward by autograd. The calls of
torch are recorded and sorted by what they depend on:

    weights alone                        `before`: torch runs them once per batch
    a row for each sequence              become nodes, to be run by machine code at each time step
    sums over sequences                  are accumulated by machine code over all time steps …
    and what is made of these sums       … `after`: torch runs it once per batch
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine.machine.graph import Graph, UncoveredError
from rnnclf.engine.machine.trace.lowering import Lowering
from rnnclf.engine.machine.trace.operations import RULES
from rnnclf.engine.machine.trace.operations.elementwise import expanded_weight
from rnnclf.engine.machine.trace.operations.totals import is_linear
from rnnclf.engine.machine.trace.recording import Call, Recorder, plain_torch, tensors_in
from rnnclf.engine.machine.trace.values import MIXED, Batched, Total, Uniform

__all__ = ["Graph", "UncoveredError", "record"]


def record(cell: Any, p: dict[str, Tensor], inputs: int, zoneout: bool = False) -> Graph:
    """The graph of a cell's step.

    p: the prepared weights by name. Gradients are made for those that require one.
    inputs: features of a sequence.
    zoneout: the new state is mask · old state + (1 − mask) · new state. `x` has further columns behind the
        inputs, the masks of all tensors of the state: 1 where an element keeps its old value, 0 where not,
        or, outside training, the zoneout rate. They have no gradient.

    The caller's tensors, random state and settings of torch (grad mode, autocast, …) neither matter nor
    change. Raises UncoveredError if the step cannot become machine code.
    """
    with plain_torch():
        return _lowered(_run(cell, p, inputs, zoneout))


@dataclass
class _Recording:
    """One step that was run and recorded: its calls, and the tensors that it starts and ends with."""

    rows: int
    weights: dict[str, Tensor]
    x: Tensor
    masks: list[Tensor]
    """Of zoneout: one for each tensor of the state, or none."""
    old: list[Tensor]
    new: list[Tensor]
    out: Tensor
    d_new: list[Tensor]
    d_out: Tensor | None
    """Given, as random numbers, like `d_new`. None: the output is part of the new state."""
    d_x: Tensor | None
    """A gradient that is None is zero."""
    d_old: list[Tensor | None]
    d_weights: dict[str, Tensor | None]
    calls: list[Call]
    forward_calls: int

    @property
    def out_leaf(self) -> int | None:
        return _position(self.out, self.new)


# recording


def _run(cell: Any, p: dict[str, Tensor], inputs: int, zoneout: bool) -> _Recording:
    dtype = next(iter(p.values())).dtype
    rows = _batch_size({inputs, *(side for w in p.values() for side in w.shape)})
    draws = torch.Generator().manual_seed(0)  # torch's global random state is the caller's

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=draws, dtype=dtype, device="cpu")

    with torch.no_grad():
        weights = {n: w.to("cpu", copy=True).requires_grad_(w.requires_grad) for n, w in p.items()}
    x = random((rows, inputs)).requires_grad_()
    state = map_states(lambda leaf: random(leaf.shape).requires_grad_(), _initial_state(cell, x))
    old = leaves(state)
    masks = [random(leaf.shape) for leaf in old] if zoneout else []
    recorder = Recorder(frozenset(RULES), [x, *old, *weights.values()])
    with recorder, _errors_of_the_cell():
        out, new = _forward(cell, Parameters(**weights), x, state, masks)
    forward_calls = len(recorder.calls)
    d_new = [random(leaf.shape) for leaf in new]
    d_out = random(out.shape) if _position(out, new) is None else None
    results = [*zip(new, d_new, strict=True), *([] if d_out is None else [(out, d_out)])]
    learned = [name for name, weight in weights.items() if weight.requires_grad]
    with _errors_of_the_cell():
        given = _gradients(results, [x, *old, *(weights[name] for name in learned)], recorder)
    new, out, (d_x, *d_old_and_weights) = recorder.latest((new, out, given))
    return _Recording(
        rows=rows,
        weights=weights,
        x=x,
        masks=masks,
        old=old,
        new=new,
        out=out,
        d_new=d_new,
        d_out=d_out,
        d_x=d_x,
        d_old=d_old_and_weights[: len(old)],
        d_weights=dict(zip(learned, d_old_and_weights[len(old) :], strict=True)),
        calls=recorder.calls,
        forward_calls=forward_calls,
    )


def _forward(
    cell: Any, p: Parameters, x: Tensor, state: Any, masks: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The step: its output and the tensors of the new state."""
    out, new_state = cell.step(p, cell.inputs(p, x), state)
    new = leaves(new_state)
    _check_results(out, new, leaves(state))
    if masks:
        mixed = [m * old + (1 - m) * leaf for m, old, leaf in zip(masks, leaves(state), new, strict=True)]
        position = _position(out, new)
        out, new = out if position is None else mixed[position], mixed
    return out, new


def _batch_size(sizes: set[int]) -> int:
    """A number of sequences that no other dimension has: a prime that divides none of the sizes."""
    candidates = (n for n in range(61, 10**6, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))
    return next(n for n in candidates if all(size % n for size in sizes if size))


def _initial_state(cell: Any, x: Tensor) -> Any:
    with _errors_of_the_cell(), torch.random.fork_rng(devices=[]):
        state = cell.initial_state(x)
    for leaf in leaves(state):
        if leaf.ndim != 2 or leaf.shape[0] != len(x) or leaf.dtype != x.dtype:
            raise UncoveredError("its state is not made of real numbers of shape (batch, width)")
    return state


def _check_results(out: Any, new: list[Any], old: list[Tensor]) -> None:
    if not all(isinstance(tensor, Tensor) for tensor in (out, *new)):
        raise UncoveredError("its step returns something that is not a tensor")
    if [leaf.shape for leaf in new] != [leaf.shape for leaf in old]:
        raise UncoveredError("its step returns a state of another shape than it was given")
    if out.ndim != 2 or len(out) != len(old[0]):
        raise UncoveredError("its step returns an output whose shape is not (batch, width)")
    if any(tensor.dtype != old[0].dtype for tensor in (out, *new)):
        raise UncoveredError("its step returns numbers of another type than it was given")


def _gradients(
    results: list[tuple[Tensor, Tensor]], wanted: list[Tensor], recorder: Recorder
) -> tuple[Tensor | None, ...]:
    """Records the backward pass. results: each with the gradient with respect to it. Returns the gradients
    with respect to the tensors that are wanted; None is zero."""
    learned = [(result * gradient).sum() for result, gradient in results if result.requires_grad]
    if not learned:
        return (None,) * len(wanted)
    loss = sum(learned[1:], learned[0])
    with recorder:  # of one number: with more, autograd imports sympy
        return torch.autograd.grad(loss, wanted, allow_unused=True)


@contextmanager
def _errors_of_the_cell() -> Iterator[None]:
    """Whatever goes wrong in a cell's own code is a reason not to cover it."""
    try:
        yield
    except UncoveredError:
        raise
    except Exception as error:
        message = str(error).strip().partition("\n")[0].rstrip(".")
        raise UncoveredError(
            f"its step raises {type(error).__name__} on a trial batch ({message})"
        ) from error


def _position(tensor: Tensor, tensors: list[Tensor]) -> int | None:
    return next((k for k, other in enumerate(tensors) if other is tensor), None)


# lowering


def _lowered(recording: _Recording) -> Graph:
    r, lowering = recording, Lowering(recording.rows)
    for weight in r.weights.values():
        lowering.new_weight(weight)
    for tensor in (r.x, *r.masks, *r.old, *r.d_new, *([] if r.d_out is None else [r.d_out])):
        lowering.new_columns(tensor)
    for call in r.calls:
        _sort(lowering, call)
    for tensor, like in _results(r):
        lowering.cut_like(tensor, like)
    lowering.spread_cuts()
    _make_leaves(lowering, r)
    lowering.make_nodes()
    return _graph(lowering, r)


def _sort(lowering: Lowering, call: Call) -> None:
    """Decides by the operands of a call where its result is computed."""
    outs = tensors_in(call.out)
    if call.fill is not None:
        lowering.assign(call.out, Uniform(call.fill))
        return
    if call.name == "lift_fresh":  # torch.tensor([1.0, 2.0])
        lowering.new_constant(call.out, call.args[0])
        return
    values = lowering.values_in(call)
    batched, totals = (any(isinstance(value, kind) for value in values) for kind in (Batched, Total))
    if batched and totals:
        raise UncoveredError(f"{MIXED} ({call.name})")
    if batched:
        if call.name not in RULES:
            raise UncoveredError(f"its step uses an operation that machine code does not have ({call.name})")
        try:
            lowering.later(RULES[call.name](lowering, call))
        except UncoveredError as error:
            raise UncoveredError(f"{error} ({call.name})") from None
    elif totals:
        if not is_linear(lowering, call):
            raise UncoveredError(
                f"the gradient of a weight is not linear in sums over sequences ({call.name})"
            )
        lowering.call_after(call.function, call.args, call.kwargs, outs)
    elif values and all(isinstance(value, Uniform) for value in values):
        lowering.compute_constant(call)
    elif call.name == "expand" and lowering.rows in call.out.shape:
        lowering.later(expanded_weight(lowering, call))
    else:
        lowering.call_before(call)


def _results(r: _Recording) -> list[tuple[Tensor, Tensor]]:
    """The results of the step, each with the tensor whose pieces it must have: those of the state and its
    gradient are read by the next step. That gradient is the given one there, whose pieces are the same."""
    pairs = [
        (tensor, old)
        for tensors in (r.new, r.d_old, r.d_new)
        for tensor, old in zip(tensors, r.old, strict=True)
    ]
    pairs.append((r.d_x, r.x))
    if r.d_out is not None:
        pairs.append((r.out, r.d_out))
    return [(tensor, like) for tensor, like in pairs if tensor is not None]


def _make_leaves(lowering: Lowering, r: _Recording) -> None:
    column = 0
    for tensor in (r.x, *r.masks):
        lowering.leaf(tensor, "x", first=column)
        column += tensor.shape[1]
    for k, leaf in enumerate(r.old):
        lowering.leaf(leaf, "old", k)
    for k, leaf in enumerate(r.d_new):
        lowering.leaf(leaf, "dnew", k)
    if r.d_out is not None:
        lowering.leaf(r.d_out, "dout")


def _graph(lowering: Lowering, r: _Recording) -> Graph:
    names = [call.name for call in r.calls]
    slots = {name: _slot(lowering, d) for name, d in r.d_weights.items() if d is not None}
    return Graph(
        names=list(r.weights),
        nodes=lowering.nodes,
        before=lowering.outside.calls["before"],
        after=lowering.outside.calls["after"],
        sums=lowering.outside.sums,
        x=[piece for tensor in (r.x, *r.masks) for piece in lowering.batched(tensor).columns.pieces],
        old=[lowering.batched(leaf).columns.pieces for leaf in r.old],
        new=[lowering.pieces(leaf, like) for leaf, like in zip(r.new, r.old, strict=True)],
        out=None if r.d_out is None else lowering.pieces(r.out, r.d_out),
        out_leaf=r.out_leaf,
        d_x=None if r.d_x is None else lowering.pieces(r.d_x, r.x),
        d_old=[
            None if d is None else lowering.pieces(d, like) for d, like in zip(r.d_old, r.old, strict=True)
        ],
        gradients={name: slot for name, slot in slots.items() if slot is not None},
        ops=(names[: r.forward_calls], names[r.forward_calls :]),
    )


def _slot(lowering: Lowering, gradient: Tensor) -> int | None:
    """Where the gradient of a weight is, after the sequence. None: it is zero."""
    value = lowering.value(gradient)
    if isinstance(value, Total):
        return value.slot
    if value == Uniform(0.0):
        return None
    raise UncoveredError("the gradient of a weight is not a sum over the sequences of a batch")
