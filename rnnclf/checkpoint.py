"""Checkpoints: one file, safe to receive.

A checkpoint is a safetensors file whose header carries one JSON text: tensors and plain data, no
pickle, nothing that names code to run. The text begins with the SHA-256 of the whole file, taken with
zeros in its own place, so that damage is noticed wherever it is. Reading one looks names up in registries,
checks every value against its range, compares what the header claims with the size of the file before any
memory is taken for tensors, and all shapes before any is taken for a model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from rnnclf import __version__
from rnnclf.errors import CheckpointError
from rnnclf.files import refuse_odd, write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 3
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
UNSEALED = "0" * 64  # in the place of the checksum while it is taken
CHUNK = 2**20  # bytes
COPIES = 2  # of a file in memory while it is read: its content, and the tensors made of that
DIMENSIONS = 16  # of a tensor at most
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8},
}


class ResumableHeader(NamedTuple):
    """The header keys that only the checkpoints of unfinished or extensible runs have.

    training: the state of `Training`. best_epoch: by validation; None before the first epoch is done.
    extended: changes of the number of epochs. seconds: spent so far.
    """

    training: dict[str, Any]
    best_epoch: int | None
    extended: list[dict[str, int]]
    seconds: float

    def to_plain(self) -> dict[str, Any]:
        return {**self._asdict(), "seconds": round(self.seconds, 3)}


def header_of(
    *,
    config: Mapping[str, Any],
    classes: Sequence[str],
    input_size: int,
    steps: int,
    preparation: Mapping[str, Any],
    reading: Mapping[str, Any],
    fingerprint: str,
    epoch: int,
    metrics: Mapping[str, Any],
    resumable: ResumableHeader | None = None,
    labels: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The header of a checkpoint as `save` takes it.

    labels: for each class the number or text that it was called in Python; None if that is its name.
    """
    return {
        "rnnclf": __version__,
        "config": dict(config),
        "classes": list(classes),
        "input_size": input_size,
        "steps": steps,
        "preparation": dict(preparation),
        "reading": dict(reading),
        "fingerprint": fingerprint,
        "epoch": epoch,
        "metrics": dict(metrics),
        **(resumable.to_plain() if resumable else {}),
        **({} if labels is None else {"labels": list(labels)}),
    }


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    header: plain JSON data: format, config, classes, input_size, steps, preparation (of the data, learned
        from the training split), reading (what decides the meaning of a step), fingerprint, epoch, metrics;
        labels, where training was given other labels than the names of the classes.
    tensors: the weights by their names in the model, and in `last.safetensors` the state to resume from.
    """

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.header["config"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.header["classes"])

    @property
    def labels(self) -> list[Any]:
        """What the classes are called in Python."""
        return list(self.header.get("labels", self.classes))

    @property
    def input_size(self) -> int:
        return int(self.header["input_size"])

    @property
    def preparation(self) -> dict[str, Any]:
        return dict(self.header["preparation"])

    @property
    def reading(self) -> dict[str, Any]:
        return dict(self.header["reading"])

    @property
    def fingerprint(self) -> str:
        return str(self.header["fingerprint"])

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return int(self.header["epoch"])

    @property
    def resumable(self) -> ResumableHeader:
        """What training needs to go on. Raises KeyError, TypeError or ValueError where it is not there."""
        header = self.header
        best = header["best_epoch"]
        extended = [{key: int(change[key]) for key in ("at", "from", "to")} for change in header["extended"]]
        return ResumableHeader(header["training"], best, extended, float(header["seconds"]))

    def model_tensors(self) -> dict[str, Tensor]:
        prefix = "model."
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Description:
    """What a checkpoint file says of itself: its header, the type and shape of each tensor, its size in
    bytes, and whether its content is what its checksum was taken of."""

    path: Path
    header: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    size: int
    sha256: str
    intact: bool


@dataclass(frozen=True)
class _Head:
    """The part of a file before its tensors; `raw` as it stands in the file, `size` of the whole file."""

    header: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    sha256: str
    raw: bytes
    size: int

    def digest(self) -> Any:
        """The checksum taken so far: of the head, with zeros in the place of the checksum itself."""
        return hashlib.sha256(self.raw.replace(self.sha256.encode(), UNSEALED.encode(), 1))


def save(
    path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], keep: Path | None = None
) -> None:
    """Replaces the checkpoint at `path`, or leaves it whole and raises OutputError.

    With `keep`, the checkpoint that was at `path` is kept there; see `write_atomically`.
    """
    import safetensors.torch

    text = json.dumps({"format": FORMAT, "sha256": UNSEALED, **header}, allow_nan=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, sealed(safetensors.torch.save(plain, metadata={"rnnclf": text})), keep)


def sealed(content: bytes) -> bytes:
    """The content of a checkpoint file with its checksum in the first place that was left for it."""
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(UNSEALED.encode(), digest.encode(), 1)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError where `path` is none, or is damaged."""
    import safetensors.torch

    with _opened(path) as file:
        head = _head(path, file)
        _refuse_more_than_memory(path, head.size)
        content = head.raw + file.read(head.size - len(head.raw))
    digest = head.digest()
    digest.update(memoryview(content)[len(head.raw) :])
    if digest.hexdigest() != head.sha256:
        raise CheckpointError(mismatch(path))
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # safetensors raises its own kinds
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    return Checkpoint(path, head.header, tensors)


