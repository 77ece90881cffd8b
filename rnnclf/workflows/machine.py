"""The machine of a run: device, threads, precision, memory, and its description for the records."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rnnclf
from rnnclf.config import Config
from rnnclf.errors import ConfigError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of malloc.h

one_at_a_time = threading.RLock()
"""Held while a model is trained or evaluated: torch has one random generator and one number of threads per
process, so two trainings in two threads would change each other's results."""
AUTO_THREADS = torch.get_num_threads()  # before any run of this process changes it


def devices() -> list[str]:
    """The available devices, the fastest first."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name, available in there.items() if available]


def prepare(config: Config) -> torch.device:
    """Sets the number of threads and the precision, and returns the device. Raises ConfigError if one of
    them is not available."""
    threads = AUTO_THREADS if config.threads == "auto" else int(config.threads)
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # computed once and cached; with denormals flushed it would warn
    # Numbers too small for the normal format are set to zero: computing with them is up to 100 times slower.
    torch.set_flush_denormal(True)
    present = devices()
    name = present[0] if config.device == "auto" else config.device
    if name not in present:
        raise ConfigError(f"device={name} is not available here; available: {', '.join(present)}.")
    if config.precision == "tf32" and not supports_tf32(name):
        raise ConfigError(
            "precision=tf32 needs an NVIDIA GPU of the Ampere generation or newer, and"
            f" device={name} does not support it: use precision=float32."
        )
    _set_precision("tf32" if config.precision == "tf32" else "ieee")
    return torch.device(name)


@contextmanager
def borrowed(config: Config) -> Iterator[torch.device]:
    """Like `prepare`, but restores all settings on exit: for use inside another program.

    With threads=auto, the number of threads that torch has now is kept.
    """
    threads, flushes, precision = torch.get_num_threads(), _flushes_denormal(), _get_precision()
    try:
        yield prepare(replace(config, threads=threads) if config.threads == "auto" else config)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
        _restore_precision(precision)


def _flushes_denormal() -> bool:
    """Whether this thread rounds denormal numbers to zero."""
    tiny = torch.tensor(2.0**-1070, dtype=torch.float64)
    return bool(tiny * 1 == 0)


def supports_tf32(device: str) -> bool:
    return device == "cuda" and torch.cuda.is_tf32_supported()


def _precision_settings() -> list[tuple[Any, str]]:
    """The attributes of torch that set how a GPU multiplies float32."""
    backends: Any = torch.backends
    if hasattr(backends, "fp32_precision"):
        operations = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        return [(operation, "fp32_precision") for operation in operations]
    return [(backends.cuda.matmul, "allow_tf32"), (backends.cudnn, "allow_tf32")]  # before torch 2.9


def _set_precision(name: str) -> None:
    """Sets how a GPU multiplies float32: ieee, or tf32, which cuDNN's recurrent layers use by default."""
    for owner, attribute in _precision_settings():
        setattr(owner, attribute, name if attribute == "fp32_precision" else name == "tf32")


def _get_precision() -> list[Any]:
    return [getattr(owner, attribute) for owner, attribute in _precision_settings()]


def _restore_precision(values: list[Any]) -> None:
    for (owner, attribute), value in zip(_precision_settings(), values, strict=True):
        setattr(owner, attribute, value)


def keep_freed_memory() -> None:
    """Makes glibc keep large freed blocks for the next training step, which needs blocks of the same sizes.

    By default, glibc returns each large block to the system at once, and the system clears it page by page
    when it is allocated again. This takes most of the time of a step whose tensors exceed the caches
    (docs/decisions/0005-memory.md). Call this after the data are read: it first returns the memory of
    temporary copies, which would otherwise be kept, too. Without glibc, it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap like all others
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # which does not shrink
    libc.mallopt(_M_TOP_PAD, 64 * 2**20)  # and grows by this many bytes at once


def device_in_words(device: torch.device) -> str:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def provenance(device: torch.device, engine: str, fingerprint: str) -> dict[str, Any]:
    """All that is needed to reproduce a run, besides its configuration: the device, the engine that trains
    there, the fingerprint of the data, and the versions of software and hardware."""
    packages = ("torch", "hydra-core", "omegaconf", "safetensors", "scikit-learn", "torchvision")
    return {
        "command": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}",
        "versions": {
            "rnnclf": rnnclf.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "git_revision": _git_revision(),
        "hardware": hardware(device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "engine": engine,
        "data_fingerprint": fingerprint,
    }


def hardware(device: torch.device) -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _git_revision() -> str | None:
    """The git revision of the checkout that rnnclf runs from, with '+' appended if files are changed; None
    outside a checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
