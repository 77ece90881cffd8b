"""ONNX graphs, written node by node, with functions traced by torch put in.

onnx is imported inside the functions: it is an extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

OPSET, IR = 18, 10
"""What is written, whatever version of onnx is installed: nothing newer is needed, and runtimes lag
behind."""

FLOAT, INT32, INT64, STRING, BOOL, DOUBLE = 1, 6, 7, 8, 9, 11
"""The numbers of ONNX's element types."""

PRODUCER = "rnnclf"

Shape: TypeAlias = "Sequence[int | str]"
"""Sizes of dimensions; those that are words are open."""


@dataclass(frozen=True)
class Piece:
    """A traced function: the names of its inputs and outputs, its nodes and its weights."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[Any]
    weights: list[Any]


class Graph:
    """Nodes and constants as they are added. Calling it adds a node: g("Add", a, b) → the name of its output.

    prefix: of every name; names in the body of a Scan must not repeat those around it.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix, self.count = prefix, 0
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def name(self, hint: str) -> str:
        self.count += 1
        return f"{self.prefix}{hint}_{self.count}"

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node with several outputs, and returns their names."""
        from onnx import helper

        names = [self.name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def called(self, name: str, value: str) -> None:
        """Gives a value a name of its own, such as that of an output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(self, value: Any, dtype: Any = None, name: str = "") -> str:
        """Adds a constant: numbers of `dtype`, or of their own type."""
        from onnx import numpy_helper

        name = name or self.name("c")
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float) -> str:
        """A constant float32."""
        return self.constant(value, np.float32)

    def weight(self, value: Tensor) -> str:
        return self.constant(value.detach().numpy(), np.float32)

    def axes(self, *axes: int) -> str:
        return self.constant(axes, np.int64)

    def insert(self, piece: Piece, inputs: Sequence[str]) -> list[str]:
        """Adds a traced function, fed with `inputs`; returns the names of its outputs."""
        names = dict(zip(piece.inputs, inputs, strict=True))
        own = self.name("traced")

        def renamed(name: str) -> str:
            return names.setdefault(name, f"{own}/{name}") if name else ""

        for weight in piece.weights:
            self.weights.append(_copied(weight))
            self.weights[-1].name = renamed(weight.name)
        for original in piece.nodes:
            node = _copied(original)
            node.input[:] = map(renamed, node.input)
            node.output[:] = map(renamed, node.output)
            node.name = node.doc_string = ""
            del node.metadata_props[:]
            self.nodes.append(node)
        return [renamed(name) for name in piece.outputs]

    def built(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The graph. Weights that nothing reads are left out: runtimes warn of them at each start."""
        from onnx import helper

        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        _drop_unread(graph)
        return graph


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def value(name: str, kind: int, shape: Shape, meaning: str = "") -> Any:
    """An input or output of a graph. Dimensions that are words are open."""
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, list(shape), meaning)


def _drop_unread(graph: Any) -> set[str]:
    """Removes weights that no node reads; returns the names that the graph and those within it read."""
    read = {output.name for output in graph.output}
    for node in graph.node:
        read |= set(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                read |= _drop_unread(attribute.g)
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return read


def model_of(graph: Any) -> Any:
    """The ONNX model of a graph, checked."""
    import onnx
    from onnx import helper

    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name=PRODUCER)
    onnx.checker.check_model(model, full_check=True)
    return model
