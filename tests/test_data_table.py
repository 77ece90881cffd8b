"""Tables: the same sequences however they are written, and a sentence for whatever is wrong with them."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data.cache import cache_root
from rnnclf.data.recordings import Recordings
from rnnclf.data.table import Table, blocks, text
from rnnclf.errors import ConfigError, DataError, OutputError, RnnclfError

LONG = """id,time,ax,ay,label
a,0,1.5,10,walk
a,1,2.5,20,walk
b,0,3.5,30,run
b,1,4.5,40,run
b,2,5.5,50,run
"""


def read(content: str | bytes, name: str = "my.csv", **options: object) -> Recordings:
    """The recordings of a file with that content in the current folder."""
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Table(path=str(path), **options).read()


def parquet(frame: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def sequences_of(recordings: Recordings) -> list[tuple[str, list[list[float]]]]:
    """The class and the steps of each sequence; None for what is missing."""
    bounds = zip(recordings.starts_N, recordings.lengths_N, recordings.labels_N, strict=True)
    return [
        (recordings.classes[label], _plain(recordings.values_SC[start : start + length]))
        for start, length, label in bounds
    ]


def _plain(values_TC: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else v for v in step] for step in values_TC.tolist()]


def rows_of(content: str, order: list[int]) -> str:
    header, *rows = content.splitlines()
    return "\n".join([header, *(rows[n] for n in order), ""])


def test_a_long_table_is_read_by_the_names_of_its_columns():
    found = read(LONG)
    assert sequences_of(found) == [
        ("walk", [[1.5, 10], [2.5, 20]]),
        ("run", [[3.5, 30], [4.5, 40], [5.5, 50]]),
    ]
    assert found.classes == ("run", "walk")
    assert found.channels == ("ax", "ay")
    assert found.times_S.tolist() == [0, 1, 0, 1, 2]
    assert found.values_SC.dtype == np.float32
    assert found.groups_N is None
    assert found.given_N is None


def test_every_guess_is_told():
    notes = " ".join(
        read(LONG.replace("label", "patient,label").replace(",w", ",1,w").replace(",r", ",2,r")).notes
    )
    assert notes == (
        "my.csv: took each row for a step, 'label' for the label, 'id' for the id,"
        " 'patient' for the group, 'time' for the time."
    )


def test_what_the_user_names_is_no_guess():
    found = read(LONG, form="long", id="id", time="time", label="label", channels=["ay"])
    assert found.notes == ()
    assert found.channels == ("ay",)
    assert sequences_of(read(LONG, channels=["ay", "ax"]))[0] == ("walk", [[10, 1.5], [20, 2.5]])
    assert read(LONG, channels=[]).channels == ("ax", "ay")


def test_rows_may_come_in_any_order():
    found, shuffled = read(LONG), read(rows_of(LONG, [4, 1, 2, 0, 3]), "shuffled.csv")
    assert sequences_of(found) == sequences_of(shuffled)
    assert shuffled.times_S.tolist() == found.times_S.tolist()
    assert "The rows of 2 of the 2 sequences were sorted by time." in shuffled.notes


def test_rows_in_the_order_of_time_are_not_said_to_be_sorted():
    mixed = read(rows_of(LONG, [2, 0, 3, 1, 4]))
    assert sequences_of(mixed) == sequences_of(read(LONG, "plain.csv"))
    assert not any("sorted" in note for note in mixed.notes)


def test_without_times_steps_follow_each_other_as_rows_do():
    found = read(rows_of(LONG, [2, 1, 0, 4, 3]).replace("time", "second"), channels=["ax"])
    assert sequences_of(found) == [("walk", [[2.5], [1.5]]), ("run", [[3.5], [5.5], [4.5]])]
    assert found.times_S is None
    assert any("No column is the time" in note for note in found.notes)


def test_none_is_a_role_that_no_column_has():
    assert read(LONG, time="none").channels == ("time", "ax", "ay")
    assert read(LONG.replace("ax", "subject"), group="none").channels == ("subject", "ay")


def test_sequences_are_sorted_by_id_as_numbers():
    ids = "id,ax,label\n" + "".join(f"{n},{n},{'ab'[n % 2]}\n{n},0,{'ab'[n % 2]}\n" for n in (10, 9, 2))
    assert [steps[0][0] for _, steps in sequences_of(read(ids))] == [2, 9, 10]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (LONG.replace(",", ";"), {}),
        (LONG.replace(",", ";"), {"delimiter": "semicolon"}),
        (LONG.replace(",", "\t"), {}),
        (LONG.replace(",", "|"), {}),
        (LONG.replace(",", " "), {"delimiter": "space"}),
        (LONG.replace("\n", "\r\n"), {}),
        (LONG.rstrip("\n"), {}),
        ("\ufeff" + LONG, {}),
        ("\n\r\n" + LONG.replace("b,0", "\nb,0") + "\n\n", {}),
        (LONG + ",,,,\n,,,,\r\n", {}),
        (LONG.replace("walk", '"walk"').replace("ax", '"ax"'), {}),
        (LONG.replace(",", ", "), {}),
        (LONG.replace("1.5", " 1.5 ").replace("2.5", "+2.5e0"), {}),
        ("".join(f"{n},{line}\n" for n, line in zip(["", *"01234"], LONG.splitlines(), strict=True)), {}),
        ("".join(f"{line},comment\n" for line in LONG.splitlines()), {}),
        (LONG.replace("ay,label", "ay,Unnamed: 0,label").replace(",w", ",7,w").replace(",r", ",7,r"), {}),
    ],
)
def test_the_same_table_in_other_dress_is_the_same(content, options):
    assert sequences_of(read(content, **options)) == sequences_of(read(LONG, "plain.csv"))


@pytest.mark.parametrize("name", ["my.tsv", "my.TAB", "my.txt", "my.csv"])
def test_tabs_are_seen_whatever_the_suffix(name):
    assert sequences_of(read(LONG.replace(",", "\t"), name)) == sequences_of(read(LONG, "plain.csv"))


def test_a_table_packed_by_gzip_is_read_as_it_is():
    packed = read(gzip.compress(LONG.encode()), "my.csv.gz")
    assert sequences_of(packed) == sequences_of(read(LONG, "plain.csv"))


@pytest.mark.parametrize("word", ["", "NaN", "nan", "NA", "null", "None", "?", '""', " "])
def test_missing_values_are_read_as_such(word):
    found = read(LONG.replace("30", word))
    assert sequences_of(found)[1] == ("run", [[3.5, None], [4.5, 40], [5.5, 50]])


def test_missing_values_of_a_long_table_are_named_by_their_line():
    with pytest.raises(DataError, match=r"1 values are missing \(ay 1\), the first at my\.csv, line 5"):
        read(LONG.replace("40", "")) and Table(path="my.csv").load()


WIDE = "label,t0,t1,t2\nwalk,1,2,3\nrun,4,5,6\nrun,7,8,9\n"


def test_a_wide_table_of_one_channel_takes_its_columns_as_steps():
    found = read(WIDE)
    assert sequences_of(found) == [
        ("walk", [[1], [2], [3]]),
        ("run", [[4], [5], [6]]),
        ("run", [[7], [8], [9]]),
    ]
    assert found.channels == ("value",)
    assert found.times_S is None


@pytest.mark.parametrize("pattern", ["{}_{}", "{}.{}", "{}[{}]"])
def test_a_wide_table_of_several_channels_goes_by_the_numbers(pattern):
    names = ["label", *(pattern.format(channel, step) for channel in ("ay", "ax") for step in (10, 9, 8))]
    found = read(f"{','.join(names)}\nwalk,1,2,3,4,5,6\nrun,7,8,9,10,11,12\n")
    assert found.channels == ("ay", "ax")
    assert sequences_of(found)[0] == ("walk", [[3, 6], [2, 5], [1, 4]])


def test_channels_of_a_wide_table_are_chosen_by_channel_or_column():
    content = "label,age,ax_0,ax_1,ay_0,ay_1\nwalk,30,1,2,3,4\nrun,40,5,6,7,8\n"
    assert sequences_of(read(content, channels=["ay"]))[0] == ("walk", [[3], [4]])
    assert sequences_of(read(content, channels=["ay", "ax"]))[0] == ("walk", [[3, 1], [4, 2]])
    assert sequences_of(read(WIDE, "one.csv", channels=["t2", "t0"]))[0] == ("walk", [[1], [3]])


def test_what_a_wide_row_misses_at_its_end_is_not_its_own():
    found = read("label,t0,t1,t2\nwalk,1,,\nrun,4,,6\nrun,,8,\n")
    assert sequences_of(found) == [
        ("walk", [[1]]),
        ("run", [[4], [None], [6]]),
        ("run", [[None], [8]]),
    ]
    assert "Sequences have 1 to 3 steps: each ends with its last value." in found.notes


def test_padding_changes_nothing():
    wide = "label,ax_0,ax_1,ay_0,ay_1\nwalk,1,2,3,4\nrun,5,,7,\n"
    wider = "label,ax_0,ax_1,ax_2,ay_0,ay_1,ay_2\nwalk,1,2,NaN,3,4,\nrun,5,,,7,,\n"
    unnamed = "label,ax_0,ax_1,ay_0,ay_1,,\nwalk,1,2,3,4,,\nrun,5,,7,,,\n"
    long = "id,time,ax,ay,label\n1,0,1,3,walk\n1,1,2,4,walk\n2,0,5,7,run\n"
    longer = long + "2,1,,,run\n1,2,NaN,,walk\n2,2,,,run\n"
    tables = [read(content, f"{n}.csv") for n, content in enumerate((wide, wider, unnamed, long, longer))]
    for other in tables[1:]:
        assert sequences_of(other) == sequences_of(tables[0])
        assert other.channels == tables[0].channels
    assert tables[3].times_S.tolist() == tables[4].times_S.tolist()
    assert "3 steps without any value at the ends of sequences were left out." in tables[4].notes


def test_a_sequence_without_any_value_is_refused_with_its_place():
    content = "label,t0,t1\n" + "walk,1,2\nrun,3,4\n" * 9 + "walk,,\n"
    with pytest.raises(DataError, match=r"begins at my\.csv, line 20, step 0 .* holds no value at all"):
        read(content) and Table(path="my.csv", missing="mask").load()


def test_a_channel_without_any_value_is_refused_by_its_name():
    content = "id,ax,ay,label\n" + "".join(f"{n // 2},{n},,{'ab'[n // 2 % 2]}\n" for n in range(80))
    with pytest.raises(DataError, match="Channel 'ay' holds no value at all"):
        read(content) and Table(path="my.csv", missing="mask").load()


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("2024-02-28", "2024-02-29", 86400),
        ("2024-02-28 23:59", "2024-02-29T00:00", 60),
        ("2024-01-01T00:00:00.25", "2024-01-01 00:00:01", 0.75),
        ("2024-01-01T12:00:00+02:00", "2024-01-01T12:00:00Z", 7200),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00-0130", 5400),
        ("-1.5", "1e1", 11.5),
    ],
)
def test_times_are_numbers_or_dates(first, second, seconds):
    found = read(f"id,time,ax,label\n1,{first},1,a\n1,{second},2,a\n2,0,1,b\n".replace("2,0,", f"2,{first},"))
    assert found.times_S[1] - found.times_S[0] == seconds


@pytest.mark.parametrize(
    ("kind", "hours_12"),
    [
        (pl.Datetime("ms"), 43200 * 10**3),
        (pl.Datetime("us"), 43200 * 10**6),
        (pl.Datetime("ns"), 43200 * 10**9),
        (pl.Duration("us"), 43200 * 10**6),
        (pl.Time, 43200 * 10**9),
        (pl.Date, 1),
    ],
)
def test_times_of_parquet_become_seconds(kind, hours_12):
    frame = pl.DataFrame({"id": [1, 1], "time": [0, hours_12], "ax": [1.0, 2.0], "label": ["a", "a"]})
    base = pl.Int32 if kind == pl.Date else pl.Int64
    found = read(parquet(frame.with_columns(pl.col("time").cast(base).cast(kind))), "my.parquet")
    assert found.times_S.tolist() == [0, 86400 if kind == pl.Date else 43200]


def test_values_that_need_more_digits_than_are_kept_are_told():
    shifted = LONG.replace("1.5,", "1700000000,").replace("2.5,", "1700000001,")
    assert not any("digits" in note for note in read(shifted, "mixed.csv").notes)
    for old in ("3.5,", "4.5,", "5.5,"):
        shifted = shifted.replace(old, "1700000200,")
    assert any("'ax' lie between 1.7e+09 and 1.7e+09, and 7 digits" in note for note in read(shifted).notes)


def test_groups_and_given_splits_are_read():
    content = "label,split,patient,t0\na,train,p2,1\nb,Training,p1,2\na,val,p1,3\nb,test,p3,4\n"
    found = read(content)
    assert found.given_N.tolist() == [0, 0, 1, 2]
    assert found.groups_N.tolist() == [1, 0, 0, 2]
    assert read(content.replace("split", "part"), "b.csv", split_column="part").given_N.tolist() == [
        0,
        0,
        1,
        2,
    ]


def test_a_second_table_is_the_test_split():
    Path("test.csv").write_text("label,ay,time,ax,id\nwalk,60,1,6.5,a\nwalk,50,0,5.5,a\n")
    found = read(LONG, test_path="test.csv")
    assert sequences_of(found)[2] == ("walk", [[5.5, 50], [6.5, 60]])
    assert found.given_N.tolist() == [-1, -1, 2]
    assert found.locate(4) == "my.csv, line 6"
    assert found.locate(5) == "test.csv, line 3"


def test_a_class_that_is_only_tested_is_refused_with_its_place():
    Path("test.csv").write_text("id,time,ax,ay,label\na,0,1,2,jump\na,1,1,2,jump\n")
    with pytest.raises(DataError, match=r"test\.csv, line 2: class 'jump' is in the test split only"):
        read(LONG, test_path="test.csv")


def test_a_test_table_without_a_column_is_refused():
    Path("test.csv").write_text("id,time,ax,az,label\na,0,1,2,walk\n")
    with pytest.raises(DataError, match=r"test\.csv has no column 'ay', as my\.csv has"):
        read(LONG, test_path="test.csv")


def test_lines_are_counted_with_those_in_quotation_marks_and_blank_ones():
    content = 'id,time,ax,note,label\n1,0,1,"two\nlines",a\n\n1,1,2,"a ""b"", c",a\n2,0,3,x,b\n'
    found = read(content, id="id", form="long")
    assert [found.locate(step) for step in range(3)] == [f"my.csv, line {n}" for n in (2, 5, 6)]
    assert found.channels == ("ax",)


def test_a_step_of_a_wide_table_has_its_line_and_number():
    assert read(WIDE).locate(4) == "my.csv, line 3, step 1 (counted from 0)"


def test_parquet_has_rows():
    frame = pl.read_csv(LONG.encode())
    assert read(parquet(frame), "my.pq").locate(2) == "my.pq, row 3"


def test_numbers_and_whole_labels_of_parquet_are_those_of_text():
    content = "id,time,ax,label\n1,0,1,0\n1,1,0,0\n2,0,1,1\n"
    frame = pl.read_csv(content.encode()).with_columns(
        pl.col("label", "id").cast(pl.Float64), pl.col("ax") == 1
    )
    assert sequences_of(read(parquet(frame), "my.parquet")) == sequences_of(read(content))


def test_any_text_can_name_a_column():
    content = LONG.replace("ax", "*").replace("ay", "^.*$").replace("time", "Zeit (s), °")
    content = content.replace("Zeit (s), °", '"Zeit (s), °"')
    frame = pl.read_csv(content.encode())
    for found in (read(content, time="Zeit (s), °"), read(parquet(frame), "my.pq", time="Zeit (s), °")):
        assert found.channels == ("*", "^.*$")
        assert sequences_of(found) == sequences_of(read(LONG, "plain.csv"))


def test_lists_of_parquet_may_be_there_where_others_are_named():
    frame = pl.read_csv(LONG.encode()).with_columns(all=pl.concat_list("ax", "ay"))
    assert read(parquet(frame), "my.parquet", channels=["ax"]).channels == ("ax",)


def nested() -> bytes:
    return parquet(pl.DataFrame({"label": ["a", "b"], "values": [[1.0, 2.0], [3.0]]}))


BAD_FILES = {
    "empty": ("", "my.csv is empty"),
    "blank": ("\n\r\n\n", "my.csv is empty"),
    "header only": ("id,time,ax,label\n", "has a header and no rows"),
    "header and blank rows": ("id,time,ax,label\n\n,,,\n", "has a header and no rows"),
    "last line cut off": (LONG[:-8], r"line 6 has 3 fields, where the header names 5 columns\. .* cut off"),
    "too few fields": (
        LONG.replace("b,0,3.5,30,run", "b,0,3.5,run"),
        "line 4 has 4 fields, where the header",
    ),
    "too many fields": (
        LONG.replace("b,0,3.5,30", "b,0,3,5,30"),
        "line 4 has 6 fields, where the header names 5",
    ),
    "uneven, balanced": (LONG.replace("0,1.5", "0").replace("1,2.5", "1,2,5"), "line 2 has 4 fields"),
    "quotation never closed": (LONG.replace("b,1,", 'b,1,"'), "line 5 opens a quotation mark that is never"),
    "quotation mark within": (LONG.replace("walk", 'wa"lk'), "line 2 has a quotation mark within a field"),
    "text behind a quotation": (LONG.replace("walk", '"walk"ing'), "line 2 has a quotation mark within"),
    "not UTF-8": (LONG.encode().replace(b"walk", b"w\xe4lk"), r"line 2 is not UTF-8: save"),
    "UTF-16": (LONG.encode("utf-16"), r"line 1 holds a NUL byte"),
    "NUL": (LONG.replace("40", "4\0"), r"my\.csv, line 5 holds a NUL byte"),
    "no header": ("1,0,2.5,3\n1,1,2.5,3\n", r"line 1 seems to hold values: a header must"),
    "no header, but names of classes": ("1,1,2.5,b\n1,2,2.5,b\n", r"line 1 seems to hold values"),
    "one name twice": (LONG.replace("ay", "ax"), "has two columns named 'ax'"),
    "label missing in a row": (LONG.replace("3.5,30,run", "3.5,30,"), r"line 4, column 'label' is empty"),
    "label NaN in a row": (LONG.replace("3.5,30,run", "3.5,30,NaN"), r"line 4, column 'label' is empty"),
    "id missing in a row": (LONG.replace("b,1", ",1"), r"line 5, column 'id' is empty"),
    "endless label": (LONG.replace("walk", "1" * 5000), r"line 2, column 'label' has more than 1,000"),
    "two labels": (
        LONG.replace("5.5,50,run", "5.5,50,walk"),
        r"line 6: the label of id 'b' is 'walk', and in line 4 it is 'run': a sequence has one label",
    ),
    "two groups": (
        LONG.replace("ay", "patient"),
        r"line 3: the group of id 'a' is '20', and in line 2 it is '10': .* dataset\.group=none",
    ),
    "text for a number": (LONG.replace("4.5", "4_5"), r"line 5, column 'ax': '4_5' is not a number"),
    "decimal comma": (
        LONG.replace(",", ";").replace("3.5", "3,5"),
        r"line 4, column 'ax': '3,5' is not a number",
    ),
    "infinity": (LONG.replace("40", "-inf"), r"line 5, column 'ay': -inf is infinite"),
    "too large": (
        LONG.replace("40", "1e39"),
        r"line 5, column 'ay': 1e39 is infinite, or too large for 32 bits",
    ),
    "same time twice": (
        LONG.replace("b,2", "b,1"),
        r"line 6: id and time are those of line 5: a sequence has",
    ),
    "same time apart": (LONG.replace("b,2", "b,0"), r"line 6: id and time are those of line 4"),
    "time missing": (
        LONG.replace("b,1", "b,"),
        r"line 5, column 'time' is empty: write numbers, or dates as",
    ),
    "time NaN": (LONG.replace("b,1", "b,nan"), r"line 5, column 'time': 'nan' is no time"),
    "time infinite": (LONG.replace("b,1", "b,inf"), r"line 5, column 'time': 'inf' is no time"),
    "time no time": (LONG.replace("b,1", "b,noon"), r"line 5, column 'time': 'noon' is no time"),
    "no such day": (LONG.replace("b,1", "b,2023-02-29"), r"line 5, column 'time': '2023-02-29' is no time"),
    "no numbers": ("id,label\na,x\na,x\n", "has no column of numbers beside id, label"),
    "bad split": ("label,split,t0\na,train,1\nb,5,2\n", r"line 3, column 'split': '5' is no split; it must"),
    "uneven channels": (
        "label,ax_0,ax_1,ay_0\na,1,2,3\n",
        "channel 'ay' has no column for step 1, others have",
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
    "empty": (b"", "is not a Parquet file: it does not begin with PAR1"),
    "text": (LONG.encode(), "is not a Parquet file"),
    "cut off": (
        parquet(pl.DataFrame({"label": ["a"], "t0": [1.0]}))[:-20],
        "is cut off: a Parquet file ends",
    ),
    "magic only": (b"PAR1PAR1", "is cut off"),
    "no footer": (b"PAR1" + bytes(40) + b"PAR1", "cannot be read"),
    "lists": (nested(), "column 'values' holds lists or structures: write a row for each step"),
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
        with pytest.raises(DataError, match=r"my\.csv\.gz cannot be unpacked"):
            read(damaged, "my.csv.gz")


@pytest.mark.parametrize("name", ["my.xlsx", "my", "my.parquet.gz", ".csv.zip"])
def test_other_files_are_refused_by_their_names(name):
    with pytest.raises(DataError, match=r"is no table by its name: \.csv, \.txt"):
        read(LONG, name)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(text, "BLOCK", 64)
    monkeypatch.setattr(text, "LONGEST", 1024)
    with pytest.raises(DataError, match="the row that begins in line 4 has more than"):
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
        LONG.replace("label", "kind"),
        {},
        r"no column is plainly the label\. Choose dataset\.label",
    ),
    "two labels": (
        LONG.replace("ay", "target"),
        {},
        r"target, label can each be the label\. Choose dataset\.label",
    ),
    "two ids": (LONG.replace("ay", "series"), {}, r"id, series can each be the id\. Choose dataset\.id"),
    "two times": (LONG.replace("ay", "date"), {}, r"time, date can each be the time\. Choose dataset\.time"),
    "long without id": (
        LONG.replace("id", "k"),
        {"form": "long"},
        r"names the sequences\. Choose dataset\.id",
    ),
    "times without ids": (
        LONG.replace("id", "k"),
        {},
        r"has times, and no id that comes again: set dataset\.id",
    ),
    "one column twice": (LONG, {"id": "ax", "channels": ["ax"]}, r"name column 'ax' twice"),
    "one channel twice": (LONG, {"channels": ["ax", "ax"]}, r"name column 'ax' twice"),
    "times of sequences": (WIDE, {"form": "wide", "time": "t0"}, r"dataset\.time=t0 says nothing of rows"),
    "age beside steps": (
        "label,age,ax_0,ax_1\na,1,2,3\n",
        {},
        r"'age' does not\. Choose dataset\.channels: ax",
    ),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_what_is_not_plain_must_be_said(what):
    content, options, words = BAD_OPTIONS[what]
    with pytest.raises(ConfigError, match=words):
        read(content, **options)


def test_a_wrong_delimiter_is_told_with_the_right_one():
    with pytest.raises(DataError, match=r"one column only.*seems to be the comma: dataset\.delimiter=comma"):
        read(LONG, delimiter="semicolon")
    with pytest.raises(ConfigError, match="delimiter must be auto, comma"):
        Table(path="my.csv", delimiter=";")


def test_a_wide_table_refuses_an_id_that_comes_twice():
    with pytest.raises(DataError, match=r"line 3: id 'a' is in line 2, too, where each row is a sequence"):
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


@pytest.mark.parametrize("size", [40, 64, 100])
def test_the_size_of_the_blocks_changes_nothing(size, monkeypatch):
    content = LONG.replace("30", '"30"').replace("walk", '"wa\nlk"') + "\n,,,,\n"
    shuffled = rows_of(LONG, [4, 1, 2, 0, 3])
    whole = [sequences_of(read(part, f"{n}.csv")) for n, part in enumerate((content, shuffled, WIDE))]
    lines = [read(content, "0.csv").locate(step) for step in range(5)]
    monkeypatch.setattr(text, "BLOCK", size)
    monkeypatch.setattr("rnnclf.data.table.convert.ROWS", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("other").absolute()))
    # ids repeat beyond the first block, so the form is said
    parts = [(content, "long"), (shuffled, "long"), (WIDE, "wide")]
    assert [sequences_of(read(part, f"{n}.csv", form=f)) for n, (part, f) in enumerate(parts)] == whole
    assert [read(content, "0.csv", form="long").locate(step) for step in range(5)] == lines


def test_the_size_of_the_blocks_of_parquet_changes_nothing(monkeypatch):
    content = parquet(pl.read_csv(rows_of(LONG, [4, 1, 2, 0, 3]).encode()))
    whole = sequences_of(read(content, "my.parquet"))
    monkeypatch.setattr("rnnclf.data.table.parquet.BLOCK", 80)
    assert sequences_of(read(content, "other.parquet", form="long")) == whole


# --- the cache --------------------------------------------------------------------------------------


def entries() -> list[Path]:
    return sorted(path for path in (cache_root() / "tables").glob("*/*") if path.is_dir())


def test_a_second_read_is_mapped_and_does_without_polars():
    read(LONG)
    code = (
        "import sys; from rnnclf.data.table import Table\n"
        "r = Table(path='my.csv').read(); print(r.values_SC.sum(), type(r.values_SC).__name__)\n"
        "print('polars' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["167.5", "memmap", "False", "False"]


def test_reading_twice_gives_the_same(monkeypatch):
    first = read(LONG)
    monkeypatch.setattr("rnnclf.data.table.write_sequences", None)
    second = Table(path="my.csv").read()
    assert sequences_of(first) == sequences_of(second)
    assert (first.notes, first.classes, first.locate(3)) == (second.notes, second.classes, second.locate(3))
    assert second.cache == entries()[0]


def test_a_changed_file_and_other_options_are_read_anew():
    read(LONG)
    assert read(LONG.replace("5.5", "6.5")).values_SC.max() == 50
    assert sequences_of(read(LONG.replace("5.5", "6.5")))[1][1][2] == [6.5, 50]
    assert read(LONG, channels=["ay"]).channels == ("ay",)


def test_what_was_made_of_an_older_state_of_the_file_goes():
    read(LONG)
    read(LONG + "\n")
    Table(path="my.csv", channels=["ay"]).read()
    assert len(entries()) == 2


def damaged_sizes(folder: Path) -> None:
    path = folder / "values_SC.npy"
    path.write_bytes(path.read_bytes()[:-4])


def lost(folder: Path) -> None:
    (folder / "labels_N.npy").unlink()


def another_format(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 0}))


def no_json(folder: Path) -> None:
    (folder / "meta.json").write_text("{")


def other_header(folder: Path) -> None:
    path = folder / "lengths_N.npy"
    path.write_bytes(path.read_bytes().replace(b"<i8", b"<f8"))


def foreign_labels(folder: Path) -> None:
    path = folder / "labels_N.npy"
    path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)


@pytest.mark.parametrize(
    "damage", [damaged_sizes, lost, another_format, no_json, foreign_labels, other_header]
)
def test_a_damaged_cache_is_made_anew(damage):
    whole = sequences_of(read(LONG))
    damage(entries()[0])
    assert sequences_of(Table(path="my.csv").read()) == whole
    assert sequences_of(Table(path="my.csv").read()) == whole


def test_a_cache_that_cannot_be_written_costs_no_run(monkeypatch):
    whole = read(LONG)
    Path("file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("file").absolute()))
    again = Table(path="my.csv").read()
    assert sequences_of(again) == sequences_of(whole)
    assert again.cache is None


def test_a_full_disk_is_told(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rnnclf.data.table.store.Growing.append", full)
    with pytest.raises(OutputError, match=r"No space left on device\. XDG_CACHE_HOME=DIR chooses"):
        read(LONG)
    assert entries() == []


KILLED = """
import os, signal
from rnnclf.data.table import Table, convert
def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
{where}
Table(path="my.csv").read()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "where",
    ["convert._sort_by_time = kill", "convert.seal = kill", "import pathlib; pathlib.Path.rename = kill"],
)
def test_a_killed_conversion_begins_anew_and_leaves_nothing(where):
    Path("my.csv").write_text(LONG)
    done = subprocess.run([sys.executable, "-c", KILLED.format(where=where)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in entries()] == [".part"]
    assert len(Table(path="my.csv").read()) == 2
    assert [path.suffix for path in entries()] == [""]


def _read_together(barrier: Any, path: str, results: Any) -> None:
    barrier.wait(timeout=60)
    results.put(sequences_of(Table(path=path).read()))


@pytest.mark.long
def test_two_processes_at_once_do_not_hurt_each_other(tmp_path):
    rows = "".join(f"{n // 50},{n % 50},{n},{'ab'[n // 50 % 2]}\n" for n in range(20_000))
    path = tmp_path / "my.csv"
    path.write_text("id,time,ax,label\n" + rows)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.SimpleQueue()
    barrier = spawn.Barrier(2)
    both = [spawn.Process(target=_read_together, args=(barrier, str(path), results)) for _ in range(2)]
    for process in both:
        process.start()
    found = [results.get(), results.get()]
    for process in both:
        process.join()
    assert found[0] == found[1]
    assert len(found[0]) == 400
    assert len(entries()) == 1


def test_a_table_that_changes_while_it_is_read_is_refused(monkeypatch):
    from rnnclf.data.table import convert

    def changing(*arguments: object) -> None:
        convert.write_sequences(*arguments)
        os.utime("my.csv", ns=(1, 1))

    monkeypatch.setattr("rnnclf.data.table.write_sequences", changing)
    with pytest.raises(DataError, match=r"my\.csv changed while it was read"):
        read(LONG)


def test_progress_goes_from_the_start_to_the_end(monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 40)
    told: list[tuple[str, float]] = []
    Path("my.csv").write_text(LONG)
    Table(path="my.csv", form="long").read(lambda what, share: told.append((what, share)))
    reading = [share for what, share in told if what == "reading my.csv"]
    assert len(reading) > 2
    assert reading == sorted(reading)
    assert reading[-1] == 1


# --- properties -------------------------------------------------------------------------------------

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
STEPS = st.lists(st.tuples(NUMBERS, st.none() | NUMBERS), min_size=1, max_size=5)
SEQUENCES = st.lists(
    st.tuples(st.sampled_from(["a", "b c", 'q"', "ü,;", "-1", "2"]), STEPS), min_size=2, max_size=6
)


def long_frame(sequences: list, order: list[int]) -> pl.DataFrame:
    rows = [
        (n, 10.0 * t, x, y, label)
        for n, (label, steps) in enumerate(sequences)
        for t, (x, y) in enumerate(steps)
    ]
    kinds = {"id": pl.Int64, "time": pl.Float64, "x": pl.Float64, "z": pl.Float64, "label": pl.String}
    return pl.DataFrame([rows[n] for n in order], schema=kinds, orient="row")


def wide_frame(sequences: list) -> pl.DataFrame:
    longest = max(len(steps) for _, steps in sequences)
    columns = {
        f"{name}_{t}": pl.Series(
            [steps[t][c] if t < len(steps) else None for _, steps in sequences], dtype=pl.Float64
        )
        for c, name in enumerate(("x", "z"))
        for t in range(longest)
    }
    return pl.DataFrame({"label": [label for label, _ in sequences], **columns})


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(SEQUENCES, st.randoms(use_true_random=False))
def test_sequences_read_back_equal_however_they_are_written(sequences, random):
    order = list(range(sum(len(steps) for _, steps in sequences)))
    random.shuffle(order)
    long, wide = long_frame(sequences, order), wide_frame(sequences)
    expected = [
        (label, [[x + 0.0, None if y is None else y + 0.0] for x, y in steps]) for label, steps in sequences
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", folder)
        for form, frame in (("long", long), ("wide", wide)):
            found = [
                read(frame.write_csv(), f"{form}.csv", form=form),
                read(frame.write_csv(separator="\t", quote_style="always"), f"{form}.tsv", form=form),
                read(parquet(frame), f"{form}.parquet", form=form),
            ]
            for recordings in found:
                assert sequences_of(recordings) == expected
                assert recordings.channels == ("x", "z")
                assert recordings.classes == found[0].classes


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
}


@pytest.mark.parametrize("name", VALID)
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
