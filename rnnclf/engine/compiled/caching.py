"""Numba's cache of machine code on disk, made safe to be missing, damaged or on a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any

import numba


@cache
def has_cache_folder() -> bool:
    """Whether Numba finds a writable folder for machine code. Without a home folder, it would make one that
    is called "~" in the current folder."""
    named = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if not named and not os.path.isabs(os.path.expanduser("~")):
        return False
    try:
        numba.njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


def tolerate_faults(store: Any) -> None:
    """Makes damaged cache files and a full disk cost the time to compile, and nothing else."""
    load, save = store.load_overload, store.save_overload

    def load_or_clear(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception:  # unpickling raises nearly anything
            with suppress(Exception):
                store.flush()
            return None

    def save_if_possible(*arguments: Any) -> None:
        with suppress(Exception):
            save(*arguments)

    store.load_overload, store.save_overload = load_or_clear, save_if_possible
