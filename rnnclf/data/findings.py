"""Problems worth knowing about before training, found by `rnnclf data check`. Torch-free.

Shapes: N sequences, S steps in total, C channels, K classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from rnnclf.data.doubts import MOST, Finding
from rnnclf.data.outliers import outlying
from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.scaling import spread
from rnnclf.data.survey import Digests, Moments, steps_of

RARE = 10  # a class is rare if the most frequent one has this many times its sequences
FAR = 20  # sequences are far longer than the next shorter one from this ratio on
LEVELS = 100  # a channel needs room for this many different values
EXACT = 2.0**24  # float32 holds whole numbers exactly up to this
SAMPLE = 2**20  # steps to compare with each other
BLOCK = 5  # so many steps in a row are not repeated by chance
NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,15})?")
UNEVEN = 1.5  # ratio of the 95th to the 5th percentile of the intervals between steps


@dataclass(frozen=True)
class ChannelFacts:
    """Statistics of one channel over all sequences, in the unit as read; NaN for a channel of names."""

    name: str
    missing: int
    low: float
    mean: float
    deviation: float
    high: float
    names: tuple[str, ...] = ()
    """The different names in a channel of names."""


def channel_facts(recordings: Recordings, found: Moments) -> tuple[ChannelFacts, ...]:
    """The statistics of each channel; NaN for a channel without any number."""
    import numpy as np

    everything = np.arange(len(recordings))
    mean_C, deviation_C = spread(found, everything)
    low_C, high_C = found.low_NC.min(axis=0), found.high_NC.max(axis=0)
    missing_C = found.missing_C(recordings.lengths_N)
    empty_C = found.count_NC.sum(axis=0) == 0
    empty_C |= np.array([name in recordings.categories for name in recordings.channels])
    numbers_CF = np.where(empty_C[:, None], np.nan, np.stack((low_C, mean_C, deviation_C, high_C), axis=1))
    return tuple(
        ChannelFacts(name, int(missing), low, mean, deviation, high, recordings.categories.get(name, ()))
        for name, missing, (low, mean, deviation, high) in zip(
            recordings.channels, missing_C, numbers_CF.tolist(), strict=True
        )
    )


def findings(
    recordings: Recordings,
    found: Moments,
    hashes: Digests,
    options: Container[str] = (),
    pictures: bool = False,
    normalised: bool = False,
) -> list[Finding]:
    """Everything found, most serious first, but for reasons to doubt the scores (see `doubts`).

    options: those of the source, of which the advice may name any. pictures: whether channels are pixels.
    normalised: whether the values will be normalised before they are rounded to 32 bits.
    """
    return [
        *_gaps(recordings, found),
        *_suspicious(recordings, found, "missing_values" in options),
        *_repeated(recordings, hashes),
        *([] if pictures else _repeated_steps(recordings)),
        *_alike(recordings),
        *_constant(recordings, found),
        *([] if normalised and recordings.values_SC.dtype != "float32" else _narrow(recordings, found)),
        *_imbalance(recordings),
        *_lengths(recordings),
        *_intervals(recordings),
    ]


def _gaps(recordings: Recordings, found: Moments) -> Iterator[Finding]:
    missing = int(found.missing_C(recordings.lengths_N).sum())
    if missing:
        of = int(recordings.lengths_N.sum()) * len(recordings.channels)
        gaps = (found.count_NC < recordings.lengths_N[:, None]).any(axis=1).sum()
        yield Finding(
            f"{missing:,} of {of:,} values ({missing / of:.1%}) are missing, in {gaps:,} of"
            f" {len(recordings):,} sequences.",
            ("dataset.missing=mask",),
        )


def _suspicious(recordings: Recordings, found: Moments, option: bool) -> Iterator[Finding]:
    """Values such as -999 at the end of a channel's range, far from all its other values."""
    for far in outlying(recordings, found):
        way = f"set dataset.missing_values=[{far.value:g}]" if option else "leave them empty"
        yield Finding(
            f"Channel '{recordings.channels[far.channel]}' is {far.value:g} at {far.steps:,}"
            f" {'steps' if far.steps > 1 else 'step'} and {far.low:g} to {far.high:g} at all others:"
            f" if it marks missing values, {way}."
        )