def mismatch(path: Path) -> str:
    return f"{path} is damaged: its content does not match its checksum."


def read_header(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without reading its tensors."""
    with _opened(path) as file:
        return _head(path, file).header


def describe(path: Path) -> Description:
    """What a checkpoint says of itself and whether it is whole, a piece at a time and without torch."""
    with _opened(path) as file:
        head = _head(path, file)
        digest = head.digest()
        while piece := file.read(CHUNK):
            digest.update(piece)
    intact = digest.hexdigest() == head.sha256
    return Description(path, head.header, head.shapes, head.size, head.sha256, intact)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # a pipe or a device could be waited for forever, or never end
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise CheckpointError(f"{path} is no file.")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error


def _head(path: Path, file: BinaryIO) -> _Head:
    try:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0]
        if length > HEADER_LIMIT:
            raise ValueError("no safetensors header")
        raw = file.read(length)
        table = _strict_json(raw)
        header = _strict_json(table.pop("__metadata__")["rnnclf"])
        version = header["format"]
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise CheckpointError(f"{path} is no checkpoint of rnnclf.") from error
    if isinstance(version, bool) or version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}; this version of rnnclf reads format {FORMAT}."
        )
    for key, kind in HEADER_TYPES.items():
        if not isinstance(header.get(key), kind) or isinstance(header[key], bool):
            raise CheckpointError(f"{path} is damaged: its header has no valid '{key}'.")
    if not all(isinstance(name, str) for name in header["classes"]):
        raise CheckpointError(f"{path} is damaged: its header has no valid 'classes'.")
    if not _are_labels(header.get("labels", header["classes"]), len(header["classes"])):
        raise CheckpointError(f"{path} is damaged: its header has no valid 'labels'.")
    sha256 = header.pop("sha256", None)
    if not isinstance(sha256, str) or len(sha256) != len(UNSEALED):
        raise CheckpointError(f"{path} is damaged: its header has no valid 'sha256'.")
    size = os.fstat(file.fileno()).st_size
    shapes = _shapes(path, table, size - len(prefix) - length)
    return _Head(header, shapes, sha256, prefix + raw, size)


def _are_labels(labels: Any, classes: int) -> bool:
    """Whether these are the labels of so many classes: numbers or texts, each once."""
    if not isinstance(labels, list) or not all(
        isinstance(label, bool | int | float | str) for label in labels
    ):
        return False
    return len(labels) == len(set(labels)) == classes


def _strict_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for what we never write: NaN, a key twice, half a character …"""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number} is no finite number")
        return value

    value = json.loads(text, object_pairs_hook=once, parse_constant=finite, parse_float=finite)
    if not isinstance(value, dict):
        raise ValueError("no object")
    refuse_odd(value)
    return value


def _shapes(path: Path, table: dict[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor that the table names, if together they fill the file's `size` bytes of
    data. Raises CheckpointError."""
    shapes, spans = {}, []
    for name, entry in table.items():
        try:
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
            sound = len(shape) <= DIMENSIONS and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
            count = math.prod(max(n, 1) for n in shape) if sound else 2**63  # what torch could count, at most
            sound = count < 2**63 and math.prod(shape) * ITEM_BYTES[kind] == end - begin
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise CheckpointError(
                f"{path} is damaged: what its header says of the tensor '{name}' cannot be."
            )
        shapes[name] = (kind, tuple(shape))
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise CheckpointError(f"{path} is damaged: the tensors in it overlap or leave gaps.")
        place = end
    if place != size:
        raise CheckpointError(
            f"{path} is damaged: its header claims {in_bytes(place)} of tensors,"
            f" the file holds {in_bytes(size)}."
        )
    return shapes


def _refuse_more_than_memory(path: Path, size: int) -> None:
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if COPIES * size > memory:
        raise CheckpointError(
            f"{path} takes {in_bytes(COPIES * size)} of memory; this machine has {in_bytes(memory)}."
        )


def in_bytes(size: int) -> str:
    """312 bytes, 4.2 kB, 1.0 TB."""
    if size < 1000:
        return f"{size} byte{'' if size == 1 else 's'}"
    power = min(int(math.log10(size)) // 3, 6)
    return f"{size / 1000**power:.1f} {' kMGTPE'[power]}B"


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
