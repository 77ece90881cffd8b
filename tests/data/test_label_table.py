"""Recordings that lie together, with a table of their classes beside them."""

from __future__ import annotations

import pytest

from rnnclf.data.folder import Folder
from rnnclf.errors import ConfigError, DataError
from tests.data.test_folder import A, B, files, read, values

FILES = {"a_csv": A, "b_csv": B, "sub__c_csv": A}


@pytest.mark.parametrize(
    "table",
    [
        "file,label\na.csv,walk\nb.csv,run\nsub/c.csv,walk\n",
        "a,walk\nb,run\nc,walk\n",
        "label;filename\nwalk;a.csv\nrun;./b.csv\nwalk;sub\\c.csv\n",
        "id\twho\tactivity\na\tme\twalk\nb\tme\trun\nc\tyou\twalk\n",
        'name,what\n"a.csv",walk\nb,run\nsub/c,walk\n',
    ],
)
def test_a_table_says_the_class_of_each_file(tmp_path, table):
    root = files(tmp_path / "d", **FILES, labels_csv=table)
    recordings = read(root, labels=str(root / "labels.csv"))
    assert recordings.classes == ("run", "walk")
    assert recordings.labels_N.tolist() == [1, 0, 1]
    assert values(recordings)[1] == [[7, 8], [9, 10]]
    assert recordings.place(5) == "sub/c.csv, line 1"
    assert recordings.notes == ()


def test_the_table_may_be_named_as_seen_from_the_folder_or_lie_elsewhere(tmp_path):
    root = files(tmp_path / "d", **FILES, y_csv="a,walk\nb,run\nc,sit\n")
    assert read(root, labels="y.csv").classes == ("run", "sit", "walk")
    (tmp_path / "other.csv").write_text("a,x\nb,y\n")
    recordings = read(root, labels=str(tmp_path / "other.csv"))
    assert recordings.classes == ("x", "y")
    assert recordings.notes == (f"2 files in {root} are not in other.csv and were ignored (.csv 2).",)


def test_a_changed_label_is_read_anew(tmp_path):
    root = files(tmp_path / "d", **FILES, y_csv="a,walk\nb,run\nc,run\n")
    assert read(root, labels="y.csv").labels_N.tolist() == [1, 0, 0]
    files(root, y_csv="a,walk\nb,run\nc,walk\n")
    assert read(root, labels="y.csv").labels_N.tolist() == [1, 0, 1]


def test_folders_called_like_splits_are_splits_and_groups_are_found_in_paths(tmp_path):
    root = files(tmp_path / "d", train__p1__a_csv=A, train__p2__b_csv=B, test__p3__c_csv=A)
    (tmp_path / "y.csv").write_text("a,walk\nb,run\nc,walk\n")
    recordings = read(root, labels=str(tmp_path / "y.csv"), group=r"(p\d)/")
    assert recordings.given_N.tolist() == [2, 0, 0]
    assert recordings.groups_N.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a,walk\nx.csv,run\n", "y.csv, line 2: 'x.csv': no sequence file has this name"),
        ("a,walk\na,run\n", "y.csv, line 2: 'a' is also in line 1"),
        ("a,walk\na.csv,run\n", "y.csv, line 2: 'a.csv' is named a second time"),
        ("a,walk\nb\n", "y.csv, line 2 has 1 fields, line 1 has 2"),
        ("a,walk\nb,\n", "y.csv, line 2 has no label"),
        ("file,label\n", "y.csv names no files"),
        ("x,y,z\na,b,c\n", "needs a column 'file' and a column 'label'; it has x, y, z"),
        ("", "y.csv is empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path, table, words):
    root = files(tmp_path / "d", **FILES)
    (tmp_path / "y.csv").write_text(table)
    with pytest.raises(DataError) as caught:
        read(root, labels=str(tmp_path / "y.csv"))
    assert words in str(caught.value)


def test_a_name_that_two_files_have_is_refused(tmp_path):
    root = files(tmp_path / "d", one__a_csv=A, two__a_csv=A, y_csv="a,walk\n")
    with pytest.raises(DataError, match="2 files have this name"):
        read(root, labels="y.csv")


def test_without_a_table_files_that_lie_together_are_told_of_it(tmp_path):
    with pytest.raises(DataError, match=r"or dataset\.labels, a table with the class of each file"):
        read(files(tmp_path / "d", a_csv=A))
    with pytest.raises(DataError, match=r"y\.csv cannot be read"):
        read(files(tmp_path / "d", a_csv=A), labels=str(tmp_path / "y.csv"))
    with pytest.raises(ConfigError, match="do not go together"):
        Folder(path=str(tmp_path / "d"), labels="y.csv", test_path=str(tmp_path)).read()
