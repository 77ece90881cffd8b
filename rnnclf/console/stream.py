"""The lines that `rnnclf stream` reads and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from rnnclf.console.screen import print_note
from rnnclf.data.table.blocks import errors_of_reading, suffix_of
from rnnclf.errors import DataError
from rnnclf.escaping import one_line
from rnnclf.system import streams
from rnnclf.workflows.stream import Answer

DIGITS = 6  # of probabilities
NOT_TEXT = (".parquet", ".feather", ".arrow", ".xlsx", ".npz", ".npy", ".mat", ".h5", ".hdf5")


@contextmanager
def source(path: str) -> Iterator[tuple[BufferedIOBase, str]]:
    """The file at `path`, which may be packed by gzip, or stdin for -, and what messages call it."""
    if path == "-":
        if sys.stdin.isatty():
            print_note("reading steps from the terminal: a header, then a line for each step; Ctrl-D ends")
        yield cast(BufferedIOBase, sys.stdin.buffer), "stdin"
        return
    name = Path(path).name
    if suffix_of(Path(path)) in NOT_TEXT:
        raise DataError(f"{name} is not text: a stream is CSV or JSON lines, with a line for each step.")
    with errors_of_reading(name):
        opened = open(path, "rb")  # noqa: SIM115 - closed below
    with opened as file:
        if path.lower().endswith(".gz"):
            import gzip

            yield gzip.GzipFile(fileobj=file), name
        else:
            yield file, name


def write_answers(answers: Iterable[list[Answer]], classes: tuple[str, ...], as_json: bool) -> None:
    """Writes answers to stdout as soon as they are there, until nobody reads them any more."""
    write = _as_json(classes) if as_json else _as_csv(classes)
    out = sys.stdout.buffer
    for due in filter(None, answers):
        out.write("".join(map(write, due)).encode("utf-8", "replace"))
        out.flush()
        if streams.reader_is_gone() or streams.unwritten():
            return


def _as_csv(classes: tuple[str, ...]) -> Callable[[Answer], str]:
    names = [_cell(name) for name in classes]
    header = (
        ",".join(["id", "step", "class", "probability", *(_cell(f"p_{name}") for name in classes)]) + "\n"
    )
    shown = one_line if sys.stdout.isatty() else str

    def line(answer: Answer) -> str:
        nonlocal header
        before, header = header, ""
        numbers = ",".join([f"{p:.{DIGITS}f}" for p in answer.probability_K])
        highest = f"{answer.probability_K[answer.place]:.{DIGITS}f}"
        id = _cell(shown(str(answer.id)))
        return f"{before}{id},{answer.step},{names[answer.place]},{highest},{numbers}\n"

    return line


def _cell(text: str) -> str:
    """A cell of a CSV file, in quotation marks where it needs them."""
    if any(mark in text for mark in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _as_json(classes: tuple[str, ...]) -> Callable[[Answer], str]:
    def line(answer: Answer) -> str:
        rounded = [round(p, DIGITS) for p in answer.probability_K]
        row = {
            "id": answer.id,
            "step": answer.step,
            "class": classes[answer.place],
            "probability": rounded[answer.place],
            "probabilities": dict(zip(classes, rounded, strict=True)),
        }
        return json.dumps(row) + "\n"

    return line
