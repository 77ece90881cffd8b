"""What the tests of arrays share: small arrays, and the files that hold them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from rnnclf.data.arrays import Arrays
from rnnclf.data.recordings import Recordings

N, T, C = 6, 5, 2
X = np.arange(N * T * C, dtype=np.float32).reshape(N, T, C)
Y = np.array([0, 1, 2, 0, 1, 2])
NAMES = np.array(["walk", "run", "sit"] * 2)


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def folder(path: Path, **arrays: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def read(path: Path, **options: object) -> Recordings:
    return Arrays(path=str(path), **options).read()


def npy_bytes(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that need a newer NumPy
        np.lib.format.write_array(file, array, version)
    return file.getvalue()
