"""Files of the UCR and UEA archives: what is read, what is said of damaged ones, and that all ways agree."""

from __future__ import annotations

import contextlib
import io
import stat
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.data.archive import Archive
from rnnclf.data.arrays import Arrays
from rnnclf.data.base import Learned
from rnnclf.data.folder import Folder
from rnnclf.data.preparation import Preparation
from rnnclf.data.recognition import source_for
from rnnclf.data.recordings import Recordings
from rnnclf.errors import ConfigError, DataError, RnnclfError
from tests.damage import DAMAGE, damaged
from tests.data.test_arff import ARFF

HEADER = """#A comment
@problemName Toy
@timeStamps false
@missing false
@univariate {univariate}
@equalLength {equal}
@classLabel true Walk run
@data
"""
PLAIN = HEADER.format(univariate="true", equal="true") + "1,2,3:Walk\n4,5,6:run\n"
RAGGED = HEADER.format(univariate="false", equal="false") + "1,2,3:-4,5.5,6:Walk\n7,?:8,NaN:run\n"
WITHOUT_LABELS = PLAIN.replace("true Walk run", "false").replace(":Walk", "").replace(":run", "")
UCR = "1\t0.5\t1.5\n2\t2.5\t3.5\n"


@pytest.fixture
def _aeon() -> None:
    pytest.importorskip("aeon", reason="rnnclf[archive] is not installed")


needs_aeon = pytest.mark.usefixtures("_aeon")


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_ts", ".ts"), content)
    return path


def read(path: Path, **options: object) -> Recordings:
    return Archive(path=str(path), **options).read()


def sequences(recordings: Recordings) -> list[tuple[str, list[list[float]]]]:
    """(class, values) of each sequence; None for a missing value, which equals nothing."""
    values = np.where(np.isnan(recordings.values_SC), None, recordings.values_SC)
    bounds = zip(recordings.starts_N, recordings.lengths_N, recordings.labels_N, strict=True)
    return [
        (recordings.classes[label], values[start : start + length].tolist())
        for start, length, label in bounds
    ]


@needs_aeon
def test_a_ts_file_of_equal_lengths_is_read(tmp_path):
    recordings = read(write(tmp_path / "Toy.ts", PLAIN))
    assert sequences(recordings) == [("Walk", [[1], [2], [3]]), ("run", [[4], [5], [6]])]
    assert recordings.channels == ("0",)
    assert recordings.given_N is None
    assert recordings.notes == ()
    assert recordings.place(4) == "Toy.ts, line 10, step 1 (counted from 0)"


@needs_aeon
def test_empty_lines_in_a_header_are_as_good_as_none(tmp_path):
    recordings = read(write(tmp_path / "Toy.ts", PLAIN.replace("@missing", "\n \n@missing")))
    assert sequences(recordings)[1] == ("run", [[4], [5], [6]])
    assert recordings.place(3).startswith("Toy.ts, line 12")


@needs_aeon
def test_a_ts_file_of_channels_gaps_and_different_lengths_is_read(tmp_path):
    recordings = read(write(tmp_path / "Toy.ts", RAGGED))
    assert sequences(recordings) == [("Walk", [[1, -4], [2, 5.5], [3, 6]]), ("run", [[7, 8], [None, None]])]


@needs_aeon
@pytest.mark.parametrize("label", ["Banana", "NaN-like", "a?b"])
def test_labels_are_read_letter_by_letter(tmp_path, label):
    recordings = read(write(tmp_path / "Toy.ts", PLAIN.replace("Walk", label)))
    assert recordings.classes == tuple(sorted((label, "run")))


