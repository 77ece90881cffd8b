"""Whatever fails while a checkpoint is saved, one that is whole is there afterwards."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rnnclf import checkpoint, files
from rnnclf.errors import CheckpointError, OutputError
from tests.containers import HEADER
from tests.faults import FAULTS, SHORT, faulty

OLDER, OLD, NEW = 1, 2, 3  # epochs


def save(path: Path, epoch: int, keep: Path | None) -> None:
    checkpoint.save(path, {**HEADER, "epoch": epoch}, {"it": torch.full((500,), float(epoch))}, keep)


def loaded(path: Path) -> int:
    """The epoch of a checkpoint that is whole and holds what was saved."""
    saved = checkpoint.load(path)
    epoch = saved.header["epoch"]
    assert torch.equal(saved.tensors["it"], torch.full((500,), float(epoch)))
    return int(epoch)


@pytest.fixture(params=["replaced", "kept"])
def places(request, tmp_path) -> tuple[Path, Path | None]:
    """Where checkpoints are saved and the one before is kept, or None; some were saved there before."""
    path = tmp_path / "run" / "last.safetensors"
    path.parent.mkdir()
    keep = path.with_name("previous.safetensors") if request.param == "kept" else None
    save(path, OLDER, keep)
    save(path, OLD, keep)
    return path, keep


def calls_of_a_saving(places: tuple[Path, Path | None], tmp_path: Path) -> list[str]:
    path, keep = places
    shutil.copytree(path.parent, tmp_path / "counted")
    with faulty() as system:
        save(tmp_path / "counted" / path.name, NEW, tmp_path / "counted" / keep.name if keep else None)
    return system.made


def each_fault(places: tuple[Path, Path | None], tmp_path: Path, lasting: bool):
    """Saves once with each fault at each call; yields after each saving, then takes it back."""
    path, keep = places
    made = calls_of_a_saving(places, tmp_path)
    assert made[:4] == ["open", "write", "fsync", "close"]
    assert made.count("replace") == (1 if keep is None else 2)
    assert made[-3:] == ["open", "fsync", "close"]  # the folder
    good = tmp_path / "good"
    shutil.copytree(path.parent, good)
    for fault in FAULTS:
        for at, name in enumerate(made):
            error = None
            with faulty(at, fault, lasting):
                try:
                    save(path, NEW, keep)
                except (OutputError, KeyboardInterrupt) as caught:
                    error = caught
            yield f"{fault} at call {at}, {name}", fault, error
            shutil.rmtree(path.parent)
            shutil.copytree(good, path.parent)


# a process that is killed is one whose calls fail from then on, the removal of what it left included
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_after_any_fault_a_whole_checkpoint_is_there(places, tmp_path, lasting):
    path, keep = places
    for what, fault, error in each_fault(places, tmp_path, lasting):
        found = loaded(path) if path.exists() or keep is None else loaded(keep)
        assert found in (OLD, NEW), what
        if fault == SHORT:
            assert (found, error) == (NEW, None), what
        elif fault == "Ctrl-C":
            assert isinstance(error, KeyboardInterrupt), what
        else:
            assert isinstance(error, OutputError), what
            assert str(error) == f"Cannot write {path}: {FAULTS[fault].strerror}."


def test_after_a_fault_nothing_is_left_lying(places, tmp_path):
    path, keep = places
    for what, _, _ in each_fault(places, tmp_path, lasting=False):
        assert {file.name for file in path.parent.iterdir()} <= {path.name, keep.name if keep else ""}, what


def test_what_even_the_removal_left_is_cleared_by_the_next_process(places, tmp_path):
    path, _ = places
    left = 0
    for _ in each_fault(places, tmp_path, lasting=True):
        left += len(list(path.parent.glob(".*.tmp")))
        files.clear_leftovers(path)
        assert not list(path.parent.glob(".*"))
    assert left > 0


def test_after_a_fault_the_next_saving_works(places, tmp_path):
    path, keep = places
    for what, _, _ in each_fault(places, tmp_path, lasting=False):
        save(path, NEW + 1, keep)
        assert loaded(path) == NEW + 1, what
        if keep is not None:
            assert loaded(keep) in (OLD, NEW), what


def test_the_one_before_is_kept_until_the_new_one_is_whole(places):
    path, keep = places
    save(path, NEW, keep)
    assert loaded(path) == NEW
    if keep is not None:
        assert loaded(keep) == OLD


def test_nothing_to_keep_is_no_fault(tmp_path):
    save(tmp_path / "last", NEW, tmp_path / "previous")
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_a_folder_that_was_removed_is_an_output_error(places):
    path, keep = places
    shutil.rmtree(path.parent)
    with pytest.raises(OutputError, match="No such file or directory"):
        save(path, NEW, keep)


def test_a_folder_that_cannot_be_flushed_is_none(places, monkeypatch):
    """Some network file systems answer EINVAL to the flushing of a folder."""
    path, keep = places
    really = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        really(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    save(path, NEW, keep)
    assert loaded(path) == NEW


# Damage that comes later


def test_every_changed_byte_is_noticed(places):
    path, _ = places
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(path)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    assert loaded(path) == OLD


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(places):
    import hashlib

    path, _ = places
    content = path.read_bytes()
    described = checkpoint.describe(path)
    assert described.intact
    blank = content.replace(described.sha256.encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == described.sha256


def test_checkpoints_are_ordinary_safetensors_files(places):
    import safetensors.torch

    path, _ = places
    assert torch.equal(safetensors.torch.load_file(path)["it"], torch.full((500,), float(OLD)))


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save(tmp_path / name, NEW, None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_records_are_replaced_as_safely(tmp_path):
    path = tmp_path / "status.json"
    files.write_json(path, {"state": "running"})
    with faulty() as system:
        files.write_json(path, {"state": "running"})
    for at in range(len(system.made)):
        with faulty(at, "ENOSPC"), suppress(OutputError):
            files.write_json(path, {"state": "done"})
        assert json.loads(path.read_text())["state"] in ("running", "done")
        files.write_json(path, {"state": "running"})
