"""Reads an exported file without running it and without opening any other: it may come from anybody.

Needs onnx, not torch. onnx is imported inside the functions: it is an extra.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rnnclf.data.delimited import excerpt
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import RECORD_LIMIT, refuse_odd
from rnnclf.system.memory import excess, in_bytes

FORMAT = 1
"""Of the metadata. A reader of another format says so."""
SUFFIX = ".onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST_BYTES = 2**31 - 1  # of one message of protobuf
LARGEST = 2**31 - 1  # of a dimension
MOST_STATE = 2**24  # numbers of a state
OWN_SIZE = -1  # of a dimension that the file decides
Shape: TypeAlias = "tuple[int | None, ...]"
"""A wanted shape; None: open."""
MOST_NUMBERS = 2**28  # that a constant shape may ask for
COPIES = 3  # of the file in memory: its bytes, the message, a runtime's weights
DOMAINS = ("", "ai.onnx")
OTHERS = ("DynamicQuantizeLSTM",)  # of onnxruntime's own operators, some of which open files
ENDLESS = ("Loop",)  # an operator that may run for ever
KINDS = ("sequences", "step")
FACTS: dict[str, type | tuple[type, ...]] = {
    **{"kind": str, "rnnclf": str, "cell": str, "checkpoint": str, "fingerprint": str},
    **{"classes": list, "channels": list, "preparation": dict, "reading": dict, "temperature": (int, float)},
    "int8": bool,
}
"""The metadata that a file must have, and their types."""
ITEM_BYTES = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    14: 8,
    15: 16,
    16: 2,
}
"""Bytes of an element, by the number of its type; text has none."""
TYPES = {1: "float32", 3: "int8", 6: "int32", 7: "int64", 8: "text", 9: "bool", 10: "float16", 11: "float64"}
SHAPES = {"Expand": 1, "Tile": 1, "ConstantOfShape": 0}
"""Operators that make an array of any size, and which of their inputs says how large."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model; dimensions that are words may have any size."""

    name: str
    type: str
    shape: tuple[int | str, ...]
    meaning: str = ""


@dataclass(frozen=True)
class ExportedFile:
    """What is in a file, all of it checked.

    facts: the metadata, plain JSON. numbers: those of all weights. operators: how many nodes of each kind.
    """

    path: Path
    content: bytes
    sha256: str
    facts: dict[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    ir: int
    numbers: int
    operators: dict[str, int]

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.facts["classes"])


def is_exported(path: Path) -> bool:
    """Whether a file is one of `rnnclf export`, judged by its name."""
    return path.suffix.lower() == SUFFIX


def refuse_missing_packages(what: str, packages: tuple[str, ...] = PACKAGES) -> None:
    """Raises ConfigError unless the packages of the extra are installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"{what} needs {name}: pip install 'rnnclf[export]'.")


def read(path: Path) -> ExportedFile:
    """Reads and checks a file. Raises CheckpointError for anything but a sound file of `rnnclf export`."""
    refuse_missing_packages(f"Reading {path}", ("onnx",))
    return described(path, _content(path))


def described(path: Path, content: bytes) -> ExportedFile:
    """The same of the content of a file. Raises CheckpointError."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not an ONNX file, or damaged.") from error
    if not model.HasField("graph") or not len(model.graph.node):
        raise CheckpointError(f"{path} is not an ONNX file, or damaged.")
    facts = _facts(path, model)
    _refuse_unsafe(path, model)
    try:
        inputs, outputs = (tuple(map(_port, ports)) for ports in (model.graph.input, model.graph.output))
        _refuse_other_ports(facts, inputs, outputs)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    graphs = list(_graphs(model.graph))
    return ExportedFile(
        path=path,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        facts=facts,
        inputs=inputs,
        outputs=outputs,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        ir=model.ir_version,
        numbers=sum(math.prod(tensor.dims) for graph in graphs for tensor in graph.initializer),
        operators=dict(Counter(node.op_type for graph in graphs for node in graph.node).most_common()),
    )


def _content(path: Path) -> bytes:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) and not path.is_dir():
            raise CheckpointError(f"{path} is not a regular file.")
        if found.st_size > MOST_BYTES:
            raise CheckpointError(f"{path} has {in_bytes(found.st_size)}: an ONNX file has at most 2 GiB.")
        if taken := excess(COPIES * found.st_size):
            raise CheckpointError(f"Loading {path} takes {taken}.")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error