@needs_aeon
def test_the_file_beside_it_is_the_test_split(tmp_path):
    path = write(tmp_path / "Toy_TRAIN.ts", PLAIN)
    drawn = read(path)
    assert drawn.given_N is None
    assert "There is no Toy_TEST.ts in the same folder" in drawn.notes[0]
    write(tmp_path / "Toy_TEST.ts", PLAIN.replace("4,5,6", "7,8,9"))
    recordings = read(path)
    assert recordings.given_N.tolist() == [-1, -1, 2, 2]
    assert sequences(recordings)[3] == ("run", [[7], [8], [9]])
    assert recordings.notes == ("Toy_TEST.ts, in the same folder, is the test split.",)
    assert recordings.place(6).startswith("Toy_TEST.ts, line 9")
    assert sequences(read(tmp_path)) == sequences(recordings)


@needs_aeon
def test_another_test_split_may_be_named(tmp_path):
    path = write(tmp_path / "Toy_TRAIN.ts", PLAIN)
    write(tmp_path / "Toy_TEST.ts", PLAIN)
    other = write(tmp_path / "other.ts", PLAIN.replace("4,5,6", "7,8,9"))
    assert sequences(read(path, test_path=str(other)))[3] == ("run", [[7], [8], [9]])


@needs_aeon
def test_a_zip_file_is_unpacked_once(tmp_path):
    path = zipped(
        tmp_path / "Toy.zip",
        Toy__Toy_TRAIN_ts=PLAIN,
        Toy__Toy_TEST_ts=PLAIN,
        readme="x",
        Toy__Toy_TRAIN_txt="",
    )
    recordings = read(path)
    assert recordings.given_N.tolist() == [-1, -1, 2, 2]
    (unpacked,) = (tmp_path / "cache" / "rnnclf" / "unpacked").iterdir()
    assert sorted(file.name for file in unpacked.iterdir()) == ["Toy_TEST.ts", "Toy_TRAIN.ts"]
    before = (unpacked / "Toy_TEST.ts").stat().st_mtime_ns
    assert sequences(read(path)) == sequences(recordings)
    assert (unpacked / "Toy_TEST.ts").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", UCR),
        ("a.txt", "  1.0000000e+00   0.5 1.5\n  2.0000000e+00   2.5 3.5\n"),
        ("a.txt", "1,0.5,1.5\n2,2.5,3.5\n"),
        ("a.tsv", "1\t0.5\t1.5\tNaN\n2\t2.5\t3.5\t\n"),
    ],
)
def test_label_and_values_on_a_line_are_read(tmp_path, name, text):
    recordings = read(write(tmp_path / name, text))
    assert sequences(recordings) == [("1", [[0.5], [1.5]]), ("2", [[2.5], [3.5]])]
    assert recordings.place(1) == f"{name}, line 1, step 1 (counted from 0)"


def test_missing_values_between_others_are_no_padding(tmp_path):
    recordings = read(write(tmp_path / "a.tsv", "walk\tNaN\t1\tNaN\t2\tNaN\nrun\t1\t2\t3\t4\t5\n"))
    assert sequences(recordings)[0] == ("walk", [[None], [1], [None], [2]])


def test_without_aeon_the_way_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'rnnclf\[archive\]'"):
        read(write(tmp_path / "Toy.ts", PLAIN))
    assert len(read(write(tmp_path / "a.tsv", UCR))) == 2


LEARNED = Learned(Preparation(("0",), "error", (0.0,), (1.0,)), ("Walk", "run"))
UNLABELLED = {
    "ts": (".ts", PLAIN, ["Walk", "run"]),
    "ts without": (".ts", WITHOUT_LABELS, None),
    "ts unknown": (".ts", PLAIN.replace(":run", ":?").replace(":Walk", ":"), None),
    "ts some": (".ts", PLAIN.replace(":run", ":?"), ["Walk", None]),
    "tsv": (".tsv", UCR, ["1", "2"]),
    "tsv some": (".tsv", UCR.replace("1\t0.5", "?\t0.5"), [None, "2"]),
    "arff": (".arff", ARFF.replace("7.5,8,?,walk\n", ""), ["walk", "run"]),
    "arff without": (".arff", "@relation a\n@attribute t0 real\n@attribute t1 real\n@data\n1,2\n3,4\n", None),
}


