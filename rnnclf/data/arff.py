"""Reads the .arff files of the UCR and UEA archives, with scipy. Torch-free.

Shapes: T steps of a sequence, C channels.
The format: https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnnclf.data.conversion import Part
from rnnclf.data.delimited import excerpt, lines_of
from rnnclf.errors import DataError


def arff_sequences(path: Path, given: int, labelled: bool = True) -> Iterator[Part]:
    """A sequence for each row: its values and its class, or a table of channels and steps and its class.

    labelled: whether each must have a class; without, it is '' where there is none.
    Raises DataError, which names the file.
    """
    import numpy as np

    rows, kinds = _loaded(path)
    label = _class_of(path, kinds) if labelled or list(kinds.values())[-1] == "nominal" else None
    relation = [name for name, kind in kinds.items() if kind == "relational"]
    values = relation or [name for name in kinds if name != label]
    if wrong := next((name for name in values if kinds[name] not in ("numeric", "relational")), None):
        raise DataError(f"{path}: attribute {excerpt(wrong)} is {kinds[wrong]}; it must be numeric.")
    if len(relation) > 1 or not values:
        raise DataError(f"{path} has {len(relation) or 'no'} attributes with the values of sequences.")
    size = None
    for number, row in enumerate(rows, start=1):
        place = f"{path.name}, row {number}"
        if relation:
            table = row[relation[0]]
            values_TC = np.array([table[name] for name in table.dtype.names], np.float64)
        else:
            values_TC = np.array([[row[name]] for name in values], np.float64)
        size = size or values_TC.shape[1]
        if values_TC.shape[1] != size:
            raise DataError(f"{place} has {values_TC.shape[1]} channels, row 1 has {size}.")
        present = np.flatnonzero(~np.isnan(values_TC).all(axis=1))
        if not len(present):
            raise DataError(f"{place}: the sequence has no values.")
        name = "" if label is None else row[label].decode("utf-8").strip()
        name = "" if name == "?" else name
        if labelled and not name:
            raise DataError(f"{place}: the label is missing.")
        yield Part(values_TC[: present[-1] + 1], name, place, given=given)


def _loaded(path: Path) -> tuple[Any, dict[str, str]]:
    """The rows, and the kind of each attribute. Raises DataError."""
    from scipy.io import arff

    text = "\n".join(lines_of(path, str(path)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows, meta = arff.loadarff(io.StringIO(text))
        kinds = dict(zip(meta.names(), meta.types(), strict=True))
    except Exception as error:  # scipy raises nearly anything for a damaged file
        reason = excerpt(str(error), 120).rstrip(".") or type(error).__name__
        raise DataError(f"{path} is not an .arff file, or is damaged ({reason}).") from error
    if not kinds or not len(rows):
        raise DataError(f"{path} has no sequences: nothing follows @data.")
    return rows, kinds


def _class_of(path: Path, kinds: dict[str, str]) -> str:
    """The attribute with the class: the last one. Raises DataError if that is no list of names."""
    last = list(kinds)[-1]
    if kinds[last] != "nominal":
        raise DataError(
            f"{path}: its last attribute, {excerpt(last)}, is {kinds[last]}; it must be the class, with the"
            " list of its names in braces."
        )
    return last
