"""Rules for operations that move numbers or put them side by side, and compute nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnclf.engine.machine.graph import UncoveredError, names
from rnnclf.engine.machine.trace.lowering import Lowering, MakeNodes
from rnnclf.engine.machine.trace.recording import Call, tensors_in
from rnnclf.engine.machine.trace.values import MIXED, Batched, Run, Uniform, Value, runs_in

COPIES = names("detach alias clone _to_copy lift_fresh")
"""Operations whose result has the shape and the numbers of their operand."""
MOVES = COPIES | names(
    "t transpose permute view _unsafe_view reshape unsqueeze squeeze expand slice select split"
    " split_with_sizes unbind repeat flip roll"
)
RESHAPES = names("view _unsafe_view reshape")


def move(lowering: Lowering, call: Call) -> None:
    """The result is a view of the operand's columns: torch moves their numbers as it moves the elements."""
    value = lowering.batched(call.args[0])
    if call.name in COPIES:
        _check_conversion(call)
        lowering.assign(call.out, value)
        return
    if call.name in RESHAPES and lowering.rows not in call.out.shape:
        raise UncoveredError("its step merges the sequences of a batch with another dimension")
    code = call.function(value.encoded().contiguous(), *call.args[1:], **call.kwargs)
    for out, moved in zip(tensors_in(call.out), tensors_in(code), strict=True):
        lowering.assign(out, value.decoded(moved))


def _check_conversion(call: Call) -> None:
    """Machine code computes in the type of the weights; True and False are 1 and 0."""
    before, after = call.args[0].dtype, call.out.dtype
    if before != after and not (before == torch.bool and after.is_floating_point):
        names = [str(dtype).removeprefix("torch.") for dtype in (before, after)]
        raise UncoveredError(f"its step converts {names[0]} to {names[1]}")


def cat(lowering: Lowering, call: Call) -> MakeNodes:
    parts = list(call.args[0])
    like = next(value for value in map(lowering.value, parts) if isinstance(value, Batched))
    dim = (call.args[1] if len(call.args) > 1 else 0) % call.out.ndim
    if dim == like.batch_dim:
        raise UncoveredError(MIXED)
    inner = dim - (like.batch_dim < dim)
    places = [_places(lowering.value(part), part, like.batch_dim) for part in parts]
    which = torch.cat([torch.full_like(place, number) for number, place in enumerate(places)], inner)
    return _assembled(
        lowering, call, [*map(lowering.value, parts)], which, torch.cat(places, inner), like.batch_dim
    )


def _places(value: Value, tensor: Tensor, batch_dim: int) -> Tensor:
    """Where each element of a part, behind the batch dimension, is in the source of the part."""
    if isinstance(value, Batched) and value.batch_dim == batch_dim:
        return value.column_of
    if isinstance(value, Uniform):
        return torch.zeros(
            [size for dim, size in enumerate(tensor.shape) if dim != batch_dim], dtype=torch.long
        )
    raise UncoveredError(MIXED)


def part_backward(lowering: Lowering, call: Call) -> MakeNodes | None:
    """The gradient of `slice` or `select`: that of the part, with zeros around it."""
    gradient, sizes, dim = call.args[:3]
    value, dim, select = lowering.batched(gradient), dim % len(sizes), call.name == "select_backward"
    batch_dim = value.batch_dim + (select and dim <= value.batch_dim)
    if dim == batch_dim:
        if tuple(gradient.shape) != tuple(sizes):
            raise UncoveredError(MIXED)
        lowering.assign(call.out, value)
        return None
    inner = dim - (dim > batch_dim)
    shape = [size for d, size in enumerate(sizes) if d != batch_dim]
    which, places = torch.ones(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    part = call.args[3] if select else slice(call.args[3], min(call.args[4], sizes[dim]), call.args[5])
    index = (*[slice(None)] * inner, part)
    which[index], places[index] = 0, value.column_of
    return _assembled(lowering, call, [value, Uniform(0.0)], which, places, batch_dim)


def _assembled(
    lowering: Lowering, call: Call, sources: list[Value], which: Tensor, places: Tensor, batch_dim: int
) -> MakeNodes:
    """A result made of elements of several sources: `which` source for each element, and its place there."""
    numbers: list[int] = which.reshape(-1).tolist()
    places, runs, lo = places.reshape(-1), [], 0
    for hi in range(1, len(numbers) + 1):
        if hi == len(numbers) or numbers[hi] != numbers[lo]:
            source = sources[numbers[lo]]
            if isinstance(source, Uniform):
                runs.append(Run(lo, hi - lo, source, 0, 0))
            else:
                assert isinstance(source, Batched)
                runs += runs_in(places[lo:hi], source.columns, start=lo)
            lo = hi
    return lowering.computed(lowering.new_columns(call.out, batch_dim), [runs], lambda piece: piece)
