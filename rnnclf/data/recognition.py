"""Which source reads a path, judged by looking at it. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from rnnclf.data import DATASETS
from rnnclf.data.own import OwnData
from rnnclf.data.refused import advice
from rnnclf.errors import DataError
from rnnclf.files import absolute

PARTICULAR = ("archive", "arrays")  # these look at more than a file's suffix, so they are asked first


def exists(path: str) -> bool:
    """Whether there is such a file or folder; ~ is the home folder."""
    return os.path.exists(path) or (path.startswith("~") and os.path.exists(os.path.expanduser(path)))


def source_for(path: str) -> str:
    """The name of the source that reads a path, judged by looking at it. Raises DataError."""
    if not exists(path):
        raise DataError(f"{path} does not exist. Give a path, or words such as dataset=digits.")
    kinds = [(name, kind) for name, kind in DATASETS.items() if issubclass(kind, OwnData)]
    kinds.sort(key=lambda entry: entry[0] not in PARTICULAR)
    for name, kind in kinds:
        if kind.takes(Path(path if os.path.exists(path) else absolute(path))):
            return name
    if todo := advice(Path(path)):
        raise DataError(f"{path} is of no kind that rnnclf reads.{todo}")
    *some, last = (kind.READS for _, kind in kinds)
    raise DataError(
        f"{path} is none of the kinds of data that rnnclf reads: {', '.join(some)}, and {last}."
        " Save it as one of them; if it is one under another name, rename it."
    )
