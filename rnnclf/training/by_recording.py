"""Scores of whole recordings, from the predictions for their windows.

Shapes: N windows, R recordings, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnclf.data.recordings import Array
from rnnclf.metrics import Evaluation, wilson_interval


def with_recordings(found: Evaluation) -> dict[str, Any]:
    """The evaluation of a split as stored in results.json; of windows, with `recordings`."""
    recordings = by_recording(found)
    return found.to_dict() if recordings is None else {**found.to_dict(), "recordings": recordings}


def by_recording(found: Evaluation) -> dict[str, Any] | None:
    """Scores with a recording as the unit; None if the sequences are no windows.

    If all windows of each recording have one label, each recording is given a class: by_probability the one
    of the highest mean probability over its windows, by_votes the one that most of them are given (of two,
    the one of the higher mean probability). Both have accuracy, correct, total and interval95, which counts
    recordings.

    If labels change within a recording, it has no class as a whole. Then `accuracy` is about the share of its
    windows that are classified correctly: mean, lowest and highest over recordings.

    The interval of windows takes them for independent trials, which they are not: those of a recording are
    alike, and overlapping ones share steps. An effective number of windows is not estimated, because there
    are rarely enough recordings for that; the recordings themselves can be counted.
    """
    if found.recordings_N is None:
        return None
    names_R, first_R, place_N, windows_R = np.unique(
        found.recordings_N, return_index=True, return_inverse=True, return_counts=True
    )
    place_N = place_N.reshape(-1)
    label_R, count = found.y_N[first_R], len(names_R)
    if (label_R[place_N] != found.y_N).any():
        right_R = np.bincount(place_N, found.predicted_N == found.y_N) / windows_R
        spread = {"mean": right_R.mean(), "lowest": right_R.min(), "highest": right_R.max()}
        return {"count": count, "accuracy": {key: float(value) for key, value in spread.items()}}
    k = len(found.classes)
    sums = [np.bincount(place_N, found.probabilities_of(c)) for c in range(k)]
    mean_RK = np.stack(sums, axis=1) / windows_R[:, None]
    votes_RK = np.bincount(place_N * k + found.predicted_N, minlength=count * k).reshape(count, k)
    return {
        "count": count,
        "by_probability": _score(mean_RK.argmax(axis=1), label_R),
        "by_votes": _score((votes_RK + mean_RK / 2).argmax(axis=1), label_R),
    }


def _score(predicted_R: Array, label_R: Array) -> dict[str, Any]:
    correct, total = int((predicted_R == label_R).sum()), len(label_R)
    return {
        "accuracy": correct / total,
        "correct": correct,
        "total": total,
        "interval95": list(wilson_interval(correct, total)),
    }