@needs_aeon
@pytest.mark.parametrize("form", UNLABELLED)
def test_data_to_predict_need_no_labels_and_keep_those_they_have(tmp_path, form):
    suffix, content, truth = UNLABELLED[form]
    found = Archive(path=str(write(tmp_path / f"new{suffix}", content))).read_unlabelled(LEARNED)
    assert found.classes == ("",)
    assert len(found) == 2
    assert truth == (None if found.truth_N is None else found.truth_N.tolist())


BAD_TS = {
    "empty": ("", "Toy.ts is empty"),
    "no data": (PLAIN.replace("@data", ""), "has no @data line"),
    "no mark": (PLAIN.replace("@data\n", ""), "has no @data line"),
    "nothing": (PLAIN[: PLAIN.index("1,2")], "nothing follows @data in line 8"),
    "no labels": (PLAIN.replace("@classLabel true Walk run\n", ""), "needs a line '@classLabel true'"),
    "labels false": (
        PLAIN.replace("@classLabel true Walk run", "@classLabel false"),
        "rnnclf trains classifiers",
    ),
    "regression": (
        PLAIN.replace("@classLabel true Walk run", "@targetlabel true"),
        "rnnclf trains classifiers",
    ),
    "names": (PLAIN.replace("true Walk run", "true"), "is not a valid .ts file"),
    "times": (PLAIN.replace("@timeStamps false", "@timeStamps true"), "has timestamps"),
    "text": (PLAIN.replace("5", "x"), "line 10: 'x' is not a number"),
    "gap": (PLAIN.replace("5", ""), "line 10: '' is not a number"),
    "cut": (PLAIN[:-6], "line 10 has no label: it should follow"),
    "no label": (PLAIN.replace("run\n", "\n").replace("true Walk ", "true Walk run"), "line 10 has no label"),
    "channels": (RAGGED.replace("7,?:8,NaN", "7,?"), "line 10 has 1 channels, line 9 has 2"),
    "steps": (
        RAGGED.replace("7,?:8,NaN", "7,?:8"),
        "line 10: the channels have different numbers of steps, [1, 2]",
    ),
    "lengths": (
        PLAIN.replace("4,5,6", "4,5"),
        "line 10 has 2 steps, line 9 has 3: the header needs a line '@eq",
    ),
    "tail": (PLAIN + "\n\n", "ends with empty lines"),
    "middle": (PLAIN.replace("4,5", "\n4,5"), "line 10 is empty"),
    "not UTF-8": (PLAIN.encode() + b"\xff:run\n", "line 11 is not UTF-8"),
}


@needs_aeon
@pytest.mark.parametrize("fault", BAD_TS)
def test_a_damaged_ts_file_is_refused_with_its_line(tmp_path, fault):
    content, words = BAD_TS[fault]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "Toy.ts", content))
    assert words in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


