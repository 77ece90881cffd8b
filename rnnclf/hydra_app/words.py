"""Reads the words of a command line as their user means them, and puts them into Hydra's grammar.

An option that holds text gets the text as it was typed, so files and columns may have any name. A path stands
for the data set in it. What is not of the form KEY=VALUE is refused, with the word that is meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Glob, Sweep

from rnnclf.config import GROUPS, NESTED, Config, kinds_of, unknown_key
from rnnclf.data.recognition import exists
from rnnclf.errors import ConfigError, DataError
from rnnclf.expectation import KEY
from rnnclf.hydra_app.grammar import FUNCTION, is_quoted, is_resolved, literal, meant, parts, quoted, read
from rnnclf.hydra_app.repeats import REPEATS, is_repeat, only_for_training
from rnnclf.hydra_app.setup import conf_dir
from rnnclf.hydra_app.sources import Recorded, with_sources
from rnnclf.options import expected, types_of
from rnnclf.registry import did_you_mean
from rnnclf.synonyms import SYNONYMS

FILES = ("dataset.path", "dataset.test_path", "dataset.labels", "dataset.root", "init")
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
GLOBAL = ("experiment", "recipe")  # files of these set keys of all groups
TOP = [option.name for option in fields(Config)]


class Prepared(NamedTuple):
    """Words in Hydra's grammar, and remarks for the user on how paths were understood."""

    words: list[str]
    notes: list[str]


def prepared(words: Iterable[str], sweep: bool = False, recorded: Recorded | None = None) -> Prepared:
    """The words of a new configuration in Hydra's grammar; words that are so already stay as they are.

    Args:
        sweep: whether several values, separated by commas, are allowed.
        recorded: the data sets of the sweep to which the words add jobs.

    Raises ConfigError or DataError for words that have no meaning.
    """
    found, paths, place = _separated(list(words))
    overrides = [_in_grammar(word, sweep, "to train with each of them, add -m") for word in found]
    overrides, notes = with_sources(overrides, paths, place, sweep, recorded or {})
    return Prepared(_for_each_job(overrides) if sweep else overrides, notes)


def _for_each_job(words: list[str]) -> list[str]:
    """The words of a sweep, with the options of the components that it varies left to each of its jobs.

    Hydra also composes the configuration without any of the choices, where these options may not exist.
    """
    values = dict(word.split("=", 1) for word in words)
    varied = [group for group in GROUPS if _is_sweep(values.get(group, ""))]
    return [
        f"{key}=choice({value})"
        if key.split(".")[0] in varied and "." in key and not _is_sweep(value)
        else word
        for word in words
        for key, _, value in [word.partition("=")]
    ]


def _is_sweep(value: str) -> bool:
    return isinstance(read(value), Sweep | Glob)


def in_grammar(words: Iterable[str]) -> list[str]:
    """The words that change a given configuration, in Hydra's grammar. Raises ConfigError."""
    words = list(words)
    for number, word in enumerate(words):
        if not is_override(word):
            raise _not_an_override(words, number)
    return [_path_of_data(_in_grammar(word, False, "give one")) for word in words]


def _path_of_data(word: str) -> str:
    """dataset=my.csv as dataset.path=my.csv, for a configuration that says how to read the data."""
    key, _, name = word.partition("=")
    there = key == "dataset" and meant(name) not in GROUPS[key] and exists(meant(name))
    return f"dataset.path={name}" if there else word


def anchored(word: str, folder: str) -> str:
    """A word in Hydra's grammar in which relative paths of data are paths below `folder`."""
    key, _, value = word.partition("=")
    if key not in FILES or FUNCTION.fullmatch(value):
        return word
    values = [
        part
        if part == "null" or is_resolved(part)
        else literal(os.path.join(folder, os.path.expanduser(meant(part))))
        for part in parts(value)
    ]
    return f"{key}={','.join(values)}"


def is_override(word: str) -> bool:
    """Whether a word is KEY=VALUE, or a deletion, and not a path that happens to contain '='."""
    key = word.partition("=")[0].strip().lstrip("+~")
    if re.fullmatch(r"~[\w.]+(=.*)?", word):
        return not exists(word)
    return "=" in word.strip("=") and (_is_known(key) or word.startswith("+") or not exists(word))