def _repeated(recordings: Recordings, hashes: Digests) -> Iterator[Finding]:
    """Sequences that occur more than once, with one label or with several."""
    members_of: dict[bytes, list[int]] = {}
    for n, digest in enumerate(hashes.digests_N.tolist()):
        members_of.setdefault(digest, []).append(n)
    repeated = [members for members in members_of.values() if len(members) > 1]
    labels_of = {members[0]: set(recordings.labels_N[members].tolist()) for members in repeated}
    ambiguous = [members for members in repeated if len(labels_of[members[0]]) > 1]
    if repeated:
        copies = sum(len(members) - 1 for members in repeated)
        first = f"{_name(recordings, repeated[0][1])} of {_name(recordings, repeated[0][0])}"
        yield Finding(
            f"{copies:,} {'sequences are copies' if copies > 1 else 'sequence is a copy'} of others"
            f" ({f'such as {first}' if copies > 1 else first})."
        )
    if ambiguous:
        names = " and ".join(f"'{recordings.classes[k]}'" for k in sorted(labels_of[ambiguous[0][0]])[:2])
        yield Finding(
            f"{len(ambiguous):,} {'sequences occur' if len(ambiguous) > 1 else 'sequence occurs'} with more"
            f" than one label ({names}): no model can get all of them right."
        )


def _name(recordings: Recordings, n: int) -> str:
    """A sequence in words: its id, or else the place where it begins."""
    import numpy as np

    if recordings.ids is not None and isinstance(name := recordings.ids(np.array([n]))[0], str):
        return f"'{name}'"
    if recordings.locate is not None:
        return f"the one at {recordings.locate(int(recordings.starts_N[n]))}"
    return f"number {n}"


def _repeated_steps(recordings: Recordings) -> Iterator[Finding]:
    """Rows that were written twice: each of a sequence, or several in a row. With times, they are refused.

    Single equal steps are no evidence, as measured values are often coarse, or held for a while.
    """
    import numpy as np

    some = np.flatnonzero(np.cumsum(recordings.lengths_N) <= SAMPLE)
    if recordings.times_S is not None or not len(some):
        return
    starts_n, lengths_n = recordings.starts_N[some], recordings.lengths_N[some]
    steps = steps_of(starts_n, lengths_n)
    again_S = _written_twice(hashed_rows(recordings.values_SC[steps]), lengths_n)
    if not again_S.any():
        return
    sequence_S = np.repeat(np.arange(len(some)), lengths_n)
    sequences, count = len(np.unique(sequence_S[again_S])), int(again_S.sum())
    first = int(np.arange(len(recordings.values_SC))[steps][again_S.argmax()])
    yield Finding(
        f"{count:,} steps in {_sequences(sequences)} repeat earlier steps of the same sequence, the first at"
        f" {recordings.place(first)}: remove rows that were written twice."
    )


