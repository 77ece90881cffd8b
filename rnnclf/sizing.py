"""Choice of hidden_size for a given number of parameters, for fair comparisons between cells."""

from __future__ import annotations

import re
from collections.abc import Callable

from rnnclf.errors import ConfigError

LARGEST = 1_000_000  # hidden units, the limit of the option `hidden`
_SUFFIXES = {"": 1, "k": 1_000, "M": 1_000_000}


def parse_count(word: int | float | str) -> int:
    """Parses a number of parameters: 30000, 30k or 1.5M. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", str(word))
    count = round(float(match[1]) * _SUFFIXES[match[2].replace("K", "k").replace("m", "M")]) if match else 0
    if count < 1:
        raise ConfigError(f"match_parameters must be a number such as 30000, 30k or 1.5M, got '{word}'.")
    return count


def hidden_for(target: int, count: Callable[[int], int], multiple: int = 1) -> int:
    """The hidden size whose number of parameters is closest to `target`.

    Args:
        target: the desired number of parameters.
        count: gives the number of parameters for a hidden size; must be increasing.
        multiple: the result is a multiple of this.

    Raises ConfigError if even the smallest model is larger than `target`, or the largest smaller.
    """
    least, most = 1, LARGEST // multiple  # in multiples
    if (smallest := count(multiple)) > target:
        raise ConfigError(
            f"match_parameters={target} is too small: with hidden={multiple}, the minimum for this cell, the"
            f" model has {smallest:,} parameters."
        )
    if (largest := count(most * multiple)) < target:
        raise ConfigError(
            f"match_parameters={target} is too large: with hidden={most * multiple}, the maximum, the model"
            f" has only {largest:,} parameters."
        )
    while most - least > 1:
        middle = (least + most) // 2
        if count(middle * multiple) <= target:
            least = middle
        else:
            most = middle
    return multiple * min((least, most), key=lambda n: abs(count(n * multiple) - target))
