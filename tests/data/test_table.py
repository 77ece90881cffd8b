"""Tables: the same sequences however they are written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rnnclf.data.table import Table
from rnnclf.errors import ConfigError, DataError
from tests.data.tables import LONG, WIDE, parquet, read, rows_of, sequences_of


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
        "my.csv: using each row as a step, 'label' as the label, 'id' as the id,"
        " 'patient' as the group, 'time' as the time."
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
    found = read(rows_of(LONG, [2, 1, 0, 4, 3]).replace("time", "k"), channels=["ax"])
    assert sequences_of(found) == [("walk", [[2.5], [1.5]]), ("run", [[3.5], [5.5], [4.5]])]
    assert found.times_S is None
    assert any("There is no time column" in note for note in found.notes)


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


@pytest.mark.parametrize("word", ["NA", "Na", "nan", "null", "None", "?"])
def test_words_for_missing_values_are_names_where_asked_for(word):
    found = read(LONG.replace("run", word).replace("40", ""), missing_values=[])
    assert sequences_of(found)[1] == (word, [[3.5, 30], [4.5, None], [5.5, 50]])
    with pytest.raises(DataError, match=r"line 6, column 'label' is empty"):
        read(LONG.replace("5.5,50,run", "5.5,50, "), missing_values=[])


ONE_STEP = {
    "a row each": ("x,label\n1,u\n2,v\n", {}),
    "a row each, with ids": ("id,x,label\na,1,u\nb,2,v\n", {}),
    "long": ("id,time,x,label\na,0,1,u\nb,0,2,v\n", {"form": "long"}),
    "a named time": ("id,t,x,label\na,0,1,u\nb,0,2,v\n", {"time": "t"}),
    "wide, without the times": ("id,time,x,label\na,0,1,u\nb,0,2,v\n", {"form": "wide", "channels": ["x"]}),
}


@pytest.mark.parametrize("what", ONE_STEP)
def test_sequences_of_one_step_are_read(what):
    content, options = ONE_STEP[what]
    assert sequences_of(read(content, **options)) == [("u", [[1]]), ("v", [[2]])]


def test_missing_values_of_a_long_table_are_named_by_their_line():
    with pytest.raises(DataError, match=r"1 values are missing \(ay 1\), the first at my\.csv, line 5"):
        read(LONG.replace("40", "")) and Table(path="my.csv").load()


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


def test_numbered_columns_are_steps_in_the_order_of_their_numbers():
    assert sequences_of(read("t10,t2,label,t1\n3,2,walk,1\n6,5,run,4\n"))[0] == ("walk", [[1], [2], [3]])
    with pytest.raises(ConfigError, match="column 't0' is a step, 'age' is not"):
        read("label,t0,t1,t2,age\nwalk,1,2,3,40\nrun,4,5,6,41\n")
    two = read("label,mon,tue,wed\nwalk,1,2,3\nrun,4,5,6\n")
    assert sequences_of(two)[0] == ("walk", [[1], [2], [3]])


def test_what_a_wide_row_misses_at_its_end_is_not_its_own():
    found = read("label,t0,t1,t2\nwalk,1,,\nrun,4,,6\nrun,,8,\n")
    assert sequences_of(found) == [
        ("walk", [[1]]),
        ("run", [[4], [None], [6]]),
        ("run", [[None], [8]]),
    ]
    assert "Sequences have 1 to 3 steps; each ends at its last value." in found.notes


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
    assert "3 steps without any value at the ends of sequences were removed." in tables[4].notes


def test_a_sequence_without_any_value_is_refused_with_its_place():
    content = "label,t0,t1\n" + "walk,1,2\nrun,3,4\n" * 9 + "walk,,\n"
    with pytest.raises(DataError, match=r"begins at my\.csv, line 20, step 0 .* has no values at all"):
        read(content) and Table(path="my.csv", missing="mask").load()


def test_a_channel_without_any_value_is_refused_by_its_name():
    content = "id,ax,ay,label\n" + "".join(f"{n // 2},{n},,{'ab'[n // 2 % 2]}\n" for n in range(80))
    with pytest.raises(DataError, match="Channel 'ay' has no values at all"):
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


def test_values_keep_the_digits_that_tell_them_apart():
    shifted = LONG.replace("1.5,", "1700000000,").replace("2.5,", "1700000001,")
    assert read(shifted, "mixed.csv").values_SC.dtype == np.float32
    for old in ("3.5,", "4.5,", "5.5,"):
        shifted = shifted.replace(old, "1700000200.1,")
    found = read(shifted)
    assert found.values_SC[:, 0].tolist() == [1700000000, 1700000001, *[1700000200.1] * 3]
    tiny = LONG.replace("1.5,", "1e-300,").replace("2.5,", "3e-300,").replace(".5,", "e-300,")
    assert read(tiny, "tiny.csv").values_SC[:, 0].tolist() == [1e-300, 3e-300, 3e-300, 4e-300, 5e-300]


def test_one_large_number_written_in_two_ways_loses_nothing():
    rows = [("a", "9007200328482816"), ("a", ""), ("b", "9007200328482816.0"), ("b", "9.007200328482816e15")]
    content = "id,time,x,label\n" + "".join(f"{s},{n % 2},{x},{s}\n" for n, (s, x) in enumerate(rows))
    assert np.nanmax(read(content, missing="mask").values_SC) == 9007200328482816


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
    with pytest.raises(DataError, match=r"test\.csv, line 2: class 'jump' occurs in the test split only"):
        read(LONG, test_path="test.csv")


def test_a_test_table_without_a_column_is_refused():
    Path("test.csv").write_text("id,time,ax,az,label\na,0,1,2,walk\n")
    with pytest.raises(DataError, match=r"test\.csv has no column 'ay', which my\.csv has"):
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