@needs_aeon
def test_a_class_that_the_header_does_not_name_is_noted(tmp_path):
    recordings = read(write(tmp_path / "Toy.ts", PLAIN.replace("6:run", "6:sit")))
    assert "does not list class 'sit'" in recordings.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\t2\n2\tx\n", "line 2, column 2: 'x' is not a number"),
        ("1\t2\t3\n2\t1\n", "line 2 has 2 fields, line 1 has 3"),
        ("1\n2\n", "line 1 has only one field; it needs a label"),
        ("1\t2\n\t2\n", "line 2: the label is missing"),
        ("1\t2\n1\tNaN\n", "line 2: the sequence has no values"),
        ("1\t2\n1\tinf\n", "line 2, column 2: the value is infinite"),
    ],
)
def test_damaged_lines_are_refused_by_number(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.tsv", text))
    assert words in str(caught.value)


@needs_aeon
def test_a_test_split_of_other_channels_or_classes_is_refused(tmp_path):
    path = write(tmp_path / "a.ts", PLAIN)
    with pytest.raises(DataError, match=r"b\.ts has 2 channels, a\.ts has 1"):
        read(path, test_path=str(write(tmp_path / "b.ts", RAGGED)))
    with pytest.raises(DataError, match="Class 'sit' occurs in the test split only"):
        read(path, test_path=str(write(tmp_path / "c.ts", PLAIN.replace("run", "sit"))))


def test_a_path_that_is_no_archive_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "Toy.ts")
    with pytest.raises(DataError, match=r"should end in \.ts"):
        read(write(tmp_path / "a.wav", ""))
    with pytest.raises(DataError, match=r"no file that ends in _TRAIN\.ts, _TRAIN\.arff, _TRAIN\.tsv"):
        read(tmp_path)
    write(tmp_path / "A_TRAIN.ts", PLAIN)
    write(tmp_path / "B_TRAIN.ts", PLAIN)
    with pytest.raises(DataError, match=r"holds 2 data sets, A_TRAIN\.ts"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["../Toy_TRAIN.ts", "/tmp/Toy_TRAIN.ts", "a/../../Toy_TRAIN.ts", "C:/Toy_TRAIN.ts"]
)
def test_a_member_that_lies_outside_is_never_unpacked(tmp_path, name):
    path = tmp_path / "Toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, PLAIN)
    with pytest.raises(DataError, match="leads outside: nothing was unpacked"):
        read(path)
    assert not (tmp_path / "cache").exists()


def test_a_link_is_never_unpacked(tmp_path):
    path = tmp_path / "Toy.zip"
    link = zipfile.ZipInfo("Toy_TRAIN.ts")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"holds a link, Toy_TRAIN\.ts"):
        read(path)


def test_zip_files_that_hold_no_data_set_or_many_are_told(tmp_path):
    with pytest.raises(DataError, match="has no file that ends in"):
        read(zipped(tmp_path / "a.zip", Toy_arff=""))
    with pytest.raises(DataError, match="holds 2 data sets"):
        read(zipped(tmp_path / "b.zip", A_TRAIN_ts=PLAIN, B_TRAIN_ts=PLAIN))
    with pytest.raises(DataError, match=r"is not a \.zip file"):
        read(write(tmp_path / "c.zip", "no zip"))


def test_a_zip_file_that_the_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="GiB are free"):
        read(zipped(tmp_path / "a.zip", Toy_TRAIN_ts=PLAIN))


@pytest.mark.long
@needs_aeon
@given(st.sampled_from([PLAIN, RAGGED]), *DAMAGE)
@settings(max_examples=120, deadline=None)
def test_damaged_ts_files_are_read_or_refused_in_words(content, kind, place, other):
    with tempfile.TemporaryDirectory() as base, contextlib.suppress(RnnclfError):
        path = write(Path(base, "a.ts"), damaged(content.encode(), kind, place, other))
        assert isinstance(read(path), Recordings)


@given(*DAMAGE)
@settings(max_examples=80, deadline=None)
def test_damaged_tsv_files_are_read_or_refused_in_words(kind, place, other):
    with tempfile.TemporaryDirectory() as base, contextlib.suppress(RnnclfError):
        path = write(Path(base, "a.tsv"), damaged(UCR.encode(), kind, place, other))
        assert isinstance(read(path), Recordings)


PACKED = io.BytesIO()
with zipfile.ZipFile(PACKED, "w", zipfile.ZIP_DEFLATED) as _archive:
    _archive.writestr("Toy/Toy_TRAIN.tsv", UCR)
    _archive.writestr("Toy/Toy_TEST.tsv", UCR)