def _facts(path: Path, model: Any) -> dict[str, Any]:
    """The metadata. Raises CheckpointError if they are not such as `rnnclf export` writes."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if "rnnclf" not in entries or "format" not in entries:
        raise CheckpointError(
            f"{path} was not written by rnnclf export: it does not say what its classes are."
        )
    try:
        if len(entries) < len(model.metadata_props) or sum(map(len, entries.values())) > RECORD_LIMIT:
            raise ValueError("too much or twice")
        facts = {key: json.loads(text, parse_constant=_refuse_constant) for key, text in entries.items()}
        refuse_odd(facts)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata cannot be read.") from error
    if facts["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has metadata of format {facts['format']!r};"
            f" this version of rnnclf reads format {FORMAT}."
        )
    for key, kind in FACTS.items():
        if not isinstance(facts.get(key), kind) or (isinstance(facts[key], bool) and kind is not bool):
            raise CheckpointError(f"{path} is damaged: its metadata have no valid '{key}'.")
    for key in ("classes", "channels"):
        if not facts[key] or not all(isinstance(name, str) for name in facts[key]):
            raise CheckpointError(f"{path} is damaged: its metadata have no valid '{key}'.")
    if facts["kind"] not in KINDS or not facts["temperature"] > 0:
        raise CheckpointError(f"{path} is damaged: its metadata have no valid 'kind' or 'temperature'.")
    return facts


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not finite")


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and all that are inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _refuse_unsafe(path: Path, model: Any) -> None:
    """Raises CheckpointError for what could open another file, load code, or fill the memory."""
    if len(model.functions) or any(len(graph.sparse_initializer) for graph in _graphs(model.graph)):
        raise CheckpointError(f"{path} holds parts that rnnclf export does not write.")
    for graph in _graphs(model.graph):
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in graph.initializer:
            _refuse_tensor(path, tensor)
        for node in graph.node:
            known = node.op_type not in ENDLESS if node.domain in DOMAINS else node.op_type in OTHERS
            if not known:
                named = ".".join(filter(None, (node.domain, node.op_type)))
                raise CheckpointError(
                    f"{path} needs the operator '{excerpt(named)}', which rnnclf export does not write."
                )
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors) if attribute.type in (4, 9) else ():
                    _refuse_tensor(path, tensor)
            if (
                node.op_type == "Constant"
                and node.output
                and node.attribute
                and node.attribute[0].HasField("t")
            ):
                constants[node.output[0]] = node.attribute[0].t
            place = SHAPES.get(node.op_type)
            if place is not None and len(node.input) > place and node.input[place] in constants:
                _refuse_huge(path, constants[node.input[place]])


def _refuse_tensor(path: Path, tensor: Any) -> None:
    """Raises CheckpointError for weights that lie elsewhere, or whose shape is not that of their content."""
    if tensor.data_location == 1 or len(tensor.external_data):
        raise CheckpointError(f"{path} keeps weights in other files, which rnnclf does not read.")
    if any(not 0 <= size <= LARGEST for size in tensor.dims) or len(tensor.dims) > 16:
        raise CheckpointError(f"{path} is damaged: the weights '{tensor.name}' have no valid shape.")
    count = math.prod(tensor.dims)
    if tensor.data_type == 8:
        held = len(tensor.string_data)
    elif tensor.data_type not in ITEM_BYTES:
        raise CheckpointError(f"{path} is damaged: the weights '{tensor.name}' have no valid type.")
    elif tensor.HasField("raw_data"):
        held, count = len(tensor.raw_data), count * ITEM_BYTES[tensor.data_type]
    else:
        parts = (
            tensor.float_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.double_data,
            tensor.uint64_data,
        )
        held = sum(map(len, parts))
    if held != count:
        raise CheckpointError(f"{path} is damaged: the weights '{tensor.name}' do not fill their shape.")


def _refuse_huge(path: Path, tensor: Any) -> None:
    from onnx import numpy_helper

    if tensor.data_type == 7 and math.prod(map(int, numpy_helper.to_array(tensor).ravel())) > MOST_NUMBERS:
        raise CheckpointError(f"{path} asks for an array of a size that rnnclf export does not write.")


def _refuse_other_ports(facts: dict[str, Any], inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
    """Raises ValueError unless a file of this kind has these inputs and outputs, which are fed and read."""
    step, channels, classes = facts["kind"] == "step", len(facts["channels"]), len(facts["classes"])
    batch = (None,) if step else (None, None)
    state: dict[str, Shape] = {"state": (None, OWN_SIZE)} if step else {}
    may: dict[str, Shape] = {"x": (*batch, channels), "elapsed": batch, "lengths": (None,), **state}
    gives: dict[str, Shape] = {"logits": (None, classes), **{f"{name}_after": state[name] for name in state}}
    for port in inputs:
        if port.name not in may:
            raise ValueError(f"it asks for '{port.name}'")
        types = {"x": ("float32", "float64"), "lengths": ("int64",)}.get(port.name, ("float32",))
        if port.type not in types or not _fits(port.shape, may[port.name]):
            raise ValueError(f"'{port.name}' has no valid shape")
    for name in ("x", *state):
        if name not in {port.name for port in inputs}:
            raise ValueError(f"it does not ask for '{name}'")
    for name, shape in gives.items():
        if not any(p.name == name and p.type == "float32" and _fits(p.shape, shape) for p in outputs):
            raise ValueError(f"it does not give '{name}'")


def _fits(shape: tuple[int | str, ...], wanted: Shape) -> bool:
    """Whether a shape has open dimensions and sizes where it should."""
    return len(shape) == len(wanted) and all(
        isinstance(size, str)
        if want is None
        else isinstance(size, int) and (size == want or (want == OWN_SIZE and size <= MOST_STATE))
        for size, want in zip(shape, wanted, strict=True)
    )


def _port(port: Any) -> Port:
    kind = port.type.tensor_type
    shape: list[int | str] = []
    for size in kind.shape.dim:
        if size.HasField("dim_value") and not 0 < size.dim_value <= LARGEST:
            raise ValueError(f"'{port.name}' has no valid shape")
        shape.append(size.dim_value if size.HasField("dim_value") else size.dim_param or "any")
    if kind.elem_type not in TYPES:
        raise ValueError(f"'{port.name}' has no valid type")
    return Port(port.name, TYPES[kind.elem_type], tuple(shape), port.doc_string)
