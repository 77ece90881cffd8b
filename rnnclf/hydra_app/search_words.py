"""The words of a search: which of them open a range of values, and which hold for all of its runs.

They are those of a sweep in Hydra's grammar, in which a search draws values instead of trying all of them:
a,b or choice(a,b), range(a,b,step), and interval(a,b), on a logarithmic scale with tag(log,interval(a,b)).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields
from decimal import Decimal
from typing import Any, NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from rnnclf.config import GROUPS, kinds_of
from rnnclf.errors import ConfigError
from rnnclf.hydra_app.compose import explained, plugins_in, refuse_conflicting
from rnnclf.hydra_app.grammar import meant, parse
from rnnclf.hydra_app.repeats import is_repeat
from rnnclf.hydra_app.setup import register
from rnnclf.hydra_app.words import prepared
from rnnclf.options import types_of
from rnnclf.tuning.space import Choice, Dimension, Real, Space, Whole, as_typed, word

MOST_VALUES = 1000  # of a range of fractions, which becomes a choice
READING = ("dataset.missing", "dataset.normalise", "dataset.sequence", "dataset.patch")
"""The options of data that change how the same sequences are read, so that scores can be compared."""

_LENGTH = "runs of different lengths cannot be compared while they are trained"
_SCORE = "it decides how a run is scored"
_COMPUTING = "it does not change what is learned"
NOT_SEARCHED = {
    "seed": "the best one would be luck; train the best point with seeds=5 instead",
    "experiment": "it chooses the data, too",
    "recipe": "it chooses settings that other words choose",
    "epochs": _LENGTH,
    "updates": _LENGTH,
    "max_time": _LENGTH,
    "select": _SCORE,
    "protocol": _SCORE,
    "final_fit": "it concerns the time after training",
    **dict.fromkeys(("device", "threads", "engine", "graph", "diagnose", "plots"), _COMPUTING),
}
"""The keys that have one value for all runs of a search, and why."""


class Searched(NamedTuple):
    """The words of a search, understood."""

    space: Space
    fixed: list[str]
    """The words that hold for all runs, in Hydra's grammar."""
    notes: list[str]
    """Remarks for the user on how paths were understood."""


def searched(words: Iterable[str]) -> Searched:
    """The space that words open, and the words that hold for all runs. Imports the plugins they name.

    Where only one value is left, a word holds for all runs. Whether keys and values exist is seen when the
    points of `rnnclf.tuning.space.edge_points` are composed.

    Raises RnnclfError for words that have no meaning in a search.
    """
    words = list(words)
    for repeat in filter(is_repeat, words):
        raise ConfigError(f"'{repeat}' repeats one configuration: search first, then train the best with it.")
    register(plugins_in(words))
    ready, notes = prepared(words, sweep=True)
    refuse_conflicting(ready)
    overrides = [_parsed(typed) for typed in ready]
    _refuse_repeated([str(override.key_or_group) for override in overrides])
    space: Space = {}
    fixed = []
    for typed, override in zip(ready, overrides, strict=True):
        found = _values(typed, override)
        if isinstance(found, str):
            fixed.append(found)
        else:
            space[str(override.key_or_group)] = found
    _refuse_options_of_some(space, [str(override.key_or_group) for override in overrides])
    return Searched(space, fixed, notes)


def _parsed(typed: str) -> Override:
    try:
        return parse(typed)
    except (HydraException, RecursionError) as error:
        raise explained(error) from error


def _refuse_repeated(keys: list[str]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key} is given twice: leave one out.")


def _values(typed: str, override: Override) -> Dimension | str:
    """The dimension that a word opens, or the word of the only value that it leaves."""
    value, key = override.value(), str(override.key_or_group)
    if not isinstance(value, Sweep | Glob):
        return typed
    if reason := _reason_against(key):
        raise ConfigError(f"{key} cannot be searched: {reason}.")
    try:
        _refuse_order_and_tags(typed, value)
        return _interval(key, value) if isinstance(value, IntervalSweep) else _discrete(key, value, override)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(f"'{typed}' cannot be searched: {text[0].lower()}{text[1:]}") from error


