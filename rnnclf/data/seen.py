"""Which sequences a model was trained on: 8 bytes for each, kept beside its checkpoints. Torch-free.

Shapes: N sequences, n some of them.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.recordings import Array, Recordings
from rnnclf.data.survey import digests


@dataclass(frozen=True, eq=False)
class Seen:
    """The first 8 bytes of the digest of each training sequence, uint64 (n,), and the type of its values."""

    hashes_n: Array
    dtype: str

    @classmethod
    def of(cls, recordings: Recordings, digests_N: Array, train_n: Array) -> Seen:
        return cls(_shortened(digests_N[train_n]), recordings.values_SC.dtype.str)

    def together(self, other: Seen) -> Seen:
        """The sequences of both, of the same recordings."""
        import numpy as np

        return Seen(np.concatenate((self.hashes_n, other.hashes_n)), self.dtype)

    def among(self, recordings: Recordings, digests_N: Array) -> Array:
        """Whether each of these sequences, with these digests, is one of them, bool (N,).

        The recordings must have the channels of the model. Values of another type are compared in the type of
        the training data: the same numbers may come from a text in 64 bits and from an array in 32.
        """
        import numpy as np

        if recordings.values_SC.dtype.str != self.dtype:
            with np.errstate(over="ignore", invalid="ignore"):
                cast = recordings.copied(recordings.values_SC.astype(self.dtype))
            digests_N = digests(cast).digests_N
        found_N: Array = np.isin(_shortened(digests_N), self.hashes_n)
        return found_N

    def to_bytes(self) -> bytes:
        import numpy as np

        content = io.BytesIO()
        np.savez(content, hashes_n=self.hashes_n, dtype=np.array(self.dtype))
        return content.getvalue()

    @classmethod
    def read(cls, path: Path) -> Seen | None:
        """The inverse of `to_bytes`; None if the file is missing or damaged."""
        import numpy as np

        if not path.is_file():  # to open a pipe would wait for somebody to write
            return None
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
                found = cls(content["hashes_n"], str(content["dtype"]))
                np.dtype(found.dtype)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return found if found.hashes_n.dtype == np.uint64 else None


def _shortened(digests_N: Array) -> Array:
    import numpy as np

    hashes_N: Array = np.ascontiguousarray(digests_N).view("<u8").reshape(len(digests_N), -1)[:, 0].copy()
    return hashes_N
