"""Tables as people have them, which used to be read wrongly in silence: read right, or asked about."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rnnclf.data.table import Table
from rnnclf.errors import ConfigError, DataError
from tests.data.tables import parquet, read, sequences_of

RANDOM = np.random.default_rng(0)
SEQUENCES, STEPS = 60, 20


def steps(**columns: object) -> pl.DataFrame:
    """60 sequences of 20 steps: x is noise; `n` and `t` number sequences and steps, label is a or b."""
    n, t = np.repeat(np.arange(SEQUENCES), STEPS), np.tile(np.arange(STEPS), SEQUENCES)
    x = np.random.default_rng(1).normal(size=len(n))
    every = {"n": n, "t": t, "x": x, "label": np.where(n % 2, "b", "a")}
    made = {name: (what(every) if callable(what) else every[what]) for name, what in columns.items()}
    return pl.DataFrame({**made, "x": x, "label": every["label"]})


def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sample(fraction=1, shuffle=True, seed=0)


def told(frame: pl.DataFrame, **options: object) -> str:
    return " ".join(read(frame.write_csv(), **options).notes)


EXPECTED = sequences_of  # the form in which results are compared


@pytest.fixture
def plain() -> list:
    return sequences_of(read(steps(id="n", time="t").write_csv(), "plain.csv"))


# --- case 1: an id by another name --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["session_id", "device", "wearer", "Chick", "name", "subject", "unit", "X"])
@pytest.mark.parametrize("order", ["step_nr", "k", "count"])
def test_a_row_per_step_is_seen_whatever_the_id_is_called(name, order, plain):
    found = read(steps(**{name: "n", order: "t"}).write_csv())
    assert sequences_of(found) == plain
    assert found.channels == ("x",)
    assert f"'{name}' as the id" in " ".join(found.notes)
    assert f"'{order}' as the time" in " ".join(found.notes)


def test_ids_of_text_in_shuffled_rows_are_seen_by_their_times(plain):
    frame = shuffled(steps(wearer=lambda every: [f"w{n:02d}" for n in every["n"]], k="t"))
    assert sequences_of(read(frame.write_csv())) == plain


def test_a_doubtful_id_is_asked_about():
    frame = shuffled(steps(device="n"))
    with pytest.raises(ConfigError, match=r"same 'device' have the same label\. Set dataset\.id=device"):
        read(frame.write_csv())
    wide = read(frame.write_csv(), form="wide", channels=["x"])
    assert len(wide) == SEQUENCES * STEPS


# --- case 2: a recording with a label in each row ----------------------------------------------------


def test_a_recording_with_a_label_in_each_row_is_asked_about():
    rows = 750
    label = np.where(np.arange(rows) // 50 % 3 == 0, "walk", "run")
    frame = pl.DataFrame({**{c: RANDOM.normal(size=rows) for c in "xyz"}, "label": label})
    with pytest.raises(ConfigError, match=r"a recording with a label in each row.*dataset\.id.*form=wide"):
        read(frame.write_csv())
    numbered = frame.rename({"x": "emg1", "y": "emg2", "z": "emg3"})
    with pytest.raises(ConfigError, match="a recording with a label in each row"):
        read(numbered.write_csv())
    once = numbered.with_columns(label=pl.Series(["rest"] * 250 + ["fist"] * 250 + ["wave"] * 250))
    with pytest.raises(ConfigError, match="a recording with a label in each row"):
        read(once.write_csv())
    for clock in ("ts", "seconds", "time_ms", "elapsed"):
        with pytest.raises(ConfigError, match=r"has times, but no id: set dataset\.id"):
            read(frame.with_columns(pl.Series(clock, np.arange(rows) / 50)).write_csv())


def test_rows_of_sequences_may_be_sorted_by_class():
    frame = pl.DataFrame(
        {"label": ["a"] * 20 + ["b"] * 20, **{f"t{t}": RANDOM.normal(size=40) for t in range(20)}}
    )
    assert read(frame.write_csv()).lengths_N.tolist() == [20] * 40


# --- case 3: times by other names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["time_ms", "ts", "elapsed", "seconds", "t_s", "unix_time", "Timestamp (ms)", "k"]
)
def test_shuffled_rows_are_sorted_by_a_time_of_any_name(name, plain):
    frame = shuffled(steps(id="n", **{name: "t"}))
    found = read(frame.write_csv())
    assert found.channels == ("x",)
    assert sequences_of(found) == plain
    assert f"'{name}' as the time" in " ".join(found.notes)


def test_dates_are_the_time_whatever_they_are_called(plain):
    dates = pl.datetime_range(pl.datetime(2024, 3, 1), pl.datetime(2024, 3, 20), "1d", eager=True)
    frame = steps(id="n", nr=lambda every: np.arange(len(every["n"])), datum="t")
    for form in ("%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M:%S"):
        written = frame.with_columns(datum=pl.Series([*dates.dt.strftime(form)] * SEQUENCES))
        assert sequences_of(read(shuffled(written).write_csv())) == plain
        assert "'datum' as the time" in told(written)


def test_a_row_number_tells_the_order_of_shuffled_rows_only(plain):
    frame = steps(**{"Unnamed: 0": lambda every: np.arange(len(every["n"]))}, id="n")
    assert read(frame.write_csv()).times_S is None
    assert sequences_of(read(shuffled(frame).write_csv())) == plain


def test_a_column_that_rises_unevenly_is_asked_about():
    frame = steps(id="n", mark=lambda every: every["t"] + 0.3 * np.sin(7.0 * np.arange(len(every["t"]))))
    with pytest.raises(ConfigError, match=r"'mark' rises in every sequence\. Set dataset\.time=mark"):
        read(frame.write_csv())
    assert read(frame.write_csv(), time="none").channels == ("mark", "x")
    assert read(frame.write_csv(), time="mark").channels == ("x",)


# --- case 16: numbers that are no channels --------------------------------------------------------------


def test_a_window_number_tells_sequences_apart_and_is_no_channel():
    frame = steps(window="n")
    found = read(frame.write_csv())
    assert (found.channels, len(found)) == (("x",), SEQUENCES)


@pytest.mark.parametrize("name", ["Unnamed: 0.1", "index", "row_nr", "level_0", "X"])
def test_a_row_number_is_no_channel(name):
    frame = steps(**{name: lambda every: np.arange(len(every["n"]))}, id="n", time="t")
    found = read(frame.write_csv())
    assert found.channels == ("x",)
    assert name in " ".join(found.notes)
    if name == "row_nr":
        assert read(frame.write_csv(), channels=[name, "x"]).channels == (name, "x")


@pytest.mark.parametrize("first", ["rows", "same"])
def test_a_column_that_is_no_channel_in_the_first_rows_only_is_asked_about(first, monkeypatch):
    monkeypatch.setattr("rnnclf.data.table.text.BLOCK", 2000)  # bytes
    rows = SEQUENCES * STEPS
    late = np.where(np.arange(rows) < rows // 2, np.arange(rows) if first == "rows" else 7, 3)
    late[-STEPS:] = RANDOM.integers(0, 9, STEPS)
    frame = steps(id="n", time="t", late=lambda every: late if first == "rows" else late + every["n"] % 2)
    with pytest.raises(
        ConfigError, match=r"'late' .* at first, but not in lines [\d,]+ to [\d,]+\. List the"
    ):
        read(frame.write_csv())
    assert read(frame.write_csv(), channels=["x"]).channels == ("x",)


def test_a_table_whose_only_numbers_count_rows_is_asked_about():
    frame = steps(id="n", ax=lambda every: np.arange(len(every["n"]))).drop("x")
    with pytest.raises(
        ConfigError, match=r"'ax' is a column which counts rows\. Choose dataset\.channels from"
    ):
        read(frame.write_csv())
    assert read(frame.write_csv(), channels=["ax"]).channels == ("ax",)


@pytest.mark.parametrize("name", ["Unnamed: 0.1", "index", "row_nr", "level_0", "X"])
def test_a_row_number_is_no_step(name):
    label = RANDOM.permutation(np.repeat(["a", "b"], 20))
    data = {f"t{t}": RANDOM.normal(size=40) for t in range(20)}
    found = read(pl.DataFrame({name: np.arange(40), "label": label, **data}).write_csv())
    assert found.lengths_N.tolist() == [20] * 40
    gaps = pl.DataFrame({name: np.arange(40) ** 2, "label": label, **data})
    assert read(gaps.write_csv(), "gaps.csv").lengths_N.tolist() == [20] * 40


def test_whole_numbers_that_stay_the_same_in_a_sequence_are_no_channel_unless_named():
    frame = steps(id="n", time="t", age=lambda every: 20 + every["n"] % 7)
    found = read(frame.write_csv())
    assert found.channels == ("x",)
    assert "ignored age, which is the same in all steps of a sequence" in " ".join(found.notes)
    assert read(frame.write_csv(), channels=["age", "x"]).channels == ("age", "x")


def test_true_channels_are_kept():
    frame = steps(
        id="n",
        time="t",
        counts=lambda every: RANDOM.integers(0, 2**20, len(every["n"])),
        constant=lambda every: np.full(len(every["n"]), 7),
        total=lambda every: np.cumsum(RANDOM.random(len(every["n"]))),
        weight=lambda every: 50.5 + every["n"] % 7,
    )
    assert read(frame.write_csv()).channels == ("counts", "constant", "total", "weight", "x")


# --- case 11, 7 and 22: labels and names of columns ---------------------------------------------------


def test_the_activity_is_the_label_and_y_an_axis():
    frame = steps(id="n", time="t", y=lambda every: RANDOM.normal(size=len(every["n"])), z="t")
    frame = frame.rename({"label": "activity"}).with_columns(z=RANDOM.normal(size=len(frame)))
    found = read(frame.write_csv())
    assert found.classes == ("a", "b")
    assert found.channels == ("y", "z", "x")
    assert "'activity' as the label" in " ".join(found.notes)
    other = read(frame.rename({"activity": "what"}).write_csv(), "other.csv")
    assert "'what' as the label (if not: dataset.label)" in " ".join(other.notes)


def test_y_may_be_the_label_of_x():
    assert read("x,y\n1,a\n2,b\n").classes == ("a", "b")


def test_a_header_of_bare_numbers_is_read():
    header = ",".join(map(str, range(21)))
    rows = [",".join([*map(str, RANDOM.normal(size=20)), str(n % 2)]) for n in range(30)]
    found = read("\n".join([header, *rows]), label="20")
    assert found.lengths_N.tolist() == [20] * 30
    assert found.classes == ("0", "1")
    with pytest.raises(ConfigError, match="no column is recognisable as the label"):
        read("\n".join([header, *rows]))


def test_steps_follow_their_numbers():
    assert sequences_of(read("t0,t1,t10,t2,label\n0,1,10,2,a\n0,1,10,2,b\n"))[0][1] == [[0], [1], [2], [10]]


@pytest.mark.parametrize(
    "header", ["x0,x1,x2,y0,y1,y2", "t0_x,t1_x,t2_x,t0_y,t1_y,t2_y", "0.x,1.x,2.x,0.y,1.y,2.y"]
)
def test_several_channels_are_seen_in_the_names_of_steps(header):
    found = read(f"{header},label\n1,2,3,4,5,6,a\n1,2,3,4,5,6,b\n")
    assert found.channels == ("x", "y")
    assert sequences_of(found)[0][1] == [[1, 4], [2, 5], [3, 6]]
    assert read(f"{header},label\n1,2,3,4,5,6,a\n1,2,3,4,5,6,b\n", channels=["y"]).channels == ("y",)


def test_channels_of_unequal_steps_are_asked_about():
    with pytest.raises(DataError, match="channel 'y' has no column for step 2"):
        read("x0,x1,x2,y0,y1,label\n1,2,3,4,5,a\n")


# --- case 17: ids of two columns ------------------------------------------------------------------------


def trials(**options: object) -> pl.DataFrame:
    """Ten sessions of six trials, counted from 1 in each."""
    return steps(session=lambda every: every["n"] // 6, trial=lambda every: every["n"] % 6 + 1, **options)


@pytest.mark.parametrize("outer", ["session", "subject"])
def test_trials_that_start_again_in_each_session_are_not_glued_together(outer):
    frame = trials(time="t").rename({"session": outer})
    # each trial of a number has the same label, so that labels do not contradict each other
    for given in (frame, shuffled(frame)):
        found = read(given.write_csv())
        assert found.lengths_N.tolist() == [STEPS] * SEQUENCES
        assert f"'{outer}' and 'trial' as the id" in " ".join(found.notes)
        assert found.channels == ("x",)
    assert found.ids(np.array([0, 7])).tolist() == ["0/1", "1/2"]
    named = read(frame.write_csv(), id=[outer, "trial"])
    assert sequences_of(named) == sequences_of(found)
    with pytest.raises(ConfigError, match=rf"start again for each '{outer}'.*dataset\.id=\[{outer},trial\]"):
        read(frame.write_csv(), id="trial")


def test_trials_without_a_time_are_not_glued_together():
    found = read(trials().write_csv())
    assert found.lengths_N.tolist() == [STEPS] * SEQUENCES


def test_parts_of_ids_are_kept_apart():
    found = read("s,k,x,label\na/b,c,1,u\na/b,c,2,u\na,b/c,3,v\na,b/c,4,v\n", id=["s", "k"])
    assert found.lengths_N.tolist() == [2, 2]


# --- cases 9 and 23: missing values -------------------------------------------------------------------


def test_what_marks_missing_values_can_be_given():
    content = "id,time,x,label\n1,0,-9999,0\n1,1,2,0\n2,0,0.0,1\n2,1,unknown,1\n"
    found = read(content, missing_values=[-9999, 0, "unknown"])
    assert sequences_of(found) == [("0", [[None], [2]]), ("1", [[None]])]
    with pytest.raises(
        DataError, match=r"'NA' is not a number\. If it marks .* list it in dataset\.missing_values"
    ):
        read(content.replace("unknown", "NA"), missing_values=[])
    with pytest.raises(ConfigError, match=r"missing_values must be a list of numbers and words"):
        Table(path="my.csv", missing_values=[None])


@pytest.mark.parametrize("word", ["-", "n/a"])
def test_a_channel_may_begin_with_a_thousand_missing_values(word):
    rows = [
        f"{n // 20},{n % 20},{n % 7 + 0.5},{word if n < 1100 else n % 3},{'ab'[n // 20 % 2]}"
        for n in range(1200)
    ]
    found = read("\n".join(["id,time,x,late,label", *rows]))
    assert found.channels == ("x", "late")
    assert np.isnan(found.values_SC[:1100, 1]).all()
    assert not np.isnan(found.values_SC[1100:, 1]).any()


# --- case 10: true and false, decimal commas, dates -------------------------------------------------------


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_true_and_false_are_a_channel(yes, no):
    found = read(f"id,time,x,on,label\n1,0,1,{yes},a\n1,1,2,{no},a\n2,0,3,,b\n2,1,4,{yes},b\n")
    assert sequences_of(found) == [("a", [[1, 1], [2, 0]]), ("b", [[3, None], [4, 1]])]


def test_decimal_commas_are_read():
    content = "id;time;x;y1;label\n1;0,0;1,5;1;1,2\n1;0,5;-2,25;2;1,2\n2;0,0;3;3;b\n"
    found = read(content)
    assert sequences_of(found) == [("1,2", [[1.5, 1], [-2.25, 2]]), ("b", [[3, 3]])]
    assert found.times_S.tolist() == [0, 0.5, 0]
    assert "my.csv: the decimal mark is the comma." in found.notes
    thousands = (
        content.replace("0,5", "1").replace("0,0", "0").replace("1,5", "1,500").replace("-2,25", "2,250")
    )
    with pytest.raises(ConfigError, match=r"'1,500' may be a decimal number .* Set dataset\.decimal=comma"):
        read(thousands)
    assert sequences_of(read(thousands, decimal="comma"))[0][1] == [[1.5, 1], [2.25, 2]]


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("31.03.2024 00:00", "31.03.2024 00:01", 60),
        ("1.4.2024", "2.4.2024", 86400),
        ("31/03/2024 13:00:00", "31/03/2024 13:00:00.5", 0.5),
        ("03/31/2024 11:59 AM", "03/31/2024 12:00 PM", 60),
        ("2024/03/31 12:30 am", "2024/03/31 1:30 a.m.", 3600),
        ("13:00:00", "13:00:01.25", 1.25),
        ("2024-03-31T00:00:00.000000100Z", "2024-03-31T00:00:00.000000200Z", 1e-7),  # case 24
        ("1711843200000000100", "1711843200000000200", 100),
    ],
)
def test_dates_are_read_as_people_write_them(first, second, seconds):
    found = read(f"id,time,x,label\n1,{second},2,a\n1,{first},1,a\n2,{first},3,b\n")
    assert sequences_of(found) == [("a", [[1], [2]]), ("b", [[3]])]
    assert found.times_S[1] - found.times_S[0] == pytest.approx(seconds, rel=1e-6)


def test_an_unclear_order_of_day_and_month_is_asked_about():
    content = "id,time,x,label\n1,03/04/2024,1,a\n1,04/03/2024,2,a\n2,03/04/2024,3,b\n"
    with pytest.raises(
        ConfigError,
        match=r"whether the day or the month comes first\. Set 'dataset\.time_format=%d/%m/%Y' or",
    ):
        read(content)
    day, month = (read(content, time_format=form) for form in ("%d/%m/%Y", "%m/%d/%Y"))
    assert sequences_of(day)[0][1] == [[2], [1]]
    assert sequences_of(month)[0][1] == [[1], [2]]
    with pytest.raises(
        DataError, match=r"line 2, column 'time': '03/04/2024' is not a time written as %d\.%m"
    ):
        read(content, time_format="%d.%m.%Y")


@pytest.mark.parametrize(
    ("clock", "form"),
    [(" 09:00", " %H:%M"), (", 09:00:01", ", %H:%M:%S"), (" 9:00:01.5 AM", " %I:%M:%S%.f %p")],
)
def test_the_format_that_is_proposed_reads_the_dates(clock, form):
    content = f"id,time,x,label\n1,03/04/2024{clock},1,a\n1,04/03/2024{clock},2,a\n2,03/04/2024{clock},3,b\n"
    content = content.replace(",", "|") if "," in clock else content
    content = content.replace("2024|", "2024,")
    with pytest.raises(ConfigError, match="does not tell whether the day") as error:
        read(content)
    assert f"'dataset.time_format=%d/%m/%Y{form}'" in str(error.value)
    assert sequences_of(read(content, time_format=f"%d/%m/%Y{form}"))[0][1] == [[2], [1]]


def test_times_of_day_that_pass_midnight_are_not_sorted():
    content = "id,time,x,label\n1,23:59:59,1,a\n1,00:00:01,2,a\n2,00:00:00,3,b\n"
    with pytest.raises(ConfigError, match=r"times of day in 'time' pass midnight.*dataset\.time=none"):
        read(content)
    assert sequences_of(read(content, time="none"))[0][1] == [[1], [2]]


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_date_times_of_parquet_keep_their_digits(unit):
    moments = pl.Series([1_711_843_200_000_000_000, 1_711_843_200_000_000_100, 5], dtype=pl.Int64)
    frame = pl.DataFrame({"id": [1, 1, 2], "x": [1, 2, 3], "label": ["a", "a", "b"]})
    if unit == "ns":  # case 24
        found = read(parquet(frame.with_columns(time=moments.cast(pl.Datetime("ns")))), "my.parquet")
        assert found.times_S[1] > found.times_S[0]
    late = moments // {"ns": 1, "us": 10**3, "ms": 10**6}[unit] + pl.Series([0, 1, 0])
    found = read(parquet(frame.with_columns(time=late.cast(pl.Datetime(unit)))), "late.parquet")
    assert found.times_S[1] > found.times_S[0]
