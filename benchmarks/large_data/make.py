"""Makes a set of sequences of any size, as the folder of .npy files that `rnnclf` maps into memory.

    python benchmarks/large_data/make.py FOLDER [--gb 30] [--steps 256] [--channels 64] [--classes 8]

Each class has a frequency, at which one channel swings in noise. All noise is cut from one long
stretch of it, at random places: drawing new noise would take far longer than writing it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

NOISE = 2**22  # steps of noise to cut from
BLOCK = 256  # sequences to write at a time
AMPLITUDE = 0.5  # in standard deviations of the noise


def make(folder: Path, sequences: int, steps: int, channels: int, classes: int, seed: int = 0) -> None:
    """Writes x.npy (N, T, C) float32 and y.npy (N,) int64 into a new folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    noise = random.standard_normal(NOISE, np.float32)
    y_N = random.integers(classes, size=sequences)
    np.save(folder / "y.npy", y_N)
    cycles_K = 1 + np.arange(classes)[:, None]
    swing_KT = AMPLITUDE * np.sin(2 * np.pi * cycles_K * np.arange(steps) / steps).astype(np.float32)
    with open(folder / "x.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (sequences, steps, channels)}
        np.lib.format.write_array_header_1_0(file, header)
        for y_B in np.split(y_N, range(BLOCK, sequences, BLOCK)):
            starts_B = random.integers(NOISE - steps * channels, size=len(y_B))
            x_BTC = np.stack([noise[start : start + steps * channels] for start in starts_B])
            x_BTC = x_BTC.reshape(-1, steps, channels)
            x_BTC[:, :, 0] += swing_KT[y_B]
            file.write(x_BTC.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=30)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--classes", type=int, default=8)
    words = parser.parse_args()
    sequences = int(words.gb * 1e9 / (words.steps * words.channels * 4))
    make(words.folder, sequences, words.steps, words.channels, words.classes)
    print(f"{words.folder}: {sequences:,} sequences of {words.steps} steps of {words.channels} channels")


if __name__ == "__main__":
    main()
