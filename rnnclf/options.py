"""Options: dataclass fields with a help text and a range.

A component of rnnclf (a cell, an optimizer, a data source …) is a dataclass of its options and the methods
that use them. `option` states an option's default, help and range in one place; they are used to validate
command lines, checkpoints and calls from Python, and by `rnnclf show`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rnnclf.errors import ConfigError
from rnnclf.registry import did_you_mean

T = TypeVar("T")


def option(
    default: T,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Iterable[str] | None = None,
    former: Mapping[str, str] | None = None,
    expects: str | None = None,
    path: bool = False,
    required: bool = False,
) -> T:
    """A dataclass field with a default, a help text and a range.

    `low` and `high` are inclusive bounds, `above` and `below` exclusive ones; `choices` lists the allowed
    words, `former` those of earlier versions with what they stand for now. None is allowed if the field's
    declared type includes it. `expects` says in messages what is allowed, where type, range and choices do
    not. `path`: the value names a file or folder, which TAB completes. `required`: the default, None, stands
    for a value that the user has to give.
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    metadata = {
        "help": help,
        "limits": limits,
        "choices": tuple(choices) if choices else None,
        "former": former or {},
        "expects": expects,
        "path": path,
        "required": required,
    }
    return field(default=default, metadata=metadata)


def described_range(option_field: "Field[Any]") -> str:
    """The allowed values of an option in words: 'at least 1', 'tanh or relu', '' if there is no limit."""
    if choices := option_field.metadata.get("choices"):
        return _listed(choices)
    limits = option_field.metadata.get("limits", {})
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    parts = [f"{words[k]} {limits[k]}" for k in words if limits.get(k) is not None]
    return " and ".join(parts)


@cache
def types_of(kind: Any) -> dict[str, tuple[Any, ...]]:
    """The types that each option of `kind` may have: (float, NoneType) for `float | None`."""
    hints = get_type_hints(kind)
    return {
        option_field.name: get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for option_field in fields(kind)
        for hint in [hints[option_field.name]]
    }


def expected(kind: Any, name: str) -> str:
    """What an option may be, in words: 'a whole number of at least 1', 'a number above 0 or null'."""
    option_field = next(option_field for option_field in fields(kind) if option_field.name == name)
    types = types_of(kind)[name]
    null = " or null" if NoneType in types else ""
    if words := option_field.metadata.get("expects") or _listed(option_field.metadata.get("choices") or ()):
        return words + null
    if bool in types:
        return f"true or false{null}"
    if not {int, float} & {*types}:
        return ("text" if str in types else "a list of names such as [a,b]") + null
    bounds = described_range(option_field)
    number = "a number" if float in types else "a whole number"
    return f"{number}{' of' if bounds.startswith('at') else ''}{f' {bounds}' if bounds else ''}{null}"


def as_typed(value: Any) -> str:
    """A value as one would type it, in a message: null, true, 3.5, 'abc'."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if value.isprintable() else repr(value)
    return str(value)


def check(kind: type, values: Mapping[str, Any], path: str = "") -> None:
    """Raises ConfigError for the first of `values` outside the range declared in `kind`.

    Messages prefix the key with `path`: with 'cell.' it is 'cell.forget_bias'.
    """
    for option_field in fields(kind):
        if option_field.name in values:
            _check_one(option_field, values[option_field.name], path + option_field.name)


def _check_one(option_field: "Field[Any]", value: Any, key: str) -> None:
    choices = option_field.metadata.get("choices")
    if choices and value not in (*choices, *option_field.metadata["former"]):
        hint = did_you_mean(str(value), choices)
        raise ConfigError(f"{key} must be {_listed(choices)}, got {as_typed(value)}.{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    limits = option_field.metadata.get("limits", {})
    tests = {
        "low": lambda limit: value >= limit,
        "high": lambda limit: value <= limit,
        "above": lambda limit: value > limit,
        "below": lambda limit: value < limit,
    }
    within = all(tests[k](limit) for k, limit in limits.items() if limit is not None)
    # NaN fails every comparison, but infinity does not; torch has no integers of more than 64 bits
    finite = abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
    if not finite or not within:
        allowed = described_range(option_field) or "a finite number"
        raise ConfigError(f"{key} must be {allowed}, got {value}.")


def _listed(words: Iterable[str]) -> str:
    *head, last = words or ("",)
    return f"{', '.join(head)} or {last}" if head else str(last)


@dataclass
class Options:
    """Base of every component: checks its options on construction."""

    def __post_init__(self) -> None:
        check(type(self), vars(self))
        for option_field in fields(self):
            value, former = getattr(self, option_field.name), option_field.metadata.get("former")
            if former and value in former:
                setattr(self, option_field.name, former[value])


@dataclass
class Component(Options):
    """A component that is chosen by its `name` in a registry."""

    name: str = "component"

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = type(self).name
        if self.name != fixed:
            raise ConfigError(
                f"The name '{fixed}' cannot be changed to '{self.name}': choose another component."
            )


@dataclass(frozen=True)
class OptionFacts:
    """One option, as printed by `rnnclf show`."""

    name: str
    type: str
    default: Any
    range: str
    help: str
    required: bool = False


def default_of(option_field: "Field[Any]") -> Any:
    """The default of an option, also where it is a list."""
    if option_field.default_factory is not MISSING:
        return option_field.default_factory()
    return option_field.default


def described(kind: type) -> list[OptionFacts]:
    """The options of a component, in order of declaration, but those that are required first."""
    facts = [
        OptionFacts(
            name=option_field.name,
            type=getattr(option_field.type, "__name__", str(option_field.type)),
            default=default_of(option_field),
            range=described_range(option_field),
            help=option_field.metadata["help"],
            required=option_field.metadata.get("required", False),
        )
        for option_field in fields(kind)
        if "help" in option_field.metadata
    ]
    return sorted(facts, key=lambda fact: not fact.required)
