"""Categorical channels, whose values are names: a page, a letter of DNA. Torch-free.

Recordings hold a code for each name. A model has a vocabulary for each such channel: the names in the
training split. Prepared steps hold the places in it: 0 if missing, 1 to K, and K + 1 for other names.

Shapes: N sequences, n some of them, S steps, K names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rnnclf.data.recordings import Array, Recordings, encoded
from rnnclf.data.survey import chunks, steps_of
from rnnclf.errors import DataError

SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class CodedFeatures:
    """The last features of a prepared step, if they are codes rather than numbers.

    sizes: K of each categorical channel. patch: how many neighbouring steps lie side by side, each with the
        codes of all these channels.
    """

    sizes: tuple[int, ...]
    patch: int = 1

    @property
    def number(self) -> int:
        """How many features they are."""
        return len(self.sizes) * self.patch


def vocabulary(recordings: Recordings, train_n: Array, channel: str) -> tuple[str, ...]:
    """The names that occur in a channel of the training sequences, sorted. Raises DataError without any."""
    import numpy as np

    names, column = recordings.categories[channel], recordings.channels.index(channel)
    counts_K = np.zeros(len(names), np.int64)
    for code_S in _codes(recordings, column, train_n):
        counts_K += np.bincount(code_S, minlength=len(names))
    if not counts_K.any():
        raise DataError(f"Channel '{channel}' has no values in the training split: leave it out.")
    return encoded(names[k] for k in np.flatnonzero(counts_K))[1]


def unseen(recordings: Recordings, known: dict[str, tuple[str, ...]]) -> list[str]:
    """A sentence on each channel with names that a model does not know.

    known: its vocabulary of each categorical channel.
    """
    import numpy as np

    found = []
    for channel, vocabulary in known.items():
        names, column = recordings.categories[channel], recordings.channels.index(channel)
        is_new_K = np.array([name not in vocabulary for name in names])
        if not is_new_K.any():
            continue
        everything, counts_K = np.arange(len(recordings)), np.zeros(len(names), np.int64)
        for code_S in _codes(recordings, column, everything):
            counts_K += np.bincount(code_S, minlength=len(names))
        steps = int(counts_K[is_new_K].sum())
        others = [f"'{names[k]}'" for k in np.flatnonzero(is_new_K & (counts_K > 0))]
        if steps:
            listed = ", ".join(others[:SHOWN]) + (" …" if len(others) > SHOWN else "")
            found.append(
                f"Channel '{channel}' has values at {steps:,} of {int(recordings.lengths_N.sum()):,} steps"
                f" that do not occur in the training split ({listed})."
            )
    return found


def _codes(recordings: Recordings, column: int, which_n: Array) -> Iterator[Array]:
    """The codes of a channel that are not missing, int64 (S,), some sequences at a time."""
    import numpy as np

    starts_n, lengths_n = recordings.starts_N[which_n], recordings.lengths_N[which_n]
    for first, last in chunks(lengths_n):
        values_S = recordings.values_SC[steps_of(starts_n[first:last], lengths_n[first:last]), column]
        yield values_S[~np.isnan(values_S)].astype(np.int64)
