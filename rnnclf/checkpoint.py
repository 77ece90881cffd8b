"""Checkpoints: a single file, safe to load from untrusted sources.

A checkpoint is a safetensors file whose metadata hold one JSON text: tensors and plain data, no pickle,
nothing that names code to run. The JSON starts with the SHA-256 of the whole file, computed with zeros in its
place, so damage anywhere is detected. When reading, names are looked up in registries and every value is
checked against its range; sizes in the header are checked against the file size before memory is allocated
for tensors, and all shapes before memory is allocated for the model.
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
from rnnclf.calibration import Calibration
from rnnclf.errors import CheckpointError
from rnnclf.files import refuse_odd, write_atomically
from rnnclf.system.memory import excess, in_bytes

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
HEADER_LIMIT = 16 * 2**20  # bytes; ours have a few thousand
PLACEHOLDER = "0" * 64  # in place of the checksum while it is computed
CHUNK = 2**20  # bytes
COPIES = 2  # of the file in memory while loading: its content, and the tensors
MAX_DIMENSIONS = 16
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8},
}


class ResumableHeader(NamedTuple):
    """The header keys that only checkpoints of unfinished or extensible runs have.

    training: the state of `Training`. best_epoch: by validation; None before the first epoch is done.
    extended: changes of the number of epochs. seconds: training time so far.
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
    engine: Mapping[str, Any],
    epoch: int,
    metrics: Mapping[str, Any],
    resumable: ResumableHeader | None = None,
    labels: Sequence[Any] | None = None,
    calibration: Calibration | None = None,
    training_data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The header of a checkpoint, as expected by `save`.

    engine: what trained the model (`EngineUsed`).
    calibration: None before the end of training.
    labels: for each class the number or text that it was called in Python; None if that is its name.
    training_data: what is usual in the training data, and how their columns were read.
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
        "engine": dict(engine),
        "epoch": epoch,
        "metrics": dict(metrics),
        **(resumable.to_plain() if resumable else {}),
        **({} if labels is None else {"labels": list(labels)}),
        **({} if calibration is None else {"calibration": calibration.to_plain()}),
        **({} if training_data is None else {"training_data": dict(training_data)}),
    }


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    header: plain JSON data: format, config, classes, input_size, steps, preparation (of the data, fitted on
        the training split), reading (the options that decide what a step means), fingerprint, engine (what
        trained the model), epoch, metrics; labels, if training in Python was given other labels than the
        names of the classes; calibration, if training has ended.
    tensors: the weights by their names in the model; in `last.safetensors` also the state to resume from.
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
    def calibration(self) -> Calibration | None:
        """None in checkpoints of unfinished runs and of older versions."""
        return Calibration.from_plain(self.header["calibration"]) if "calibration" in self.header else None

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def limit_of_sets(self, level: float, word: str) -> float:
        """The limit of the scores in a set of classes: see `Calibration.limit`. Raises ConfigError or
        CheckpointError if sets of this level cannot be made with this model."""
        if self.calibration is None:
            raise CheckpointError(
                f"{word} needs a model whose training has ended, with a version of rnnclf that calibrates it:"
                f" {self.path} has no calibration."
            )
        return self.calibration.limit(level, word)

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
    def training_data(self) -> dict[str, Any] | None:
        """As given to `header_of`; None in checkpoints of older versions. Raises CheckpointError."""
        found = self.header.get("training_data")
        if found is not None and not isinstance(found, dict):
            raise CheckpointError(f"{self.path} is damaged: its header has no valid 'training_data'.")
        return found

    @property
    def fingerprint(self) -> str:
        return str(self.header["fingerprint"])

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return int(self.header["epoch"])

    @property
    def resumable(self) -> ResumableHeader:
        """The keys needed to resume. Raises KeyError, TypeError or ValueError if they are invalid."""
        header = self.header
        best = header["best_epoch"]
        extended = [{key: int(change[key]) for key in ("at", "from", "to")} for change in header["extended"]]
        return ResumableHeader(header["training"], best, extended, float(header["seconds"]))

    def model_tensors(self) -> dict[str, Tensor]:
        prefix = "model."
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Description:
    """The header of a checkpoint file, the type and shape of each tensor, the file size in bytes, and whether
    the content matches the checksum."""

    path: Path
    header: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    size: int
    sha256: str
    intact: bool


