"""The space of a search: which values each key may have, and how a value is typed.

A point of the space is one value for each key. Its values are those that are typed: text for a choice, and
numbers that are as short as their interval allows, so that the command line that is shown trains exactly what
the search has trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any, TypeAlias

from rnnclf.errors import CheckpointError, ConfigError

DIGITS = 4  # significant digits of a sampled number


@dataclass(frozen=True)
class Choice:
    """One of some words, without an order."""

    values: tuple[str, ...]
    """As they are typed behind KEY=."""

    def __post_init__(self) -> None:
        if len({*self.values}) != len(self.values) or len(self.values) < 2:
            raise ConfigError(f"A choice needs at least two different values, got {_listed(self.values)}.")

    def __str__(self) -> str:
        return f"one of {_listed(self.values)}"

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def size(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def edges(self) -> tuple[str, ...]:
        """The values that have to be possible for all to be: here, every one."""
        return self.values

    def value(self, number: int) -> str:
        """The value at a position from 0 to `size` - 1."""
        return self.values[number]


@dataclass(frozen=True)
class Real:
    """A real number between two bounds, which are included."""

    low: float
    high: float
    log: bool = False
    """Whether equal ratios are equally likely, not equal distances."""

    def __post_init__(self) -> None:
        _refuse_odd_bounds(self.low, self.high, self.log)

    def __str__(self) -> str:
        return f"from {as_typed(self.low)} to {as_typed(self.high)}{', log' if self.log else ''}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float | int) and self.low <= value <= self.high

    @property
    def size(self) -> None:
        """There is no number of values."""
        return

    @property
    def edges(self) -> tuple[float, float]:
        """If these are possible values of an option, all are."""
        return (self.low, self.high)

    def rounded(self, value: float) -> float:
        """The value with DIGITS significant digits, or more where the interval is narrow."""
        scale = min(abs(value), self.high - self.low)
        if scale == 0:
            return value
        decimals = DIGITS - 1 - math.floor(math.log10(scale))
        return min(max(round(value, decimals), self.low), self.high)


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, which are included."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    """Whether equal ratios are equally likely, not equal distances."""

    def __post_init__(self) -> None:
        _refuse_odd_bounds(self.low, self.high, self.log)
        if self.step < 1 or (self.high - self.low) % self.step:
            raise ConfigError(f"Steps of {self.step} do not lead from {self.low} to {self.high}.")
        if self.log and self.step != 1:
            raise ConfigError(f"On a logarithmic scale, whole numbers have no step, got {self.step}.")

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"from {self.low} to {self.high}{step}{', log' if self.log else ''}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and value in range(self.low, self.high + 1, self.step)

    @property
    def size(self) -> int:
        """The number of values."""
        return (self.high - self.low) // self.step + 1

    @property
    def edges(self) -> tuple[int, int]:
        """If these are possible values of an option, all are."""
        return (self.low, self.high)

    def value(self, number: int) -> int:
        """The value at a position from 0 to `size` - 1."""
        return self.low + number * self.step


Dimension: TypeAlias = Choice | Real | Whole
Space: TypeAlias = dict[str, Dimension]
"""The dimensions by key, such as optimizer.lr."""
Value: TypeAlias = str | float | int
Point: TypeAlias = dict[str, Value]
"""A value for each key of a space."""

_KINDS: dict[str, type[Choice] | type[Real] | type[Whole]] = {"choice": Choice, "real": Real, "whole": Whole}


def word(key: str, value: Value) -> str:
    """The word of the command line that sets `key` to a value of its dimension."""
    return f"{key}={as_typed(value)}"


def words(point: Mapping[str, Value]) -> list[str]:
    """The words of the command line for a whole point."""
    return [word(key, value) for key, value in point.items()]


def as_typed(value: Value) -> str:
    """The shortest spelling that is read back as exactly this value: 1e-4, 0.002, 64, tanh."""
    if not isinstance(value, float) or value == 0:
        return str(value)
    plain = repr(value)
    short = f"{Decimal(plain).normalize():e}".replace("e+", "e")
    return min((plain, short), key=len)


def range_word(key: str, dimension: Dimension) -> str:
    """The word of the command line that opens a dimension: optimizer.lr=tag(log,interval(1e-4,0.1))."""
    if isinstance(dimension, Choice):
        return f"{key}={','.join(dimension.values)}"
    if isinstance(dimension, Real):
        typed = f"interval({as_typed(dimension.low)},{as_typed(dimension.high)})"
    else:
        step = f",{dimension.step}" if dimension.step > 1 else ""
        typed = f"range({dimension.low},{dimension.high + 1}{step})"
    return f"{key}=tag(log,{typed})" if dimension.log else f"{key}={typed}"


def described(key: str, dimension: Dimension) -> str:
    """A dimension in words: 'optimizer.lr from 1e-4 to 0.1, log'."""
    return f"{key} {dimension}"


def size_of(space: Space) -> int | None:
    """The number of points; None if a real number is among the dimensions."""
    sizes = [dimension.size for dimension in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def edge_points(space: Space) -> list[Point]:
    """Points in which each bound and each choice occurs: if all of these are valid, so are all others, as far
    as options do not depend on each other."""
    edges = {key: dimension.edges for key, dimension in space.items()}
    rows = max((len(values) for values in edges.values()), default=0)
    return [{key: values[row % len(values)] for key, values in edges.items()} for row in range(rows)]


def to_plain(space: Space) -> dict[str, Any]:
    """The space as JSON-ready data; `from_plain` reads it back."""
    names = {kind: name for name, kind in _KINDS.items()}
    return {key: {"kind": names[type(dimension)], **asdict(dimension)} for key, dimension in space.items()}


def from_plain(plain: Any) -> Space:
    """The space from the data of `to_plain`. Raises CheckpointError."""
    if not isinstance(plain, dict):
        raise CheckpointError(f"The space of a search must be a mapping of keys, got {plain!r}.")
    return {str(key): _dimension(str(key), part) for key, part in plain.items()}


def point_from_plain(plain: Any, space: Space) -> Point:
    """A point of the space from its JSON data. Raises CheckpointError if it is not one."""
    if not isinstance(plain, dict) or plain.keys() != space.keys():
        raise CheckpointError(f"A point of this search has the keys {_listed(space)}, got {plain!r}.")
    for key, dimension in space.items():
        if isinstance(plain[key], bool) or plain[key] not in dimension:
            raise CheckpointError(f"{key} is searched {dimension}, got {plain[key]!r}.")
    return {
        key: float(plain[key]) if isinstance(dimension, Real) else plain[key]
        for key, dimension in space.items()
    }


def _dimension(key: str, plain: Any) -> Dimension:
    try:
        kind = _KINDS[plain["kind"]]
        given = {name: part for name, part in plain.items() if name != "kind"}
        if kind is Choice:
            given["values"] = tuple(given["values"]) if isinstance(given["values"], list) else ()
        if not all(_has_type(kind, field.type, given[field.name]) for field in fields(kind)):
            raise TypeError
        return kind(**given)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{key} has no range that can be searched: {plain!r}.") from error


def _has_type(kind: type, declared: Any, value: Any) -> bool:
    """Whether a value from JSON, where 1.0 may have become 1, has the type of a field."""
    if declared == "bool" or isinstance(value, bool):
        return declared == "bool" and isinstance(value, bool)
    if kind is Choice:
        return all(isinstance(part, str) for part in value)
    return isinstance(value, int | float if declared == "float" else int)


def _refuse_odd_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"A range goes from a number to a larger one, not from {low} to {high}.")
    if log and low <= 0:
        raise ConfigError(f"A logarithmic scale begins above 0, not at {low}.")


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
