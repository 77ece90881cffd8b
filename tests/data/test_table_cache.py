"""A table is converted once, in blocks, and read from the cache from then on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rnnclf.data.table import Table, store, text
from rnnclf.errors import DataError, OutputError
from rnnclf.system.user_cache import cache_root
from tests.data.tables import LONG, WIDE, entries, parquet, read, rows_of, sequences_of


@pytest.mark.long
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
    monkeypatch.setattr("rnnclf.data.table.columnar.BLOCK", 80)
    assert sequences_of(read(content, "other.parquet", form="long")) == whole


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


def zeros(folder: Path) -> None:
    """What a power cut leaves of files that were never flushed: the right size, nothing in them."""
    path = folder / "values_SC.npy"
    path.write_bytes(path.read_bytes()[:128] + bytes(path.stat().st_size - 128))


def nested(folder: Path) -> None:
    (folder / "meta.json").write_text("[" * 100_000)


def cut(folder: Path) -> None:
    path = folder / "meta.json"
    path.write_bytes(path.read_bytes()[:-20])


def other_classes(folder: Path) -> None:
    path = folder / "meta.json"
    path.write_text(path.read_text().replace("walk", "wolk"))


def no_object(folder: Path) -> None:
    (folder / "meta.json").write_text('{"facts": [1], "checksum": null}')


@pytest.mark.parametrize(
    "damage",
    [
        *(damaged_sizes, lost, another_format, no_json, foreign_labels, other_header),
        *(zeros, nested, cut, other_classes, no_object),
    ],
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


def test_a_full_cache_disk_costs_time_only(monkeypatch):
    whole = sequences_of(read(LONG))
    seal = store.seal

    def full(folder: Path, *rest: object) -> None:
        if cache_root() in folder.parents:
            raise OSError(28, "No space left on device")
        seal(folder, *rest)

    monkeypatch.setattr(store, "seal", full)
    again = read(LONG + "\n")
    assert (sequences_of(again), again.cache) == (whole, None)
    assert [path.name for path in entries() if path.suffix == ".part"] == []


def test_a_disk_that_is_full_everywhere_is_told(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rnnclf.data.table.store.GrowingArray.append", full)
    with pytest.raises(OutputError, match=r"No space left on device\. Set XDG_CACHE_HOME=DIR"):
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
    [
        "convert._sort_by_time = kill",
        "convert.write_metadata = kill",
        "import pathlib; pathlib.Path.rename = kill",
    ],
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
    rows = "".join(f"{n // 50},{n % 50},{n * n % 97},{'ab'[n // 50 % 2]}\n" for n in range(20_000))
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
    with pytest.raises(DataError, match=r"my\.csv changed while it was being read"):
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
