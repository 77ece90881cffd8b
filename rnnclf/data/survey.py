"""Statistics from one pass over all values: hashes of sequences, missing values, means and ranges.

Shapes: N sequences, S steps, C channels. Torch-free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from rnnclf.data.cache import remember
from rnnclf.data.recordings import Array, Progress, Recordings, silent
from rnnclf.errors import DataError

CHUNK = 2**18  # values at a time; they fit into the CPU caches
EXTREME = 400  # power of 2; float64 goes up to 1024, and sums of many squares must fit
DIGEST = 16  # bytes; two different sequences collide with probability 2⁻¹²⁸

T = TypeVar("T", "Digests", "Moments")


@dataclass(frozen=True, eq=False)
class Digests:
    """A hash of the values of each sequence: (N,), DIGEST bytes each."""

    digests_N: Array

    def fingerprint(self, recordings: Recordings) -> str:
        """The SHA-256 of everything read: values, times, labels, groups, assigned splits, names."""
        digest = hashlib.sha256(self.digests_N.tobytes())
        for part in ("lengths_N", "labels_N", "times_S", "groups_N", "given_N"):
            array = getattr(recordings, part)
            digest.update(f"{part}{None if array is None else array.dtype.str}".encode())
            digest.update(b"" if array is None else array.tobytes())
        names = (recordings.values_SC.dtype.str, recordings.unit, recordings.classes, recordings.channels)
        digest.update(repr(names).encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of each channel of each sequence (N, C), over the values that are not missing.

    Count, mean, sum of squared deviations from the mean, minimum and maximum. A channel without values has
    mean 0, minimum ∞ and maximum -∞. The squares are in units of 4 ** power: the power is 0 unless the values
    are so large or small that their squares would exceed the range of float64.
    """

    count_NC: Array
    mean_NC: Array
    squares_NC: Array
    low_NC: Array
    high_NC: Array
    power_NC: Array

    def peak_C(self, which: Array) -> Array:
        """The largest absolute value of each channel in the sequences `which`; ∞ if it has none."""
        import numpy as np

        peak_C: Array = np.maximum(*map(np.abs, self.range_C(which)))
        return peak_C

    def range_C(self, which: Array) -> tuple[Array, Array]:
        """The minimum and the maximum of each channel in the sequences `which`; ∞ and -∞ if it has none."""
        return self.low_NC[which].min(axis=0), self.high_NC[which].max(axis=0)

    def missing_C(self, lengths_N: Array) -> Array:
        """The number of missing values of each channel."""
        missing: Array = lengths_N.sum() - self.count_NC.sum(axis=0)
        return missing


def digests(recordings: Recordings, progress: Progress = silent) -> Digests:
    """The digests of all sequences; cached if the recordings have a cache folder."""
    return _cached(recordings, Digests, lambda: _digests(recordings, progress))


def moments(recordings: Recordings, progress: Progress = silent) -> Moments:
    """The moments of all sequences; cached if the recordings have a cache folder.

    Raises DataError, which names the position, for an infinite value.
    """
    return _cached(recordings, Moments, lambda: _moments(recordings, progress))


def _cached(recordings: Recordings, kind: type[T], compute: object) -> T:
    names = [part.name for part in fields(kind)]
    path = recordings.cache / f"{kind.__name__.lower()}.npz" if recordings.cache else None
    if path is not None and (found := _load(path, names, len(recordings))):
        return kind(**found)
    assert callable(compute)
    result: T = compute()
    if path is not None:
        recordings.refuse_changed()  # else wrong statistics would be believed from now on
        remember(path, {name: getattr(result, name) for name in names})
    return result


