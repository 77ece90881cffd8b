"""States: a tensor, or a NamedTuple of states. What engines do to each tensor of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def map_states(change: Callable[..., Tensor], *states: Any) -> Any:
    """A state of the same kind whose tensors are `change` of the tensors in the same place of `states`."""
    if isinstance(states[0], tuple):
        return type(states[0])(*(map_states(change, *parts) for parts in zip(*states, strict=True)))
    return change(*states)
