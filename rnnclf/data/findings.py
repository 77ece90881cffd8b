"""Problems worth knowing about before training, found by `rnnclf data check`. Torch-free.

Shapes: N sequences, S steps in total, C channels, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rnnclf.data.preparation import spread
from rnnclf.data.recordings import Recordings
from rnnclf.data.survey import Digests, Moments, chunks, steps_of

SENTINELS = (9.0, 99.0, 999.0, 9999.0, 99999.0, 1e6 - 1, 1e20, 1e30)
"""Values that some instruments and programs write, with either sign, for a missing value."""
OUTLYING = 1.0  # a sentinel is suspicious if it is further from all other values than their range times this
RARE = 10  # a class is rare if the most frequent one has this many times its sequences
UNEVEN = 1.5  # ratio of the 95th to the 5th percentile of the intervals between steps


@dataclass(frozen=True)
class Finding:
    """A sentence, and the command-line overrides that deal with it, if there are any."""

    sentence: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChannelFacts:
    """Statistics of one channel over all sequences, in the unit as read."""

    name: str
    missing: int
    low: float
    mean: float
    deviation: float
    high: float


def channel_facts(recordings: Recordings, found: Moments) -> tuple[ChannelFacts, ...]:
    """The statistics of each channel; NaN for a channel without any value."""
    import numpy as np

    everything = np.arange(len(recordings))
    mean_C, deviation_C = spread(found, everything)
    low_C, high_C = found.low_NC.min(axis=0), found.high_NC.max(axis=0)
    missing_C = found.missing_C(recordings.lengths_N)
    empty_C = found.count_NC.sum(axis=0) == 0
    numbers_CF = np.where(empty_C[:, None], np.nan, np.stack((low_C, mean_C, deviation_C, high_C), axis=1))
    return tuple(
        ChannelFacts(name, int(missing), *map(float, numbers))
        for name, missing, numbers in zip(recordings.channels, missing_C, numbers_CF, strict=True)
    )


def findings(recordings: Recordings, found: Moments, hashes: Digests) -> list[Finding]:
    """Everything found, most serious first."""
    return [
        *_gaps(recordings, found),
        *_suspicious(recordings, found),
        *_repeated(recordings, hashes),
        *_constant(recordings, found),
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


def _suspicious(recordings: Recordings, found: Moments) -> Iterator[Finding]:
    """Values such as -999 at the end of a channel's range, far from all its other values."""
    for c, name in enumerate(recordings.channels):
        for edge_N, sign in ((found.low_NC[:, c], -1.0), (found.high_NC[:, c], 1.0)):
            value = float((edge_N * sign).max()) * sign
            if value * sign not in SENTINELS:
                continue
            count, low, high = _others(recordings, c, value)
            if min(abs(value - low), abs(value - high)) > OUTLYING * max(high - low, 1.0):
                yield Finding(
                    f"Channel '{name}' is {value:g} at {count:,} {'steps' if count > 1 else 'step'} and"
                    f" {low:g} to {high:g} at all others: if it marks missing values, leave them empty."
                )


def _others(recordings: Recordings, channel: int, value: float) -> tuple[int, float, float]:
    """How often a channel has this value, and the range of its other values."""
    import numpy as np

    count, low, high = 0, np.inf, -np.inf
    for first, last in chunks(recordings.lengths_N):
        steps = steps_of(recordings.starts_N[first:last], recordings.lengths_N[first:last])
        x_S = recordings.values_SC[steps, channel].astype(np.float64)
        others = x_S[(x_S != value) & ~np.isnan(x_S)]
        count += int((x_S == value).sum())
        low, high = min(low, others.min(initial=np.inf)), max(high, others.max(initial=-np.inf))
    return count, float(low), float(high)


def _repeated(recordings: Recordings, hashes: Digests) -> Iterator[Finding]:
    """Sequences that occur more than once, with one label or with several."""
    labels_of: dict[bytes, Counter[int]] = {}
    for digest, label in zip(hashes.digests_N.tolist(), recordings.labels_N.tolist(), strict=True):
        labels_of.setdefault(digest, Counter())[label] += 1
    repeated = [labels for labels in labels_of.values() if labels.total() > 1]
    ambiguous = [labels for labels in repeated if len(labels) > 1]
    if repeated:
        copies = sum(labels.total() - 1 for labels in repeated)
        yield Finding(
            f"{copies:,} {'sequences are copies' if copies > 1 else 'sequence is a copy'} of others."
        )
    if ambiguous:
        names = " and ".join(f"'{recordings.classes[k]}'" for k in sorted(ambiguous[0])[:2])
        yield Finding(
            f"{len(ambiguous):,} {'sequences occur' if len(ambiguous) > 1 else 'sequence occurs'} with more"
            f" than one label ({names}): no model can get all of them right."
        )


def _constant(recordings: Recordings, found: Moments) -> Iterator[Finding]:
    low_C, high_C = found.low_NC.min(axis=0), found.high_NC.max(axis=0)
    constant = [name for name, same in zip(recordings.channels, low_C == high_C, strict=True) if same]
    if constant:
        listed = ", ".join(constant[:8]) + (" …" if len(constant) > 8 else "")
        one = len(constant) == 1
        yield Finding(f"{'A channel is' if one else f'{len(constant):,} channels are'} constant: {listed}.")


def _imbalance(recordings: Recordings) -> Iterator[Finding]:
    import numpy as np

    members_K = np.bincount(recordings.labels_N, minlength=len(recordings.classes))
    rare, most = int(members_K.argmin()), int(members_K.argmax())
    if members_K[rare] * RARE <= members_K[most]:
        yield Finding(
            f"Class '{recordings.classes[most]}' has {members_K[most]:,} sequences,"
            f" '{recordings.classes[rare]}' {members_K[rare]:,}.",
            ("class_weights=balanced",),
        )


def _lengths(recordings: Recordings) -> Iterator[Finding]:
    single = int((recordings.lengths_N == 1).sum())
    if single and int(recordings.lengths_N.max()) > 1:
        yield Finding(f"{single:,} {'sequences have' if single > 1 else 'sequence has'} only one step.")


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
            " (5th to 95th percentile). A model sees the steps, not the times."
        )