def _load(path: Path, names: list[str], n: int) -> dict[str, Array] | None:
    """The arrays in a cache file; None if it is missing or damaged."""
    import zipfile

    import numpy as np

    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            found = {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if all(len(array) == n for array in found.values()) else None


def _digests(recordings: Recordings, progress: Progress) -> Digests:
    import numpy as np

    values_SC = recordings.values_SC
    found = []
    bounds = zip(recordings.starts_N.tolist(), recordings.lengths_N.tolist(), strict=True)
    hashed = _hashed_names(recordings)
    for n, (start, length) in enumerate(bounds):
        steps = np.ascontiguousarray(values_SC[start : start + length])
        if hashed:
            steps = _with_hashes(steps, hashed)
        found.append(hashlib.blake2b(steps.data, digest_size=DIGEST).digest())
        if n % 4096 == 0:
            recordings.refuse_changed()
            progress("comparing sequences", n / len(recordings))
    return Digests(np.frombuffer(b"".join(found), dtype=f"V{DIGEST}"))


def _hashed_names(recordings: Recordings) -> dict[int, Array]:
    """For each channel of names, a number that stands for each of them in all files, then one for missing.

    Codes would not do: they depend on what else is in a file.
    """
    import numpy as np

    found = {}
    for channel, names in recordings.categories.items():
        hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
        found[recordings.channels.index(channel)] = np.frombuffer(b"".join([*hashes, bytes(8)]), np.uint64)
    return found


def _with_hashes(values_TC: Array, hashed: dict[int, Array]) -> Array:
    """The bytes of the steps, with hashes of names in place of codes."""
    import numpy as np

    numbers_TC = np.delete(values_TC, list(hashed), axis=1)
    parts = [numbers_TC.tobytes()]
    for column, hash_K in hashed.items():
        codes_T = np.nan_to_num(values_TC[:, column], nan=len(hash_K) - 1).astype(np.int64)
        parts.append(hash_K[codes_T].tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def _moments(recordings: Recordings, progress: Progress) -> Moments:
    import numpy as np

    parts: list[tuple[Array, ...]] = []
    for first, last in chunks(recordings.lengths_N * len(recordings.channels)):
        recordings.refuse_changed()
        parts.append(_moments_of(recordings, np.arange(first, last)))
        progress("measuring channels", last / len(recordings))
    result = Moments(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    if (
        np.isinf(result.low_NC[result.count_NC > 0]).any()
        or np.isinf(result.high_NC[result.count_NC > 0]).any()
    ):
        raise DataError(_infinite(recordings, result))
    return result


def chunks(sizes_N: Array, most: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of sequences, each of at most `most` values in total or a single sequence."""
    import numpy as np

    ends_N = np.cumsum(sizes_N)
    first, done = 0, 0
    while first < len(sizes_N):
        last = max(int(np.searchsorted(ends_N, done + most, side="right")), first + 1)
        yield first, last
        first, done = last, int(ends_N[last - 1])


def steps_of(starts_n: Array, lengths_n: Array) -> slice | Array:
    """The indices of the steps of some sequences: a slice if they are stored back to back."""
    import numpy as np

    if (starts_n[1:] == starts_n[:-1] + lengths_n[:-1]).all():
        return slice(int(starts_n[0]), int(starts_n[-1] + lengths_n[-1]))
    offsets = np.cumsum(lengths_n) - lengths_n
    within: Array = np.arange(lengths_n.sum()) + np.repeat(starts_n - offsets, lengths_n)
    return within


def _moments_of(recordings: Recordings, which_n: Array) -> tuple[Array, ...]:
    import numpy as np

    lengths_n = recordings.lengths_N[which_n]
    values = recordings.values_SC[steps_of(recordings.starts_N[which_n], lengths_n)].astype(np.float64)
    begins_n = np.cumsum(lengths_n) - lengths_n
    present = ~np.isnan(values)
    low = np.minimum.reduceat(np.where(present, values, np.inf), begins_n, axis=0)
    high = np.maximum.reduceat(np.where(present, values, -np.inf), begins_n, axis=0)
    power = powers_of(np.maximum(np.abs(low), np.abs(high)))
    if power.any():
        values = np.ldexp(values, -np.repeat(power, lengths_n, axis=0))
    with np.errstate(invalid="ignore"):  # infinite values are reported afterwards
        count = np.add.reduceat(present, begins_n, axis=0, dtype=np.int64)
        mean = np.add.reduceat(np.where(present, values, 0.0), begins_n, axis=0) / np.maximum(count, 1)
        off = np.where(present, values - np.repeat(mean, lengths_n, axis=0), 0.0)
        squares = np.add.reduceat(off * off, begins_n, axis=0)
    return count, np.ldexp(mean, power), squares, low, high, power


def powers_of(peaks: Array) -> Array:
    """The power of 2 to divide values by, int32, if the square of the largest would leave float64; else 0."""
    import numpy as np

    power = np.frexp(peaks)[1]
    found: Array = np.where((peaks > 0) & np.isfinite(peaks) & (np.abs(power) > EXTREME), power, 0)
    return found


def _infinite(recordings: Recordings, found: Moments) -> str:
    import numpy as np

    bad_NC = (found.count_NC > 0) & (np.isinf(found.low_NC) | np.isinf(found.high_NC))
    n = int(bad_NC.any(axis=1).argmax())
    start, length = int(recordings.starts_N[n]), int(recordings.lengths_N[n])
    infinite_TC = np.isinf(recordings.values_SC[start : start + length].astype(np.float64))
    step = int(infinite_TC.any(axis=1).argmax())
    channel = recordings.channels[int(infinite_TC[step].argmax())]
    return (
        f"{recordings.place(start + step)}: channel '{channel}' is infinite."
        " Write a number, or mark it as missing and set dataset.missing."
    )
