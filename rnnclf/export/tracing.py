"""Functions of tensors, traced by torch and translated to ONNX.

All functions of a model go through torch.onnx at once, side by side, and are taken apart again: most of its
time is the same for one function and for ten. onnx is imported inside the functions: it is an extra.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnclf.errors import ConfigError
from rnnclf.export.graph import OPSET, Piece
from rnnclf.export.translations import stable_translations


@dataclass(frozen=True)
class Function:
    """What to trace: a function of tensors with any number of outputs, examples of its arguments, and the
    axes along which these may have any size."""

    module: nn.Module
    examples: tuple[Tensor, ...]
    open_axes: tuple[int, ...] = (0,)


class _SideBySide(nn.Module):
    """Several functions as one: the arguments of all of them → the outputs of all of them."""

    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(function.module.eval() for function in functions)
        self.takes = [len(function.examples) for function in functions]

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        rest = iter(arguments)
        results: list[Tensor] = []
        for part, number in zip(self.parts, self.takes, strict=True):
            found = part(*[next(rest) for _ in range(number)])
            results += found if isinstance(found, tuple) else [found]
        return tuple(results)

    def shapes(self, functions: Sequence[Function]) -> tuple[Any, ...]:
        """Which dimensions are open, as torch wants to be told."""
        is_open = torch.export.Dim.DYNAMIC
        return (tuple(dict.fromkeys(f.open_axes, is_open) for f in functions for _ in f.examples),)


def recorded(functions: Sequence[Function]) -> Callable[..., tuple[Tensor, ...]]:
    """The functions side by side as torch has recorded them; needs no onnx. Raises ConfigError as `traced`
    does."""
    whole = _SideBySide(functions).eval()
    with quiet_tracing():
        try:
            program = torch.export.export(
                whole, _examples(functions), dynamic_shapes=whole.shapes(functions), strict=False
            )
        except Exception as error:
            raise ConfigError(_untraceable(error, functions)) from error
    return program.module()


def traced(functions: Sequence[Function]) -> list[Piece]:
    """The functions as ONNX. Raises ConfigError for one that cannot be traced, such as the step of a cell
    that looks at single values."""
    whole = _SideBySide(functions).eval()
    inputs = [f"{i}.{j}" for i, function in enumerate(functions) for j in range(len(function.examples))]
    with quiet_tracing():
        try:
            counts = [_number_of_outputs(function) for function in functions]
            outputs = [f"{i}->{j}" for i, count in enumerate(counts) for j in range(count)]
            program = torch.onnx.export(
                whole,
                _examples(functions),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                dynamic_shapes=whole.shapes(functions),
                input_names=inputs,
                output_names=outputs,
                custom_translation_table=stable_translations(),
            )
        except Exception as error:
            raise ConfigError(_untraceable(error, functions)) from error
    assert program is not None
    graph = program.model_proto.graph
    return [
        _piece(
            graph,
            [name for name in inputs if name.startswith(f"{i}.")],
            [name for name in outputs if name.startswith(f"{i}->")],
        )
        for i in range(len(functions))
    ]


def _examples(functions: Sequence[Function]) -> tuple[Tensor, ...]:
    """The examples of all arguments. None share memory: torch would take two of them for one."""
    return tuple(e.detach().clone().contiguous() for function in functions for e in function.examples)


def _number_of_outputs(function: Function) -> int:
    found = function.module(*function.examples)
    return len(found) if isinstance(found, tuple) else 1


def _piece(graph: Any, inputs: list[str], outputs: list[str]) -> Piece:
    """What leads to these outputs."""
    wanted, nodes = set(outputs), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    return Piece(
        inputs, outputs, nodes[::-1], [weight for weight in graph.initializer if weight.name in wanted]
    )


@contextlib.contextmanager
def quiet_tracing() -> Iterator[None]:
    """Context in which torch traces whatever precision is set, and neither prints its progress nor warns of
    its own code."""
    cudnn: Any = torch.backends.cudnn
    operations = [cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
    precisions, disabled = (
        [operation.fp32_precision for operation in operations],
        logging.root.manager.disable,
    )
    logging.disable(logging.ERROR)
    try:
        for operation in operations:  # the tracer asks for both in one, which it refuses if either was set
            operation.fp32_precision = "tf32"
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for operation, precision in zip(operations, precisions, strict=True):
            operation.fp32_precision = precision


def _untraceable(error: BaseException, functions: Sequence[Function]) -> str:
    """Why functions cannot be traced, with the line of the cell at which it stops."""
    cells = [cell for f in functions if (cell := getattr(f.module, "cell", None)) is not None]
    homes = {file: cell for cell in cells for file in _files_of(type(cell))}
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for cause in reversed(causes):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if (cell := homes.get(Path(frame.filename))) is not None:
                place = f"{Path(frame.filename).name}, line {frame.lineno}"
                return (
                    f"cell={cell.name} cannot be exported: {place}, is more than operations of torch on whole"
                    f" tensors: {(frame.line or '').strip()}"
                )
    return f"This model cannot be exported: {(str(causes[-1]).splitlines() or [''])[0]}"


def _files_of(kind: type) -> Iterator[Path]:
    """The files that define a cell: its own and those of the classes that it derives from."""
    for base in kind.__mro__:
        with contextlib.suppress(TypeError, OSError):  # of Python's own classes, or typed into a shell
            yield Path(inspect.getfile(base))
