"""Windows of long recordings: where they begin, what they are called, and which label they have."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rnnclf.data.arrays import Arrays
from rnnclf.data.base import refuse_one_class
from rnnclf.data.doubts import giveaways, leaks
from rnnclf.data.findings import findings
from rnnclf.data.folder import Folder
from rnnclf.data.recordings import Recordings, recordings_of
from rnnclf.data.splits import SplitPlan, divide
from rnnclf.data.survey import digests, moments
from rnnclf.data.table import Table, convert
from rnnclf.data.windows import Windows
from rnnclf.errors import ConfigError, DataError
from tests.data.tables import parquet, read

PLAN = SplitPlan(validation=0.2, test=0.2, split="random", seed=0, folds=None, fold=0)


def recordings(*labels: str, **more: object) -> Recordings:
    """Recordings with a label for each step, a letter each; a dot is no label. Values count the steps."""
    lengths_N = np.array([len(text) for text in labels])
    letters = sorted({*"".join(labels)} - {"."})
    steps = np.arange(lengths_N.sum(), dtype=np.float32)
    return Recordings(
        **{
            "values_SC": steps[:, None],
            "starts_N": np.cumsum(lengths_N) - lengths_N,
            "lengths_N": lengths_N,
            "labels_N": np.zeros(len(labels), np.int64),
            "labels_S": np.array([letters.index(c) if c != "." else -1 for c in "".join(labels)], np.int32),
            "classes": tuple(letters),
            "channels": ("x",),
            **more,
        }
    )


def cut(found: Recordings, *sizes: int | str | None, label: str = "majority", **more: object) -> Recordings:
    return Windows(*sizes, label=label, **more).cut(found)


def letters(found: Recordings) -> str:
    return "".join(found.classes[k] for k in found.labels_N)


def ids(found: Recordings) -> list[object]:
    return found.ids(np.arange(len(found))).tolist()


# --- where they begin -------------------------------------------------------------------------------


def test_windows_share_the_values_and_tell_where_they_are_from():
    whole = recordings("aabbaab", "bbb", "aabb")
    found = cut(whole, 4, 2)
    assert found.starts_N.tolist() == [0, 2, 10]
    assert found.lengths_N.tolist() == [4, 4, 4]
    assert np.shares_memory(found.values_SC, whole.values_SC)
    assert ids(found) == ["0:0", "0:2", "2:0"]
    assert found.origins(np.arange(3)).tolist() == [0, 0, 2]
    assert found.groups_N.tolist() == [0, 0, 2]
    assert found.place(8) == "sequence 1, step 1 (counted from 0)"
    assert "3 windows of 4 steps, one every 2 steps, from 2 recordings." in found.notes
    assert "1 of 3 recordings has no room for a window and is left out" in " ".join(found.notes)
    assert cut(whole, 4).starts_N.tolist() == [0, 10]  # without a step, windows do not overlap


def test_a_window_that_fits_nowhere_is_refused():
    with pytest.raises(
        DataError, match=r"room for a window of 8 steps \(dataset\.window=8\): the longest has 7"
    ):
        cut(recordings("aabbaab", "bb"), 8)


def test_given_groups_and_splits_are_those_of_the_recordings():
    more = {"groups_N": np.array([5, 3, 5]), "given_N": np.array([0, 2, 1], np.int8)}
    found = cut(recordings("aabb", "aabbaa", "bbbb", **more), 2)
    assert found.groups_N.tolist() == [5, 5, 3, 3, 3, 5, 5]
    assert found.given_N.tolist() == [0, 0, 2, 2, 2, 1, 1]


def test_durations_are_steps_of_the_usual_interval():
    times_S = np.tile(np.arange(10) * 0.02, 2)
    whole = recordings("aaaaabbbbb", "bbbbbaaaaa", times_S=times_S)
    assert cut(whole, "80ms", "0.04s").starts_N.tolist() == [0, 2, 4, 6, 10, 12, 14, 16]
    with pytest.raises(
        ConfigError, match=r"dataset\.window=1ms is shorter than a step: times, read as seconds"
    ):
        cut(whole, "1ms")
    with pytest.raises(ConfigError, match=r"dataset\.step=1s is a duration, but the data have no times"):
        cut(recordings("aabb"), 2, "1s")


def test_no_window_reaches_across_a_hole_in_time():
    times_S = np.arange(100.0)
    times_S[42:] += 20
    found = cut(recordings("ab" * 50, times_S=times_S), 10)
    assert found.starts_N.tolist() == [0, 10, 20, 30, 42, 52, 62, 72, 82]
    assert "Times have a hole after sequence 0, step 41" in " ".join(found.notes)
    uneven_S = np.random.default_rng(0).exponential(size=1000).cumsum()
    assert len(cut(recordings("ab" * 500, times_S=uneven_S), 10)) == 100


def test_blocks_are_recordings_of_their_own():
    whole = recordings("ab" * 12, ids=lambda n: np.array(["day"] * len(n), object))
    found = cut(whole, 4, 2, block=10)
    assert found.origins(np.arange(len(found))).tolist() == ["day:0"] * 4 + ["day:10"] * 6
    assert ids(found)[4:6] == ["day:10", "day:12"]
    assert found.starts_N.tolist() == [0, 2, 4, 6, 10, 12, 14, 16, 18, 20]  # none across the border
    with pytest.raises(ConfigError, match=r"dataset\.block=3 is shorter than dataset\.window=4"):
        cut(whole, 4, block=3)


# --- labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "expected"), [("majority", "abbb"), ("pure", "b"), ("last", "bbba")])
def test_labels_of_steps_become_labels_of_windows(label, expected):
    assert letters(cut(recordings("aab..bbbbbba......"), 3, label=label)) == expected


def test_the_later_of_two_labels_decides_a_tie():
    assert letters(cut(recordings("abba"), 2)) == "ba"
    assert letters(cut(recordings("abab", "bbaa", "aabb"), 4)) == "bab"


def test_windows_without_a_label_are_left_out_and_counted():
    found = cut(recordings("aabb....bbaa"), 2)
    assert letters(found) == "abba"
    assert ids(found) == ["0:0", "0:2", "0:8", "0:10"]
    assert "2 of 6 windows, those without a label, are left out" in " ".join(found.notes)
    with pytest.raises(DataError, match=r"only windows with labels that change .*window_label=majority"):
        cut(recordings("abab"), 2, label="pure")


def test_a_class_that_no_window_has_is_none():
    found = cut(recordings("aaabaacc"), 4)
    assert (found.classes, letters(found)) == (("a", "c"), "ac")
    assert "No window has the label 'b'" in " ".join(found.notes)
    with pytest.raises(DataError, match="only one class, 'a'"):
        refuse_one_class(cut(recordings("aaabaaab"), 4))


def test_labels_of_recordings_are_those_of_their_windows():
    whole = recordings_of(np.zeros((3, 6, 1)), ["x", "y", "x"])
    assert letters(cut(whole, 3)) == "xxyyxx"


def test_many_windows_agree_with_counting_one_by_one():
    random = np.random.default_rng(0)
    kinds = random.choice(4, 200, p=[0.4, 0.3, 0.1, 0.2])
    text = "".join("abc."[kind] * int(random.integers(1, 9)) for kind in kinds)
    found = cut(recordings(text), 11, 3)
    for start, letter in zip(found.starts_N.tolist(), letters(found), strict=True):
        part = text[start : start + 11]
        assert letter == max("abc", key=lambda c: (part.count(c), part.rfind(c)))


# --- splits and findings ----------------------------------------------------------------------------


def noise(count: int, steps: int = 60, **more: object) -> Recordings:
    whole = recordings(*["ab" * (steps // 2)] * count, **more)
    whole.values_SC[:, 0] = np.random.default_rng(0).normal(size=count * steps)
    return whole


def test_windows_of_a_recording_stay_in_one_split():
    found = cut(noise(10), 7, 2)
    parts = divide(found, PLAN)
    homes = [{*found.origins(places).tolist()} for places in parts.values()]
    assert sum(map(len, homes)) == 10
    assert all(homes)
    assert not leaks(digests(found).digests_N, parts)


def test_overlapping_windows_are_no_copies_of_each_other():
    found = cut(noise(3), 20, 1)
    told = findings(found, moments(found), digests(found))
    assert not [finding.sentence for finding in told if "cop" in finding.sentence]


def test_a_channel_that_counts_is_seen_in_overlapping_windows():
    found = cut(recordings("a" * 300 + "b" * 300), 20, 5)
    (told,) = giveaways(found, moments(found))
    assert "only rises from one sequence to the next" in told.sentence


@pytest.mark.parametrize(("count", "told"), [(1, "3 recordings; there is 1: add"), (2, "there are 2: add")])
def test_too_few_recordings_are_refused_with_a_way_out(count, told):
    with pytest.raises(ConfigError, match=r"dataset\.block=\d+ \(steps\) to divide blocks") as caught:
        divide(cut(noise(count, 2000), 20), PLAN)
    assert told in str(caught.value)
    block = int(str(caught.value).split("dataset.block=")[1].split()[0])
    assert all(map(len, divide(cut(noise(count, 2000), 20, block=block), PLAN).values()))


def test_too_few_groups_are_refused_without_offering_blocks():
    found = cut(noise(4, groups_N=np.array([0, 0, 1, 1])), 20)
    with pytest.raises(ConfigError, match=r"splits need 3 groups; there are 2: add groups\."):
        divide(found, PLAN)


# --- readers ----------------------------------------------------------------------------------------


def activity(rows: int = 80) -> pl.DataFrame:
    """Two recordings of unequal length with a label in each row, and none in some."""
    t = np.concatenate([np.arange(rows), np.arange(rows // 2)])
    label = np.where(t // 10 % 2, "walk", "rest").astype(object)
    label[35:45] = None
    x, y = np.random.default_rng(0).normal(size=(2, len(t))).astype(np.float32)
    session = ["s0"] * rows + ["s1"] * (rows // 2)
    return pl.DataFrame({"session_id": session, "seconds": t * 0.5, "x": x, "y2": y, "label": label})


def pairs(found: Recordings) -> list[tuple[str, list[list[float]]]]:
    return [
        (found.classes[k], found.values_SC[start : start + length].tolist())
        for k, start, length in zip(found.labels_N, found.starts_N, found.lengths_N, strict=True)
    ]


def test_all_readers_cut_the_same_windows(tmp_path):
    frame = activity()
    table = Table(path=write("my.csv", frame.write_csv().encode()), id="session_id", window=8, step=4)
    found = table.sequences()
    assert ids(found)[:2] == ["s0:0", "s0:4"]
    assert found.labels_S is None
    assert found.place(2) == "my.csv, line 4"
    again = Table(
        path=write("my.parquet", parquet(frame)), id="session_id", window="4s", step="2s"
    ).sequences()
    x_NTC, y_NT = np.zeros((2, 80, 2), np.float32), np.full((2, 80), "", "U4")
    for n, part in enumerate(frame.partition_by("session_id")):
        x_NTC[n, : len(part)] = part.select("x", "y2").to_numpy()
        y_NT[n, : len(part)] = part["label"].fill_null("").to_numpy()
    np.savez("my.npz", x=x_NTC, y=y_NT, lengths=np.array([80, 40]))
    arrays = Arrays(path="my.npz", window=8, step=4).sequences()
    assert pairs(found) == pairs(again) == pairs(arrays)
    assert len(found) > 20


def write(name: str, content: bytes) -> str:
    with open(name, "wb") as file:
        file.write(content)
    return name


def test_shuffled_rows_keep_their_labels():
    frame = activity()
    found = Table(path=write("a.csv", frame.write_csv().encode()), window=8).sequences()
    mixed = frame.sample(fraction=1, shuffle=True, seed=0).write_csv().encode()
    assert pairs(Table(path=write("b.csv", mixed), id="session_id", window=8).sequences()) == pairs(found)


def test_a_long_recording_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(convert, "ROWS", 7)
    frame = activity().filter(pl.col("session_id") == "s0").drop("session_id")
    day = [f"2024-03-31T12:00:{second:04.1f}" for second in frame["seconds"]]
    dated = frame.with_columns(seconds=pl.Series(day))
    found = Table(path=write("day.csv", dated.write_csv().encode()), window="4s").sequences()
    expected = Table(path=write("plain.csv", frame.write_csv().encode()), window=8).sequences()
    assert pairs(found) == pairs(expected)
    assert found.times_S.tolist() == expected.times_S.tolist()


def test_without_an_id_a_file_is_one_recording():
    frame = activity().filter(pl.col("session_id") == "s0").drop("session_id")
    found = Table(path=write("day.csv", frame.write_csv().encode()), window=8).sequences()
    assert ids(found)[0] == "day:0"
    assert "day.csv is read as one recording: if it holds several, set dataset.id." in found.notes
    twice = pl.concat([frame, frame]).write_csv().encode()
    with pytest.raises(DataError, match=r"twice\.csv, line 82: time goes back\. If another recording"):
        Table(path=write("twice.csv", twice), window=8).sequences()


@pytest.mark.parametrize("name", ["subject", "wearer"])
def test_the_rows_of_a_person_are_a_recording(name):
    frame = activity().rename({"session_id": name}).with_columns(code=pl.col("label").eq("walk").cast(int))
    found = Table(path=write("my.csv", frame.drop("seconds").write_csv().encode()), window=8).sequences()
    assert {*found.origins(np.arange(len(found))).tolist()} == {"s0", "s1"}
    assert f"'{name}' as the id" in " ".join(found.notes)


def test_sessions_of_a_person_are_recordings_of_a_group():
    n, t = np.repeat(np.arange(6), 50), np.tile(np.arange(50), 6)
    label = np.where(np.arange(300) // 25 % 2, "walk", "rest")
    frame = pl.DataFrame({"subject": n // 2, "session": n % 2, "time": t, "x": t * 0.1 % 1, "label": label})
    found = Table(path=write("my.csv", frame.write_csv().encode()), window=10).sequences()
    assert {*found.origins(np.arange(30)).tolist()} == {
        f"{session}/{who}" for session in "01" for who in "012"
    }
    assert len({*found.groups_N.tolist()}) == 3


def test_columns_numbered_like_steps_may_be_channels():
    frame = activity().filter(pl.col("session_id") == "s0").drop("session_id", "seconds")
    emg = frame.select(pl.col("x").alias("emg1"), pl.col("y2").alias("emg2"), "label")
    emg = emg.with_columns(emg3=pl.col("emg1") * 2)
    found = Table(path=write("day.csv", emg.write_csv().encode()), window=8).sequences()
    assert (found.channels, ids(found)[1]) == (("emg1", "emg2", "emg3"), "day:8")


def test_a_row_for_each_recording_is_cut():
    random = np.random.default_rng(0)
    label = random.permutation(np.repeat(["a", "b"], 12))
    steps = {f"t{t}": random.normal(size=24) for t in range(30)}
    frame = pl.DataFrame({"subject": np.arange(24) // 4, "label": label, **steps})
    found = Table(path=write("wide.csv", frame.write_csv().encode()), window=10).sequences()
    assert letters(found) == "".join(name * 3 for name in label)
    assert len({*found.groups_N.tolist()}) == 6


def test_a_label_that_changes_asks_for_windows():
    with pytest.raises(
        DataError, match=r"have only one label\. Set dataset\.window=128 to cut it into windows"
    ):
        read(activity().drop_nulls().write_csv(), id="session_id")
    np.savez("my.npz", x=np.zeros((3, 50)), y=np.zeros((3, 50)))
    with pytest.raises(DataError, match=r"y has a label for each step of .*: set dataset\.window=128"):
        Arrays(path="my.npz").read()


@pytest.mark.parametrize(("shape", "channels"), [((60,), 1), ((60, 3), 3), ((1, 60, 3), 3)])
def test_arrays_of_one_recording_are_read(shape, channels):
    np.savez("my.npz", x=np.zeros(shape), y=np.repeat([0, 1], 30))
    found = Arrays(path="my.npz", window=10).sequences()
    assert letters(found) == "000111"
    assert len(found.channels) == channels


def test_recordings_of_files_in_folders_are_cut(tmp_path):
    for n, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        np.save(tmp_path / "data" / name / f"{n}.npy", np.random.default_rng(n).normal(size=(25, 2)))
    found = Folder(path=str(tmp_path / "data"), window=10).sequences()
    assert letters(found) == "aabb"
    assert ids(found) == ["a/0.npy:0", "a/0.npy:10", "b/1.npy:0", "b/1.npy:10"]


def test_statistics_in_the_cache_are_those_of_the_windows():
    path = write("my.csv", activity().write_csv().encode())
    whole = Table(path=path, window=40).sequences()
    few = Table(path=path, window=40, step=30).sequences()
    assert len(moments(whole).count_NC) == len(whole)
    assert len(moments(few).count_NC) == len(few)
    assert whole.cache != few.cache


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "2.5"}, r"dataset\.window must be a whole number of at least 1 or a duration"),
        ({"window": "0s"}, r"dataset\.window must be"),
        ({"window": 0}, r"window must be at least 1"),
        ({"step": 4}, r"dataset\.step has no effect without dataset\.window"),
        ({"block": "10min"}, r"dataset\.block has no effect without dataset\.window"),
        ({"window": 4, "window_label": "most"}, r"window_label must be majority, pure or last"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Table(path="my.csv", **options)
