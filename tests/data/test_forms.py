"""Tables that are no text: Excel, Feather, JSON lines; whatever they hold, they are read as text is."""

from __future__ import annotations

import datetime
import gzip
import io
import resource
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rnnclf.data.table import Table, json_lines
from rnnclf.errors import ConfigError, DataError
from tests.data.tables import LONG, WIDE, excel, feather, parquet, read, sequences_of
from tests.data.test_bad_tables import VALID

FRAME = pl.read_csv(LONG.encode())
NOON = datetime.datetime(2024, 3, 31, 12)


@pytest.mark.long
def test_a_parquet_file_whose_damage_ends_the_process_that_reads_it_is_refused():
    content = bytearray(VALID["wide.parquet"])
    assert content[496] == 6
    content[496] = 9  # polars 2.1: "memory allocation of 2305843009213693952 bytes failed"
    with pytest.raises(DataError, match=r"^wide\.parquet is damaged, or reading it takes too much memory"):
        read(bytes(content), "wide.parquet")
    assert len(read(VALID["wide.parquet"], "wide.parquet")) == 3  # and the next one is read


@pytest.mark.parametrize("suffix", ["feather", "arrow", "ipc"])
def test_a_feather_file_is_read_as_the_same_table_of_text(suffix):
    as_text = read(LONG)
    recordings = read(feather(FRAME), f"a.{suffix}")
    assert sequences_of(recordings) == sequences_of(as_text)
    assert recordings.channels == as_text.channels
    assert recordings.place(2) == f"a.{suffix}, row 3"


def stream() -> bytes:
    content = io.BytesIO()
    FRAME.write_ipc_stream(content)
    return content.getvalue()


BAD_FEATHER = {
    "empty": (b"", "is not a Feather file: it does not start with ARROW1"),
    "cut": (feather(FRAME)[:-20], "is truncated: it does not end with ARROW1"),
    "stream": (stream(), "is a stream of Arrow, which is not read: save it as a Feather or Parquet file"),
    "version 1": (b"FEA1" + bytes(99), "is a Feather file of version 1, which is not read"),
    "no rows": (feather(FRAME.head(0)), "has no rows"),
}


@pytest.mark.parametrize("what", BAD_FEATHER)
def test_a_bad_feather_file_is_refused_in_a_sentence(what):
    content, words = BAD_FEATHER[what]
    with pytest.raises(DataError, match=words):
        read(content, "a.feather")


# --- Excel ----------------------------------------------------------------------------------------


def test_cells_of_excel_are_read_exactly_and_dates_as_dates():
    rows = [
        ["id", "time", "v", "ok", "label"],
        ["007", NOON, 1 / 3, True, "a,b"],
        ["007", NOON + datetime.timedelta(seconds=1.25), 1e-30, False, "a,b"],
        [None] * 5,
        ["7", NOON, 0.99999999999, None, 'q"'],
    ]
    recordings = read(excel([*rows, [None] * 5]), "a.xlsx")
    values = [[pl.Series([v], dtype=pl.Float32).item(), ok] for v, ok in ((1 / 3, 1.0), (1e-30, 0.0))]
    assert sequences_of(recordings) == [("a,b", values), ('q"', [[1.0, None]])]
    assert recordings.times_S.tolist() == [0, 1.25, 0]
    assert list(recordings.ids(np.arange(2))) == ["007", "7"]
    assert recordings.place(2) == "a.xlsx, row 5"


TABLE = [line.split(",") for line in WIDE.splitlines()]


def test_the_first_sheet_is_read_unless_another_one_is_named():
    book = excel(TABLE, [["label", "t0", "t1"], ["walk", 7, 8]])
    recordings = read(book, "a.xlsx")
    assert len(recordings) == 3
    assert recordings.notes[0] == "a.xlsx: reading the sheet A, not B (dataset.sheet)."
    assert sequences_of(read(book, "a.xlsx", sheet="B")) == [("walk", [[7], [8]])]
    with pytest.raises(ConfigError, match=r"has no sheet 'D'\..* Choose dataset\.sheet from: A, B"):
        read(book, "a.xlsx", sheet="D")
    with pytest.raises(DataError, match=r"has an empty sheet\. It has the sheets A, B: choose one with"):
        read(excel([], TABLE), "a.xlsx")


