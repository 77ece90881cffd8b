"""A sentence for whatever is wrong with a table."""

from __future__ import annotations

import gzip
import tempfile

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data.table import Table, blocks, text
from rnnclf.errors import ConfigError, DataError, RnnclfError
from tests.data.tables import LONG, WIDE, entries, excel, feather, parquet, read


def nested() -> bytes:
    return parquet(pl.DataFrame({"label": ["a", "b"], "values": [[1.0, 2.0], [3.0]]}))


BAD_FILES = {
    "empty": ("", "my.csv is empty"),
    "blank": ("\n\r\n\n", "my.csv is empty"),
    "header only": ("id,time,ax,label\n", "has a header but no rows"),
    "header and blank rows": ("id,time,ax,label\n\n,,,\n", "has a header but no rows"),
    "last line cut off": (
        LONG[:-8],
        r"line 6 has 3 fields, but the header has 5 columns\. .* truncated there",
    ),
    "too few fields": (
        LONG.replace("b,0,3.5,30,run", "b,0,3.5,run"),
        "line 4 has 4 fields, but the header",
    ),
    "too many fields": (
        LONG.replace("b,0,3.5,30", "b,0,3,5,30"),
        "line 4 has 6 fields, but the header has 5",
    ),
    "uneven, balanced": (LONG.replace("0,1.5", "0").replace("1,2.5", "1,2,5"), "line 2 has 4 fields"),
    "quotation never closed": (LONG.replace("b,1,", 'b,1,"'), "line 5 opens a quotation mark that is never"),
    "quotation mark within": (LONG.replace("walk", 'wa"lk'), "line 2 has a quotation mark inside a field"),
    "text behind a quotation": (LONG.replace("walk", '"walk"ing'), "line 2 has a quotation mark inside"),
    "not UTF-8": (LONG.encode().replace(b"walk", b"w\xe4lk"), r"line 2 is not UTF-8 text: save"),
    "UTF-16": (LONG.encode("utf-16"), r"line 1 has a NUL byte"),
    "NUL": (LONG.replace("40", "4\0"), r"my\.csv, line 5 has a NUL byte"),
    "no header": ("1,0,2.5,3\n1,1,2.5,3\n", r"line 1 seems to hold values: the first row must be a header"),
    "no header, but names of classes": ("1,1,2.5,b\n1,2,2.5,b\n", r"line 1 seems to hold values"),
    "one name twice": (LONG.replace("ay", "ax"), "has two columns named 'ax'"),
    "label missing in a row": (LONG.replace("3.5,30,run", "3.5,30,"), r"line 4, column 'label' is empty"),
    "label NaN in a row": (
        LONG.replace("3.5,30,run", "3.5,30,NaN"),
        r"line 4, column 'label' has 'NaN', which is read as missing: .* set dataset\.missing_values=\[\]",
    ),
    "label empty in a row": (LONG.replace("3.5,30,run", "3.5,30,"), r"line 4, column 'label' is empty"),
    "id missing in a row": (LONG.replace("b,1", ",1"), r"line 5, column 'id' is empty"),
    "endless label": (LONG.replace("walk", "1" * 5000), r"line 2, column 'label' has more than 1,000"),
    "two labels": (
        LONG.replace("5.5,50,run", "5.5,50,walk"),
        r"line 6: the label of id 'b' is 'walk', but in line 4 it is 'run': a sequence can have only one",
    ),
    "two groups": (
        LONG.replace("ay", "patient"),
        r"line 3: the group of id 'a' is '20', but in line 2 it is '10': .* dataset\.group=none",
    ),
    "text for a number": (LONG.replace("4.5", "4_5"), r"line 5, column 'ax': '4_5' is not a number"),
    "decimal comma": (
        LONG.replace(",", ";").replace("3.5", "3,5"),
        r"line 4, column 'ax': '3,5' is not a number",
    ),
    "infinity": (LONG.replace("40", "-inf"), r"line 5, column 'ay': -inf is infinite"),
    "too large": (
        LONG.replace("40", "1e309"),
        r"line 5, column 'ay': 1e309 is infinite or too large",
    ),
    "same time twice": (
        LONG.replace("b,2", "b,1"),
        r"line 6: same id and time as line 5: the times of a sequence",
    ),
    "same time apart": (LONG.replace("b,2", "b,0"), r"line 6: same id and time as line 4"),
    "time missing": (
        LONG.replace("b,1", "b,"),
        r"line 5, column 'time' is empty: write numbers, or dates like",
    ),
    "time NaN": (LONG.replace("b,1", "b,nan"), r"line 5, column 'time': 'nan' is not a time"),
    "time infinite": (LONG.replace("b,1", "b,inf"), r"line 5, column 'time': 'inf' is not a time"),
    "time no time": (LONG.replace("b,1", "b,noon"), r"line 5, column 'time': 'noon' is not a time"),
    "no such day": (LONG.replace("b,1", "b,2023-02-29"), r"column 'time': '2023-02-29' is not a time"),
    "no numbers": ("id,label\na,x\na,x\n", "has no numeric columns besides id, label"),
    "bad split": (
        "label,split,t0\na,train,1\nb,5,2\n",
        r"line 3, column 'split': '5' is not a split; it must",
    ),
    "uneven channels": (
        "label,ax_0,ax_1,ay_0\na,1,2,3\n",
        "channel 'ay' has no column for step 1, but others have",
    ),
    "too many digits": (
        "id,time,x,label\na,0,9007199254740993,u\na,1,9007199254740992,u\nb,0,9007199254740995,v\n",
        "channel 'x' has values from .* lost in 64 bits: subtract a constant before you save them",
    ),
    "one step twice": ("label,ax_1,ax_01\na,1,2\n", "columns 'ax_1' and 'ax_01' are the same step"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_refused_in_a_sentence_that_says_where(what):
    content, words = BAD_FILES[what]
    with pytest.raises(DataError, match=words):
        read(content)
    assert entries() == []


BAD_PARQUET = {
    "empty": (b"", "is not a Parquet file: it does not start with PAR1"),
    "text": (LONG.encode(), "is not a Parquet file"),
    "truncated there": (
        parquet(pl.DataFrame({"label": ["a"], "t0": [1.0]}))[:-20],
        "is truncated: it does not end",
    ),
    "magic only": (b"PAR1PAR1", "is truncated"),
    "no footer": (b"PAR1" + bytes(40) + b"PAR1", "cannot be read"),
    "lists": (nested(), "column 'values' holds lists or structures: save one row per step"),
    "no rows": (parquet(pl.DataFrame({"label": ["a"], "t0": [1.0]}).head(0)), "has no rows"),
    "infinite": (
        parquet(pl.DataFrame({"label": ["a", "b"], "t0": [1.0, np.inf]})),
        r"row 2, column 't0': inf is inf",
    ),
    "no label": (
        parquet(pl.DataFrame({"label": ["a", None], "t0": [1, 2]})),
        "row 2, column 'label' is empty",
    ),
}


@pytest.mark.parametrize("what", BAD_PARQUET)
def test_a_bad_parquet_file_is_refused_in_a_sentence(what):
    content, words = BAD_PARQUET[what]
    with pytest.raises(DataError, match=words):
        read(content, "my.parquet")


def test_a_damaged_gzip_file_is_refused():
    packed = gzip.compress((LONG * 100).encode())
    for damaged in (packed[:-9], b"no gzip", packed[:30] + b"x" * 20 + packed[50:]):
        with pytest.raises(DataError, match=r"my\.csv\.gz cannot be decompressed"):
            read(damaged, "my.csv.gz")


@pytest.mark.parametrize("name", ["my.ods", "my", "my.parquet.gz", ".csv.zip"])
def test_other_files_are_refused_by_their_names(name):
    with pytest.raises(DataError, match=r"is not a table: its name should end in \.csv, \.tsv"):
        read(LONG, name)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(text, "BLOCK", 64)
    monkeypatch.setattr(text, "LONGEST", 1024)
    with pytest.raises(DataError, match="the row that begins in line 4 is longer than"):
        read(LONG.replace("b,0,", 'b,0,"' + "x" * 2000))


BAD_OPTIONS = {
    "no such label": (
        LONG,
        {"label": "lable"},
        r"has no column 'lable'\. Did you mean 'label'\? Choose",
    ),
    "no such id": (LONG, {"id": "nr"}, r"no column 'nr'\. Choose dataset\.id from its columns: id, time, ax"),
    "no such channel": (LONG, {"channels": ["az"]}, r"no channel 'az'\. Choose dataset\.channels from"),
    "no label": (
        LONG.replace("label", "kind").replace("walk", "1").replace("run", "2"),
        {},
        r"no column is recognisable as the label\. Choose dataset\.label",
    ),
    "two labels": (
        LONG.replace("ay", "target"),
        {},
        r"target, label could each be the label\. Choose dataset\.label",
    ),
    "two ids": (LONG.replace("ay", "series"), {}, r"id, series could each be the id\. Choose dataset\.id"),
    "two times": (LONG.replace("ay", "date"), {}, r"time, date could each be the time\. Choose"),
    "long without id": (
        LONG.replace("id", "k"),
        {"form": "long"},
        r"no column is recognisable as the id\. Choose dataset\.id",
    ),
    "times without ids": (
        LONG.replace("id", "k"),
        {},
        r"has times, but no id: set dataset\.id if each row is a step, dataset\.window=128 .*, or"
        r" dataset\.form=wide",
    ),
    "times of single steps": (
        "id,time,x,label\na,0,1,u\nb,0,2,v\n",
        {},
        r"has times, but no 'id' occurs twice: set dataset\.form=long if .*, or dataset\.form=wide if",
    ),
    "one column twice": (LONG, {"id": "ax", "channels": ["ax"]}, r"options name column 'ax'"),
    "one channel twice": (LONG, {"channels": ["ax", "ax"]}, r"options name column 'ax'"),
    "times of sequences": (WIDE, {"form": "wide", "time": "t0"}, r"dataset\.time=t0 has no effect"),
    "age beside steps": (
        "label,age,ax_0,ax_1\na,1,2,3\n",
        {},
        r"'age' does not\. Choose dataset\.channels from: ax",
    ),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_what_is_not_plain_must_be_said(what):
    content, options, words = BAD_OPTIONS[what]
    with pytest.raises(ConfigError, match=words):
        read(content, **options)


def test_a_wrong_delimiter_is_told_with_the_right_one():
    with pytest.raises(DataError, match=r"only one column.*seems to be comma: set dataset\.delimiter=comma"):
        read(LONG, delimiter="semicolon")
    with pytest.raises(ConfigError, match="delimiter must be auto, comma"):
        Table(path="my.csv", delimiter=";")


def test_a_wide_table_refuses_an_id_that_comes_twice():
    with pytest.raises(DataError, match=r"line 3: id 'a' is also in line 2, but each row is a sequence"):
        read("id,label,t0\na,x,1\na,y,2\n", form="wide")


def test_a_column_of_text_is_refused_where_it_is_named():
    with pytest.raises(DataError, match=r"line 2, column 'place': 'home' is not a number"):
        read(LONG.replace("ay", "place").replace("10", "home"), channels=["ax", "place"])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"needs dataset\.path="):
        Table().read()
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        Table(path=str(tmp_path / "none.csv")).read()
    with pytest.raises(DataError, match="is not a file"):
        Table(path=str(tmp_path)).read()


def damaged(content: bytes, damages: list[tuple[str, int, bytes]]) -> bytes:
    for how, place, garbage in damages:
        at = place % (len(content) + 1)
        content = {
            "cut": content[:at],
            "insert": content[:at] + garbage + content[at:],
            "replace": content[:at] + garbage + content[at + len(garbage) :],
            "leave out": content[:at] + content[at + len(garbage) :],
            "again": content + content[at:],
        }[how]
    return content


GARBAGE = st.binary(min_size=1, max_size=6) | st.sampled_from(
    [b'"', b"\n", b"\r", b",", b"\t", b";", b"nan", b"inf", b"1e999", b"\n\n", b'""', b'"\n', b"-", b"\xff"]
)
DAMAGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "insert", "replace", "leave out", "again"]), st.integers(0, 10_000), GARBAGE
    ),
    min_size=1,
    max_size=4,
)
VALID = {
    "long.csv": LONG.encode(),
    "quoted.csv": LONG.replace("walk", '"wa, ""l""\nk"').encode(),
    "wide.csv": WIDE.encode(),
    "long.tsv": LONG.replace(",", "\t").replace("\n", "\r\n").encode(),
    "dates.csv": LONG.replace(",0,", ",2024-01-01,").replace(",1,", ",2024-01-01T01:00,").encode(),
    "long.csv.gz": gzip.compress(LONG.encode()),
    "long.parquet": parquet(pl.read_csv(LONG.encode())),
    "wide.parquet": parquet(pl.read_csv(WIDE.encode())),
    "long.feather": feather(pl.read_csv(LONG.encode())),
    "lists.jsonl": b'{"label": "walk", "x": [1, 2.5]}\n{"label": "run", "x": [null]}\n',
    "steps.jsonl": b'{"label": "walk", "v": [[1, 2], [3, 4]]}\n{"label": "run", "v": [[5, 6]]}\n',
    "wide.xlsx": excel([line.split(",") for line in WIDE.splitlines()]),
}
QUICK = ("long.csv", "wide.csv", "long.csv.gz", "lists.jsonl", "wide.parquet")


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in VALID]
)
@settings(max_examples=50, deadline=None)
@given(DAMAGES)
def test_a_damaged_table_is_read_or_refused_and_nothing_else(name, damages):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", folder)
        try:
            message = f"{len(read(damaged(VALID[name], damages), name))} sequences."
        except RnnclfError as error:
            message = str(error)
    assert message.endswith((".", "?"))
    assert "\n" not in message
