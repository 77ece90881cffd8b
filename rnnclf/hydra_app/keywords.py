"""The words of the command line as keywords of Python: `optimizer__lr=0.01` for `optimizer.lr=0.01`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from typing import Any

from rnnclf.config import GROUPS, Config, known_keys
from rnnclf.errors import ConfigError
from rnnclf.hydra_app.compose import load_config, refuse_conflicting
from rnnclf.hydra_app.grammar import literal
from rnnclf.registry import did_you_mean
from rnnclf.synonyms import SYNONYMS

OF_DATA = ("validation", "missing", "normalise")
"""Options of dataset that are keywords without a prefix."""
OF_WINDOWS = ("window", "step", "window_label", "block")
"""Options of dataset that cut files into windows; in Python, the sequences are given as they are."""
OF_FILES = ("path", "test_path", "labels", "axes", "test", *OF_WINDOWS, *OF_DATA)
"""Options of dataset=arrays that do not apply in Python, or are keywords without a prefix."""
NOT_HERE = {
    "experiment": "it names a dataset, too",
    "dataset": "the data are given to fit",
    "protocol": "it concerns the test split, which fit does not have",
    "diagnose": "it writes into a run folder",
    "plots": "they are drawn into a run folder",
    "init_sha256": "it is filled in by fit",
    "name": "it names a run folder",
    "recipe": "its settings are keywords of their own",
    "checkpoint": "it writes into a run folder",
    "seeds": "fit trains one model",
    "folds": "use scikit-learn's cross_val_score",
    "tracker": "it follows a run folder",
}
"""Words of the command line that do not apply in Python, and why."""


def refuse_unknown(keyword: str, known: Iterable[str]) -> None:
    """Raises ConfigError for a keyword that is neither in `known` nor an option of a component."""
    group, _, key = keyword.partition("__")
    if keyword in known:
        return
    if group == "dataset" and key in OF_DATA:
        raise ConfigError(f"In Python, '{keyword}' is just '{key}'.")
    if group in GROUPS and key and not (group == "dataset" and key in OF_FILES):
        return
    if reason := NOT_HERE.get(group):
        raise ConfigError(f"'{keyword}' has no meaning in Python: {reason}.")
    if meant := SYNONYMS.get(keyword.lower()):
        raise ConfigError(f"No keyword named '{keyword}'. Did you mean '{in_python(meant)}'?")
    options = [in_python(key) for key in known_keys() if key.partition(".")[0] in GROUPS and "." in key]
    raise ConfigError(f"No keyword named '{keyword}'.{did_you_mean(keyword, [*known, *options])}")


def config_from(keywords: Mapping[str, Any], defaults: Mapping[str, Any]) -> Config:
    """The Config of `rnnclf train dataset=arrays recipe=plain` with the same words. Raises ConfigError.

    Keywords with their default value are omitted, so that they cannot conflict with others.
    """
    words = typed(keywords, defaults)
    refuse_conflicting(words)
    return deepcopy(_composed(("dataset=arrays", "recipe=plain", *words)))


def typed(keywords: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The keywords that differ from their defaults, as words of the command line."""
    return [
        _word(f"dataset.{name}" if name in OF_DATA else name.replace("__", "."), value)
        for name, value in keywords.items()
        if name not in defaults or not _same(value, defaults[name])
    ]


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _word(key: str, value: Any) -> str:
    value = getattr(value, "item", lambda: value)()  # of a NumPy number
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    if isinstance(value, int | float):
        return f"{key}={value!r}"
    if isinstance(value, list | tuple):
        return f"{key}=[{','.join(literal(str(part)) for part in value)}]"
    return f"{key}={literal(str(value))}"


@lru_cache(maxsize=256)
def _composed(words: tuple[str, ...]) -> Config:
    return load_config(list(words))


def keywords_of(config: Config, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that make `config_from` return this config, except for the paths of its data."""
    chosen = {group: getattr(config, group).name for group in GROUPS if group != "dataset"}
    daily = {
        daily_field.name: getattr(config, daily_field.name)
        for daily_field in fields(Config)
        if daily_field.name in defaults and daily_field.name not in GROUPS
    }
    of_data = {name: getattr(config.dataset, name) for name in OF_DATA}
    keywords = {**daily, **chosen, **of_data, "plugins": tuple(config.plugins)}
    if config.match_parameters is not None:
        del keywords["hidden"]
    plain = config_from(keywords, defaults)
    for group in GROUPS:
        now, then = getattr(plain, group), getattr(config, group)
        for name in (option_field.name for option_field in fields(now)):
            if group == "dataset" and (name in OF_FILES or not hasattr(then, name)):
                continue
            if name == "hidden_size" and config.match_parameters is not None:
                continue
            if name != "name" and getattr(now, name) != getattr(then, name):
                keywords[f"{group}__{name}"] = getattr(then, name)
    return keywords


def in_python(text: str) -> str:
    """The text with keys spelled as keywords: dataset.missing → missing, optimizer.lr → optimizer__lr."""
    text = text.replace("dataset.axes=NCT", "layout='channels_first'")
    text = re.sub(rf"\bdataset\.({'|'.join(OF_DATA)})\b", r"\1", text)
    return re.sub(rf"\b({'|'.join(GROUPS)})\.([a-z_]+)\b", r"\1__\2", text)
