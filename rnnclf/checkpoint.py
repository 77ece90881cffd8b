"""Checkpoints: one file, safe to receive.

A checkpoint is a safetensors file whose header carries one JSON text: tensors and plain data, no
pickle, nothing that names code to run. Reading one looks names up in registries, checks every value
against its range, and compares all shapes before any memory is taken for a model.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.errors import CheckpointError
from rnnclf.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 2
HEADER_TYPES = {
    "config": dict,
    "classes": list,
    "input_size": int,
    "preparation": dict,
    "reading": dict,
    "fingerprint": str,
    "epoch": int,
}
HEADER_LIMIT = 16 * 2**20  # bytes; ours are a few thousand


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    header: plain JSON data: format, config, classes, input_size, steps, preparation (of the data, learned
        from the training split), reading (what decides the meaning of a step), fingerprint, epoch, metrics.
    tensors: the weights by their names in the model, and in `last.safetensors` the state to resume from.
    """

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def model_tensors(self) -> dict[str, Tensor]:
        prefix = "model."
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


def save(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Replaces the checkpoint at `path`, or leaves it whole and raises OutputError."""
    import safetensors.torch

    text = json.dumps({"format": FORMAT, **header}, allow_nan=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(plain, metadata={"rnnclf": text}))


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError where `path` is none."""
    import safetensors.torch

    header = read_header(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except Exception as error:  # safetensors raises its own kinds, and OSError
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    return Checkpoint(path, header, tensors)


def read_header(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without reading its tensors."""
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > HEADER_LIMIT:
                raise ValueError("no safetensors header")
            metadata = json.loads(file.read(length))["__metadata__"]
        header = json.loads(metadata["rnnclf"])
        version = header["format"]
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise CheckpointError(f"{path} is no checkpoint of rnnclf.") from error
    if isinstance(version, bool) or version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}; this version of rnnclf reads format {FORMAT}."
        )
    for key, kind in HEADER_TYPES.items():
        if not isinstance(header.get(key), kind):
            raise CheckpointError(f"{path} is damaged: its header has no valid '{key}'.")
    return dict(header)


def fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Gives `model`, built on torch's meta device, the weights of the checkpoint.

    Raises CheckpointError where names, shapes or types differ from those the model must have.
    """
    given = checkpoint.model_tensors()
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        should_be, found = (_kind(tensors.get(name)) for tensors in (wanted, given))
        if should_be != found:
            raise CheckpointError(
                f"{checkpoint.path} does not fit its own configuration:"
                f" {name} should be {should_be}, the file has {found}."
            )
    model.load_state_dict(given, assign=True)


def _kind(tensor: Tensor | None) -> str:
    return (
        "missing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    )
