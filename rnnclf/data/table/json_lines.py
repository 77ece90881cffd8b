"""JSON lines: an object for each step or, with lists in it, for each sequence. Torch-free.

The format: https://jsonlines.org. Shapes: R rows of a block.
"""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.delimited import excerpt
from rnnclf.data.table.blocks import BLOCK, Block, TableFile, errors_of_reading
from rnnclf.data.table.unfolding import Unfolding
from rnnclf.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".jsonl", ".ndjson")
LONGEST = 2**25  # bytes of a line
KINDS = ("a single value", "a list", "a list of lists")
EXAMPLE = '{"label": "walk", "x": [1, 2]}'

Row = dict[str, Any]
Chunk = tuple[list[int], list[Row], float]
"""Some lines: their numbers, their objects, and the share of the file read so far."""


class JsonLines(TableFile):
    """A JSON object in each line. Its values become text, to be read as the cells of a CSV file."""

    def __init__(self, path: Path, without_id: bool = True) -> None:
        """`without_id`: no option names the column with the ids."""
        super().__init__(path)
        first = next(self._chunks(), None)
        if first is None:
            raise DataError(f"{self.name} is empty: it needs a JSON object in each line.")
        lines, rows, _ = first
        self._depths = {key: 0 for row in rows for key in row}
        for row in rows:
            for key, value in row.items():
                self._depths[key] = max(self._depths[key], _depth(value))
        self._checked_names(tuple(self._depths))
        self._unfolding = Unfolding.of(self._frame(lines, rows), without_id)
        self.columns = self.plain = self._unfolding.columns
        self.row_is_sequence = self._unfolding.needed

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        import numpy as np

        before = 0
        for lines, rows, share in self._chunks():
            block = Block(self.name, self.unit, self._frame(lines, rows), np.array(lines, np.int64), share)
            yield self._unfolding.unfolded(block, columns, before)
            before += len(rows)

    def _frame(self, lines: list[int], rows: list[Row]) -> pl.DataFrame:
        """The objects as columns of text, of lists of text, or of lists of those. Raises DataError."""
        import polars as pl

        for line, row in zip(lines, rows, strict=True):
            if new := next((key for key in row if key not in self._depths), None):
                raise DataError(
                    f"{self.name}, line {line} has '{excerpt(new)}', which the lines before do not have:"
                    " write null where a value is missing."
                )
        types: list[Any] = [pl.String, pl.List(pl.String), pl.List(pl.List(pl.String))]
        columns = []
        for key, depth in self._depths.items():
            cells = [self._cell(line, key, row.get(key)) for line, row in zip(lines, rows, strict=True)]
            columns.append(pl.Series(key, cells, types[depth]))
        return pl.DataFrame(columns)

    def _cell(self, line: int, key: str, value: Any) -> Any:
        """The value with all that is in it as text. Raises DataError if it is of another kind than before."""
        depth, place = self._depths[key], f"{self.name}, line {line}: '{excerpt(key)}'"
        if value is not None and _depth(value) != depth:
            raise DataError(f"{place} is {KINDS[min(_depth(value), 2)]}, in other lines {KINDS[depth]}.")
        return _text(value, depth, place)

    def _chunks(self) -> Iterator[Chunk]:
        """The file in chunks of whole lines; blank ones are skipped. Raises DataError."""
        lines: list[int] = []
        rows: list[Row] = []
        size, taken = max(self.path.stat().st_size, 1), 0
        with errors_of_reading(self.name), open(self.path, "rb") as raw:
            file: Any = gzip.GzipFile(fileobj=raw) if self.path.suffix.lower() == ".gz" else raw
            line = 0
            while text := file.readline(LONGEST + 1):
                line += 1
                if len(text) > LONGEST:
                    raise DataError(f"{self.name}, line {line} is longer than {LONGEST >> 20} MiB.")
                if text := (text.removeprefix(codecs.BOM_UTF8) if line == 1 else text).strip():
                    lines.append(line)
                    rows.append(object_in(text, f"{self.name}, line {line}"))
                    taken += len(text)
                if taken >= BLOCK:
                    yield lines, rows, raw.tell() / size
                    lines, rows, taken = [], [], 0
        if rows:
            yield lines, rows, 1.0


def object_in(text: bytes, place: str, example: str = EXAMPLE) -> Row:
    """The object in a line, with the digits of its numbers as text. Raises DataError, with the place."""
    try:
        row = json.loads(
            text.decode(),
            parse_float=str,
            parse_int=str,
            parse_constant=str,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: save the file as UTF-8.") from error
    except _TwiceError as error:
        raise DataError(f"{place} has '{excerpt(str(error))}' twice.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place} is not a JSON object such as {example}: each line must hold one, and nothing else."
        ) from error
    except RecursionError as error:
        raise DataError(f"{place} is nested too deeply.") from error
    if not isinstance(row, dict):
        kind = "a list" if isinstance(row, list) else "a single value"
        raise DataError(f"{place} holds {kind}; it must hold an object such as {example}.")
    return row


class _TwiceError(Exception):
    """A name that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return row


def _depth(value: Any) -> int:
    """0 for a single value, 1 for a list, 2 for a list of lists."""
    if not isinstance(value, list):
        return 0
    return 2 if any(isinstance(inner, list) for inner in value) else 1


def _text(value: Any, depth: int, place: str) -> Any:
    """The value with numbers, true and false as text. Raises DataError for objects, and for deeper lists."""
    if value is None or isinstance(value, str):
        if depth and value is not None:
            raise DataError(f"{place} has single values between its lists.")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and depth > 0:
        if depth == 1 and all(type(inner) is str for inner in value):
            return value
        return [_text(inner, depth - 1, place) for inner in value]
    kind = "objects" if isinstance(value, dict) else "lists that are nested more than twice"
    raise DataError(f"{place} holds {kind}; it must be a value, a list, or a list for each step.")