def distant(cell: str) -> bytes:
    """A small file with a cell far away from the others: a program that makes a table of it takes 40 GB."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(excel(TABLE))) as old, zipfile.ZipFile(content, "w") as new:
        for member in old.infolist():
            part = old.read(member).replace(b'r="A4"', f'r="{cell}"'.encode())
            new.writestr(member.filename, part.replace(b'<row r="4"', b'<row r="100000"'))
    return content.getvalue()


BAD_EXCEL = {
    "a title": (
        excel([["Measured in 2024"], [], *TABLE]),
        "row 1 names 1 of 4 columns: the first row must be",
    ),
    "no header": (excel([[1, 2.5, 3]] * 3), "row 1 seems to hold values: the first row must be a header"),
    "text for a number": (excel([*TABLE, ["run", "x", 1, 2]]), "row 5, column 't0': 'x' is not a number"),
    "no label": (excel([*TABLE, [None, 1, 1, 2]]), "row 5, column 'label' is empty"),
    "empty": (excel([]), "has an empty sheet.$"),
    "other": (WIDE.encode(), "is not an Excel file, is damaged or needs a password"),
    "distant": (distant("XFD100000"), "is damaged, or reading it takes too much memory or time"),
}


@pytest.mark.parametrize("what", BAD_EXCEL)
def test_a_bad_excel_file_is_refused_in_a_sentence_that_says_where(what):
    content, words = BAD_EXCEL[what]
    with pytest.raises(DataError, match=words):
        read(content, "a.xlsx")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3e6  # kB


# --- JSON lines -----------------------------------------------------------------------------------


def test_json_lines_are_read_as_a_row_each():
    text = "".join(f"{row}\n" for row in pl.read_csv(LONG.encode()).write_ndjson().splitlines())
    for name, content in (("a.jsonl", text), ("a.ndjson", f"\n{text}\n"), ("a.jsonl.gz", text)):
        recordings = read(gzip.compress(content.encode()) if name.endswith("gz") else content, name)
        assert sequences_of(recordings) == sequences_of(read(LONG))
    assert recordings.place(2) == "a.jsonl.gz, line 3"


STEPS = '{"label": "walk", "v": [[1, 2], [3, null]]}\n{"label": "run", "v": [[5, true]]}\n'
CHANNELS = '{"label": "walk", "a": [1, 3], "b": [2, null]}\n\n{"label": "run", "a": [5], "b": [1]}\n'


@pytest.mark.parametrize("content", [STEPS, CHANNELS])
def test_a_line_with_lists_is_a_sequence(content):
    recordings = read(content, "a.jsonl")
    assert sequences_of(recordings) == [("walk", [[1, 2], [3, None]]), ("run", [[5, 1]])]
    assert recordings.channels == (("v_0", "v_1") if content == STEPS else ("a", "b"))
    assert recordings.place(2) == ("a.jsonl, line 2" if content == STEPS else "a.jsonl, line 3")
    assert list(recordings.ids(np.arange(2))) == ["0", "1"]


def test_lists_beside_an_id_or_a_group_keep_it():
    content = (
        '{"nr": "p", "person": 1, "label": "u", "a": [1]}\n{"nr": "q", "person": 1, "label": "v", "a": [2]}\n'
    )
    recordings = read(content, "a.jsonl", id="nr")
    assert list(recordings.ids(np.arange(2))) == ["p", "q"]
    assert recordings.groups_N.tolist() == [0, 0]
    assert Table.takes(Path("a.jsonl"))


BAD_LINES = {
    "empty": ("\n\n", "is empty: it needs a JSON object in each line"),
    "no object": ('{"a": 1}\n[1, 2]\n', r'line 2 holds a list; it must hold an object such as {"label"'),
    "one list": ('[\n{"a": 1}\n]\n', "line 1 is not a JSON object such as"),
    "cut": (STEPS[:-5], "line 2 is not a JSON object such as"),
    "twice": ('{"a": 1, "label": 2, "a": 3}\n', "line 1 has 'a' twice"),
    "new": (STEPS + '{"label": "run", "w": [[1, 2]]}\n', "line 3: 'v' has no values"),
    "other lists": (CHANNELS.replace("[2, null]", "[2]"), "line 1: 'a' has 2 values, 'b' has 1: the lists"),
    "other steps": (STEPS.replace("3, null", "3"), "line 1: 'v' has a step of 1 values, and others of 2"),
    "mixed": (STEPS.replace("[[5, true]]", "5"), "line 2: 'v' is a single value, in other lines a list of l"),
    "between": (STEPS.replace("[1, 2]", "1"), "line 1: 'v' has single values between its lists"),
    "an object": (STEPS.replace("[3, null]", "{}"), "line 1: 'v' holds objects; it must be a value, a list"),
    "an id twice": (
        CHANNELS.replace('"label"', '"id": 4, "label"'),
        "line 3: id '4' is also in line 1, but each line is a sequence",
    ),
    "deep": ("[" * 99_999, "line 1 is nested too deeply"),
    "not UTF-8": (STEPS.encode().replace(b"walk", b"w\xe4lk"), "line 1 is not UTF-8 text"),
    "text": (STEPS.replace("5", '"five"'), "line 2, column 'v_0': 'five' is not a number"),
}


@pytest.mark.parametrize("what", BAD_LINES)
def test_bad_json_lines_are_refused_in_a_sentence_that_says_where(what):
    content, words = BAD_LINES[what]
    with pytest.raises(DataError) as caught:
        read(content, "a.jsonl")
    assert words in str(caught.value)


def test_options_that_contradict_lists_are_refused():
    for options in ({"form": "wide"}, {"id": "none"}):
        with pytest.raises(ConfigError, match=r"Each line of a\.jsonl holds a sequence in lists: leave out"):
            read(STEPS, "a.jsonl", **options)


def test_a_key_that_comes_later_and_an_endless_line_are_refused(monkeypatch):
    monkeypatch.setattr(json_lines, "BLOCK", 64)
    with pytest.raises(DataError, match=r"line 3 has 'w', which the lines before do not have: write null"):
        read(STEPS + '{"label": "run", "w": 1}\n', "a.jsonl")
    monkeypatch.setattr(json_lines, "LONGEST", 256)
    with pytest.raises(DataError, match="line 3 is longer than 0 MiB"):
        read(STEPS + '{"label": "run", "v": [' + "[1, 2]," * 99, "a.jsonl")


def test_lists_in_parquet_files_are_told_what_to_do():
    frame = pl.DataFrame({"label": ["a", "b"], "x": [[1.0, 2.0], [3.0]]})
    with pytest.raises(DataError, match="holds lists or structures: save one row per step"):
        read(parquet(frame), "a.parquet")