def _written_twice(hash_S: Array, lengths_n: Array) -> Array:
    """Which steps, bool (S,), repeat an earlier one of their sequence as rows do that were written twice."""
    import numpy as np

    begins_n = np.cumsum(lengths_n) - lengths_n
    sequence_S = np.repeat(np.arange(len(lengths_n)), lengths_n)
    order_S = np.lexsort((sequence_S, hash_S))  # stable: equal steps of a sequence stay in order
    before_S, after_S = order_S[:-1], order_S[1:]
    same = (hash_S[before_S] == hash_S[after_S]) & (sequence_S[before_S] == sequence_S[after_S])
    lag_S = np.zeros(len(hash_S), np.int64)  # how far back the last equal step is; 0 if there is none
    lag_S[after_S[same]] = (after_S - before_S)[same]
    # each step, followed by its copy
    is_second_S = (np.arange(len(hash_S)) - begins_n[sequence_S]) % 2 == 1
    pairs_n = np.add.reduceat((lag_S == 1) & is_second_S, begins_n, dtype=np.int64)
    repeats_n = np.add.reduceat(lag_S > 0, begins_n, dtype=np.int64)
    doubled_n = (pairs_n == lengths_n // 2) & (repeats_n == pairs_n) & (lengths_n >= 2 * BLOCK)
    # several steps, followed by their copies; what is repeated more than once is periodic, or at rest
    is_repeated_S = np.zeros(len(hash_S), bool)
    is_repeated_S[before_S[same]] = True
    far = np.flatnonzero((lag_S > 1) & ~is_repeated_S & ~doubled_n[sequence_S])
    far = far[lag_S[far - lag_S[far]] == 0]
    far_S = np.zeros_like(lag_S)
    far_S[far] = lag_S[far]
    starts = np.flatnonzero(np.concatenate(([True], far_S[1:] != far_S[:-1])))
    sizes = np.diff(np.append(starts, len(hash_S)))
    in_block_S = (far_S > 0) & np.repeat(sizes >= BLOCK, sizes)
    found_S: Array = in_block_S | (doubled_n[sequence_S] & (lag_S == 1))
    return found_S


def hashed_rows(values_SC: Array) -> Array:
    """A hash of each step, uint64 (S,): equal for equal values."""
    import numpy as np

    bits_SC = (values_SC.astype(np.float64) + 0.0).view(np.uint64)
    factor_C = np.random.default_rng(0).integers(2**63, size=values_SC.shape[1], dtype=np.uint64) * 2 + 1
    bits_SC = (bits_SC ^ (bits_SC >> np.uint64(32))) * factor_C
    hash_S: Array = (bits_SC ^ (bits_SC >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
    return hash_S


def _alike(recordings: Recordings) -> Iterator[Finding]:
    """Classes whose names differ only in how they are written, as 'Walk' and 'walk' do."""
    import numpy as np

    members_K = np.bincount(recordings.labels_N, minlength=len(recordings.classes))
    for places in _written_alike(recordings.classes):
        names = [f"'{recordings.classes[k]}' ({_sequences(int(members_K[k]))})" for k in places]
        yield Finding(
            f"The classes {', '.join(names[:-1])} and {names[-1]} differ only in how they are written:"
            " if they are one, write them alike."
        )


def _written_alike(classes: Sequence[str]) -> list[list[int]]:
    """The places of names that differ only in capitals, spaces, '-' and '_', or as 1 and 1.0 do."""
    places_of: dict[str, list[int]] = {}
    for k, name in enumerate(classes):
        places_of.setdefault(_simplified(name), []).append(k)
    return [places for places in places_of.values() if len(places) > 1]


def _simplified(name: str) -> str:
    """The name without what typing errors change; the letters 'a' and 'A' alone stay different."""
    name = unicodedata.normalize("NFKC", name).strip()
    if NUMBER.fullmatch(name):
        return repr(float(name))
    name = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.strip("_"))
    return name if len(name) == 1 else name.casefold()


def _sequences(number: int) -> str:
    return f"{number:,} {'sequence' if number == 1 else 'sequences'}"


def _constant(recordings: Recordings, found: Moments) -> Iterator[Finding]:
    low_C, high_C = found.low_NC.min(axis=0), found.high_NC.max(axis=0)
    same_C = (low_C == high_C) & ~_too_coarse(recordings, low_C)
    constant = [name for name, same in zip(recordings.channels, same_C, strict=True) if same]
    if constant:
        names = ", ".join(constant[:8]) + (" …" if len(constant) > 8 else "")
        one = len(constant) == 1
        yield Finding(
            f"{'A channel is' if one else f'{len(constant):,} channels are'} constant: {names}.",
            severity="remark",
        )


def _too_coarse(recordings: Recordings, value_C: Array) -> Array:
    """Whether a channel that seems to have just this value may have lost its digits in 32 bits, bool (C,)."""
    import numpy as np

    is_float32 = recordings.values_SC.dtype == np.float32
    coarse_C: Array = is_float32 & (np.abs(value_C) >= EXACT) & np.isfinite(value_C)
    return coarse_C


def _narrow(recordings: Recordings, found: Moments) -> Iterator[Finding]:
    """Channels far from zero, whose changes are lost in 32 bits."""
    import numpy as np

    low_C, high_C = found.low_NC.min(axis=0), found.high_NC.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        size_C = np.maximum(np.abs(low_C), np.abs(high_C)) / recordings.unit
        apart_C = np.spacing(size_C.astype(np.float32)).astype(np.float64) * recordings.unit
        narrow_C = (low_C < high_C) & (high_C - low_C < LEVELS * apart_C)
    lost_C = (low_C == high_C) & _too_coarse(recordings, low_C)
    is_float32 = recordings.values_SC.dtype == np.float32
    for c in np.flatnonzero(narrow_C | lost_C).tolist():
        where = f"is {low_C[c]:.12g} throughout" if lost_C[c] else f"is {low_C[c]:.12g} to {high_C[c]:.12g}"
        way = "subtract a constant from its values" if is_float32 else "set dataset.normalise=standard"
        yield Finding(
            f"Channel '{recordings.channels[c]}' {where}, but 32-bit numbers of that size are"
            f" {apart_C[c]:.2g} apart: if digits are lost, {way}."
        )


def _imbalance(recordings: Recordings) -> Iterator[Finding]:
    import numpy as np

    members_K = np.bincount(recordings.labels_N, minlength=len(recordings.classes))
    alike = _written_alike(recordings.classes)
    for first, *others in alike:  # what is written in two ways counts as one
        members_K[first] += members_K[others].sum()
    kept = np.setdiff1d(np.arange(len(members_K)), [k for _, *others in alike for k in others])
    rare, most = int(kept[members_K[kept].argmin()]), int(kept[members_K[kept].argmax()])
    if members_K[rare] * RARE <= members_K[most]:
        yield Finding(
            f"Class '{recordings.classes[most]}' has {_sequences(int(members_K[most]))},"
            f" '{recordings.classes[rare]}' {members_K[rare]:,}.",
            () if alike else ("class_weights=balanced",),  # which would make the most of a typing error
        )


def _lengths(recordings: Recordings) -> Iterator[Finding]:
    """Sequences of a single step, and few sequences on a far side of a gap in the lengths."""
    import numpy as np

    single = int((recordings.lengths_N == 1).sum())
    if single and int(recordings.lengths_N.max()) > 1:
        yield Finding(f"{single:,} {'sequences have' if single > 1 else 'sequence has'} only one step.")
    length_n = np.sort(recordings.lengths_N)
    if len(length_n) < 2:
        return
    gap = int((length_n[1:] / length_n[:-1]).argmax())
    short, long = int(length_n[gap]), int(length_n[gap + 1])
    if long < FAR * short or short == 1:
        return
    short_N = recordings.lengths_N <= short
    few_are_long = short_N.sum() * 2 >= len(short_N)
    few = np.flatnonzero(~short_N if few_are_long else short_N)
    at_most, at_least = f"at most {short:,}", f"at least {long:,}"
    own, rest = (at_least, at_most) if few_are_long else (at_most, at_least)
    names = ", ".join(_name(recordings, n) for n in few[:MOST].tolist()) + (" …" if len(few) > MOST else "")
    yield Finding(
        f"{_sequences(len(few))} ({names}) {'has' if len(few) == 1 else 'have'} {own} steps, the others"
        f" {rest}: check where they begin and end, or leave the few out."
    )


def _intervals(recordings: Recordings) -> Iterator[Finding]:
    """Unevenly spaced steps: a model sees steps, not times."""
    import numpy as np

    if recordings.times_S is None:
        return
    some = np.arange(0, len(recordings), max(len(recordings) // 1000, 1))
    each = [
        np.diff(recordings.times_S[start : start + length])
        for start, length in zip(recordings.starts_N[some], recordings.lengths_N[some], strict=True)
    ]
    between = np.concatenate(each)
    if not len(between):
        return
    short, long = np.percentile(between, (5, 95))
    if long > UNEVEN * short:
        yield Finding(
            f"Steps are not evenly spaced: the intervals between them range from {short:g} to {long:g}"
            " (5th to 95th percentile). A model sees the steps, not the times.",
            severity="remark",
        )
