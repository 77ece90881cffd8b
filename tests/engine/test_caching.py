"""A cache of machine code that is missing, damaged or full costs the time to compile, and nothing else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

pytest.importorskip("numba")

from rnnclf.engine.compiled.caching import has_cache_folder, tolerate_faults


def test_without_a_home_folder_none_is_made(monkeypatch):
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without a name
    assert not has_cache_folder.__wrapped__()
    assert list(Path.cwd().iterdir()) == []


class Store:
    """Numba's cache with damaged files on a full disk."""

    cleared = False

    def load_overload(self, *arguments: object) -> object:
        return pickle.loads(b"")

    def save_overload(self, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.cleared = True


def test_damaged_files_are_cleared_and_a_full_disk_is_no_error():
    store = Store()
    tolerate_faults(store)
    assert store.load_overload("signature", None) is None
    assert store.cleared
    store.save_overload("signature", None)
