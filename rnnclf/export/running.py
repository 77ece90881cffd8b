"""Runs an exported file: by onnxruntime or, where that is not installed, by onnx's own reference.

Shapes: B batch, T time, C channels as read, S numbers in a state, K classes.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnclf.data.recordings import Array
from rnnclf.errors import CheckpointError
from rnnclf.export.reading import ExportedFile, read

REFERENCE = "onnx.reference"


class Runner:
    """An exported file that is ready to answer.

    runtime: onnxruntime or onnx.reference. threads: of onnxruntime. Raises CheckpointError if the file cannot
    be run.
    """

    def __init__(self, file: ExportedFile, runtime: str = "", threads: int = 1) -> None:
        self.file = file
        self.runtime = runtime or ("onnxruntime" if importlib.util.find_spec("onnxruntime") else REFERENCE)
        with _told(file):
            self._run = _referee(file) if self.runtime == REFERENCE else _session(file, threads)
        self.takes = {port.name: np.dtype(port.type) for port in file.inputs}

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> Runner:
        """Reads a file, checks it, and makes it ready. Raises CheckpointError."""
        return cls(read(path), threads=threads)

    @property
    def is_step(self) -> bool:
        """Whether it is a file of one step."""
        return bool(self.file.facts["kind"] == "step")

    @property
    def width(self) -> int:
        """S, the number of numbers in the state of a file of one step."""
        return int(next(port.shape[1] for port in self.file.inputs if port.name == "state"))

    def answers(
        self,
        x: Array,
        lengths_B: Array | None = None,
        elapsed: Array | None = None,
        *,
        outputs: Sequence[str] = ("logits",),
    ) -> list[Array]:
        """The outputs of that name for sequences x (B, T, C) as read, NaN where a value is missing, with so
        many steps each and so much time since the step before (B, T)."""
        given = {"x": x, "lengths": lengths_B, "elapsed": elapsed}
        if "lengths" in self.takes and lengths_B is None:
            given["lengths"] = np.full(len(x), x.shape[1])
        if "elapsed" in self.takes and elapsed is None:
            given["elapsed"] = np.ones(x.shape[:2])
        return self._answer(outputs, given)

    def step(self, x_BC: Array, state_BS: Array, elapsed_B: Array | None = None) -> tuple[Array, Array]:
        """The logits (B, K) and the state after one step, for a file of one step; zeros are the first
        state."""
        elapsed_B = np.ones(len(x_BC)) if elapsed_B is None else elapsed_B
        given = {"x": x_BC, "elapsed": elapsed_B, "state": state_BS}
        logits, state = self._answer(("logits", "state_after"), given)
        return logits, state

    def _answer(self, outputs: Sequence[str], given: Mapping[str, Array | None]) -> list[Array]:
        feed = {name: np.ascontiguousarray(given[name], kind) for name, kind in self.takes.items()}
        with _told(self.file):
            found: list[Array] = self._run(list(outputs), feed)
        return found


@contextlib.contextmanager
def _told(file: ExportedFile) -> Any:
    """Turns whatever a runtime raises into a CheckpointError: runtimes have exceptions of their own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{file.path} cannot be run: {reason}") from error


def _session(file: ExportedFile, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # from memory: a file by its path could name others beside it
    return onnxruntime.InferenceSession(file.content, options, providers=["CPUExecutionProvider"]).run


def _referee(file: ExportedFile) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.ModelProto()
    model.ParseFromString(file.content)
    run = ReferenceEvaluator(model).run

    def quietly(outputs: list[str], feed: dict[str, Array]) -> Any:
        with np.errstate(all="ignore"):
            return run(outputs, feed)

    return quietly
