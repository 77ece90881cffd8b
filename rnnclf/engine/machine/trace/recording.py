"""Records which operations of torch a piece of code calls, in operations that the tracer has rules for.

    recorder = Recorder(known=names("t mm tanh"), inputs=[x, u])
    with recorder:
        h = (x @ u.t()).tanh()
    [call.name for call in recorder.calls]     t, mm, tanh

An operation without a rule is replaced by simpler ones, according to decompositions.py or, where it has none,
to torch. Operations in place become operations that make a new tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

from rnnclf.engine.machine.graph import UncoveredError, names
from rnnclf.engine.machine.trace.decompositions import DECOMPOSITIONS

FACTORIES = names(
    "empty empty_like zeros zeros_like ones ones_like full full_like new_zeros new_ones new_full new_empty"
    " scalar_tensor new_empty_strided empty_strided empty_permuted"
)
"""Operations whose result has the same number in all elements."""


@dataclass
class Call:
    """One operation: `out = function(*args, **kwargs)`."""

    name: str
    """Without the underscore of an operation in place."""
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    fill: float | None = None
    """The number that a factory puts into all elements."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, notes the calls of torch.

    known: names of the operations to note as they are. inputs: tensors of the recorded code that must not be
    changed through views of them.
    """

    def __init__(self, known: frozenset[str], inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known | FACTORIES
        self.calls: list[Call] = []
        self._changed: dict[int, Tensor] = {}
        self._sharing: dict[int, dict[int, Tensor]] = {}
        self._kept: list[Any] = []  # ids stay unique as long as their objects live
        self._note_storage(inputs)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # if True, torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        _refuse(function, name)
        if name.removesuffix("_") not in self.known and tensors_in((args, kwargs)):
            with self:
                out = _decomposed(function, name, args, kwargs)
            if out is not NotImplemented:
                return out
        out = function(*args, **kwargs)
        seen_args, seen_kwargs = self.latest((args, kwargs))
        call = Call(name, function, seen_args, seen_kwargs, out)
        if name.endswith("_"):
            call.name, call.out = name.removesuffix("_"), self._changed_in_place(name, args[0], out)
            call.function = _on_a_copy(function)
        elif name == "lift_fresh":
            call.args = (args[0].clone(),)
        elif name in FACTORIES:
            call.fill = 0.0 if "empty" in name or not out.numel() else float(out.flatten()[0])
        if name == "detach" and self._is_new(args[0]):
            self._sharing.pop(_storage(out), None)
        self._note_storage(out)
        self.calls.append(call)
        return out

    def latest(self, arguments: Any) -> Any:
        """The same arguments; a tensor that was changed in place is replaced by the one that stands for
        its present numbers."""
        if isinstance(arguments, Tensor):
            return self._changed.get(id(arguments), arguments)
        if isinstance(arguments, list | tuple):
            return type(arguments)(self.latest(part) for part in arguments)
        if isinstance(arguments, dict):
            return {name: self.latest(part) for name, part in arguments.items()}
        return arguments

    def _is_new(self, tensor: Tensor) -> bool:
        """Whether the last call created this tensor, which torch then detaches: nobody has the original."""
        last = self.calls[-1] if self.calls else None
        return (
            last is not None and last.out is tensor and (last.fill is not None or not tensors_in(last.args))
        )

    def _changed_in_place(self, name: str, target: Tensor, out: Tensor) -> Tensor:
        """From here on, `target` stands for another tensor: the one that is returned."""
        if len(self._sharing.get(_storage(target), ())) > 1:
            raise UncoveredError(f"its step changes a tensor in place while a view of it exists ({name})")
        version = out.detach()
        self._changed[id(target)] = version
        self._kept += [target, out]
        return version

    def _note_storage(self, tensors: Any) -> None:
        for tensor in tensors_in(tensors):
            self._sharing.setdefault(_storage(tensor), {})[id(tensor)] = tensor


def _refuse(function: Any, name: str) -> None:
    """Raises UncoveredError for what cannot be the same at every time step."""
    if torch.Tag.nondeterministic_seeded in function.tags:
        raise UncoveredError(f"its step draws random numbers ({name})")
    if torch.Tag.data_dependent_output in function.tags:
        raise UncoveredError("its step reads single numbers of a tensor, or branches on them")


def _decomposed(function: Any, name: str, args: Any, kwargs: Any) -> Any:
    """The result of an operation by simpler ones, or NotImplemented."""
    if own := DECOMPOSITIONS.get(name.removesuffix("_")):
        out = own(*args, **kwargs)
        if out is not NotImplemented:
            return args[0].copy_(out) if name.endswith("_") else out
    out = function.decompose(*args, **kwargs)
    if out is NotImplemented:
        from torch._decomp import decomposition_table  # most entries import sympy when first used: 0.4 s

        if function in decomposition_table:
            out = decomposition_table[function](*args, **kwargs)
    return out


def _on_a_copy(function: Any) -> Any:
    """An operation in place as one that leaves its operand as it was."""
    return lambda target, *args, **kwargs: function(target.clone(), *args, **kwargs)


def tensors_in(arguments: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(arguments, Tensor):
        return [arguments]
    if isinstance(arguments, list | tuple):
        return [tensor for part in arguments for tensor in tensors_in(part)]
    if isinstance(arguments, dict):
        return [tensor for part in arguments.values() for tensor in tensors_in(part)]
    return []


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Torch as in a fresh process, whatever the caller has switched on: with gradients, without inference
    mode, autocast and other dispatch modes."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if _get_current_dispatch_mode_stack():
            stack.enter_context(_disable_current_modes())  # imports sympy, so only where it is needed
        yield