@pytest.mark.long
@given(*DAMAGE)
@settings(max_examples=100, deadline=None)
def test_damaged_zip_files_are_read_or_refused_in_words(kind, place, other):
    with tempfile.TemporaryDirectory() as base, contextlib.suppress(RnnclfError):
        path = write(Path(base, "a.zip"), damaged(PACKED.getvalue(), kind, place, other))
        assert isinstance(read(path), Recordings)


@st.composite
def labelled(draw: st.DrawFn) -> list[tuple[str, np.ndarray]]:
    """Sequences (T, C) of numbers, some missing but none at an end, each with a class."""
    channels = draw(st.integers(1, 3))
    number = st.one_of(st.floats(-1e6, 1e6, width=32), st.just(float("nan")))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        steps = draw(st.integers(1, 6))
        values = draw(st.lists(number, min_size=steps * channels, max_size=steps * channels))
        array = np.array(values, np.float32).reshape(steps, channels)
        array[-1] = np.nan_to_num(array[-1])
        found.append((draw(st.sampled_from(["walk", "run", "10", "9"])), array))
    return found


def ts_text(found: list[tuple[str, np.ndarray]]) -> str:
    equal = "true" if len({len(array) for _, array in found}) == 1 else "false"
    univariate = "true" if found[0][1].shape[1] == 1 else "false"
    header = HEADER.format(univariate=univariate, equal=equal).replace("Walk run", "walk run 9 10")
    rows = (
        ":".join(",".join(map(str, row)) for row in array.T.tolist()) + f":{label}" for label, array in found
    )
    return header + "\n".join(rows) + "\n"


@pytest.mark.long
@needs_aeon
@given(labelled(), st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_same_sequences_are_read_by_every_way(found, padding, lengths_given):
    found = sorted(found, key=lambda pair: pair[0])  # the order of folders
    steps, channels = max(len(array) for _, array in found), found[0][1].shape[1]
    x = np.full((len(found), steps + padding, channels), np.nan, np.float32)
    for n, (_, array) in enumerate(found):
        x[n, : len(array)] = array
    arrays = {"x": x, "y": np.array([label for label, _ in found])}
    if lengths_given:
        arrays = {
            **arrays,
            "lengths": np.array([len(array) for _, array in found]),
            "x": np.nan_to_num(x, nan=7),
        }
        for n, (_, array) in enumerate(found):
            arrays["x"][n, : len(array)] = array
    with tempfile.TemporaryDirectory() as base:
        np.savez(Path(base, "a.npz"), **arrays)
        for n, (label, array) in enumerate(found):
            text = "\n".join(",".join(map(str, row)) for row in array.tolist())
            write(Path(base, "folder", label, f"{n}.csv"), text)
        write(Path(base, "a.ts"), ts_text(found))
        ways = [
            Arrays(path=f"{base}/a.npz").read(),
            Folder(path=f"{base}/folder").read(),
            Archive(path=f"{base}/a.ts").read(),
        ]
    expected = [
        (label, np.where(np.isnan(array), None, array.astype(float)).tolist()) for label, array in found
    ]
    for recordings in ways:
        assert sequences(recordings) == expected
        assert recordings.classes == ways[0].classes


@pytest.mark.parametrize("suffix", [".ts", ".tsv", ".txt", ".arff"])
def test_a_folder_of_the_archive_is_known_by_its_files(tmp_path, suffix):
    line = {".ts": PLAIN, ".arff": ARFF}.get(suffix, "1\t0.5\t1.5\n2\t2\t3\n")
    for split in ("TRAIN", "TEST"):
        write(tmp_path / f"My_{split}{suffix}", line)
    assert source_for(str(tmp_path)) == "archive"
    assert source_for(str(tmp_path / f"My_TRAIN{suffix}")) == "archive"
    if suffix == ".ts":
        pytest.importorskip("aeon")
    given_N = read(tmp_path).given_N
    assert sorted(given_N.tolist()) == [-1] * (len(given_N) // 2) + [2] * (len(given_N) // 2)
