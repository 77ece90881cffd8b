"""Whether recordings have the names and the times that a trained model knows. Torch-free."""

from __future__ import annotations

from dataclasses import replace

from rnnclf.data.categories import unseen
from rnnclf.data.preparation import Preparation, mean_interval
from rnnclf.data.recordings import Recordings
from rnnclf.errors import CheckpointError

UNIT = 20  # times the mean interval of the training data: then times may be in another unit


def matched(recordings: Recordings, preparation: Preparation) -> Recordings:
    """The recordings, without times if the model was trained so, and with notes on what it does not know.

    Raises CheckpointError for names where it knows numbers or the reverse, and for data without times if it
    counts the time since a value was present.
    """
    known = preparation.vocabularies
    for channel in preparation.channels:
        if (channel in known) != (channel in recordings.categories):
            kinds = ("names", "numbers") if channel in known else ("numbers", "names")
            raise CheckpointError(
                f"The model was trained on {kinds[0]} in channel '{channel}'; these data have {kinds[1]}"
                " there."
            )
    notes = unseen(recordings, known)
    if preparation.fills_gaps:  # otherwise times only order the steps
        if preparation.timed is False and recordings.times_S is not None:
            recordings = replace(recordings, times_S=None)
            notes.append("The model was trained without times: the times of these data only order the steps.")
        notes += _differences(recordings, preparation)
    return replace(recordings, notes=(*recordings.notes, *notes)) if notes else recordings


def _differences(recordings: Recordings, preparation: Preparation) -> list[str]:
    """How the times differ from those of the training data, in sentences. Raises CheckpointError."""
    import numpy as np

    if recordings.times_S is None:
        if not preparation.timed:
            return []
        if preparation.missing == "mask":
            raise CheckpointError(
                "The model was trained with the times of the steps; these data have no column of times."
            )
        return [
            "These data have no column of times, as the training data had: gaps are filled as if all steps"
            " were equally far apart."
        ]
    ratio = mean_interval(recordings, np.arange(len(recordings))) / preparation.interval
    if preparation.missing != "mask" or 1 / UNIT < ratio < UNIT:
        return []
    way, by = ("further apart", ratio) if ratio > 1 else ("closer together", 1 / ratio)
    return [
        f"The steps of these data are {by:,.0f} times {way} than those of the training data: are their times"
        " in another unit?"
    ]
