"""A layer in whole training steps: how its weights get into machine code, and its gradients out of it.

Mostly, blocks of numbers are copied, which the driver does from tables. Torch does the rest: the weights that
a cell's `prepare` computes, products of weights, and the gradients of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.base import Cell
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.machine.code import CellCode, PackedWeights
from rnnclf.engine.machine.driver.tables import Move, address_of
from rnnclf.engine.machine.entry import code_of
from rnnclf.engine.machine.graph import UncoveredError


class LayerCode:
    """The machine code of one direction of a layer, and what whole steps have to know besides.

    start: the tensors of the initial state, a row (width,) of each.
    blocks: for each weight, where its gradient lies among the sums, or None if it has no gradient. None for
        all weights: torch has to compute the gradients from the sums.
    Raises UncoveredError if the initial state depends on more than the batch size.
    """

    def __init__(self, module: CellModule, code: CellCode) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.start, self.code = _initial_state(module), code
            p = module.cell.prepare(module.weights())
            self.blocks = code.gradient_blocks([getattr(p, name).detach() for name in code.graph.names])

    @property
    def trains(self) -> bool:
        """Whether any weight has a gradient."""
        return bool(self.code.graph.gradients)


def _initial_state(module: CellModule) -> list[Tensor]:
    """The tensors of a cell's initial state, a row (width,) of each. Raises UncoveredError if the rows of a
    batch differ, or depend on the inputs."""
    size = module.input_size
    like = next(module.parameters(), torch.empty(0))
    zeros = leaves(module.cell.initial_state(torch.zeros(3, size, dtype=like.dtype)))
    ones = leaves(module.cell.initial_state(torch.ones(3, size, dtype=like.dtype)))
    for one, other in zip(zeros, ones, strict=True):
        if one.requires_grad or one.shape != other.shape or not (one[:1] == other).all():
            raise UncoveredError("its initial state depends on the inputs")
    return [leaf[0].detach() for leaf in zeros]


_layers: dict[CellCode, LayerCode] = {}
"""As many as there is code, of which there is one for each kind of module."""


def layer_code(module: CellModule) -> LayerCode:
    """The code of a layer, made when its kind is seen for the first time. Raises UncoveredError, see
    `LayerCode`."""
    code = code_of(module)
    if code not in _layers:
        _layers[code] = LayerCode(module, code)
    return _layers[code]


class LayerWeights:
    """The weights of a layer for the driver: where they are packed from and to, and what torch does before
    and after.

    packed: the weights as machine code reads them, which the driver fills in each step. prepares: whether
    torch computes prepared weights in each step. prepared: the weights as the cell's step gets them, each a
    view of a parameter or, if it is in `copied`, a copy of what torch has computed. trained: the parameters
    that can have gradients.
    """

    def __init__(self, module: CellModule) -> None:
        self.module, self.layer = module, layer_code(module)
        code = self.layer.code
        self.size, self.names = code.dtype.itemsize, code.graph.names
        self.packed = PackedWeights(code)
        self.prepares = type(module.cell).prepare is not Cell.prepare or module.recurrent_dropout > 0
        with torch.inference_mode(False), torch.no_grad():
            weights = module.weights()
            p = vars(module.cell.prepare(weights))
            dropped = module.cell.recurrent_weights if module.recurrent_dropout > 0 else ()
            raw = {_storage(weight) for weight in vars(weights).values()}
            self.copied = [n for n in self.names if n in dropped or _storage(p[n]) not in raw]
            self.prepared = [p[n].detach().clone() if n in self.copied else p[n].detach() for n in self.names]
            self.known, self.computed = self._derived()
            self.d_prepared = [torch.zeros_like(weight) for weight in self.prepared if self.prepares]
        self.trained: list[Tensor]
        if self.prepares:
            self.trained = [weight for weight in module.parameters() if weight.requires_grad]
        else:
            self.trained = [p[name] for name in self.names if name in code.graph.gradients]

    @property
    def needs_torch(self) -> bool:
        """Whether torch has a part in the gradients."""
        return self.layer.trains and (self.prepares or self.layer.blocks is None)

    def _derived(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """All tensors that the code may read, by their slots; and those of them that have to be computed anew
        in each step, since they are no views of a weight."""
        known = self.layer.code.derived(self.prepared)
        own = {_storage(weight) for weight in self.prepared}
        computed = {slot: tensor.clone() for slot, tensor in known.items() if _storage(tensor) not in own}
        return known | computed, computed

    def refresh(self) -> Parameters | None:
        """Before a step: has torch compute what depends on the weights. Returns the prepared weights, with
        their autograd graph, where a cell prepares any."""
        prepared = self.module.prepared() if self.prepares else None
        if self.copied or self.computed:
            with torch.no_grad():
                for name, mine in zip(self.names, self.prepared, strict=True):
                    if name in self.copied:
                        mine.copy_(getattr(prepared, name))
                if self.computed:
                    known = self.layer.code.derived(self.prepared)
                    for place, mine in self.computed.items():
                        mine.copy_(known[place])
        return prepared

    def packs(self) -> Iterator[list[int]]:
        """The arguments of `pack` for all blocks of all matrices and vectors."""
        return (arguments for _, arguments in self.packed.pack_arguments(self.known))

    def moves(self, sums: Any, gradients: Sequence[Tensor]) -> Iterator[Move]:
        """From the sums to the gradients of `trained` or, if torch has to go on from there, to those of the
        prepared weights."""
        blocks = self.layer.blocks or []
        if self.prepares:
            targets = list(zip(self.d_prepared, blocks, strict=False))
        else:
            trained = [some for name, some in zip(self.names, blocks, strict=False) if some is not None]
            targets = list(zip(gradients, trained, strict=False))
        for gradient, some in targets:
            width = gradient.shape[-1] if gradient.ndim == 2 else 1
            for block in some or []:
                yield Move(
                    source=address_of(sums) + block.first * self.size,
                    source_row=block.row_step * self.size,
                    source_column=block.column_step * self.size,
                    rows=block.rows,
                    columns=block.columns,
                    target=gradient.data_ptr() + block.row * width * self.size,
                    target_row=width * self.size,
                    target_column=self.size,
                )

    def differentiate(self, sums: Any, prepared: Parameters | None, targets: list[Tensor]) -> list[bool]:
        """Has torch compute the gradients of `trained`, from those of the prepared weights if there are
        blocks of them, else from the sums. Returns which of them there are."""
        has_gradient = [name in self.layer.code.graph.gradients for name in self.names]
        known = self.layer.blocks is not None
        d_prepared = self.d_prepared if known else self.layer.code.assembled(sums, self.known)
        of_weights = zip(self.names, d_prepared, has_gradient, strict=True)
        found = [(name, gradient) for name, gradient, is_there in of_weights if is_there]
        if prepared is None:
            results = [gradient for _, gradient in found]
        else:
            pairs = [(getattr(prepared, name), gradient) for name, gradient in found]
            outputs, d_outputs = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
            results = list(torch.autograd.grad(outputs, self.trained, d_outputs, allow_unused=True))
        for target, result in zip(targets, results, strict=True):
            if result is not None:
                target.copy_(result)
        return [result is not None for result in results]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
