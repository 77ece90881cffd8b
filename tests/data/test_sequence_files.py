"""The files of a folder: what pandas writes, dates, sounds."""

from __future__ import annotations

import io
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from scipy.io import wavfile

from rnnclf.data.folder import Folder
from rnnclf.errors import DataError
from tests.data.tables import excel, feather, parquet
from tests.data.test_folder import files, read, values


def test_the_index_that_pandas_writes_is_left_out_with_a_note(tmp_path):
    texts = {"walk__a_csv": ",ax,ay\n0,1,2\n1,3,4\n", "run__a_csv": ",ax,ay\n17,5,6\n18,7,8\n"}
    recordings = read(files(tmp_path / "d", **texts))
    assert recordings.channels == ("ax", "ay")
    assert values(recordings) == [[[5, 6], [7, 8]], [[1, 2], [3, 4]]]
    assert recordings.notes == ("The first column, which has no name, counts the rows and was left out.",)


def test_a_column_that_counts_rows_is_left_out_whatever_its_name(tmp_path):
    rows = [f"{n + 100},{n % 7},{n % 5}\n" for n in range(30)]
    halves = ["nr,ax,ay\n" + "".join(rows[:15]), "nr,ax,ay\n" + "".join(rows[15:])]
    texts = {"walk__a_csv": halves[0], "run__a_csv": halves[1]}
    source = Folder(path=str(files(tmp_path / "d", **texts)))
    recordings = source.read()
    assert recordings.channels == ("ax", "ay")
    assert recordings.notes == ("Column 'nr' counts the rows and was left out.",)
    assert source.read_for_model(("nr", "ax", "ay")).channels == ("nr", "ax", "ay")


@pytest.mark.parametrize("name", ["", "date", "recorded at"])
def test_dates_are_the_times_of_steps(tmp_path, name):
    lines = [f"{name},ax", "2024-03-31 00:59:59.5,1", "2024-03-31 01:00:00,2", "2024-03-31 01:00:02,3"]
    recordings = read(files(tmp_path / "d", walk__a_csv="\n".join(lines), run__a_csv="\n".join(lines)))
    assert recordings.channels == ("ax",)
    assert np.diff(recordings.times_S[:3]).tolist() == [0.5, 2]
    assert "is used as the time of each step" in recordings.notes[0]


def test_a_date_that_is_none_is_refused_with_its_line(tmp_path):
    text = "date,ax\n2024-03-31,1\n2024-03-32,2\n"
    with pytest.raises(DataError, match=r"walk/a\.csv, line 3, column 'date': '2024-03-32' is not a time"):
        read(files(tmp_path / "d", walk__a_csv=text))


def test_a_rising_column_that_may_be_called_time_is_the_time(tmp_path):
    texts = {"walk__a_csv": "time_ms,ax\n0,1\n20,2\n", "run__a_csv": "time_ms,ax\n0,1\n"}
    assert read(files(tmp_path / "d", **texts)).times_S.tolist() == [0, 0, 20]
    falling = files(tmp_path / "e", **texts, walk__b_csv="time_ms,ax\n5,1\n2,2\n")
    assert read(falling).channels == ("time_ms", "ax")
    source = Folder(path=str(tmp_path / "d"))
    assert source.read_for_model(("time_ms", "ax")).channels == ("time_ms", "ax")


def sound(samples: np.ndarray, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


@pytest.mark.parametrize(
    "samples", [[-128, 64, 0], [[-32768, 16384], [0, 0]], [[-(2**31)], [2**30]]], ids=["8", "16", "32"]
)
def test_sounds_are_read_from_minus_one_to_one(tmp_path, samples):
    kind = {128: "int16", 32768: "int16", 2**31: "int32"}[-int(np.min(samples))]
    array = np.array(samples, kind)
    if np.min(samples) == -128:
        array = (array + 128).astype("uint8")
    recordings = read(files(tmp_path / "d", yes__a_wav=sound(array), no__a_wav=sound(array)))
    expected = np.array(samples) / -np.min(samples)
    np.testing.assert_array_equal(values(recordings)[0], expected.reshape(len(samples), -1))


def test_sounds_of_different_rates_are_refused(tmp_path):
    array = np.zeros(3, np.int16)
    with pytest.raises(DataError, match=r"yes/a\.wav has 16,000 samples per second, but no/a\.wav has 8,000"):
        read(files(tmp_path / "d", no__a_wav=sound(array), yes__a_wav=sound(array, 16000)))


ROWS = pl.DataFrame(
    {"time": [datetime(2024, 3, 31), datetime(2024, 3, 31, 0, 0, 2)], "x": [1 / 3, None], "on": [True, False]}
)
FORMS = {
    "xlsx": excel([ROWS.columns, *ROWS.rows()]),
    "parquet": parquet(ROWS),
    "feather": feather(ROWS),
    "jsonl": "".join(f"{row}\n" for row in ROWS.write_ndjson().splitlines()).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_every_form_are_recordings(tmp_path, form):
    recordings = read(files(tmp_path / "d", **{f"{name}__a_{form}": FORMS[form] for name in ("walk", "run")}))
    assert recordings.channels == ("x", "on")
    assert recordings.times_S[1] - recordings.times_S[0] == 2
    np.testing.assert_array_equal(recordings.values_SC[:2], [[1 / 3, 1], [np.nan, 0]])
    line = 2 if form == "xlsx" else 1
    assert recordings.place(1).startswith(f"run/a.{form}, line {line + 1}")


@pytest.mark.parametrize(
    ("form", "content", "words"),
    [
        ("xlsx", b"", r"walk/a\.xlsx is not an Excel file"),
        (
            "parquet",
            parquet(pl.DataFrame({"x": [1.0], "who": ["me"]})),
            "row 1, column 'who': 'me' is not a num",
        ),
        (
            "feather",
            feather(pl.DataFrame({"x": [1.0, float("inf")]})),
            r"walk/a\.feather, row 2, column 'x': the",
        ),
        ("jsonl", b'{"x": [1, 2]}\n', r"walk/a\.jsonl holds lists; each line must hold the values of a step"),
    ],
)
def test_a_recording_that_cannot_be_read_is_named(tmp_path, form, content, words):
    with pytest.raises(DataError, match=words):
        read(files(tmp_path / "d", **{f"walk__a_{form}": content, "run__a_csv": "x\n1\n"}))