def as_path(word: str) -> str:
    """The word, as a path even where it is the name of something, too."""
    return f"./{word}" if word in _choices() and exists(word) else word


def _is_known(key: str) -> bool:
    first = re.split(r"[./@]", key)[0]
    return first in (*TOP, *REPEATS, "experiment", "tracker", "hydra")


def _separated(words: list[str]) -> tuple[list[str], list[str], int]:
    """The overrides, the paths of data, and the number of overrides before the first path."""
    overrides: list[str] = []
    paths: list[str] = []
    place = 0
    for number, word in enumerate(words):
        if is_override(word):
            overrides.append(word)
        elif exists(word) and word not in _choices():
            place = place if paths else len(overrides)
            paths.append(word)
        else:
            raise _not_an_override(words, number)
    return overrides, paths, place


def _choices() -> dict[str, str]:
    """The group of each name that can be chosen."""
    names = {name: group for group, registry in GROUPS.items() for name in registry if name != "none"}
    return {**names, **{file.stem: "experiment" for file in (conf_dir() / "experiment").glob("*.yaml")}}


def _not_an_override(words: list[str], number: int) -> ConfigError | DataError:
    """What to write instead of a word that is neither KEY=VALUE nor a path."""
    word, after = words[number], next((word.strip("=") for word in words[number + 1 :] if word != "="), "")
    key, colon, value = word.partition(":")
    if colon and _key_meant(key):
        return ConfigError(f"'{word}' has ':' for '=': write {_key_meant(key)}={value}.")
    if key := _key_meant(word.rstrip("=")):
        return ConfigError(f"'{word}' has no value: write {key}={after or 'VALUE'}, without spaces.")
    groups = {_choices().get(name) for name in word.split(",")}
    if len(groups) == 1 and (group := groups.pop()):
        there = f" The path is ./{word}." if exists(word) else ""
        return ConfigError(f"'{word}' stands without its key: write {group}={word}.{there}")
    if re.search(r"[/\\.~]", word):
        return DataError(f"{word} does not exist. Give a path, or words such as dataset=digits.")
    near = "".join(
        f" Did you mean {_choices()[name]}={name}?" for name in get_close_matches(word, _choices(), 1)
    )
    return ConfigError(f"'{word}' is neither an existing path nor of the form KEY=VALUE.{near}")


def _key_meant(word: str) -> str:
    """The key that a word names, as ours or as others call it; '' if it names none."""
    return word if _is_known(word) and "/" not in word else SYNONYMS.get(word.lower(), "")


def unknown_flag(word: str, following: list[str], known: list[str]) -> ConfigError:
    """What to write instead of an unknown flag of `train`: settings have no dashes."""
    name, _, value = word.lstrip("-").partition("=")
    if key := _key_meant(name) or _key_meant(name.replace("-", "_")):
        value = value or next((after for after in following if not after.startswith("-")), "VALUE")
        return ConfigError(f"No flag named '{word}': write {key}={value}, without dashes.")
    return ConfigError(
        f"No flag named '{word}'.{did_you_mean(word, known)} All flags: rnnclf train --hydra-help."
    )


def _in_grammar(word: str, sweep: bool, several: str) -> str:
    """One override in Hydra's grammar. `several` says what to do about values separated by commas."""
    given, _, value = word.partition("=")
    key = given.strip()
    if key.lstrip("+~").partition(".")[0] == KEY:
        raise ConfigError(f"{KEY} is not a setting: it holds the figures in the file of an experiment.")
    if key.startswith("~") and not key.startswith("~hydra"):
        raise _cannot_be_removed(key)
    if is_repeat(word):
        raise only_for_training(word)
    bare = key.lstrip("+")
    if bare == "tracker":
        raise ConfigError(f"'{word}' follows a run: only rnnclf train, resume and track take it.")
    if bare.startswith(("hydra", "~hydra")) or not _is_known(bare):
        if not re.fullmatch(r"[+~]*[\w./@$:-]*", key, re.ASCII):
            raise ConfigError(unknown_key(bare))
        if key in FOLDERS:
            return f"{key}={_live(value)}"
        return f"{key}={literal(value)}" if value and read(value) is None and value != "null" else word
    if bare in NESTED or ("." in bare and bare.rpartition(".")[0] not in (*GROUPS, *NESTED)):
        raise ConfigError(unknown_key(bare))
    if not value.strip():
        raise ConfigError(f"'{word}' has no value: write {bare}=VALUE.")
    new = _value(bare, value if _is_text(bare) else value.strip(), sweep)
    if not sweep and _is_sweep(new):
        raise ConfigError(f"'{word}' gives several values: {several}.")
    return f"{bare}={new}"


