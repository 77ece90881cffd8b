"""Cells, states and inputs on which claims are tested.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.base import Cell
from rnnclf.cells.module import CellModule
from rnnclf.cells.state import map_states
from rnnclf.conformance.verdict import BrokenError, CellType
from rnnclf.errors import ConfigError

BATCH, INPUT, HIDDEN = 3, 4, 6


def made(kind: CellType, at_least: int = HIDDEN, **options: Any) -> Cell:
    """A cell with the smallest valid hidden_size from `at_least` on."""
    for hidden in range(at_least, at_least + 64):
        cell = kind(**{"hidden_size": hidden, **options})
        if cell.hidden_size % cell.multiple == 0:
            return cell
    raise BrokenError(f"it accepts no hidden_size from {at_least} to {at_least + 63}")


def drawn(
    cell: Cell, *, seed: int = 0, inputs: int = INPUT, dtype: torch.dtype = torch.float64
) -> CellModule:
    """The cell with slightly perturbed initial weights, so that biases are not zero either."""
    torch.manual_seed(seed)
    module = cell.build(inputs).to(dtype)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return module


def sequences(
    steps: int, batch: int = BATCH, inputs: int = INPUT, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random sequences (T, B, I), the same ones at each call."""
    generator = torch.Generator().manual_seed(steps)
    return torch.randn(steps, batch, inputs, generator=generator, dtype=torch.float64).to(dtype)


def reached_state(module: CellModule, batch: int = BATCH) -> Any:
    """A state that the cell can reach, the one after three steps, detached from their graph."""
    x_TBI = sequences(3, batch, module.input_size, next(tensors_of(module)).dtype)
    state = single_steps(module, x_TBI, None)[1]
    return map_states(lambda leaf: leaf.detach().requires_grad_(), state)


def single_steps(module: CellModule, x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Outputs and final state, computed by calling the cell's step directly, without an engine."""
    cell, p = module.cell, module.prepared()
    state = cell.initial_state(x_TBI[0]) if state is None else state
    outputs = []
    for x_BI in x_TBI:
        output_BH, state = cell.step(p, cell.inputs(p, x_BI), state)
        outputs.append(output_BH)
    return torch.stack(outputs), state


def option_values(kind: CellType) -> dict[str, list[Any]]:
    """For each option of a cell, values other than the default."""
    return {
        option_field.name: list(_other_values(kind, option_field))
        for option_field in fields(kind)
        if option_field.name not in ("name", "hidden_size")
    }


def variants(kind: CellType, *, starts: bool = False) -> list[dict[str, Any]]:
    """The options of the cells to test: the defaults, then each option changed by itself.

    Options whose names end in init only choose the initialisation: they are left out without `starts`.
    """
    changed = [{name: value} for name, values in option_values(kind).items() for value in values]
    return [{}, *(options for options in changed if starts or not next(iter(options)).endswith("init"))]


def _other_values(kind: CellType, option_field: Any) -> Iterator[Any]:
    default, metadata = option_field.default, option_field.metadata
    if metadata.get("choices"):
        yield from (choice for choice in metadata["choices"] if choice != default)
        return
    if isinstance(default, bool):
        yield not default
        return
    limits = {key: limit for key, limit in metadata.get("limits", {}).items() if limit is not None}
    least = limits.get("low", limits.get("above", 0))
    if default is None or (isinstance(default, int) and "int" in str(option_field.type)):
        candidates = [(least if default is None else default) + d for d in (2, 1, 4, -1, -2)]
    else:
        candidates = [default * 0.5, default * 0.9, default + 0.5, (least + default) / 2, default * 0.99]
    for value in candidates:
        if value != default and _is_accepted(kind, **{option_field.name: value}):
            yield value
            return
    raise BrokenError(f"the option {option_field.name} accepts no value other than {default}")


def _is_accepted(kind: CellType, **options: Any) -> bool:
    try:
        made(kind, **options)
    except (ConfigError, BrokenError):
        return False
    return True


def tensors_of(module: CellModule) -> Iterator[Tensor]:
    """All weights, trained and fixed."""
    yield from module.parameters()
    yield from module.buffers()


def expect_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-8) -> None:
    """Raises BrokenError if the tensors differ, relative to the largest expected value (at least 1)."""
    if found.shape != expected.shape:
        raise BrokenError(f"{what} has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = 1 + expected.abs().max().item() if expected.numel() else 1.0
    difference = (found - expected).abs().max().item() if expected.numel() else 0.0
    if not difference <= tolerance * scale:  # written so that NaN fails
        raise BrokenError(f"{what} differs by {difference:.2g}")


def with_options(options: dict[str, Any]) -> str:
    """The options as the end of a message."""
    return "".join(f" with {name}={value}" for name, value in options.items())
