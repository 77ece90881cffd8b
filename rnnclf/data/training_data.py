"""What a model remembers of its training data, besides how to prepare others: how to read them, and what is
usual in them. Torch-free.

Shapes: N sequences, n some of them, S steps, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.scaling import spread
from rnnclf.data.survey import Moments
from rnnclf.errors import ConfigError

FAR = 0.5  # deviations of the training data by which a mean or a deviation may differ
DOUBT = 2.0  # and so many more of a single sequence, less of more as the root of their number
ROLES = {"form": str, "id": list, "time": str | None, "label": str | None, "aside": list, "steps": list}


@dataclass(frozen=True)
class TrainingData:
    """Facts about the training data; empty where they are not known, as of older checkpoints.

    columns: of a table, the columns by role, see `rnnclf.data.table.roles.Roles.to_plain`.
    mean_C, deviation_C: of each channel, over all steps of the training split; those of names mean nothing.
    lengths: the smallest and the largest number of steps of a sequence of it.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    mean_C: tuple[float, ...] = ()
    deviation_C: tuple[float, ...] = ()
    lengths: tuple[int, int] | None = None

    @classmethod
    def of(cls, recordings: Recordings, train_n: Array, found: Moments | None) -> TrainingData:
        """Of these recordings and the sequences at `train_n`; without moments, as of pictures, no values."""
        import numpy as np

        lengths_n = recordings.lengths_N[train_n]
        means: tuple[tuple[float, ...], tuple[float, ...]] = (), ()
        if found is not None:
            pair = [np.nan_to_num(each, posinf=0.0, neginf=0.0) for each in spread(found, train_n)]
            means = tuple(pair[0].tolist()), tuple(pair[1].tolist())
        return cls(recordings.columns, *means, (int(lengths_n.min()), int(lengths_n.max())))

    def to_plain(self) -> dict[str, Any]:
        return {
            "columns": dict(self.columns),
            "mean_C": list(self.mean_C),
            "deviation_C": list(self.deviation_C),
            "lengths": None if self.lengths is None else list(self.lengths),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], channels: int) -> TrainingData:
        """The inverse of `to_plain`. Raises ConfigError for anything else."""
        try:
            columns = dict(plain["columns"])
            lists = [columns.get(key, []) for key, kind in ROLES.items() if kind is list]
            sound = not columns or all(isinstance(columns[key], kind) for key, kind in ROLES.items())
            sound &= columns.get("form", "long") in ("long", "wide")
            sound &= all(isinstance(name, str) for names in lists for name in names)
            mean_C, deviation_C = (tuple(map(float, plain[key])) for key in ("mean_C", "deviation_C"))
            sound &= len(mean_C) == len(deviation_C) and len(mean_C) in (0, channels)
            sound &= all(map(math.isfinite, (*mean_C, *deviation_C)))
            given = plain["lengths"]
            lengths = None if given is None else (int(given[0]), int(given[1]))
            if not sound:
                raise ValueError("a value is not possible")
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"The facts about the training data are not valid: {error}.") from error
        return cls(columns, mean_C, deviation_C, lengths)


class Likeness:
    """Compares sequences, which come in parts, with those of training."""

    def __init__(self, training: TrainingData, channels: tuple[str, ...], names: set[str]) -> None:
        """`names`: the channels of names, which are left out."""
        import numpy as np

        self._training, self._channels, self._names = training, channels, names
        self._count_C, self._sum_C, self._squares_C = np.zeros((3, len(channels)))
        self._sequences = self._shorter = self._longer = 0

    def add(self, values_SC: Array, lengths_n: Array) -> None:
        """Some sequences: all their steps, of any real type, NaN if missing, and their lengths."""
        import numpy as np

        self._sequences += len(lengths_n)
        if self._training.lengths is not None:
            low, high = self._training.lengths
            self._shorter += int((lengths_n < low).sum())
            self._longer += int((lengths_n > high).sum())
        if self._training.mean_C:  # measured from the mean of training: squares of small numbers
            with np.errstate(over="ignore", invalid="ignore"):
                off_SC = values_SC.astype(np.float64) - np.array(self._training.mean_C)
                self._count_C += (~np.isnan(off_SC)).sum(axis=0)
                self._sum_C += np.nansum(off_SC, axis=0)
                self._squares_C += np.nansum(off_SC**2, axis=0)

    def remarks(self) -> list[str]:
        """How the sequences differ from those of training, as sentences."""
        return [*self._of_lengths(), *self._of_values()] if self._sequences else []

    def _of_lengths(self) -> list[str]:
        if self._training.lengths is None:
            return []
        low, high = self._training.lengths
        found, n = [], self._sequences
        for number, way, bound in ((self._shorter, "shorter", low), (self._longer, "longer", high)):
            if 2 * number > self._sequences:
                steps = f"{bound:,} step" if bound == 1 else f"{bound:,} steps"
                found.append(
                    f"{number:,} of {n:,} sequences {'is' if number == 1 else 'are'} {way} than all training"
                    f" sequences, which had {'at least' if way == 'shorter' else 'at most'} {steps}."
                )
        return found

    def _of_values(self) -> list[str]:
        training = self._training
        if not training.mean_C:
            return []
        bound = FAR + DOUBT / math.sqrt(self._sequences)
        found = []
        for c, name in enumerate(self._channels):
            count = self._count_C[c]
            if name in self._names or not count:
                continue
            usual, deviation = training.mean_C[c], training.deviation_C[c]
            shift = self._sum_C[c] / count
            own = math.sqrt(max(self._squares_C[c] / count - shift**2, 0.0))
            scale = deviation or 1e-6 * abs(usual) or 1e-300
            if not (abs(shift) <= bound * scale and abs(own - deviation) <= bound * scale):
                found.append(
                    f"'{name}' has mean {usual + shift:.3g} and deviation {own:.3g}, in training {usual:.3g}"
                    f" and {deviation:.3g}"
                )
        if not found:
            return []
        more = f" (and {len(found) - 5} more channels)" if len(found) > 5 else ""
        return [f"These data are unlike the training data: {'; '.join(found[:5])}{more}."]
