"""Reading a configuration: from what Hydra composes, and from the JSON of a checkpoint.

Hydra composes YAML files and the command line into a DictConfig; `from_composed` turns that into a
`Config`, and `from_plain` does the same with the JSON of a checkpoint. Both give plain dataclasses, checked
for unknown keys, types and ranges.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from rnnclf import expectation
from rnnclf.config import GROUPS, LATER_GROUPS, Config, kinds_of, unknown_key
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.options import Options, as_typed, check, expected, types_of


def from_composed(composed: DictConfig) -> Config:
    """Converts a composed DictConfig (without Hydra's own node) to a Config; checks and omits `expected`.

    Raises ConfigError for the first unknown key, wrong type or value out of range.
    """
    try:
        if expectation.KEY in composed:
            composed = copy.deepcopy(composed)
            with open_dict(composed):
                expectation.from_plain(_plain(composed.pop(expectation.KEY)))
        _check_tree(composed, "")
        config = OmegaConf.to_object(composed)
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        raise in_words(error) from error
    assert isinstance(config, Config)
    return config


def _check_tree(node: DictConfig, path: str) -> None:
    """Checks keys and ranges from the top down, so that messages name the key the user wrote.

    For instance `hidden`, not `cell.hidden_size`, which is interpolated from it.
    """
    kind = OmegaConf.get_type(node)
    assert isinstance(kind, type)
    known = [option_field.name for option_field in fields(kind)]
    for key in map(str, node):
        if key not in known:
            raise ConfigError(unknown_key(path + key, kind))
    missing = [key for key in known if OmegaConf.is_missing(node, key)]
    if missing:
        raise ConfigError(f"{path}{missing[0]} is missing: set it with {path}{missing[0]}=NAME.")
    check(kind, {key: node[key] for key in known}, path)
    for key in known:
        if isinstance(node[key], DictConfig):
            _check_tree(node[key], f"{path}{key}.")


def from_plain(plain: Mapping[str, Any]) -> Config:
    """Converts the plain data of a checkpoint to a Config.

    Raises ConfigError.
    """
    return from_composed(plain_node(plain))


def plain_node(plain: Mapping[str, Any]) -> DictConfig:
    """Plain data as a typed DictConfig, whose components are looked up by name in the registries.

    Text that OmegaConf would evaluate (`${…}`) is refused, or escaped where a path or the name of a column
    may hold it, so nothing in an untrusted file is ever resolved. Raises ConfigError.
    """
    later = {group: {"name": name} for group, name in LATER_GROUPS.items()}
    plain = later | {key: _unresolved(part, str(key)) for key, part in plain.items()}
    try:
        node = OmegaConf.structured(Config)
        for group, registry in GROUPS.items():
            node[group] = OmegaConf.structured(registry[str(plain[group]["name"])])
        node = OmegaConf.merge(node, dict(plain))
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        raise in_words(error) from error
    except (KeyError, TypeError) as error:
        raise ConfigError(f"The configuration is incomplete: {error}.") from error
    assert isinstance(node, DictConfig)
    return node


def _unresolved(value: Any, path: str) -> Any:
    """The value as OmegaConf leaves it alone. Raises ConfigError for text that it would replace."""
    if isinstance(value, Mapping):
        return {
            _unresolved(key, path): _unresolved(part, f"{path}.{key}" if path else str(key))
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_unresolved(part, path) for part in value]
    if isinstance(value, str) and ("${" in value or value == MISSING):
        if value == MISSING or not takes_any_text(path):
            raise ConfigError(f"{path} holds {value!r}, which is not a plain value.")
        return escaped(value)
    return value


def escaped(text: str) -> str:
    """The text with every `${` escaped, so that it stays as it is when a configuration is resolved."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)


def takes_any_text(key: str) -> bool:
    """Whether the option at `key` holds a path or the name of a column."""
    group, _, name = key.rpartition(".")
    if group != "dataset":
        return key == "init"
    options = [known for kind in kinds_of(group) for known in fields(kind) if known.name == name]
    types = {part for kind in kinds_of(group) for part in types_of(kind).get(name, ())}
    return bool({str, list[str], Any} & types) and not any(
        option.metadata.get("choices") for option in options
    )


def in_words(error: Exception) -> RnnclfError:
    """An OmegaConf error as an RnnclfError with a one-sentence message; our own error if it is the cause."""
    for cause in causes(error):
        if isinstance(cause, RnnclfError):
            return cause
    for cause in causes(error):
        if not isinstance(cause, OmegaConfBaseException) or not cause.full_key:
            continue
        key = re.sub(r"\[.*", "", cause.full_key)  # of a list, not of its parts
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            return ConfigError(unknown_key(key, cause.object_type))
        if isinstance(cause, InterpolationResolutionError | GrammarParseError):
            return ConfigError(f"{key} holds a ${{…}} that stands for nothing: write a plain value.")
        if described := _described(key, cause.object_type):
            value = cause.value if cause.full_key == key else [cause.value]
            return ConfigError(f"{key} must be {described}, got {as_typed(_plain(value))}.")
        return ConfigError(f"{key} cannot be set to {as_typed(_plain(cause.value))}.")
    return ConfigError(_first_line(error))


def _described(key: str, kind: Any) -> str:
    """What the option at `key` may be, in words; '' if there is no such option."""
    group, _, name = key.rpartition(".")
    if key in GROUPS:
        return f"the name of one: rnnclf list {key}s shows all"
    own = isinstance(kind, type) and issubclass(kind, Options)
    kinds: list[type] = [kind] if own else kinds_of(group)
    return next((expected(kind, name) for kind in kinds if name in types_of(kind)), "")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if line.endswith((".", "?", "!")) else f"{line}."


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
