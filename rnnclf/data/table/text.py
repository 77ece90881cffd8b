"""Delimited text in blocks, with the line number of every row. Torch-free.

Shapes: R rows of a piece.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.recordings import Array
from rnnclf.data.table.blocks import (
    BLOCK,
    Block,
    TableFile,
    errors_of_polars,
    errors_of_reading,
    suffix_of,
)
from rnnclf.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

LONGEST = 2**26  # bytes of one row
SUFFIXES = {".csv": "comma", ".txt": "comma", ".tsv": "tab", ".tab": "tab"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
NEVER_GUESSED = "space"
DECIMAL_COMMA = r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*)$"
WHOLE_OR_THOUSANDS = r"^[+-]?\d+$|^[+-]?[1-9]\d{0,2}(,\d{3})+$"


@dataclass(frozen=True)
class Piece:
    """Some rows as bytes, the line number of the first, and the fraction of the file read so far."""

    text: bytes
    line: int
    share: float

    def line_of(self, byte: int) -> int:
        return self.line + self.text.count(b"\n", 0, byte)


class TextFile(TableFile):
    """Delimited text in UTF-8 with a header, as in RFC 4180; blank rows are skipped."""

    def __init__(
        self,
        path: Path,
        delimiter: str = "auto",
        decimal: str = "auto",
        named: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        """`named`: columns that options name, which tell a header of numbers from a row of values.

        name: what messages call the file.
        """
        super().__init__(path)
        self.name = name or self.name
        self._decimal, self._named = decimal, named
        self._commas: set[str] | None = None  # seen in the first block
        first = next(self._pieces(), None)
        header = None if first is None else _header(first)
        if header is None:
            raise DataError(f"{self.name} is empty: it needs a header and rows.")
        line, self._header_line = header
        usual = SUFFIXES[suffix_of(path)]
        self._mark = DELIMITERS[self._guessed(line, usual) if delimiter == "auto" else delimiter]
        self._fields = self._names(line)
        self.columns = self.plain = tuple(filter(None, self._fields))

    def _guessed(self, header: str, usual: str) -> str:
        """The delimiter in the header if there is only one, otherwise the usual one for the file's suffix."""
        present = _delimiters_in(header)
        if len(present) != 1 or present[0] == usual:
            return usual
        self.notes.append(f"{self.name}: the delimiter is the {present[0]}.")
        return present[0]

    def _names(self, header: str) -> list[str]:
        place = f"{self.name}, {self.unit} {self._header_line}"
        try:
            names = [" ".join(name.split()) for name in next(csv.reader([header], delimiter=self._mark))]
        except csv.Error as error:
            raise DataError(f"{place} is not a valid header ({error}).") from error
        if len(names) == 1:
            present = _delimiters_in(header)
            hint = f" It seems to be {present[0]}: set dataset.delimiter={present[0]}." if present else ""
            raise DataError(f"{place} has only one column: is the delimiter right?{hint}")
        numbers = [name for name in names if _is_number(name)]
        all_numbers = len(numbers) == len(list(filter(None, names)))
        if (all_numbers and not self._is_header(numbers)) or len(set(numbers)) < len(numbers):
            raise DataError(f"{place} seems to hold values: the first row must be a header of column names.")
        self._checked_names(names)
        if unnamed := [str(number) for number, name in enumerate(names, start=1) if not name]:
            more = f" and {len(unnamed) - 1:,} others" if len(unnamed) > 1 else ""
            self.notes.append(f"{self.name}: ignored column {unnamed[0]}{more} without a name.")
        return names

    def _is_header(self, numbers: list[str]) -> bool:
        """Whether bare numbers are names: counted from 0 as pandas does, or one that an option names."""
        counted = len(numbers) > 2 and numbers == [str(n) for n in range(len(numbers))]
        return counted or not set(numbers).isdisjoint(self._named)

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        number_of = {name: number for number, name in enumerate(self._fields)}
        wanted = sorted(number_of[name] for name in columns)
        blocks = (self._block(piece, wanted) for piece in self._pieces())
        some = False
        for block in filter(None, blocks):
            some = True
            yield block
        if not some:
            raise DataError(f"{self.name} has a header but no rows.")

    def _block(self, piece: Piece, wanted: list[int]) -> Block | None:
        import polars as pl

        text, lines_R = self._rows(piece)
        if not text:
            return None
        names = [self._fields[number] for number in wanted]
        what = f"{self.name}, lines {lines_R[0]} to {lines_R[-1]},"
        with errors_of_polars(what):
            frame = pl.read_csv(
                text, has_header=False, infer_schema=False, separator=self._mark, columns=wanted
            )
        if frame.shape != (len(lines_R), len(names)):
            raise DataError(f"{what} cannot be read: quotation marks or line ends do not follow RFC 4180.")
        frame.columns = names
        return Block(self.name, self.unit, self._with_points(frame), lines_R, piece.share)

    def _with_points(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The cells with decimal points in the columns that have decimal commas, as the first block tells."""
        if self._mark == "," or self._decimal == "point":
            return frame
        if self._commas is None:
            self._commas = self._comma_columns(frame)
        columns = [name for name in frame.columns if name in self._commas]
        changed = (frame[name].str.replace(DECIMAL_COMMA, "${1}.${2}") for name in columns)
        return frame.with_columns(
            [column.rename(name) for name, column in zip(columns, changed, strict=True)]
        )

    def _comma_columns(self, frame: pl.DataFrame) -> set[str]:
        """The columns of numbers without points if some number has a decimal comma, otherwise none.

        Raises ConfigError if all the commas could separate thousands.
        """
        bare = {name: frame[name].drop_nulls().str.strip_chars() for name in frame.columns}
        bare = {name: cells.filter(cells != "") for name, cells in bare.items()}
        numeric = {
            name
            for name, cells in bare.items()
            if not cells.str.contains(r"[^\d,eE+\-]").any() and len(cells)
        }
        commas = {name for name in numeric if bare[name].str.contains(DECIMAL_COMMA).any()}
        if not commas:
            return set()
        if self._decimal == "auto" and all(bare[n].str.contains(WHOLE_OR_THOUSANDS).all() for n in commas):
            example = bare[min(commas)]
            number = example.filter(example.str.contains(","))[0]
            raise ConfigError(
                f"{self.name}: '{number}' may be a decimal number or have a separator of thousands. Set"
                " dataset.decimal=comma, or remove the separators."
            )
        self.notes.append(f"{self.name}: the decimal mark is the comma.")
        return numeric

    def _rows(self, piece: Piece) -> tuple[bytes, Array]:
        """The rows of a piece, without the header and blank rows, and the line of each, int64 (R,).

        Raises DataError, which names the line, for a row with too few or too many fields.
        """
        import numpy as np

        byte = np.frombuffer(piece.text, np.uint8)
        newlines = ends = np.flatnonzero(byte == ord("\n"))
        marks = np.flatnonzero(byte == ord(self._mark))
        if b'"' in piece.text:
            inside = self._quoted(piece, byte)
            ends, marks = ends[~inside[ends]], marks[~inside[marks]]
        if not len(ends) or ends[-1] != len(byte) - 1:
            ends = np.append(ends, len(byte))
        begins = np.append(0, ends[:-1] + 1)
        lines_R = piece.line + np.searchsorted(newlines, begins)
        marks_R = np.diff(np.searchsorted(marks, ends), prepend=0)
        returns_R = (ends > begins) & (byte[ends - 1] == ord("\r"))
        full_R = (ends - begins - returns_R > marks_R) & (lines_R > self._header_line)
        wrong_R = full_R & (marks_R != len(self._fields) - 1)
        if wrong_R.any():
            row = int(wrong_R.argmax())
            truncated = row == len(ends) - 1 and ends[-1] == len(byte)
            raise DataError(self._miscounted(int(lines_R[row]), int(marks_R[row]) + 1, truncated))
        first = int(full_R.argmax())  # after the header
        if full_R[first:].all():
            return piece.text[begins[first] :], lines_R[first:]
        spans = zip(begins[full_R].tolist(), ends[full_R].tolist(), strict=True)
        return b"".join(piece.text[begin : end + 1] for begin, end in spans), lines_R[full_R]

    def _miscounted(self, line: int, fields: int, truncated: bool) -> str:
        hint = " The file seems to be truncated there." if truncated and fields < len(self._fields) else ""
        return (
            f"{self.name}, line {line} has {fields} field{'s' if fields > 1 else ''},"
            f" but the header has {len(self._fields)} columns.{hint}"
        )

    def _quoted(self, piece: Piece, byte: Array) -> Array:
        """Which bytes are inside quotation marks. Raises DataError if they do not enclose whole fields."""
        import numpy as np

        quote_S = byte == ord('"')
        quotes = np.flatnonzero(quote_S)
        allowed = np.frombuffer(f'\r\n"{self._mark}'.encode(), np.uint8)
        opens, closes = quotes[::2], quotes[1::2]
        stray = [*opens[(opens > 0) & ~np.isin(byte[opens - 1], allowed)]]
        stray += [*closes[~np.isin(byte[np.minimum(closes + 1, len(byte) - 1)], allowed)]]
        if stray:
            raise DataError(
                f"{self.name}, line {piece.line_of(min(stray))} has a quotation mark inside a field:"
                " enclose the whole field in quotation marks and double the inner ones."
            )
        if len(quotes) % 2:
            line = piece.line_of(int(quotes[-1]))
            raise DataError(f"{self.name}, line {line} opens a quotation mark that is never closed.")
        count_S = np.cumsum(quote_S, dtype=np.uint8)  # overflow does not change the parity
        inside_S: Array = (count_S & 1).astype(bool)
        return inside_S

    def _pieces(self) -> Iterator[Piece]:
        """The file in pieces of whole rows, checked to be text. Raises DataError."""
        rest, line = b"", 1
        size = max(self.path.stat().st_size, 1)
        with errors_of_reading(self.name), open(self.path, "rb") as raw:
            file: Any = gzip.GzipFile(fileobj=raw) if self.path.suffix.lower() == ".gz" else raw
            while fresh := file.read(BLOCK):
                rest = rest + fresh if line > 1 or rest else fresh.removeprefix(codecs.BOM_UTF8)
                if end := _end_of_rows(rest):
                    piece = Piece(rest[:end], line, raw.tell() / size)
                    yield self._checked(piece)
                    line, rest = piece.line_of(end), rest[end:]
                elif b"\0" in fresh:
                    self._checked(Piece(rest, line, 1.0))
                elif len(rest) > LONGEST:
                    raise DataError(
                        f"{self.name}: the row that begins in line {line} is longer than {LONGEST >> 20} MiB:"
                        " is a quotation mark never closed?"
                    )
        if rest:
            yield self._checked(Piece(rest, line, 1.0))

    def _checked(self, piece: Piece) -> Piece:
        """Returns the piece. Raises DataError if it is not UTF-8 text."""
        if (zero := piece.text.find(b"\0")) >= 0:
            raise DataError(
                f"{self.name}, line {piece.line_of(zero)} has a NUL byte: the file must be UTF-8 text."
            )
        if not piece.text.isascii():
            try:
                piece.text.decode()
            except UnicodeDecodeError as error:
                place = f"{self.name}, line {piece.line_of(error.start)}"
                raise DataError(f"{place} is not UTF-8 text: save the file as UTF-8.") from error
        return piece


def _delimiters_in(header: str) -> list[str]:
    """The delimiters in a header outside quotation marks."""
    bare = re.sub('"[^"]*"', "", header)
    return [word for word, mark in DELIMITERS.items() if mark in bare and word != NEVER_GUESSED]


def _header(piece: Piece) -> tuple[str, int] | None:
    """The first row that is not blank, and its line number; None if all are blank."""
    begin = 0
    while begin < len(piece.text):
        end = begin + _end_of_first_row(piece.text[begin:])
        if row := piece.text[begin:end].strip(b"\r\n"):
            return row.decode(), piece.line_of(begin)
        begin = end
    return None


def _end_of_first_row(text: bytes) -> int:
    end = 0
    while (newline := text.find(b"\n", end)) >= 0:
        end = newline + 1
        if text.count(b'"', 0, end) % 2 == 0:
            return end
    return len(text)


def _end_of_rows(text: bytes) -> int:
    """The offset after the last line end outside quotation marks; 0 if there is none."""
    quotes, end = text.count(b'"'), len(text)
    while (newline := text.rfind(b"\n", 0, end)) >= 0:
        quotes -= text.count(b'"', newline, end)
        if quotes % 2 == 0:
            return newline + 1
        end = newline
    return 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
