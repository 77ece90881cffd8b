"""Files of kinds that are not read: a sentence, and what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from rnnclf.data import DATASETS
from rnnclf.data.own import OwnData
from rnnclf.data.recognition import source_for
from rnnclf.errors import DataError

ADVICE = {
    **dict.fromkeys((".xls", ".ods"), "Save it as .xlsx or .csv."),
    ".json": "Save it as JSON lines, in pandas with to_json('new.jsonl', orient='records', lines=True).",
    **dict.fromkeys(
        (".pkl", ".PT"), "It could run code, so save its arrays with np.savez('new.npz', x=x, y=y)."
    ),
    **dict.fromkeys((".tfrecord", ".edf", ".png"), "Save its arrays with np.savez('new.npz', x=x, y=y)."),
    ".sqlite": "Export its table as .csv.",
    **dict.fromkeys((".sas7bdat", ".xml"), "Read it with pandas and save it with to_parquet('new.parquet')."),
    ".rds": "Save it in R with write.csv(x, 'new.csv', row.names=FALSE).",
    ".mp3": "Convert it to .wav.",
    **dict.fromkeys((".7z", ".tar.gz", ".csv.bz2"), "Unpack it."),
    **dict.fromkeys((".log", ""), "If it is delimited text, rename it to .csv."),
}


@pytest.mark.parametrize("suffix", ADVICE)
def test_a_kind_of_file_that_is_not_read_is_told_what_to_do(suffix):
    path = Path(f"my{suffix}")
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        source_for(str(path))
    assert str(caught.value) == f"my{suffix} is of no kind that rnnclf reads. {ADVICE[suffix]}"
    for name in ("table", "arrays", "archive"):
        with pytest.raises(DataError) as caught:
            DATASETS[name](path=str(path)).read()
        assert str(caught.value).endswith(ADVICE[suffix])


def test_an_unknown_kind_is_told_all_kinds_that_are_read():
    Path("my.zzz").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        source_for("my.zzz")
    kinds = [kind for _, kind in DATASETS.items() if issubclass(kind, OwnData)]
    assert all(kind.READS in str(caught.value) for kind in kinds)
    assert "dataset=" not in str(caught.value)


def test_a_zip_file_of_other_data_is_to_be_unpacked():
    with zipfile.ZipFile("my.zip", "w") as archive:
        archive.writestr("my.csv", "id,x\n")
    with pytest.raises(
        DataError, match=r"has no file that ends in _TRAIN\.ts, .*: if it holds other data, unpack"
    ):
        DATASETS[source_for("my.zip")](path="my.zip").read()