def _live(value: str) -> str:
    """A folder's name, in which `${…}` is replaced."""
    return value if is_quoted(value) or literal(value) == value else quoted(value)


def _cannot_be_removed(word: str) -> ConfigError:
    key = word.lstrip("~").partition("=")[0]
    if key in GROUPS or key in GLOBAL:
        return ConfigError(f"{key} cannot be removed: choose one with {key}=NAME, or leave it out.")
    if not _types(key):
        return ConfigError(unknown_key(key))
    off = f"write {key}=null to turn it off" if type(None) in _types(key) else "leave it out for its default"
    return ConfigError(f"{key} cannot be removed: {off}.")


def _types(key: str) -> set[object]:
    """The types that the option may have, in any component; none if there is no such option."""
    group, _, name = key.rpartition(".")
    return {kind for component in kinds_of(group) for kind in types_of(component).get(name, ())}


def _is_text(key: str) -> bool:
    types = _types(key)
    return Any in types or (str in types and int not in types)


def _value(key: str, value: str, sweep: bool) -> str:
    """The value of an option in Hydra's grammar."""
    if key == "device" and value.lower() in ("gpu", "cuda:0"):
        raise ConfigError(_no_gpu(value))
    if key in GROUPS or key in GLOBAL:
        return _name(key, value, sweep)
    if key == "name":  # one for the whole sweep
        return value if value == "null" or is_quoted(value) else literal(value)
    is_list = value.startswith("[") and value.endswith("]")
    if list[str] in _types(key) or (is_list and Any in _types(key)):  # Any: a name or a list of names
        return _list(key, value, sweep)
    if not _is_text(key):
        return value if read(value) is not None or value in ("null", "NULL") else literal(value)
    if key in FILES and exists(value) and (value != "null" or key == "dataset.path"):
        return literal(value)
    if isinstance(read(value), Sweep | Glob if sweep else str) and FUNCTION.fullmatch(value):
        return value
    if sweep or (len(parts(value)) > 1 and (key in FILES or _has_choices(key))):
        return ",".join(_text(key, part) for part in parts(value))
    return _text(key, value)


def _text(key: str, text: str) -> str:
    if (text == "null" and {type(None), Any} & _types(key)) or is_quoted(text):
        return text
    if key in FILES and "${" in text and not exists(text):  # the user's own variable, such as ${oc.env:HOME}
        return quoted(text)
    return literal(text)


def _has_choices(key: str) -> bool:
    group, _, name = key.rpartition(".")
    options = [option for kind in kinds_of(group) for option in fields(kind) if option.name == name]
    return any(option.metadata.get("choices") for option in options)


def _name(group: str, value: str, sweep: bool) -> str:
    """The name of a component, or with a sweep several."""
    if (FUNCTION.fullmatch(value) and read(value) is not None) or (group, value) == ("experiment", "null"):
        return value
    if value.startswith("[") and value.endswith("]") and not exists(value):
        raise ConfigError(
            f"{group} must be one name: to train with each of these, write -m {group}={value[1:-1]}."
        )
    if group == "dataset" and exists(value):
        return literal(value)
    return ",".join(part if is_quoted(part) else literal(part) for part in parts(value))


def _list(key: str, value: str, sweep: bool) -> str:
    """A list of names, written [a,b], a,b or a. In a sweep, a,b are two lists, except for plugins."""
    if value == "null" and type(None) in _types(key):
        return value
    if sweep and key != "plugins":
        return ",".join(_list(key, part, False) for part in parts(value))
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    names = [part for part in parts(inner) if part]
    return f"[{','.join(name if is_quoted(name) else literal(name) for name in names)}]"


def _no_gpu(value: str) -> str:
    import torch

    there = "" if torch.cuda.is_available() else ", and there is none here"
    return f"device must be {expected(Config, 'device')}, got '{value}': a GPU is device=cuda{there}."
