"""Operations on states: a state is a tensor, or a NamedTuple of states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def map_states(change: Callable[..., Tensor], *states: Any) -> Any:
    """Applies `change` to corresponding tensors of `states`; returns a state of the same structure."""
    if isinstance(states[0], tuple):
        return type(states[0])(*(map_states(change, *parts) for parts in zip(*states, strict=True)))
    return change(*states)
