"""The answers of a model: on stdout as CSV, or in a file; what was noticed goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnclf.console.screen import print_note
from rnnclf.data.recordings import Progress
from rnnclf.escaping import harmless
from rnnclf.system import streams
from rnnclf.workflows.answers import Layout, Text, Writer, table_at
from rnnclf.workflows.predict import Prediction


@contextmanager
def answers_to(output: Path | None, json: bool = False) -> Iterator[Writer]:
    """A place to write answers to: a file or, if there is none, stdout. Raises OutputError."""
    if output is None:
        yield _Stdout(Text(".jsonl" if json else ".csv"))
        return
    with table_at(output) as write:
        yield write


class _Stdout:
    """Writes text to stdout; on a terminal without what would act as a command to it."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __call__(self, frame: object) -> None:
        text = self._text(frame)  # type: ignore[arg-type]
        if sys.stdout.isatty():
            text = harmless(text.decode()).encode()
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def write_answers(found: Prediction, layout: Layout, write: Writer, progress: Progress) -> int:
    """Writes the answers part by part, until nobody reads stdout any more. Returns how many there were."""
    rows = 0
    for note in found.notes:
        print_note(note)
    for answers in found.answers(progress):
        write(layout.frame(answers.ids_N, answers.probabilities_NK, answers.logits_NK))
        rows += len(answers.ids_N)
        if streams.reader_is_gone():
            break
    for remark in found.remarks():
        print_note(remark)
    return rows
