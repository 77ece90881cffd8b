"""Types for the weights and the state of a cell. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = Any
"""A tensor, or a NamedTuple of tensors, each with the batch as its first dimension."""


class Parameters(SimpleNamespace):
    """The weights of a cell, by name: `p.recurrent_weight`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its shape, and the function that initialises it in place.

    A parameter that is not `trained` keeps its initial values: it is saved with the model, but not counted
    among its parameters.
    """

    shape: tuple[int, ...]
    fill: Callable[[Tensor], object]
    trained: bool = True