def _reason_against(key: str) -> str | None:
    """Why a key must have the same value in all runs of a search; None if it may vary."""
    first = re.split(r"[./]", key)[0]
    if first == "dataset":
        return None if key in READING else "scores on different data cannot be compared"
    if first == "hydra":
        return "it does not concern training"
    return _COMPUTING if first == "checkpoint" else NOT_SEARCHED.get(key)


def _refuse_order_and_tags(typed: str, value: Any) -> None:
    if found := re.match(r"[^=]+=(?:\w+\((?:\w+,\s*)*)*?(shuffle|sort)\(", typed):
        raise ConfigError(f"A search has an order of its own, leave out {found[1]}().")
    tags = value.tags if isinstance(value, Sweep) else set()
    if other := sorted(map(str, tags - {"log"})):
        raise ConfigError(f"The only tag is log, not {other[0]}.")
    if tags and isinstance(value, ChoiceSweep):
        raise ConfigError("Values that are listed have no scale, leave out tag(log).")


def _interval(key: str, value: IntervalSweep) -> Dimension | str:
    low, high, log = float(value.start or 0), float(value.end or 0), "log" in value.tags
    types = _types(key)
    if int in types and float not in types:
        if not (low.is_integer() and high.is_integer()):
            raise ConfigError(f"{key} takes whole numbers only.")
        return Whole(int(low), int(high), log=log) if low != high else word(key, int(low))
    return Real(low, high, log) if low != high else word(key, low)


def _discrete(key: str, value: ChoiceSweep | RangeSweep | Glob, override: Override) -> Dimension | str:
    """The dimension of values that could be listed, or the word of the only one."""
    if isinstance(value, RangeSweep):
        found = _range(value)
        if isinstance(found, Whole):
            return found
        values = found
    elif isinstance(value, Glob):
        if key not in GROUPS:
            raise ConfigError("Only names can be given as a pattern.")
        values = value.filter(GROUPS[key].names())
    else:
        typed = zip(value.list, override.sweep_string_iterator(), strict=True)
        values = [text.lower() if isinstance(part, bool) else text for part, text in typed]
    distinct = tuple(dict.fromkeys(values))
    if not distinct:
        raise ConfigError("There are no such values.")
    return Choice(distinct) if len(distinct) > 1 else f"{key}={distinct[0]}"


def _range(value: RangeSweep) -> Whole | list[str]:
    """The values of a range, without its stop; fractions are listed."""
    bounds = (value.start or 0, value.stop or 0, value.step)
    if not value.step or not all(map(math.isfinite, bounds)):
        raise ConfigError("A range needs finite numbers, and steps other than 0.")
    log = "log" in value.tags
    if isinstance(numbers := value.range(), range):
        low, high = sorted((numbers[0], numbers[-1])) if numbers else (0, 0)
        return Whole(low, high, abs(numbers.step), log) if low != high else list(map(str, numbers))
    if log:
        raise ConfigError("Steps have no logarithmic scale, write tag(log,interval(LOW,HIGH)).")
    start, stop, step = (Decimal(repr(number)) for number in bounds)  # in decimals, 0.1 + 0.2 is 0.3
    count = math.ceil((stop - start) / step)
    if count > MOST_VALUES:
        raise ConfigError(f"More than {MOST_VALUES:,} values are too many, write interval(LOW,HIGH).")
    return [as_typed(float(start + number * step)) for number in range(count)]


def _types(key: str) -> set[object]:
    """The types that an option may have, in any component; none if there is no such option."""
    group, _, name = key.rpartition(".")
    return {kind for component in kinds_of(group) for kind in types_of(component).get(name, ())}


def _refuse_options_of_some(space: Space, keys: list[str]) -> None:
    """Raises ConfigError for an option that not all of the components have among which a search chooses."""
    for key in keys:
        group, _, name = key.partition(".")
        names = space.get(group)
        if not name or group not in GROUPS or not isinstance(names, Choice):
            continue
        for choice in map(meant, names.values):
            if name not in {option.name for option in fields(GROUPS[group][choice])}:
                raise ConfigError(
                    f"{group}={choice} has no option '{name}': leave out {key}, or search only among"
                    f" {group}s that have it."
                )