@dataclass(frozen=True)
class _Head:
    """The part of a file before its tensors; `raw` are its bytes, `size` is that of the whole file."""

    header: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    sha256: str
    raw: bytes
    size: int

    def digest(self) -> Any:
        """The running SHA-256 after the head, with the placeholder instead of the checksum."""
        return hashlib.sha256(self.raw.replace(self.sha256.encode(), PLACEHOLDER.encode(), 1))


def save(
    path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], keep: Path | None = None
) -> None:
    """Replaces the checkpoint at `path`, or leaves it intact and raises OutputError.

    With `keep`, the old checkpoint is moved there; see `write_atomically`.
    """
    import safetensors.torch

    text = json.dumps({"format": FORMAT, "sha256": PLACEHOLDER, **header}, allow_nan=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, sealed(safetensors.torch.save(plain, metadata={"rnnclf": text})), keep)


def sealed(content: bytes) -> bytes:
    """The content of a checkpoint file with the placeholder replaced by the checksum."""
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(PLACEHOLDER.encode(), digest.encode(), 1)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError if `path` is not a checkpoint or is damaged."""
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
    except Exception as error:  # safetensors raises its own types
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    return Checkpoint(path, head.header, tensors)


def mismatch(path: Path) -> str:
    return f"{path} is damaged: its content does not match its checksum."


def read_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint, without reading its tensors. Raises CheckpointError."""
    with _opened(path) as file:
        return _head(path, file).header


def describe(path: Path) -> Description:
    """Describes a checkpoint and verifies its checksum, in pieces and without torch."""
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
        # a pipe or a device could block forever or never end
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise CheckpointError(f"{path} is not a regular file.")
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
        raise CheckpointError(f"{path} is not a checkpoint of rnnclf.") from error
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
    if "calibration" in header:
        try:
            Calibration.from_plain(header["calibration"])
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: its header has no valid 'calibration'.") from error
    sha256 = header.pop("sha256", None)
    if not isinstance(sha256, str) or len(sha256) != len(PLACEHOLDER):
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
    """Parses a JSON object. Raises ValueError for what we never write: NaN, duplicate keys, surrogates …"""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is duplicated")
        return found

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number} is not finite")
        return value

    value = json.loads(text, object_pairs_hook=once, parse_constant=finite, parse_float=finite)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    refuse_odd(value)
    return value


def _shapes(path: Path, table: dict[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and shape of each tensor in the table.

    Raises CheckpointError unless the tensors exactly fill the `size` bytes of data in the file.
    """
    shapes, spans = {}, []
    for name, entry in table.items():
        try:
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
            sound = len(shape) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
            count = (
                math.prod(max(n, 1) for n in shape) if sound else 2**63
            )  # torch counts elements in 64 bits
            sound = count < 2**63 and math.prod(shape) * ITEM_BYTES[kind] == end - begin
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise CheckpointError(
                f"{path} is damaged: its header has an invalid entry for the tensor '{name}'."
            )
        shapes[name] = (kind, tuple(shape))
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise CheckpointError(f"{path} is damaged: its tensors overlap or leave gaps.")
        place = end
    if place != size:
        raise CheckpointError(
            f"{path} is damaged: its header claims {in_bytes(place)} of tensors,"
            f" but the file has {in_bytes(size)}."
        )
    return shapes


def _refuse_more_than_memory(path: Path, size: int) -> None:
    if taken := excess(COPIES * size):
        raise CheckpointError(f"Loading {path} takes {taken}.")


def fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Loads the weights of the checkpoint into `model`, which was built on torch's meta device.

    Raises CheckpointError if names, shapes or types do not match the model, or a value is NaN or infinite.
    """
    given = checkpoint.model_tensors()
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        should_be, found = (_kind(tensors.get(name)) for tensors in (wanted, given))
        if should_be != found:
            problem = (
                f"{name} should be {should_be}, but is missing"
                if found is None
                else f"{name} should be {should_be}, but the file has {found}"
                if should_be
                else f"the file has {name}, which the model has not"
            )
            raise CheckpointError(f"{checkpoint.path} does not match its own configuration: {problem}.")
        if not given[name].isfinite().all():
            raise CheckpointError(f"{checkpoint.path} has values in {name} that are not finite.")
    model.load_state_dict(given, assign=True)


def _kind(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
