"""Folders of the user, one for each class: what is read, and what is said of files that cannot be."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from rnnclf.data import folder as folder_module
from rnnclf.data.folder import Folder
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError, RnnclfError
from tests.damage import DAMAGE, damaged

A, B = "1,2\n3,4\n5,6\n", "7,8\n9,10\n"


def files(root: Path, **texts: str | bytes | np.ndarray) -> Path:
    """Files with these contents; 'walk/a.csv' is written walk__a_csv."""
    for name, content in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, **options: object) -> Recordings:
    return Folder(path=str(root), **options).read()


def values(recordings: Recordings) -> list[list[list[float]]]:
    starts, lengths = recordings.starts_N.tolist(), recordings.lengths_N.tolist()
    return [recordings.values_SC[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]


def test_each_file_is_a_sequence_of_the_class_of_its_folder(tmp_path):
    recordings = read(files(tmp_path / "d", walk__b_csv=B, walk__a_csv=A, run__a_csv=B, run__sub__c_csv=A))
    assert recordings.classes == ("run", "walk")
    assert recordings.labels_N.tolist() == [0, 0, 1, 1]
    one, two = [[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10]]
    assert values(recordings) == [two, one, one, two]
    assert recordings.channels == ("0", "1")
    assert (recordings.given_N, recordings.groups_N, recordings.times_S) == (None, None, None)
    assert recordings.notes == ()


@pytest.mark.parametrize(
    "name_and_text",
    [
        ("a_csv", "1,2\n3,nan\n"),
        ("a_csv", "1;2\n3;?\n"),
        ("a_csv", "1,2\r\n3,\r\n\r\n"),
        ("a_csv", "1,2\r3,NA"),
        ("a_csv", '"1","2"\n"3",""\n'),
        ("a_csv", b"\xef\xbb\xbf1,2\n3,null\n"),
        ("a_CSV", " 1 , 2 \n 3 , None \n"),
        ("a_tsv", "1\t2\n3\t\n"),
        ("a_txt", "1  2\n3  nan\n"),
        ("a_txt", "  1.0e0 +2\n0.3E1 NaN"),
        ("a_npy", np.array([[1, 2], [3, np.nan]])),
        ("a_npy", np.array([[1, 2], [3, np.nan]], dtype=">f4", order="F")),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, name_and_text):
    name, content = name_and_text
    recordings = read(files(tmp_path / "d", **{f"walk__{name}": content}))
    np.testing.assert_array_equal(recordings.values_SC, [[1, 2], [3, np.nan]])


def test_one_column_is_one_channel(tmp_path):
    array = np.array([1, 2, 3], dtype=np.int16)
    recordings = read(files(tmp_path / "d", walk__a_csv="1\n2\n3\n", walk__b_npy=array))
    assert recordings.channels == ("0",)
    assert recordings.values_SC.tolist() == [[1], [2], [3]] * 2


def test_the_first_line_may_name_the_columns(tmp_path):
    recordings = read(files(tmp_path / "d", walk__a_csv="ax,ay\n" + A, run__a_csv='"ax", ay\n' + B))
    assert recordings.channels == ("ax", "ay")
    assert values(recordings)[0] == [[7, 8], [9, 10]]
    assert recordings.place(0) == "run/a.csv, line 2"
    assert recordings.place(4) == "walk/a.csv, line 4"


def test_places_without_names_of_columns_count_from_the_first_line(tmp_path):
    recordings = read(files(tmp_path / "d", walk__a_csv=A, walk__b_npy=np.ones((2, 2))))
    assert recordings.place(2) == "walk/a.csv, line 3"
    assert recordings.place(4) == "walk/b.npy, step 1 (counted from 0)"


@pytest.mark.parametrize("column", ["time", "T", "Timestamp"])
def test_a_column_that_is_called_time_is_taken_for_it_with_a_note(tmp_path, column):
    recordings = read(files(tmp_path / "d", walk__a_csv=f"ax,{column}\n1,0.5\n2,1.75\n"))
    assert recordings.channels == ("ax",)
    assert recordings.times_S.tolist() == [0.5, 1.75]
    assert f"'{column}' is used as the time" in recordings.notes[0]


def test_a_column_may_be_named_as_the_time(tmp_path):
    root = files(tmp_path / "d", walk__a_csv="t,clock\n1,0.5\n1,1.75\n")
    recordings = read(root, time="clock")
    assert recordings.channels == ("t",)
    assert recordings.times_S.tolist() == [0.5, 1.75]
    assert recordings.notes == ()


def test_folders_may_name_the_splits(tmp_path):
    root = files(tmp_path / "d", train__walk__a_csv=A, train__run__a_csv=B, test__walk__a_csv=B)
    recordings = read(root)
    assert recordings.classes == ("run", "walk")
    assert recordings.given_N.tolist() == [0, 0, 2]
    assert recordings.labels_N.tolist() == [0, 1, 1]
    assert recordings.place(5) == "test/walk/a.csv, line 1"
    assert read(files(root, validation__run__b_csv=A)).given_N.tolist() == [0, 0, 1, 2]


def test_the_test_split_may_be_a_second_folder(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__a_csv=B)
    test = files(tmp_path / "held", walk__a_csv=B)
    recordings = read(root, test_path=str(test))
    assert recordings.given_N.tolist() == [-1, -1, 2]
    assert recordings.place(5) == "held/walk/a.csv, line 1"


def test_a_pattern_finds_groups_in_names(tmp_path):
    root = files(tmp_path / "d", walk__p1__a_csv=A, walk__p2__a_csv=A, run__p1__b_csv=B, run__p10__b_csv=B)
    assert read(root, group=r"(p\d+)/").groups_N.tolist() == [0, 1, 0, 2]


def test_other_files_are_left_out_with_a_note_and_hidden_ones_without(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, walk__b_png="", walk__c_json="{}", README_md="", run__a_csv=A)
    files(root / "walk", _DS_Store=b"", _git__x_csv="no numbers")
    (note,) = read(root).notes
    assert "3 files" in note
    assert ".png 1" in note


def test_links_that_lead_back_do_not_hang(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__a_csv=A)
    (root / "walk" / "again").symlink_to(root, target_is_directory=True)
    assert len(read(root)) == 2


def test_what_was_read_is_kept_until_a_file_or_an_option_changes(tmp_path, monkeypatch):
    root = files(tmp_path / "d", walk__a_csv="t,x\n" + A, run__b_csv="t,x\n" + B)
    first = read(root)

    def no_reading(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "contents_of", no_reading)
        again = read(root)
    for name in ("values_SC", "starts_N", "lengths_N", "labels_N", "times_S"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert (again.classes, again.channels, again.notes) == (first.classes, first.channels, first.notes)
    assert again.place(4) == first.place(4) == "walk/a.csv, line 4"
    assert read(root, group=r"(\w)\.csv").groups_N.tolist() == [1, 0]
    files(root, walk__a_csv="t,x\n" + B)
    assert len(read(root).values_SC) == 4


def test_a_file_replaced_by_another_of_the_same_size_and_time_is_read_anew(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__b_csv=B)
    assert values(read(root))[1] == [[1, 2], [3, 4], [5, 6]]
    path = root / "walk" / "a.csv"
    before = path.stat()
    path.write_text(A.replace("1", "9"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert values(read(root))[1] == [[9, 2], [3, 4], [5, 6]]


def test_a_damaged_cache_is_made_anew(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__b_csv=B)
    cache = read(root).cache
    for damage in ("values_SC.npy", "recordings.json", "labels_N.npy"):
        content = (cache / damage).read_bytes()
        other = content.replace(b"walk", b"wolk")
        for bad in (content[: len(content) // 2], content[:-8] + bytes(8), other, b"[" * 100_000):
            (cache / damage).write_bytes(bad)
            again = read(root)
            assert values(again) == [[[7, 8], [9, 10]], [[1, 2], [3, 4], [5, 6]]]
            assert again.classes == ("run", "walk")
            assert (cache / damage).read_bytes() == content
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_what_a_killed_process_left_in_the_cache_is_removed_after_a_day(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__b_csv=B)
    cache = read(root).cache
    (cache / "recordings.json").unlink()
    old, new = (cache.with_name(f".{cache.name}.{word}") for word in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    read(root)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read(files(tmp_path / "d", walk__a_csv=A, run__b_csv=B))) == 2


def test_all_splits_are_made_of_them(tmp_path):
    random = np.random.default_rng(0)
    for n in range(60):
        rows = random.normal(size=(3 + n % 4, 2))
        files(tmp_path / "d", **{f"class{n % 3}__{n}_csv": "\n".join(f"{a},{b}" for a, b in rows)})
    for _ in ("read", "kept"):
        splits = Folder(path=str(tmp_path / "d")).load()
        assert [len(splits[name]) for name in ("train", "validation", "test")] == [39, 9, 12]


BAD = {
    "text": ({"walk__a_csv": "1,2\n3,x\n"}, r"walk/a\.csv, line 2, column 2: 'x' is not a number"),
    "half a header": ({"walk__a_csv": "1,x\n3,4\n"}, r"walk/a\.csv, line 1, column 2: 'x' is not a number"),
    "underscore": ({"walk__a_csv": "1,2\n3,1_0\n"}, "line 2, column 2: '1_0' is not a number"),
    "infinite": ({"walk__a_csv": "a,b\n1,2\n3,-inf\n"}, "line 3, column 2: the value is infinite"),
    "too large": ({"walk__a_csv": "1e999,2\n"}, "line 1, column 1: the value is infinite"),
    "short line": ({"walk__a_csv": "1,2\n3\n"}, r"walk/a\.csv, line 2 has 1 fields, line 1 has 2"),
    "long line": ({"walk__a_csv": "a,b\n3,4,5\n"}, "line 2 has 3 fields, line 1 has 2"),
    "empty line": ({"walk__a_csv": "1,2\n\n3,4\n"}, r"walk/a\.csv, line 2 is empty"),
    "empty": ({"walk__a_csv": ""}, r"walk/a\.csv is empty"),
    "blank": ({"walk__a_csv": " \n\n"}, r"walk/a\.csv is empty"),
    "blank of another kind": ({"walk__a_csv": b"1,2\n\x0b\n3,4\n"}, r"walk/a\.csv, line 2 is empty"),
    "header only": ({"walk__a_csv": "a,b\n"}, "has a header but no steps"),
    "name twice": ({"walk__a_csv": "a,a\n1,2\n"}, "line 1: two columns are named 'a'"),
    "no name": ({"walk__a_csv": ",a\n0,2\n5,2\n"}, "line 1: column 1 has no name.*index=False"),
    "no second name": ({"walk__a_csv": "a,\n0,2\n"}, "line 1: column 2 has no name"),
    "not UTF-8": ({"walk__a_csv": b"1,2\n3,\xff\n"}, r"walk/a\.csv, line 2 is not UTF-8"),
    "unprintable": ({"walk__a_csv": b"1,2\n3,\x1b[31m\n"}, r"column 2: '\ufffd\[31m' is not a number"),
    "NUL": ({"walk__a_csv": b"1,2\n3,\x00\n"}, "line 2, column 2: .* is not a number"),
    "columns": (
        {"walk__a_csv": "1,2,3\n"},
        r"walk/a\.csv has 3 columns without names, but run/a\.csv has 2 columns",
    ),
    "names": (
        {"walk__a_csv": "a,b\n1,2\n"},
        r"walk/a\.csv has 2 columns, a, b, but run/a\.csv has 2 columns without",
    ),
    "array": ({"walk__a_npy": np.ones((2, 2, 2))}, r"walk/a\.npy has shape \(2, 2, 2\)"),
    "array of text": ({"walk__a_npy": np.array(["a"])}, r"walk/a\.npy holds text"),
    "objects": ({"walk__a_npy": np.array([None])}, r"walk/a\.npy holds Python objects"),
    "no array": ({"walk__a_npy": b"1,2\n"}, r"walk/a\.npy is not an \.npy array"),
    "no file": ({"walk__a_png": b""}, r"walk has no sequence files: their names must end in \.csv"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path, fault):
    texts, words = BAD[fault]
    others = {"run__a_csv": A} if "but run" in words else {}
    with pytest.raises(DataError, match=words):
        read(files(tmp_path / "d", **others, **texts))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,x\n1,0\n1,0\n", r"walk/a\.csv, line 3: the time is 1; times must not be missing"),
        ("t,x\n2,0\n1,0\n", r"walk/a\.csv, line 3: the time is 1"),
        ("t,x\nnan,0\n1,0\n", r"walk/a\.csv, line 2: the time is nan"),
        ("t,x\n1,0\n,0\n", r"walk/a\.csv, line 3: the time is nan"),
    ],
)
def test_time_must_rise(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read(files(tmp_path / "d", walk__a_csv=text))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("t,time\n1,2\n", {}, "t and time could each be the time: choose one with dataset.time"),
        ("clock,x\n1,2\n", {"time": "clok"}, "no column is named 'clok'. Did you mean 'clock'"),
        ("1,2\n", {"time": "clock"}, "needs files with a header"),
        (A, {"group": "(p"}, "is not a valid regular expression"),
        (A, {"group": "p"}, "must have one group in parentheses, it has 0"),
        (A, {"group": "(p)(q)"}, "must have one group in parentheses, it has 2"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(tmp_path, text, options, words):
    with pytest.raises(ConfigError) as caught:
        read(files(tmp_path / "d", walk__a_csv=text), **options)
    assert words in str(caught.value)


def test_a_name_without_its_group_is_told(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv: dataset\.group='p\(\[0-9\]\)' does not match"):
        read(files(tmp_path / "d", walk__a_csv=A), group="p([0-9])")


def test_a_trained_model_needs_no_groups(tmp_path):
    source = Folder(path=str(files(tmp_path / "d", walk__p1_a_csv=A, run__b_csv=B)), group=r"(p\d)_")
    recordings = source.read_for_model(("0", "1"))
    assert len(recordings) == 2
    assert recordings.groups_N is None
    assert recordings.notes[-1].endswith("does not match its path. Sequences are not grouped.")


def test_columns_are_found_by_name_in_every_file(tmp_path):
    texts = {"walk__a_csv": "x,y\n1,2\n", "walk__b_csv": "y,x\n4,3\n"}
    recordings = read(files(tmp_path / "d", run__a_csv="x,y\n5,6\n", **texts))
    assert values(recordings) == [[[5, 6]], [[1, 2]], [[3, 4]]]


def test_only_the_time_is_no_sequence(tmp_path):
    with pytest.raises(DataError, match="no columns besides the time, 'x'"):
        read(files(tmp_path / "d", walk__a_csv="x\n1\n"), time="x")


def test_folders_that_are_none_are_told(tmp_path):
    with pytest.raises(DataError, match="d does not exist"):
        read(tmp_path / "d")
    root = files(tmp_path / "d", a_csv=A)
    with pytest.raises(DataError, match="has no folders in it: it needs one folder per class"):
        read(root)
    with pytest.raises(DataError, match="is a file, not a folder"):
        read(root / "a.csv")


def test_a_test_split_that_does_not_fit_is_refused(tmp_path):
    root = files(tmp_path / "d", walk__a_csv=A, run__a_csv=A)
    given = files(tmp_path / "g", train__walk__a_csv=A, test__walk__a_csv=B)
    with pytest.raises(
        ConfigError, match=r"already has folders for its splits: leave out dataset\.test_path"
    ):
        read(given, test_path=str(root))
    with pytest.raises(DataError, match="it must hold class folders"):
        read(root, test_path=str(given))
    with pytest.raises(DataError, match="Class 'sit' occurs in the test split only"):
        read(root, test_path=str(files(tmp_path / "t", sit__a_csv=A)))


ARRAY = io.BytesIO()
np.save(ARRAY, np.arange(6.0).reshape(3, 2))
SOUND = io.BytesIO()
wavfile.write(SOUND, 8000, np.arange(12, dtype=np.int16).reshape(6, 2))
FUZZED = {
    "header.csv": b"t,x\n" + A.encode(),
    "plain.csv": A.encode(),
    "tabs.tsv": A.replace(",", "\t").encode(),
    "spaces.txt": A.replace(",", " ").encode(),
    "array.npy": ARRAY.getvalue(),
    "dates.csv": b"date,x\n2024-01-01 10:00:00,2\n2024-01-01 10:00:01.5,3\n",
    "index.csv": b",x\n0,2\n1,3\n",
    "sound.wav": SOUND.getvalue(),
}


@pytest.mark.long
@given(st.sampled_from(list(FUZZED)), *DAMAGE)
@settings(max_examples=120, deadline=None)
def test_damaged_files_are_read_or_refused_in_words(name, kind, place, other):
    with tempfile.TemporaryDirectory() as base:
        other_file = {"header.csv": "t,x\n" + A} | {name: FUZZED[name] for name in ("dates.csv", "index.csv")}
        root = files(Path(base), walk__a_csv=other_file.get(name, A))
        path = root / "run" / name
        path.parent.mkdir()
        path.write_bytes(damaged(FUZZED[name], kind, place, other))
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(root), Recordings)


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_bytes_of_any_kind_are_read_or_refused_in_words(content):
    with tempfile.TemporaryDirectory() as base:
        root = files(Path(base), walk__a_txt=content)
        with contextlib.suppress(RnnclfError):
            assert isinstance(read(root), Recordings)
