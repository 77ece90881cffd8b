"""Missing values before batches are made: whether there are any, and leaving out steps. Torch-free.

Shapes: N sequences, n some of them, S steps in total, C channels.
"""

from __future__ import annotations

from rnnclf.data.recordings import Array, Ids, Recordings
from rnnclf.data.survey import Moments, chunks, moments, steps_of
from rnnclf.errors import ConfigError, DataError

COPY_LIMIT = 2**30  # bytes that missing=drop may copy


def treatment(recordings: Recordings, missing: str) -> str:
    """The treatment of missing values; auto becomes mask if there are any, otherwise error."""
    if missing != "auto":
        return missing
    return "mask" if _missing_C(recordings).any() else "error"


def _missing_C(recordings: Recordings) -> Array:
    """The number of missing values of each channel, int64."""
    import numpy as np

    if not np.issubdtype(recordings.values_SC.dtype, np.floating):  # integers have no NaN
        return np.zeros(len(recordings.channels), np.int64)
    return moments(recordings).missing_C(recordings.lengths_N)


def without_gaps(recordings: Recordings, missing: str) -> Recordings:
    """The recordings with `missing=drop` or `missing=error` applied; the others act on batches.

    drop removes the steps with a missing value. Raises DataError for a missing value with error, and for a
    sequence or a channel without any value.
    """
    missing_C = _missing_C(recordings)
    if not missing_C.any():
        return recordings
    found = moments(recordings)
    _refuse_empty(recordings, found)
    if missing == "error":
        listed = ", ".join(
            f"{name} {count:,}" for name, count in zip(recordings.channels, missing_C, strict=True) if count
        )
        raise DataError(
            f"{missing_C.sum():,} values are missing ({_short(listed)}), the first at"
            f" {_first_gap(recordings, found)}. Choose dataset.missing=mask, interpolate or drop."
        )
    return complete(recordings) if missing == "drop" else recordings


def _refuse_empty(recordings: Recordings, found: Moments) -> None:
    empty_C = found.count_NC.sum(axis=0) == 0
    if empty_C.any():
        name = recordings.channels[int(empty_C.argmax())]
        raise DataError(f"Channel '{name}' has no values at all: leave it out.")
    empty_N = found.count_NC.sum(axis=1) == 0
    if empty_N.any():
        place = recordings.place(int(recordings.starts_N[int(empty_N.argmax())]))
        more = f" (and {empty_N.sum() - 1:,} more)" if empty_N.sum() > 1 else ""
        raise DataError(f"The sequence that begins at {place} has no values at all{more}: leave it out.")


def _first_gap(recordings: Recordings, found: Moments) -> str:
    import numpy as np

    gaps_N = (found.count_NC < recordings.lengths_N[:, None]).any(axis=1)
    n = int(gaps_N.argmax())
    start, length = int(recordings.starts_N[n]), int(recordings.lengths_N[n])
    step = int(np.isnan(recordings.values_SC[start : start + length]).any(axis=1).argmax())
    return recordings.place(start + step)


def complete(recordings: Recordings) -> Recordings:
    """The recordings without steps that have missing values, and without sequences that would be empty."""
    import numpy as np

    values_SC = recordings.values_SC
    if values_SC.nbytes > COPY_LIMIT:
        raise ConfigError(
            f"dataset.missing=drop would copy {values_SC.nbytes / 2**30:.1f} GiB:"
            " use mask or interpolate, which work batch by batch."
        )
    valid_S = np.zeros(len(values_SC), bool)
    for first, last in chunks(recordings.lengths_N):
        steps = steps_of(recordings.starts_N[first:last], recordings.lengths_N[first:last])
        valid_S[steps] = ~np.isnan(values_SC[steps]).any(axis=1)
    before_S = np.concatenate(([0], np.cumsum(valid_S)))
    starts_N = before_S[recordings.starts_N]
    lengths_N = before_S[recordings.starts_N + recordings.lengths_N] - starts_N
    kept_N, kept_S = lengths_N > 0, np.flatnonzero(valid_S)
    lost = int((~kept_N).sum())
    notes = (
        (f"{lost:,} of {len(kept_N):,} sequences have no step without missing values and were left out.",)
        if lost
        else ()
    )
    return recordings.copied(
        values_SC[kept_S],
        starts_N=starts_N[kept_N],
        lengths_N=lengths_N[kept_N],
        labels_N=recordings.labels_N[kept_N],
        times_S=None if recordings.times_S is None else recordings.times_S[kept_S],
        groups_N=None if recordings.groups_N is None else recordings.groups_N[kept_N],
        given_N=None if recordings.given_N is None else recordings.given_N[kept_N],
        notes=(*recordings.notes, *notes),
        locate=lambda step: recordings.place(int(kept_S[step])),
        ids=_of_kept(recordings.ids, np.flatnonzero(kept_N)),
        origins=None if recordings.origins is None else _of_kept(recordings.origins, np.flatnonzero(kept_N)),
    )


def _of_kept(ids: Ids | None, kept_n: Array) -> Ids:
    """Maps the new numbers of the kept sequences to their ids."""
    return lambda numbers: kept_n[numbers] if ids is None else ids(kept_n[numbers])


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most].rsplit(',', 1)[0]} …"
